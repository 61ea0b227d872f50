"""The commands of `pib-twin`, one module per kind. None imports torch."""
