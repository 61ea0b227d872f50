"""fig4c: an optical and an electronic unit trained at two sites at the same time.

In the paper two sites train a hybrid network in parallel, without communication.
Here (ours) the downstream site learns from what the upstream site published last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import xarray as xr

from validation import training
from validation.config import RunConfig
from validation.reproduce import fig4cpicture
from validation.reproduce.fig4cwork import at_two_sites, in_sequence
from validation.reproduce.figure import Drawing, Request
from validation.reproduce.parts import Part
from validation.sites.order import ROLES
from validation.sites.timeline import facts, overlap
from validation.summary import Figure, mean_and_error

ABOUT = "Decentralised training: two sites, one optical, one electronic, that never wait"
SEEDS, QUICK_SEEDS = 3, 2
PUBLICATIONS = 6
AWAY_S, QUICK_AWAY_S = 10.0, 2.0
QUICK_EPOCHS = 100
BOUND, QUICK_BOUND = ">= -0.01", ">= -0.03"
"""In quick runs 360 test images leave a point of luck either way."""
OVERLAP = 0.5
"""Share of the downstream site's steps made while the upstream one trained, in every
seed, from which on the verdict says "at the same time" (ours)."""
STALE_INTERVALS = 3
"""Bound on staleness in a full run, in publication intervals (ours)."""
DATA_SETS = {"fashion-mnist": "Fashion-MNIST", "digits": "digits"}


def config(request: Request) -> RunConfig:
    """Fashion-MNIST as its preset has it; the small digits in a quick run."""
    if not request.quick:
        return training.configured(training.Request(preset="hybrid-fashion"))
    table = training.configured(training.Request(preset="hybrid-digits")).model_dump()
    # Ours: so many epochs for the first unit that both sites take about as long.
    first, second = table["unit"]
    return RunConfig(**table | {"unit": [first | {"epochs": QUICK_EPOCHS}, second]})


def seeds(request: Request) -> range:
    return request.seeds_or(SEEDS, QUICK_SEEDS)


def arms(request: Request) -> tuple[str, ...]:
    """Ways to train: in sequence, free, and with one of the sites killed."""
    killed = ("downstream",) if request.quick else ("downstream", "upstream")
    return ("sequential", "free", *killed)


def parts(request: Request) -> list[Part]:
    """One part per seed and arm. A part at two sites keeps two cores busy."""
    text = config(request).model_dump_json()
    found = []
    for seed in seeds(request):
        common = {"config": text, "seed": seed, "data": request.folder}
        for arm in arms(request):
            if arm == "sequential":
                found.append(Part(f"sequential-{seed}", in_sequence, common))
                continue
            more = {
                "kill": None if arm == "free" else arm,
                "away_s": QUICK_AWAY_S if request.quick else AWAY_S,
                "publications": PUBLICATIONS,
            }
            found.append(Part(f"{arm}-{seed}", at_two_sites, common | more))
    return found


def drawn(found: Mapping[str, xr.Dataset], request: Request) -> Drawing:
    """Accuracies by arm and seed, the first seed's curves, the ledger of messages."""
    chosen, ways = list(seeds(request)), arms(request)
    accuracy = {arm: [float(found[f"{arm}-{seed}"]["accuracy"]) for seed in chosen] for arm in ways}
    mail = {f"{arm}-{s}": facts(found[f"{arm}-{s}"]) for arm in ways[1:] for s in chosen}
    data_set = config(request).data.name
    first = {arm: found[f"{arm}-{chosen[0]}"] for arm in ways}
    free = [found[f"free-{seed}"] for seed in chosen]
    title = (
        f"Two sites, {DATA_SETS[data_set]}, seed {chosen[0]}"
        + (" (quick)" if request.quick else "")
    )  # fmt: skip
    test_images = 360 if data_set == "digits" else 10_000
    figures = _figures(accuracy, mail, request)
    return Drawing(
        data=_data(found, accuracy, chosen),
        picture=fig4cpicture.drawn(first, accuracy, test_images, title),
        figures=figures,
        verdict=verdict(accuracy, mail, free, figures),
        extra={
            "messages": mail,
            "events": {a: json.loads(first[a].attrs["events"]) for a in ways[1:]},
            "reproducible": "no: two free processes; a recorded schedule repeats a site's weights",
        },
    )


def _figures(
    accuracy: Mapping[str, list[float]], mail: Mapping[str, dict], request: Request
) -> list[Figure]:
    chosen, rows = list(seeds(request)), []
    for arm, values in accuracy.items():
        mean, error = mean_and_error(values)
        rows.append(Figure(f"accuracy_{arm}", mean, n=len(values), standard_error=error,
                           seeds=chosen))  # fmt: skip
    rows += _compared(accuracy, chosen, QUICK_BOUND if request.quick else BOUND)
    free = [mail[f"free-{seed}"] for seed in chosen]
    for name, unit in (
        ("bytes_published", "byte"), ("bytes_read", "byte"), ("files_read", "1"),
        ("staleness_steps_mean", "1"), ("overlap", "1"),
    ):  # fmt: skip
        values = [float(f[name]) for f in free if f[name] is not None]
        typical = sum(values) / len(values) if values else None
        rows.append(Figure(name, typical, unit, n=len(values), seeds=chosen))
    return rows + _independence(mail, request)


def _compared(accuracy: Mapping[str, list[float]], chosen: list[int], bound: str) -> list[Figure]:
    """Both sites against one after the other (bounded), killed against undisturbed; worst seeds."""
    rows = []
    for arm in list(accuracy)[1:]:
        name = "joint" if arm == "free" else f"{arm}_killed"
        rivals: dict[str, tuple[str, str | None]] = {"sequential": ("sequential", bound)}
        if arm != "free":
            rivals["undisturbed"] = ("free", None)
        for told, (rival, limit) in rivals.items():
            gains = [a - b for a, b in zip(accuracy[arm], accuracy[rival], strict=True)]
            mean, error = mean_and_error(gains)
            rows.append(Figure(f"{name}_minus_{told}", mean, bound=limit, n=len(gains),
                               standard_error=error, seeds=chosen))  # fmt: skip
            worst = min(gains)
            rows.append(Figure(f"{name}_minus_{told}_worst", worst, n=1,
                               seeds=[chosen[gains.index(worst)]]))  # fmt: skip
    return rows


def _independence(mail: Mapping[str, dict], request: Request) -> list[Figure]:
    """Worst cases over all runs: age of the features, seconds at the door, steps while alone."""
    chosen, all_mail = list(seeds(request)), list(mail.values())
    ages = [f["staleness_steps_max"] for f in all_mail if f["staleness_steps_max"] is not None]
    interval = max(1, round(all_mail[0]["steps_upstream"] / PUBLICATIONS))
    bound = None if request.quick else f"<= {STALE_INTERVALS * interval}"
    door = max(f["door_seconds_max"] for f in all_mail)
    rows = [
        Figure("staleness_steps_max", max(ages, default=None), bound=bound, n=len(ages),
               seeds=chosen),
        Figure("door_seconds_max", door, "s", n=len(all_mail), seeds=chosen),
    ]  # fmt: skip
    for arm in arms(request)[2:]:
        steps = [mail[f"{arm}-{seed}"]["steps_while_the_other_was_away"] for seed in chosen]
        fewest = None if None in steps else min(steps)
        name = f"{arm}_killed_steps_of_the_other"
        rows.append(Figure(name, fewest, bound="> 0", n=len(steps), seeds=chosen))
    return rows


def _data(
    found: Mapping[str, xr.Dataset], accuracy: Mapping[str, list[float]], chosen: list[int]
) -> xr.Dataset:
    """Accuracies (arm, seed), and each run's record under its own names."""
    data = xr.Dataset(
        {"accuracy": (("arm", "seed"), list(accuracy.values()), {"units": "1"})},
        coords={"arm": list(accuracy), "seed": chosen},
    )
    for name, run in found.items():
        own = run.drop_vars("accuracy")
        names = {n: f"{name}-{n}" for n in (*own.data_vars, *own.dims)}
        data = data.merge(own.rename(names).drop_attrs(deep=False))
    return data


def verdict(
    accuracy: Mapping[str, list[float]],
    mail: Mapping[str, dict],
    free: Sequence[xr.Dataset],
    figures: list[Figure],
) -> str:
    """What matched the paper and what did not, from the numbers.

    free: the undisturbed run of every seed.
    """
    points = {arm: 100 * sum(v) / len(v) for arm, v in accuracy.items()}
    missed = [f.name for f in figures if f.holds is False]
    gap = points["free"] - points["sequential"]
    within = "within" if abs(gap) <= 1 else ("above" if gap > 0 else "outside")
    age = mail[next(iter(mail))]
    worst = {f.name: 100 * (f.value or 0.0) for f in figures if f.name.endswith("_worst")}
    told = [
        f"{_together(free)}; the joint network reached {points['free']:.2f} %, "
        f"{within} one point of training one after the other ({points['sequential']:.2f} %, "
        f"difference {gap:+.2f}, worst seed {worst['joint_minus_sequential_worst']:+.2f})."
    ]
    told += [
        f"With the {arm} site killed in the middle and restarted: {points[arm]:.2f} % "
        f"({points[arm] - points['sequential']:+.2f} against one after the other, worst seed "
        f"{worst[f'{arm}_killed_minus_sequential_worst']:+.2f}; "
        f"{points[arm] - points['free']:+.2f} against undisturbed)."
        for arm in list(accuracy)[2:]
    ]
    told.append(
        f"The paper's sites do not communicate; what its second unit learned from is not known "
        f"to us. Ours exchange files, one way: {age['publications']} of "
        f"{age['bytes_published'] / age['publications'] / 1e6:.2g} MB."
    )
    told.append(f"Bounds missed: {', '.join(missed)}." if missed else "All bounds hold.")
    return " ".join(told)


def _together(free: Sequence[xr.Dataset]) -> str:
    """Whether all seeds' losses fell at both sites, and whether at the same time."""
    if not all(_fell(run, role) for run in free for role in ROLES):
        return "The losses did not fall at both sites in every seed, unlike the paper's"
    least = min(overlap(run) for run in free)
    if least < OVERLAP:
        return (
            "Both sites' losses fell, but hardly side by side, unlike the paper's: in one seed "
            f"only {100 * least:.0f} % of the downstream steps were made while upstream trained"
        )
    return "Both sites' losses fell at the same time without either waiting, as in the paper"


def _fell(data: xr.Dataset, role: str) -> bool:
    loss = data[f"{role}_loss"].to_numpy()
    tenth = max(1, len(loss) // 10)
    return bool(loss[-tenth:].mean() < loss[:tenth].mean())
