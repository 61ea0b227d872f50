"""Simulated backends: memristor crossbars, scattering optics, a tutorial one."""
