"""The eight comparisons, full and quick."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from twin.errors import UnknownName, nearest
from validation.studies.compare.plan import Arm, Comparison

OPTICS, NARROW, CHIP = "compare-optics", "compare-narrow", "compare-chip"
EVERYBODY = ("pib", "lce", "pat", "dfa", "phyll", "backprop", "backprop-retrained", "elm")
FREE = ("backprop", "backprop-retrained", "elm")
"""Methods that use so few passes that no ceiling touches them."""
CEILING = {"compare.passes_per_image": 16.0}
MEDIUM = {"compare.passes_per_image": 8.0}

PASSES = Comparison(
    name="passes",
    about="accuracy against the ceiling of physical passes per training image",
    methods=EVERYBODY,
    arms=(Arm(
        name="two optical units", base=OPTICS, path="compare.passes_per_image",
        levels=(2.2, 4.0, 8.0, 16.0, 32.0), label="passes per training image", constant=FREE,
        log=True,
    ),),
    claim="PIB needs few passes",
)  # fmt: skip

NOISE = Comparison(
    name="noise",
    about="photons and read noise, while training and only at the test",
    methods=EVERYBODY,
    arms=(
        Arm(name="photons while training", base=OPTICS, path="unit.options.mean_electrons",
            levels=(5.0, 20.0, 100.0, 1000.0), label="photoelectrons per pixel",
            settings=CEILING, log=True),
        Arm(name="photons at the test only", base=OPTICS, path="test.dial.mean_electrons",
            levels=(5.0, 20.0, 100.0, 1000.0), label="photoelectrons per pixel",
            settings=CEILING, log=True),
        Arm(name="read noise while training", base=OPTICS,
            path="unit.options.read_noise_electrons", levels=(1.0, 10.0, 30.0, 100.0),
            label="read noise, electrons", settings=CEILING, log=True),
    ),
    claim="PIB is more robust to noise than physics-aware training, feedback alignment and "
    "contrastive training",
)  # fmt: skip

DATA = Comparison(
    name="data",
    about="accuracy against the number of training images",
    methods=EVERYBODY,
    arms=(
        Arm(name="few images", base=OPTICS, path="data.limit", levels=(100, 300, 1000),
            label="training images", settings=CEILING, log=True),
        Arm(name="many images", base=OPTICS, path="data.limit", levels=(3000, 10_000, 55_000),
            label="training images", settings=CEILING, log=True),
    ),
    seeds=tuple(range(10)),
    limit=None,
    claim="PIB learns from fewer images",
)  # fmt: skip

NEAR = ("turned", "inverted", "held_out_class")
STRANGE = Comparison(
    name="ood",
    about="telling strange images from known ones",
    methods=("pib", "lce", "pat", "dfa", "backprop-retrained", "elm"),
    arms=(Arm(
        name="nine classes of clothes", base=OPTICS,
        settings={**CEILING, "compare.strange": True, "compare.held_out_class": 8},
    ),),
    figure="auroc_far",
    also=(
        *(f"auroc_{name}" for name in NEAR), "fpr95_far", *(f"fpr95_{name}" for name in NEAR),
        "accuracy",
    ),
    claim="PIB detects strange images better",
)  # fmt: skip

STUCK = "dial.stuck_column_fraction"
FAULT = Comparison(
    name="fault",
    about="broken converters, cells and pixels, from the start and in mid-run",
    methods=EVERYBODY,
    arms=(
        Arm(name="stuck columns, blind", base=CHIP, path=STUCK, levels=(0.0, 0.1, 0.3, 0.5, 0.7),
            label="share of stuck columns", settings=MEDIUM),
        Arm(name="stuck columns, masked", base=CHIP, path=STUCK, levels=(0.1, 0.3, 0.7),
            label="share of stuck columns", trials=2,
            settings={**MEDIUM, "unit.mask_constant": True}),
        Arm(name="stuck cells", base=CHIP, path="dial.stuck_cell_fraction", levels=(0.2,),
            label="share of stuck cells", settings=MEDIUM, trials=2),
        Arm(name="dead pixels", base=OPTICS, path="dial.dead_pixel_fraction", levels=(0.5,),
            label="share of dead pixels", settings=MEDIUM, trials=2),
        Arm(name="half of the columns in mid-run", base=CHIP, path="compare.adapt_passes",
            levels=(0.1, 0.5, 2.0), label="passes per image after the fault",
            settings={**MEDIUM, "test.dial.stuck_column_fraction": 0.5}, log=True, trials=2),
    ),
    also=("accuracy_redone",),
    claim="a network retrained by PIB recovers from a broken converter",
)  # fmt: skip

TWIN = "compare.twin_error"
LOOKING = ("pat", "backprop-retrained")
REST = ("pib", "lce", "dfa", "phyll", "elm")
MISMATCH = Comparison(
    name="mismatch",
    about="methods that look into a twin, against its error",
    methods=(*REST[:2], "pat", *REST[2:], "backprop-retrained"),
    same_runs={"backprop": ("backprop-retrained", "accuracy_own_head")},
    arms=tuple(
        arm
        for kind, base, trials in (("wide", OPTICS, 4), ("narrow", NARROW, 2))
        for arm in (
            Arm(name=f"{kind}, known up to an error", base=base, path=TWIN,
                levels=(0.0, 0.2, 0.5, 1.0), label="error of the twin's matrix, r.m.s.",
                settings=MEDIUM, constant=REST, trials=trials),
            Arm(name=f"{kind}, another device's twin", base=base, methods=LOOKING,
                settings={**MEDIUM, "compare.twin": "unknown"}, trials=2),
            Arm(name=f"{kind}, fitted", base=base, path="compare.twin_probes",
                levels=(250, 1000, 4000), label="probes", log=True,
                settings={**MEDIUM, "compare.twin": "fitted"},
                methods=LOOKING, trials=2),
        )
    ),
    claim="PIB needs no model of the device",
)  # fmt: skip

DRIFT = Comparison(
    name="drift",
    about="the medium decorrelates between training and use",
    methods=EVERYBODY,
    arms=(Arm(
        name="two optical units", base=OPTICS, path="compare.speckle_correlation",
        levels=(1.0, 0.99, 0.95, 0.9, 0.8), label="speckle correlation", settings=CEILING,
    ),),
    also=("accuracy_redone",),
)  # fmt: skip

DEPTH = Comparison(
    name="depth",
    about="one to four units",
    methods=("pib", "lce", "pat", "dfa", "backprop-retrained"),
    arms=(
        Arm(name="plain stacking", base=OPTICS, path="compare.units", levels=(1, 2, 3, 4),
            label="units", settings={"compare.passes_per_image": 32.0}),
        Arm(name="skip", base=OPTICS, path="compare.units", levels=(1, 2, 3, 4), label="units",
            settings={"compare.passes_per_image": 32.0, "network.skip": True}),
        Arm(name="skip and hard examples", base=OPTICS, path="compare.units",
            levels=(1, 2, 3, 4), label="units", methods=("pib", "lce"),
            settings={"compare.passes_per_image": 32.0, "network.skip": True,
                      "network.hard_examples": True}),
    ),
)  # fmt: skip

COMPARISONS: Mapping[str, Comparison] = {
    one.name: one for one in (PASSES, NOISE, DATA, STRANGE, FAULT, MISMATCH, DRIFT, DEPTH)
}


def comparison(
    name: str, quick: bool = False, seeds: int | None = None, arms: Sequence[str] = ()
) -> Comparison:
    """A comparison by name. quick: one seed, one trial, few images, first and last level.

    arms: only these; all if empty. Raises UnknownName for a name there is not.
    """
    if name not in COMPARISONS:
        raise UnknownName(f"no comparison {name!r}. {nearest(name, COMPARISONS)}")
    found = COMPARISONS[name]
    if arms:
        known = {arm.name: arm for arm in found.arms}
        for wanted in arms:
            if wanted not in known:
                raise UnknownName(f"{name} has no arm {wanted!r}. {nearest(wanted, known)}")
        found = replace(found, arms=tuple(one for one in found.arms if one.name in arms))
    if quick:
        short = tuple(_short(arm) for arm in found.arms)
        limit = None if found.limit is None else 2000
        found = replace(found, arms=short, seeds=(0,), trials=1, limit=limit, quick=True)
    return found if seeds is None else replace(found, seeds=tuple(range(seeds)))


def _short(arm: Arm) -> Arm:
    """The ends of the levels; no more training images than minutes allow."""
    levels = [v for v in arm.levels if arm.path != "data.limit" or float(v) <= 3000]
    ends = tuple(dict.fromkeys((levels[0], levels[-1])))
    if arm.path == "compare.passes_per_image":
        ends = (3.0, 8.0)
    if arm.path == "compare.adapt_passes":
        # A tenth of a pass for each of few images would not range a device.
        ends = (0.5, 2.0)
    return replace(arm, levels=ends)
