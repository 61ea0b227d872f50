"""`pib-twin design`: search for designs, keep every point, tell what was found."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

import pandas as pd

from twin.errors import UnknownName, nearest
from twin.files import write_atomic
from validation.console import console
from validation.studies import collect
from validation.studies.designfile import DesignStudy, load_design
from validation.studies.designpage import write_page
from validation.studies.findings import Findings, findings
from validation.studies.progress import Tally, watcher
from validation.studies.proposals import LARGEST_GRID, size
from validation.studies.search import Budget, Search
from validation.studies.workers import Pool, Workers
from validation.summary import Figure, Summary, mean_and_error

QUICK_DESIGNS, QUICK_SEEDS = 6, 2
TABLE, COPY = "designs.csv", "design.toml"


def main(
    file: Path | str,
    out: Path | None = None,
    jobs: int = 2,
    quick: bool = False,
    budget_points: int | None = None,
    budget_minutes: float | None = None,
    data: Path | None = None,
    command: str = "",
    mode: str = "live",
) -> Summary:
    """Search as the file says; leave points, designs.csv, dataset.nc (of grids),
    summary.json and report.html in `out`. The same call goes on where one stopped.

    file: a TOML file, or the name of a shipped study. quick: 6 designs, 2 seeds,
    short training. budget_*: instead of the file's. mode: see `progress.watcher`.
    """
    path = found_file(file)
    study = load_design(path, None if data is None else str(data.resolve()))
    study = quicker(study) if quick else study
    folder = out or Path("runs") / path.stem
    with Pool(jobs) as workers:
        search = searched(study, folder, workers, budget_points, budget_minutes, mode)
    return finished(study, search, folder, command, mode)


def shipped() -> list[str]:
    """Names of the shipped design studies."""
    places = resources.files("validation") / "presets" / "studies"
    names = (place.name.removesuffix(".toml") for place in places.iterdir())
    return sorted(name for name in names if name.startswith("design-"))


def found_file(file: Path | str) -> Path:
    """The path of a file or of a shipped study; UnknownName with the nearest one."""
    path = Path(file)
    if path.is_file():
        return path
    name = path.name.removesuffix(".toml")
    if name not in shipped():
        raise UnknownName(f"no design study or file {str(file)!r}. {nearest(name, shipped())}")
    return Path(str(resources.files("validation") / "presets" / "studies" / f"{name}.toml"))


def quicker(study: DesignStudy) -> DesignStudy:
    """A few designs with short training, to see that everything runs."""
    plain = replace(study.study, quick=True, seeds=study.study.seeds[:QUICK_SEEDS])
    points = min(QUICK_DESIGNS, study.wanted)
    return replace(study, study=plain, search=study.search.model_copy(update={"points": points}))


def searched(
    study: DesignStudy,
    folder: Path,
    workers: Workers,
    points: int | None = None,
    minutes: float | None = None,
    mode: str = "live",
) -> Search:
    """Go on with the search in `folder`. points, minutes: instead of the file's budget."""
    limits = study.budget.model_copy(
        update={k: v for k, v in {"points": points, "minutes": minutes}.items() if v is not None}
    )
    first = study.objectives[0].name
    tally = Tally(0, first if first not in study.study.axes else "accuracy")

    def planned(more: int) -> None:
        tally.total += more

    with watcher(mode, tally) as watch:
        search = Search(study, folder, workers, Budget(**limits.model_dump()), watch, planned)
        search.run()
    return search


def finished(
    study: DesignStudy, search: Search, folder: Path, command: str, mode: str = "live"
) -> Summary:
    """Write everything that is made from the points; returns the summary."""
    found = findings(study, search.trials)
    summary = Summary(command, _figures(found, search))
    summary.extra = _facts(found, search)
    _written(study, found, folder, command)
    summary.write(folder)
    page = write_page(folder, found, summary)
    if mode != "json-lines":
        console.print(summary.table())
        console.print(f"report: {page}", markup=False)
    return summary


def _figures(found: Findings, search: Search) -> list[Figure]:
    """Counts, the best accuracy, what can be saved, and every contrast."""
    rows = [
        Figure("designs tried", len(found.designs)),
        Figure("designs failed", len(search.trials.failed)),
        Figure("designs on the front", len(found.on_front)),
        Figure("trainings", int(found.counts.sum())),
        Figure("trainings computed now", search.computed),
        Figure("trainings spared by early stopping", search.saved),
    ]
    if found.best is not None:
        column = next(i for i, o in enumerate(found.objectives) if o.is_accuracy)
        design = found.designs[found.best]
        values = search.trials.values[design]
        mean, error = mean_and_error([row[column] for row in values.values()])
        rows.append(Figure(f"best {found.objectives[column].title}", mean, n=len(values),
                           standard_error=error, seeds=sorted(values)))  # fmt: skip
        if found.tested is not None:
            rows.append(Figure("test accuracy of that design", float(found.tested[found.best]),
                               n=len(values), seeds=sorted(values)))  # fmt: skip
    rows += [
        Figure(f"times less {item.objective.title} within 1 point", item.times)
        for item in found.cheapest
    ]
    rows += [
        Figure(f"{item.figure}: {item.about}", item.mean, item.unit, n=len(item.differences),
               standard_error=item.standard_error)
        for item in found.contrasts
    ]  # fmt: skip
    return rows


def _facts(found: Findings, search: Search) -> dict[str, object]:
    study = found.study
    return {
        "about": study.study.about,
        "base": study.study.base,
        "sampler": study.search.sampler,
        "confidence": study.search.confidence,
        "designs": len(found.designs),
        "trainings": int(found.counts.sum()),
        "seeds": len(study.study.seeds),
        "quick": study.study.quick,
        "ended": None if search.settled else search.budget.ended,
        "saved_seeds": search.saved,
        "front": [dict(found.designs[row]) for row in found.on_front],
        "contrasts": [
            {"about": c.about, "mean": c.mean, "low": c.low, "high": c.high,
             "pairs": len(c.differences)}
            for c in found.contrasts
        ],
    }  # fmt: skip


def _written(study: DesignStudy, found: Findings, folder: Path, command: str) -> None:
    rows = pd.DataFrame([_row(found, row) for row in range(len(found.designs))])
    write_atomic(folder / TABLE, rows.to_csv(index=False).encode())
    write_atomic(folder / COPY, study.text.encode())
    if size(study.study.axes) <= LARGEST_GRID:
        dataset = collect.collect(folder, study.study).assign_attrs(command=command)
        collect.save(dataset, folder / collect.DATASET)


def _row(found: Findings, row: int) -> dict[str, object]:
    cells: dict[str, object] = dict(found.designs[row])
    for column, objective in enumerate(found.objectives):
        if objective.name not in cells:
            cells[objective.name] = found.means[row, column]
            cells[f"{objective.name} low"] = found.low[row, column]
            cells[f"{objective.name} high"] = found.high[row, column]
    if found.tested is not None:
        cells["test accuracy"] = float(found.tested[row])
    return cells | {
        "seeds": int(found.counts[row]),
        "front": bool(found.front[row]),
        "front share": found.share[row],
        "hopeless": bool(found.lost[row]),
    }
