"""fig4c: an optical and an electronic unit trained at two sites at the same time.

In the paper two sites train a hybrid network in parallel, without communication.
Here (ours) the downstream site learns from what the upstream site published last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import xarray as xr

from validation import training
from validation.config import RunConfig
from validation.reproduce import fig4cpicture
from validation.reproduce.fig4cwork import at_two_sites, in_sequence
from validation.reproduce.figure import Drawing, Request
from validation.reproduce.parts import Part
from validation.sites.timeline import facts
from validation.summary import Figure, mean_and_error

ABOUT = "Decentralised training: two sites, one optical, one electronic, that never wait"
SEEDS, QUICK_SEEDS = 3, 2
PUBLICATIONS = 6
AWAY_S, QUICK_AWAY_S = 10.0, 2.0
QUICK_EPOCHS = 45
BOUND, QUICK_BOUND = ">= -0.01", ">= -0.03"
"""In quick runs 360 test images leave a point of luck either way."""
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
        verdict=verdict(accuracy, mail, first, figures),
        extra={
            "messages": mail,
            "events": {a: json.loads(first[a].attrs["events"]) for a in ways[1:]},
            "reproducible": "no: two free processes; a recorded schedule repeats a site's weights",
        },
    )


def _figures(
    accuracy: Mapping[str, list[float]], mail: Mapping[str, dict], request: Request
) -> list[Figure]:
    chosen, bound = list(seeds(request)), QUICK_BOUND if request.quick else BOUND
    rows = []
    for arm, values in accuracy.items():
        mean, error = mean_and_error(values)
        rows.append(Figure(f"accuracy_{arm}", mean, n=len(values), standard_error=error,
                           seeds=chosen))  # fmt: skip
    for arm in list(accuracy)[1:]:
        rival = "sequential" if arm == "free" else "free"
        gains = [a - b for a, b in zip(accuracy[arm], accuracy[rival], strict=True)]
        mean, error = mean_and_error(gains)
        name = "joint_minus_sequential" if arm == "free" else f"{arm}_killed_minus_undisturbed"
        rows.append(Figure(name, mean, bound=bound, n=len(gains), standard_error=error,
                           seeds=chosen))  # fmt: skip
    free = [mail[f"free-{seed}"] for seed in chosen]
    for name, unit in (
        ("bytes_published", "byte"), ("bytes_read", "byte"), ("files_read", "1"),
        ("staleness_steps_mean", "1"), ("staleness_steps_max", "1"), ("overlap", "1"),
    ):  # fmt: skip
        values = [float(f[name]) for f in free if f[name] is not None]
        typical = sum(values) / len(values) if values else None
        rows.append(Figure(name, typical, unit, n=len(values), seeds=chosen))
    waits = sum(f["synchronisations"] for f in mail.values())
    rows.append(Figure("synchronisations", waits, bound="== 0", seeds=chosen))
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
    first: Mapping[str, xr.Dataset],
    figures: list[Figure],
) -> str:
    """What matched the paper and what did not, from the numbers."""
    points = {arm: 100 * sum(v) / len(v) for arm, v in accuracy.items()}
    missed = [f.name for f in figures if f.holds is False]
    gap = points["free"] - points["sequential"]
    within = "within" if abs(gap) <= 1 else ("above" if gap > 0 else "outside")
    age = mail[next(iter(mail))]
    fell = all(_fell(first["free"], role) for role in ("upstream", "downstream"))
    told = [
        f"Both sites' losses {'fell' if fell else 'did not both fall'} at the same time without "
        f"either waiting, as in the paper; the joint network reached {points['free']:.2f} %, "
        f"{within} one point of training one after the other ({points['sequential']:.2f} %, "
        f"difference {gap:+.2f})."
    ]
    told += [
        f"With the {arm} site killed half-way and restarted: {points[arm]:.2f} % "
        f"({points[arm] - points['free']:+.2f})."
        for arm in list(accuracy)[2:]
    ]
    told.append(
        f"The paper's sites do not communicate; what its second unit learned from is not known "
        f"to us. Ours exchange files, one way: {age['publications']} of "
        f"{age['bytes_published'] / age['publications'] / 1e6:.2g} MB."
    )
    told.append(f"Bounds missed: {', '.join(missed)}." if missed else "All bounds hold.")
    return " ".join(told)


def _fell(data: xr.Dataset, role: str) -> bool:
    loss = data[f"{role}_loss"].to_numpy()
    tenth = max(1, len(loss) // 10)
    return bool(loss[-tenth:].mean() < loss[:tenth].mean())
