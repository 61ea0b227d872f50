"""1T1R memristor crossbar: a signed matrix as pairs of conductances."""
