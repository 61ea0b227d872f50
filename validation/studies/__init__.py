"""Named comparisons: what happens to whom when the hardware misbehaves."""
