"""The contract between a trainer and a physical backend, and its guardian."""
