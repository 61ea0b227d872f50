"""Tests of the simulated backends."""
