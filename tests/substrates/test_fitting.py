"""What a fit of a user's cells recovers, how sure it says it is, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from substrates.memristor.fit.fitfile import document, technology
from substrates.memristor.fit.fitting import Estimate, Fit, fit
from substrates.memristor.fit.heldout import fitted, score
from substrates.memristor.fit.measurements import COLUMNS, Measurements
from substrates.memristor.fit.smoothing import smoothed
from substrates.memristor.fit.trajectories import Cells, log_likelihood
from substrates.memristor.technology import Technology, load
from twin.errors import DataError
from twin.key import Key

Table = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Lab:
    """An experiment on synthetic cells that follow the laws exactly; uS where not stated."""

    kind: str = "log"
    cells: int = 40
    targets: tuple[float, ...] = (4.0, 10.0, 16.0)
    times: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0)
    repeats: int = 6
    sigma: tuple[float, float] = (0.1, 0.03)
    mean: float = 0.089
    slope: float = 0.042
    start: float = 0.08
    exponent: float = 0.05
    exponent_spread: float = 0.01
    level: float = 0.006
    spread_ln: float = 0.4

    def table(self, key: Key) -> Table:
        """The four columns of an experiment, rows by cell and time."""
        rng = key.numpy()
        target = np.repeat(self.targets, self.cells)[:, None]
        one = 1 + 0.002 * np.arange(self.repeats)
        t = np.outer(self.times, one).ravel()
        log_t, count = np.log(t / t[0]), len(target)
        g = target + (self.sigma[0] + self.sigma[1] * target) * rng.normal(size=(count, 1))
        n = rng.normal(size=(count, 1))
        if self.kind == "log":
            g = g - self.mean * log_t + (self.start + self.slope * log_t) * n
        else:
            g = g * np.exp(-(self.exponent + self.exponent_spread * n) * log_t)
        own = self.level * np.exp(self.spread_ln * rng.normal(size=(count, 1)) - self.spread_ln**2)
        read = np.clip(g, 0, None) * (1 + own * rng.normal(size=g.shape))
        return {
            "time_s": np.tile(t, count),
            "target_siemens": np.repeat(target[:, 0], len(t)) * 1e-6,
            "conductance_siemens": read.ravel() * 1e-6,
            "cell": np.repeat([f"c{i}" for i in range(count)], len(t)),
        }

    def measured(self, key: Key) -> Measurements:
        return of(self.table(key))

    def truth(self, name: str) -> float:
        """The planted value of an estimate, in its unit."""
        what, _, where = name.partition(" at ")
        if what == "sigma":
            return (self.sigma[0] + self.sigma[1] * float(where.split()[0])) * 1e-6
        return {
            "mean_siemens_per_ln": self.mean * 1e-6,
            "spread_siemens_per_ln": self.slope * 1e-6,
            "spread_siemens": self.start * 1e-6,
            "exponent": self.exponent,
            "exponent_spread": self.exponent_spread,
            "read_noise.level": self.level,
            "read_noise.spread_ln": self.spread_ln,
        }[what]


def of(table: Table) -> Measurements:
    return Measurements.of(*(table[name] for name in COLUMNS))


def off(estimate: Estimate, truth: float) -> float:
    """Deviation from the truth in standard errors."""
    return abs(estimate.value - truth) / estimate.standard_error


@pytest.mark.parametrize("kind", ["log", "power"])
def test_planted_parameters_are_found_within_five_standard_errors(kind: str) -> None:
    lab = Lab(kind=kind, cells=120, times=(1.0, 10.0, 100.0, 1e3, 1e4))
    found = fit(lab.measured(Key(11)), kind)
    for estimate in found.estimates:
        truth = lab.truth(estimate.name)
        assert off(estimate, truth) < 5, (estimate, truth)
        # Known well enough for five errors to mean something.
        limit = 0.25 if estimate.name == "spread_siemens" else 0.12
        assert estimate.standard_error < limit * truth, estimate


@settings(max_examples=6)
@given(
    seed=st.integers(0, 2**32),
    level=st.floats(0.002, 0.03),
    spread_ln=st.floats(0.15, 0.8),
    mean=st.floats(0.0, 0.15),
    slope=st.floats(0.03, 0.08),
)
def test_any_log_device_is_found(
    seed: int, level: float, spread_ln: float, mean: float, slope: float
) -> None:
    lab = Lab(level=level, spread_ln=spread_ln, mean=mean, slope=slope, cells=60)
    found = fit(lab.measured(Key(seed)), "log")
    # Six estimates in six examples: five standard errors and what small samples add.
    for name in ("mean_siemens_per_ln", "spread_siemens_per_ln", "read_noise.level"):
        assert off(found.estimate(name), lab.truth(name)) < 6, found.estimate(name)


@pytest.mark.parametrize("kind", ["log", pytest.param("power", marks=pytest.mark.slow)])
def test_intervals_of_many_small_devices_cover_as_often_as_they_say(kind: str) -> None:
    lab, devices = Lab(kind=kind, cells=24), 60
    inside: dict[str, int] = {}
    for number in range(devices):
        for estimate in fit(lab.measured(Key(3).child(number)), kind).estimates:
            low, high = estimate.interval
            hit = low <= lab.truth(estimate.name) <= high
            inside[estimate.name] = inside.get(estimate.name, 0) + hit
    # Five standard errors of the binomial law at 95 %: 49 of 60.
    least = devices * 0.95 - 5 * np.sqrt(devices * 0.95 * 0.05)
    assert min(inside.values()) >= least, inside
    # And they are not so wide that they always cover: all together, 8 or 11
    # numbers of 60 devices, at least one in a hundred is outside.
    assert sum(inside.values()) < 0.99 * devices * len(inside), inside


@pytest.mark.parametrize("kind", ["log", "power"])
def test_the_law_that_made_the_data_is_chosen_and_the_other_scores_worse(kind: str) -> None:
    outcome = fitted(Lab(kind=kind).measured(Key(5)), Key(0))
    assert outcome.fit.kind == kind
    assert outcome.rival is not None
    gain = outcome.score.gain(outcome.rival[1])
    assert gain.value > 2 * gain.standard_error > 0


def wrong(found: Fit, name: str, factor: float) -> Fit:
    return replace(found, natural={**found.natural, name: found.natural[name] * factor})


@pytest.mark.parametrize("name", ["sigma", "mean", "slope", "level"])
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_law_with_one_wrong_number_scores_worse(name: str, factor: float) -> None:
    kept, held = Lab(cells=100).measured(Key(6)).split(0.5, Key(7).numpy())
    right = fit(kept, "log")
    gain = score(right, held).gain(score(wrong(right, name, factor), held))
    assert gain.value > 0
    if name != "mean":  # a mean twice too large is one spread away after 1000 s
        assert gain.value > 2 * gain.standard_error


def test_scores_of_the_right_law_are_one_one_and_ninety_per_cent() -> None:
    # 20 devices of 60 held-out cells each, the law fitted to as many others.
    scores = []
    for number in range(20):
        kept, held = Lab().measured(Key(8).child(number)).split(0.5, Key(9).numpy())
        scores.append(score(fit(kept, "log"), held))
    # The law itself is known to 1 / sqrt(2 x 60 cells) in each device.
    for values, expected, slack in (
        ([s.trajectories.value for s in scores], 1.0, 0.05),
        ([s.reads.value for s in scores], 1.0, 0.02),
        ([s.coverage.value for s in scores], 0.9, 0.01),
    ):
        error = np.std(values, ddof=1) / np.sqrt(len(values))
        assert abs(np.mean(values) - expected) < 5 * error + slack, values


def test_a_score_that_is_off_shows_in_the_variances() -> None:
    kept, held = Lab(cells=80).measured(Key(12)).split(0.5, Key(9).numpy())
    right = fit(kept, "log")
    assert score(wrong(right, "level", 0.5), held).reads.value > 3
    narrow = wrong(wrong(right, "sigma", 0.5), "slope", 0.5)
    assert score(narrow, held).trajectories.value > 2.5
    assert score(narrow, held).coverage.value < 0.75


def test_the_likelihood_of_a_cell_is_that_of_its_full_covariance() -> None:
    found = Lab(cells=16, repeats=3, spread_ln=0.3).measured(Key(13))
    one = fit(found, "log")
    cells = one.cells_of(found)
    shape = one.shape(cells)
    narrow = replace(shape, spread_ln=torch.zeros_like(shape.spread_ln))
    wide = log_likelihood(shape, cells)
    for row in range(4):
        assert float(log_likelihood(narrow, cells)[row]) == pytest.approx(
            dense(narrow, cells, row, 1.0), rel=1e-9
        )
        # The noise level integrated out on a fine grid instead of by quadrature.
        z = np.linspace(-8, 8, 1601)
        spread = float(shape.spread_ln)
        each = [dense(shape, cells, row, np.exp(spread * v - spread**2)) for v in z]
        slow = np.log(np.trapezoid(np.exp(each - np.max(each)) * stats.norm.pdf(z), z))
        assert float(wide[row]) == pytest.approx(slow + np.max(each), abs=1e-4)


def dense(shape: Any, cells: Cells, row: int, factor: float) -> float:
    """ln density of a cell by its whole covariance matrix."""
    effects = torch.stack([shape.first[row], shape.second[row]], 1).numpy()
    c11, c12, c22 = shape.covariance[row].tolist()
    noise = (float(shape.level) * factor * cells.scale[row].numpy()) ** 2
    covariance = effects @ np.array([[c11, c12], [c12, c22]]) @ effects.T + np.diag(noise)
    law = stats.multivariate_normal(shape.mean[row].numpy(), covariance)
    return float(law.logpdf(cells.g[row].numpy()))


def test_a_curve_is_the_lowest_polynomial_that_fits() -> None:
    x = np.array([2.0, 6.0, 10.0, 14.0, 18.0])
    errors = np.diag(np.full(5, 0.01) ** 2)
    line = smoothed(x, 0.1 + 0.05 * x, errors, spread=True)
    assert line.coefficients == pytest.approx([0.1, 0.05])
    flat = smoothed(x, np.full(5, 0.3), errors, spread=True)
    assert flat.coefficients == pytest.approx([0.3])
    kinked = smoothed(x, np.array([0.1, 2.0, 0.1, 2.0, 0.1]), errors, spread=True)
    assert kinked.coefficients is None
    assert kinked.values == pytest.approx([0.1, 2.0, 0.1, 2.0, 0.1])


# ---- the file ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["log", "power"])
def test_the_file_loads_as_the_technology_that_was_fitted(kind: str, tmp_path: Any) -> None:
    found = fit(Lab(kind=kind).measured(Key(15)), kind)
    made = technology(found, "mine", "a test")
    path = tmp_path / "mine.toml"
    path.write_text(document(found, made))
    assert load(path) == made
    targets = torch.tensor(found.levels)
    assert made.sigma(targets).numpy() * 1e6 == pytest.approx(found.natural["sigma"].numpy())
    assert "+-" in path.read_text()


@pytest.mark.parametrize("kind", ["log", "power"])
def test_cells_of_the_written_technology_are_fitted_back_to_it(kind: str) -> None:
    """The fit and technology.py mean the same by every parameter."""
    lab = Lab(kind=kind, cells=100)
    first = fit(lab.measured(Key(17)), kind)
    drawn = drawn_from(technology(first, "mine", "a test"), lab, Key(18))
    again = fit(drawn, kind)
    for estimate in again.estimates:
        assert off(estimate, first.estimate(estimate.name).value) < 5, estimate


def drawn_from(made: Technology, lab: Lab, key: Key) -> Measurements:
    generator = key.torch()
    targets = torch.tensor(lab.targets).double().repeat_interleave(lab.cells) * 1e-6
    normals = [torch.randn(len(targets), generator=generator).double() for _ in range(3)]
    programmed = made.programmed(targets, normals[0])
    rows = []
    for time in lab.times:
        for repeat in range(lab.repeats):
            t = time * (1 + 0.001 * repeat)
            g = made.relaxed(programmed, targets, normals[1], t)
            sigma = made.read_sigma(g, t, normals[2])
            read = g + sigma * torch.randn(len(g), generator=generator)
            rows.append((np.full(len(g), t), targets.numpy(), read.numpy(), np.arange(len(g))))
    return Measurements.of(*(np.concatenate(column) for column in zip(*rows, strict=True)))


# ---- refusals -----------------------------------------------------------------


def small(**changes: Any) -> Table:
    return replace(Lab(cells=16, repeats=3), **changes).table(Key(20))


def changed(column: str, row: int, value: Any) -> Table:
    table = small()
    table[column] = table[column].copy()
    table[column][row] = value
    return table


def kept(table: Table, mask: Any) -> Table:
    return {name: column[mask] for name, column in table.items()}


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (small(cells=9), ("too few cells", "9 at 4 uS", "at least 16")),
        (small(targets=(10.0,)), ("one target", "at least 2")),
        (small(targets=(2.0, 16.0)), ("no target between 2 and 16 uS",)),
        (small(times=(1.0,)), ("distinct times", "again later")),
        (small(times=(1.0, 3.0, 6.0)), ("span of at least 10",)),
        (small(times=(1.0, 100.0)), ("fewer than 3 times", "'c0'")),
        (small(repeats=1), ("read noise", "repeated reads", "at least 16")),
        (changed("conductance_siemens", 4, np.nan), ("conductance_siemens", "data row 5")),
        (changed("time_s", 4, np.inf), ("time_s", "data row 5")),
        (changed("conductance_siemens", 2, -1e-6), ("-1e-06 S", "offset")),
        (changed("time_s", 2, -1.0), ("time_s", "-1 s", "end of the write")),
        (changed("time_s", 2, 0.0), ("time_s", "expected > 0")),
        (changed("target_siemens", 2, 0.0), ("target_siemens", "expected > 0")),
        (changed("target_siemens", 2, 5e-6), ("'c0'", "has the targets", "one write")),
    ],
)
def test_what_does_not_suffice_is_refused_by_name(table: Table, words: tuple[str, ...]) -> None:
    with pytest.raises(DataError) as caught:
        of(table)
    for word in words:
        assert word in str(caught.value), str(caught.value)


@pytest.mark.parametrize("column", ["target_siemens", "conductance_siemens"])
def test_microsiemens_are_recognised(column: str) -> None:
    table = small()
    with pytest.raises(DataError, match=rf"{column}.*multiply the column by 1e-6"):
        of({**table, column: table[column] * 1e6})


def test_targets_of_other_cells_are_recognised() -> None:
    table = small()
    with pytest.raises(DataError, match="contradict each other"):
        of({**table, "target_siemens": table["target_siemens"] * 3})


def test_copied_rows_are_no_repeats() -> None:
    table = small()
    twice = {name: np.concatenate([column, column[:7]]) for name, column in table.items()}
    with pytest.raises(DataError, match=r"7 rows appear twice.*'c0'.*remove copies"):
        of(twice)


def test_no_rows_at_all_are_refused() -> None:
    with pytest.raises(DataError, match="no readings"):
        of({name: np.array([]) for name in COLUMNS})


def test_cells_that_rise_with_time_are_refused() -> None:
    with pytest.raises(DataError, match="rises with time"):
        fit(Lab(mean=-0.1).measured(Key(21)), "log")


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32))
def test_the_order_of_rows_changes_nothing(seed: int) -> None:
    table = small()
    order = Key(seed).numpy().permutation(len(table["cell"]))
    a, b = of(table), of(kept(table, order))
    for name in ("names", "target", "time_s", "conductance", "taken"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_missing_readings_leave_the_others_in_place() -> None:
    table = Lab(cells=60).table(Key(22))
    mask = Key(23).numpy().random(len(table["cell"])) > 0.2
    part, whole = fit(of(kept(table, mask)), "log"), fit(of(table), "log")
    for estimate in part.estimates:
        assert off(estimate, whole.estimate(estimate.name).value) < 3, estimate


def test_no_cell_is_both_fitted_and_held_out() -> None:
    found = Lab().measured(Key(24))
    outcome = fitted(found, Key(1))
    assert outcome.trial.cells + len(outcome.held_out.names) == len(found.names)
    assert outcome.fit.cells == len(found.names)
    again = fitted(found, Key(1))
    assert again.score.log_likelihood == outcome.score.log_likelihood
    assert list(fitted(found, Key(2)).held_out.names) != list(outcome.held_out.names)


def test_a_parameter_at_its_bound_is_held_there() -> None:
    # No spread at the first time and none to be told from it: never negative.
    for number in range(6):
        found = fit(Lab(start=0.0, mean=0.0, cells=16).measured(Key(25).child(number)), "log")
        assert found.estimate("spread_siemens").value >= 0
        assert found.estimate("mean_siemens_per_ln").value >= 0
        for name in ("spread_siemens", "mean_siemens_per_ln"):
            assert found.estimate(name).standard_error > 0
