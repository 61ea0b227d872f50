"""The Physical Information Bottleneck: local learning from measured numbers."""
