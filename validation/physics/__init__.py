"""Does the physics keep its laws? `pib-twin validate memristor`."""
