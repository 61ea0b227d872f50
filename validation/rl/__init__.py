"""Reinforcement learning on gymnasium's environments, from the command line."""
