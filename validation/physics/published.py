"""Published fits of memristor technologies, written down a second time.

Plain functions of a conductance in uS, transcribed from the public simulators
and not from this project's device files: an oracle for those. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

Fit = Callable[[float], float]


def neurram_1_s(g: float) -> float:
    """aihwkit, inference/noise/reram.py; Wan et al., Nature 608 (2022)."""
    x = g / 40
    return 0.348 + 16.030 * x - 43.853 * x**2 + 45.393 * x**3 - 16.815 * x**4


def neurram_1_day(g: float) -> float:
    """As `neurram_1_s`, a day later."""
    x = g / 40
    return 0.701 + 22.086 * x - 50.773 * x**2 + 47.095 * x**3 - 16.458 * x**4


def neurram_2_days(g: float) -> float:
    """As `neurram_1_s`, two days later."""
    x = g / 40
    return 0.782 + 20.274 * x - 43.507 * x**2 + 37.062 * x**3 - 11.934 * x**4


def neurram_cubic(g: float) -> float:
    """CrossSim, devices/custom/RRAM_Wan.py: the same figure read off by others."""
    return 1.053 + 0.2374 * g - 0.01167 * g**2 + 1.536e-4 * g**3


def milo(g: float) -> float:
    """CrossSim, devices/custom/RRAM_Milo.py; Milo et al., IRPS 2021; 50 to 225 uS."""
    return 4.7823 - 0.009107 * g


def cmo_fine(g: float) -> float:
    """aihwkit docs, reram_inference; Falcone et al. 2025; acceptance 0.2 %."""
    return 0.00106879 * g + 0.00081


def cmo_coarse(g: float) -> float:
    """As `cmo_fine`, acceptance 2 %."""
    return 0.011290 * g + 0.011219


def pcm(g: float) -> float:
    """aihwkit, inference/noise/pcm.py; Nandakumar et al. 2019."""
    x = g / 25
    return 0.26348 + 1.965 * x - 1.1731 * x**2


def pcm_joshi(g: float) -> float:
    """CrossSim, devices/custom/PCM_Joshi.py; Joshi et al. 2020."""
    return 0.2864 + 0.07586 * g - 0.001788 * g**2


def hermes(g: float) -> float:
    """aihwkit, inference/noise/hermes.py; two devices of the HERMES chip."""
    x = g / 20.7
    return 0.166 + 4.718 * x - 8.481 * x**2 + 4.690 * x**3


SIGMA: Mapping[str, Mapping[float, Fit]] = MappingProxyType(
    {
        "neurram-hfox": {1.0: neurram_1_s, 86_400.0: neurram_1_day, 172_800.0: neurram_2_days},
        "neurram-hfox-cubic": {1.0: neurram_cubic},
        "hfo2-igvva100": {0.0: milo},
        "cmo-hfox-0.2": {0.0: cmo_fine},
        "cmo-hfox-2": {0.0: cmo_coarse},
        "pcm-nandakumar": {20.0: pcm},
        "pcm-joshi": {27.0: pcm_joshi},
        "pcm-hermes": {0.0: hermes},
    }
)
"""Technology: {seconds after the write: spread in uS over the target in uS}."""

SOURCE: Mapping[str, str] = MappingProxyType(
    {
        "neurram-hfox": "Wan et al. 2022, aihwkit's fit",
        "neurram-hfox-cubic": "Wan et al. 2022, CrossSim's fit",
        "hfo2-igvva100": "Milo et al. 2021, CrossSim's fit",
        "cmo-hfox-0.2": "Falcone et al. 2025",
        "cmo-hfox-2": "Falcone et al. 2025",
        "pcm-nandakumar": "Nandakumar et al. 2019",
        "pcm-joshi": "Joshi et al. 2020, CrossSim's fit",
        "pcm-hermes": "HERMES chip, aihwkit's fit",
    }
)
"""Technology: what its row of a table names as the source."""

RANGE: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "neurram-hfox": (0.0, 40.0),
        "neurram-hfox-cubic": (0.0, 39.26),
        "hfo2-igvva100": (50.0, 225.0),
        "cmo-hfox-0.2": (8.0, 90.0),
        "cmo-hfox-2": (8.0, 90.0),
        "pcm-nandakumar": (0.0, 25.0),
        "pcm-joshi": (0.25, 25.0),
        "pcm-hermes": (0.0, 20.7),
    }
)
"""Technology: where its fit holds, uS."""

CMO_LOSS, CMO_BROADENING, CMO_SPREAD = 0.089, 0.0420, 0.4118
"""CMO/HfOx: loss and broadening per ln(t / 1 s), spread at 1 s, uS."""


def cmo_read_noise(g: float, age_s: float) -> float:
    """aihwkit, inference/noise/reram.py: one read of 1 us, uS."""
    read_s = 1e-6
    return 0.0277316 * math.log10(g) * math.sqrt(math.log((age_s + read_s) / (2 * read_s)))


def pcm_read_noise(g: float, age_s: float) -> float:
    """aihwkit, inference/noise/pcm.py: one read of 250 ns, uS."""
    read_s = 250e-9
    relative = min(0.0088 / (g / 25) ** 0.65, 0.2)
    return g * relative * math.sqrt(math.log((age_s + read_s) / (2 * read_s)))


def pcm_exponent(g: float) -> tuple[float, float]:
    """aihwkit, inference/noise/pcm.py: mean and spread of the drift exponent."""
    log = math.log(g / 25)
    mean = min(max(-0.0155 * log + 0.0244, 0.049), 0.1)
    return mean, min(max(-0.0125 * log - 0.0059, 0.008), 0.045)
