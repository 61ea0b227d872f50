"""A comparison that takes seconds: two small rigs on the digits."""

from __future__ import annotations

from pathlib import Path

from validation.studies.compare.plan import Arm, Comparison

NETWORK = """
[data]
name = "digits"
limit = 200

[network]
skip = false
hard_examples = false
shared_clock = false

[[unit]]
backend = "optics"
kind = "broken-isomorphism"
outputs = 12
epochs = 2
recapture = "never"
options = { pixels = 24 }

[[unit]]
backend = "optics"
kind = "broken-isomorphism"
outputs = 8
epochs = 2
recapture = "never"
options = { pixels = 24 }
"""


def base(folder: Path) -> str:
    """The network as a file."""
    path = folder / "network.toml"
    path.write_text(NETWORK)
    return str(path)


def comparison(folder: Path, **changes: object) -> Comparison:
    """Three methods at two ceilings; two trials and two seeds."""
    arm = Arm(
        name="ceilings", base=base(folder), path="compare.passes_per_image",
        levels=(8.0, 12.0), label="passes per image", constant=("elm",),
    )  # fmt: skip
    asked: dict[str, object] = {
        "name": "tiny", "about": "a small comparison", "methods": ("pib", "dfa", "elm"),
        "arms": (arm,), "seeds": (0, 1), "trials": 2, "limit": None, "quick": True,
    }  # fmt: skip
    return Comparison(**asked | changes)  # type: ignore[arg-type]
