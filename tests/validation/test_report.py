"""The report of synthetic run folders: complete, self-contained, honest."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
import torch
import xarray as xr

from twin.errors import DataError, Unsupported
from validation import maps
from validation.figures import svg
from validation.report import write_report
from validation.summary import Figure, Summary

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


def history_of(units: int, classes: list[str], *, i_xz: bool = True) -> xr.Dataset:
    """A history with NaN padding: later units have made fewer records."""
    rng = np.random.default_rng(units)
    records, samples = 60, 200
    iteration = np.full((units, records), np.nan)
    for unit in range(units):
        kept = records - 15 * unit
        iteration[unit, :kept] = 5 * np.arange(kept)
    pad = np.where(np.isfinite(iteration), 1.0, np.nan)
    rise = 1 - np.exp(-np.nan_to_num(iteration) / 80)
    i_yz = np.log2(len(classes)) * 0.9 * rise * pad
    variables: dict[str, Any] = {
        "iteration": (("unit", "record"), iteration),
        "loss": (("unit", "record"), -i_yz),
        "i_yz": (("unit", "record"), i_yz),
        "i_xz": (
            ("unit", "record"),
            (4.5 - 1.5 * rise**2 + 2 * rise) * pad if i_xz else pad * np.nan,
        ),
        "kernel_mean": (("unit", "record"), (0.95 - 0.6 * rise) * pad),
        "saturated": (("unit", "record"), 0.003 * pad),
        "clipped": (("unit", "record"), 0.02 * rise * pad),
        "probe_iteration": (("unit", "probe"), iteration[:, ::10]),
        "probe_accuracy": (("unit", "probe"), (0.3 + 0.6 * rise * pad)[:, ::10]),
        "weight_iteration": (("unit", "weight_record"), iteration[:, ::6]),
        "weight_change": (("unit", "weight_record"), (0.8 * rise * pad)[:, ::6]),
    }
    normal = np.array([-3.2, -2.3, -1.6, -0.67, 0, 0.67, 1.6, 2.3, 3.2])
    spread = ((0.1 + 0.2 * rise) * pad)[:, ::6, None] * normal
    variables["weight_quantiles"] = (("unit", "weight_record", "quantile"), spread)
    labels = rng.integers(0, len(classes), samples)
    variables["map_label"] = ("map_sample", labels)
    for k in range(1, units + 1):
        width = 16 * k
        centres = rng.normal(size=(len(classes), width)) * 2
        noise = rng.normal(size=(samples, width))
        variables[f"features_before_{k}"] = (("map_sample", f"width_{k}"), noise)
        variables[f"features_after_{k}"] = (("map_sample", f"width_{k}"), noise + centres[labels])
    names = [f"unit {k}" for k in range(1, units + 1)] + ["all units"]
    epochs = np.arange(20)
    curve = np.stack([0.9 + 0.01 * i - 0.6 * np.exp(-epochs / 3) for i in range(len(names))])
    curve[0, 15:] = np.nan
    variables["readout_train_accuracy"] = (("readout", "readout_epoch"), curve + 0.02)
    variables["readout_test_accuracy"] = (("readout", "readout_epoch"), curve)
    counts = np.diag(rng.integers(30, 40, len(classes))) + rng.integers(0, 3, (len(classes),) * 2)
    variables["confusion"] = (("true_class", "predicted_class"), counts)
    coordinates = {
        "quantile": list(QUANTILES),
        "readout": names,
        "true_class": classes,
        "predicted_class": classes,
    }
    return xr.Dataset(variables, coordinates, {"units": "bit; dimensionless", "provenance": "test"})


def run_folder(
    folder: Path, *, units: int = 2, classes: list[str] | None = None, references: bool = True,
    i_xz: bool = True,
) -> Path:  # fmt: skip
    """A run folder as `pib-twin train` leaves it."""
    classes = classes or [str(i) for i in range(10)]
    history_of(units, classes, i_xz=i_xz).to_netcdf(folder / "history.nc", engine="h5netcdf")
    extra: dict[str, Any] = {
        "command": "pib-twin train memristor-digits --seed 0",
        "preset": "memristor-digits",
        "seed": 0,
        "dataset": {
            "name": "digits", "train": 1294, "validation": 143, "test": 360,
            "image_shape": [8, 8], "classes": classes, "source": "scikit-learn",
        },
        "network": [
            {
                "name": f"unit {k}", "backend": "memristor", "inputs": 64 if k == 1 else 192,
                "kind": "isomorphic" if k == 1 else "broken-isomorphism", "outputs": 128,
                "drive": "image" if k == 1 else f"unit {k - 1} features + image",
                "reading_width": 128, "device_id": f"chip-{k}",
            }
            for k in range(1, units + 1)
        ],
        "readout": {"inputs": 128 * units, "classes": len(classes)},
        "ledger": [
            {
                "unit": f"unit {k}", "phase": phase, "passes": 120_000 * k, "calls": 480,
                "writes": 480, "cells": 3_932_160, "ranging_passes": 250, "device_seconds": 0.36,
                "joules": 2.1e-4, "digital_operations": 5_300_000_000,
            }
            for k in range(1, units + 1) for phase in ("train", "capture")
        ],
        "ablation": [
            {"name": "plain stacking", "accuracy": 0.961, "standard_error": 0.01},
            {"name": "with skip", "accuracy": 0.969, "standard_error": 0.009},
        ],
    }  # fmt: skip
    if references:
        extra["references"] = {
            "backpropagation, digital": {"accuracy": 0.981, "standard_error": 0.007, "passes": 0},
            "backpropagation, deployed": {"accuracy": 0.953, "standard_error": 0.011},
            "local cross-entropy": {"accuracy": 0.975, "standard_error": 0.008, "passes": 240_000},
            "readout on the raw physics": {"accuracy": 0.931, "standard_error": 0.013},
            "untrained": {"accuracy": 0.902, "standard_error": 0.016},
        }
    else:
        extra["references_off"] = True
    figures = [
        Figure("accuracy", 0.972, bound=">= 0.95", n=360, standard_error=0.0087, seeds=[0]),
        Figure("accuracy_backprop_digital", 0.981 if references else None, n=360, seeds=[0]),
        Figure("wall_seconds", 71.2, "s", "< 60"),
    ]
    Summary(extra["command"], figures, {"python": "3.11", "torch": "2.13"}, extra).write(folder)
    return folder


class Outline(HTMLParser):
    """Tags, the addresses they fetch, and whether everything is closed."""

    VOID = ("meta", "br", "img", "link", "hr", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.note(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.note(attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def note(self, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [found["id"]] if found.get("id") else []
        names = ("src", "href", "xlink:href", "data", "action")
        self.addresses += [str(found[name]) for name in names if found.get(name)]


def page_of(folder: Path) -> tuple[str, Outline]:
    page = write_report(folder).read_text()
    outline = Outline()
    outline.feed(page)
    assert not outline.open
    return page, outline


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Outline]:
    """The page of the usual run: two units, ten classes, references on."""
    return page_of(run_folder(tmp_path_factory.mktemp("run")))


@pytest.mark.parametrize(("units", "classes"), [(1, 20), (3, 2)])
def test_a_report_draws_every_unit_and_class(tmp_path: Path, units: int, classes: int) -> None:
    names = [f"class number {i}" for i in range(classes)]
    page, outline = page_of(run_folder(tmp_path, units=units, classes=names))
    # network, comparison, kernel, probes, readouts, confusion, legend; and per
    # unit the information plane, two maps and the weights.
    assert outline.tags.count("svg") == 7 + 4 * units
    assert page.count("class number 1") > 3


def test_a_report_fetches_nothing_and_runs_nothing(usual: tuple[str, Outline]) -> None:
    page, outline = usual
    assert not {"script", "link", "iframe", "object", "embed"} & set(outline.tags)
    assert all(a.startswith(("#", "data:image/png;base64,")) for a in outline.addresses)
    assert not re.search(r"@import|url\((?!#)", page)


def test_ids_on_the_page_are_unique_and_every_inner_link_has_its_target(
    usual: tuple[str, Outline],
) -> None:
    page, outline = usual
    assert len(set(outline.ids)) == len(outline.ids)
    links = re.findall(r"url\(#([^)]+)\)", page)
    links += [a[1:] for a in outline.addresses if a.startswith("#")]
    assert links and set(links) <= set(outline.ids)


def test_a_missed_bound_is_named_at_the_top(usual: tuple[str, Outline]) -> None:
    page, _ = usual
    assert page.index("misses its bound") < page.index("wall_seconds") < page.index("The network")


def test_a_reference_stands_with_its_error_and_its_gap(usual: tuple[str, Outline]) -> None:
    page, _ = usual
    row = page[page.index("<td>backpropagation, digital</td>") :].split("</tr>")[0]
    assert "98.10" in row and "0.70" in row and "\N{MINUS SIGN}0.90" in row


def test_without_references_and_i_xz_the_report_says_so(tmp_path: Path) -> None:
    page, _ = page_of(run_folder(tmp_path, references=False, i_xz=False))
    assert "References were switched off" in page and "Beside its references" not in page
    assert "I(X;Z) was not recorded for unit 1, unit 2" in page
    assert "I(X;Z) / bit" not in page


def test_names_from_outside_are_text_and_never_markup(tmp_path: Path) -> None:
    names = ["<script>alert(1)</script>", "a & b", 'say "hi"', "costs $5 or $6", "雪"]
    page, outline = page_of(run_folder(tmp_path, classes=names))
    assert "script" not in outline.tags
    assert "costs $5 or $6" in page and "雪" in page


def test_a_run_without_history_still_gets_a_report(tmp_path: Path) -> None:
    (run_folder(tmp_path) / "history.nc").unlink()
    page, _ = page_of(tmp_path)
    assert "no record of its training steps" in page


def test_a_bare_summary_gets_a_report(tmp_path: Path) -> None:
    Summary("pib-twin bench").write(tmp_path)
    page, _ = page_of(tmp_path)
    assert "No references were recorded" in page


def test_a_damaged_history_is_named(tmp_path: Path) -> None:
    path = run_folder(tmp_path) / "history.nc"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"history\.nc: damaged"):
        write_report(tmp_path)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run folder"):
        write_report(tmp_path)


def test_the_same_run_gives_the_same_page_and_leaves_matplotlib_alone(
    tmp_path: Path, usual: tuple[str, Outline]
) -> None:
    before = dict(mpl.rcParams)
    assert write_report(run_folder(tmp_path)).read_text() == usual[0]
    assert dict(mpl.rcParams) == before


def test_every_drawing_is_well_formed_xml_with_theme_colours() -> None:
    points = np.random.default_rng(0).normal(size=(40, 5))
    figure = maps.feature_map(points, np.arange(40) % 2, ["<a>", "$5 & $6"], "map")
    text = svg(figure, "map", 'a "map" of <two> & more')
    words = [element.text for element in ElementTree.fromstring(text).iter() if element.text]
    assert "map" in words and "$5 & $6" in words
    assert "currentColor" in text and "#010203" not in text


def test_pca_keeps_the_distances_of_points_in_a_plane() -> None:
    rng = np.random.default_rng(3)
    flat = rng.normal(size=(50, 2))
    turned = flat @ np.linalg.qr(rng.normal(size=(7, 7)))[0][:2] + 4.0
    points, _ = maps.embed(turned)
    gaps = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.testing.assert_allclose(gaps, np.linalg.norm(flat[:, None] - flat[None], axis=-1), atol=1e-9)


@pytest.mark.parametrize("width", [1, 2])
def test_pca_of_narrow_or_constant_features_is_finite(width: int) -> None:
    for features in (np.ones((6, width)), np.arange(6.0 * width).reshape(6, width)):
        points, _ = maps.embed(features)
        assert points.shape == (6, 2) and np.isfinite(points).all()


def test_asking_for_umap_without_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    with pytest.raises(Unsupported, match=r"pib-twin\[umap\]"):
        maps.embed(np.zeros((5, 3)), "umap")


@pytest.mark.slow
def test_a_umap_leaves_the_number_of_threads_of_everybody_else() -> None:
    pytest.importorskip("umap")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        maps.embed(np.random.default_rng(0).normal(size=(60, 5)), "umap")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
