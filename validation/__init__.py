"""Is it true, and who is better: conformance, references, studies, commands."""
