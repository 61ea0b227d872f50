"""Libraries that drive real devices, behind the contract. Each needs its own extra."""
