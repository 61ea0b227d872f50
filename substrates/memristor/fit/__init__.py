"""Fit a technology to measured cells."""
