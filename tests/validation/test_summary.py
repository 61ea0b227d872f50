"""Figures keep their bounds, and a summary survives its own file."""

from __future__ import annotations

import io
import json
import math
import operator
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from twin.errors import ConfigError, DataError
from validation import summary
from validation.summary import Figure, Summary

finite = st.floats(-1e6, 1e6)
COMPARE = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


@settings(deadline=None)
@given(value=finite, limit=finite, sign=st.sampled_from(sorted(COMPARE)))
def test_a_figure_holds_exactly_when_its_value_satisfies_its_bound(
    value: float, limit: float, sign: str
) -> None:
    figure = Figure("x", value, bound=f"{sign} {limit!r}")
    assert figure.holds is COMPARE[sign](value, limit)


@pytest.mark.parametrize("value", [None, math.nan, np.float64("nan")])
def test_an_absent_value_with_a_bound_has_failed(value: float | None) -> None:
    assert Figure("x", value, bound=">= 0").holds is False
    assert Figure("x", value, bound="<= 0").holds is False


def test_without_a_bound_nothing_holds_or_fails() -> None:
    assert Figure("x", 3.0).holds is None
    assert Summary("c", [Figure("x", 3.0)]).holds


def test_a_range_needs_both_ends() -> None:
    inside = [Figure("x", v, bound=">= 0.9 and <= 1.1").holds for v in (0.89, 0.9, 1.1, 1.11)]
    assert inside == [False, True, True, False]


@pytest.mark.parametrize("bound", ["0.98", ">= abc", "", "=> 3", ">= 1 or <= 2"])
def test_an_unreadable_bound_is_refused_also_for_an_absent_value(bound: str) -> None:
    with pytest.raises(ConfigError, match=r"expected e\.g\."):
        Figure("x", None, bound=bound)


def test_an_expected_figure_that_nobody_measured_has_failed() -> None:
    found = Summary("c", [Figure("a", 1.0, n=5), Figure("b", 2.0)])
    found.expect({"a": ">= 0.5", "c": "< 60"})
    assert [(f.name, f.holds, f.n) for f in found.figures] == [
        ("a", True, 5),
        ("b", None, None),
        ("c", False, None),
    ]
    assert found.failed == ["c"] and not found.holds


def test_two_figures_of_one_name_are_refused() -> None:
    found = Summary("c", [Figure("a", 1.0)])
    with pytest.raises(ConfigError, match="already"):
        found.add(Figure("a", 2.0))


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    figures = [
        Figure(
            "accuracy", np.float32(0.5), bound=">= 0.4", n=360, standard_error=0.01, seeds=[0, 1]
        ),
        Figure("absent", math.nan, "s", "< 1"),
        Figure("endless", math.inf, bound="< 1"),
    ]
    extra = {"ledger": [{"passes": np.int64(3), "x": math.nan}], "shape": (8, 8), "at": tmp_path}
    Summary("pib-twin train", figures, extra=extra).write(tmp_path)
    again = summary.read(tmp_path)
    assert again.figures == figures
    assert again.extra == {
        "ledger": [{"passes": 3, "x": None}],
        "shape": [8, 8],
        "at": str(tmp_path),
    }
    rows = json.loads((tmp_path / "summary.json").read_text())["figures"]
    names = ["name", "value", "unit", "bound", "holds", "n", "standard_error", "seeds"]
    assert [list(row) for row in rows] == [names] * 3


def test_the_file_is_strict_json(tmp_path: Path) -> None:
    Summary("c", [Figure("x", math.nan)], extra={"y": [math.inf, math.nan]}).write(tmp_path)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads((tmp_path / "summary.json").read_text(), parse_constant=refuse)


def test_a_write_that_fails_leaves_the_old_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Summary("old").write(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        Summary("new").write(tmp_path)
    assert summary.read(tmp_path).command == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"figures": [{}]}', '{"figures": 3}', "\xff"])
def test_a_damaged_summary_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "summary.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"summary\.json: damaged"):
        summary.read(tmp_path)


def test_the_table_shows_every_figure_and_marks_the_failed() -> None:
    found = Summary(
        "c", [Figure("a", 0.97213, bound=">= 0.9", n=360, seeds=[4]), Figure("b", None)]
    )
    found.expect({"b": "< 1"})
    stream = io.StringIO()
    Console(width=120, file=stream).print(found.table())
    text = stream.getvalue()
    assert "0.9721" in text and "yes" in text and "absent" in text and "NO" in text


def test_a_binomial_error_agrees_with_simulation() -> None:
    # 20,000 draws: the standard deviation of a fraction is known to 0.5 %
    # (one sigma); bound five sigma.
    fractions = np.random.default_rng(11).binomial(360, 0.97, 20_000) / 360
    assert fractions.std() == pytest.approx(summary.binomial_error(0.97, 360), rel=0.025)


def test_the_error_of_a_mean_needs_two_runs() -> None:
    assert summary.mean_and_error([0.5]) == (0.5, None)
    mean, error = summary.mean_and_error([1.0, 2.0, 3.0])
    assert mean == 2.0 and error == pytest.approx(1 / math.sqrt(3))


def test_versions_name_the_package_the_platform_and_the_threads() -> None:
    assert {"pib-twin", "python", "numpy", "platform", "threads"} <= set(summary.versions())
