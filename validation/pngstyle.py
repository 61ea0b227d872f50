"""The look of pictures that are files of their own.

Figures inside pages take their colours from the page (`validation.figures`); here
colours are fixed.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl

STYLE: Any = {
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
}


def style() -> AbstractContextManager[None]:
    """This look, while in it."""
    return mpl.rc_context(STYLE)
