"""Two sites train one network at the same time and never wait for each other."""
