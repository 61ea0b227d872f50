"""Light as a physical unit: phase modulator, scattering medium, camera."""
