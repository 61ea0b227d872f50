"""Faults and drift in the loop: what is lost, and what retraining on measured outputs wins back."""
