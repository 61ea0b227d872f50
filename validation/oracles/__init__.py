"""Other people's programs as judges of ours, each run in a process of its own."""
