"""Comparisons of training methods at equal cost."""
