"""A backend behind a network: Open Inference Protocol v2 over HTTP."""
