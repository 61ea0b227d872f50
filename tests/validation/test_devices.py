"""The devices of a run in its report: right numbers, an untouched run, a page."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from substrates.memristor.crossbar import Crossbar, make
from substrates.memristor.nodal import nodal_oracle
from substrates.memristor.wires import interleaved
from tests.pib.tiny import same_tensors
from tests.validation.test_report import page_of
from tests.validation.test_run import TOML, config, digits, job, network_of
from twin.errors import ConfigError
from twin.key import Key
from validation import devices, memristor_devices
from validation import run as running
from validation.config import RunConfig, load_config
from validation.evaluation import open_run
from validation.exactwires import through_exact_wires
from validation.experiment import build_network, seen_by_readout, tensors
from validation.run import run

SEVERITIES = ("memristor-mild", "memristor-moderate", "memristor-severe")
EVERYTHING = """
options = { preset = "cmo-hfox", array_rows = 16, array_cols = 8, linear_cells = true, \
word_ohm = 2.0, bit_ohm = 1.0, driver_ohm = 10.0, wire_refresh = 3, rtn_active_fraction = 0.2, \
adc_gain_spread = 0.05, adc_offset_lsb = 2.0, adc_inl_lsb = 0.5, adc_noise_lsb = 0.3, \
stuck_cell_fraction = 0.02, stuck_column_fraction = 0.2 }
"""
ALL_ON = TOML.replace("outputs = 12", "outputs = 12" + EVERYTHING)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose first unit has all non-idealities and whose second is a default chip."""
    folder = tmp_path_factory.mktemp("run")
    run(job(folder, ALL_ON))
    return folder


@pytest.fixture(scope="module")
def first(folder: Path) -> xr.Dataset:
    """The record of unit 1, read from the folder."""
    return devices.of_unit(history_of(folder), 1)


def history_of(folder: Path) -> xr.Dataset:
    with xr.open_dataset(folder / "history.nc", engine="h5netcdf") as history:
        return history.load()


def chip_of(folder: Path, unit: int = 0) -> Crossbar:
    """A unit's chip as it was before the test images."""
    backend = open_run(folder).network.units[unit].fence._backend
    assert isinstance(backend, Crossbar)
    return backend


def written(**options: Any) -> Crossbar:
    chip = make(key=Key(1), **{"inputs": 20, "outputs": 12, **options})
    weights = torch.rand((20, 12), generator=Key(5).torch()) * 2 - 1
    chip.program(weights, key=Key(2))
    return chip


def chip_dataset(**options: Any) -> xr.Dataset:
    return xr.Dataset(memristor_devices.measured(written(**options)))


# ---- the numbers ---------------------------------------------------------------


def test_shots_of_the_quiet_cell_have_the_spread_of_its_law(first: xr.Dataset) -> None:
    """5000 shots: five standard errors of their mean and of their spread."""
    reads = first["quiet"]
    sigma, n = reads.attrs["sigma_siemens"], reads.size
    assert abs(float(reads.mean()) - reads.attrs["mean_siemens"]) < 5 * sigma / math.sqrt(n)
    assert float(reads.std()) == pytest.approx(sigma, rel=5 / math.sqrt(2 * n))
    # CMO/HfOx reads of 1 us show 0.6 %, log-normal over cells with spread 0.5.
    assert 0.006 * math.exp(-2.5) < sigma / 23.4e-6 < 0.006 * math.exp(2.5)
    # 1536 cells over a window of 82 uS.
    assert abs(reads.attrs["mean_siemens"] - 23.4e-6) < 0.5e-6
    assert reads.attrs["units"] == "S" and reads.attrs["reference"] == "23.4 uS"


def test_the_trapped_cell_is_filled_as_often_as_its_law_says(first: xr.Dataset) -> None:
    """Shots one relaxation time apart: correlation 1/e, so 46 % of 5000 count."""
    reads = first["trapped"]
    a = reads.attrs
    middle = a["mean_siemens"] * (1 - a["loss"] / 2)
    filled, share = float((reads < middle).mean()), a["filled_share"]
    step = a["loss"] * a["mean_siemens"]
    hidden = math.erfc(step / 2 / a["sigma_siemens"] / math.sqrt(2)) / 2
    error = math.sqrt(share * (1 - share) / (0.46 * reads.size))
    assert abs(filled - share) < 5 * error + hidden
    assert step > 3 * a["sigma_siemens"], "a step that the noise hides shows nothing"


def test_cells_drift_from_where_training_left_them_as_their_law_says(first: xr.Dataset) -> None:
    """CMO/HfOx: 0.089 uS lost and 0.042 uS gained in spread per unit of ln t."""
    cells, times = first["drift"].values, first["drift_s"].values
    assert (times[0], times[-1]) == (pytest.approx(1.0), pytest.approx(1e6))
    age = first["drift"].attrs["age_s"]
    units = np.log(np.maximum(times + age, 1.0)) - math.log(max(times[0] + age, 1.0))
    law = first["drift_law"].values
    np.testing.assert_allclose(law - law[0], -0.089e-6 * units, atol=1e-9)
    moved = cells[:, -1] - cells[:, 0]
    spread = 0.042e-6 * units[-1]
    assert abs(moved.mean() + 0.089e-6 * units[-1]) < 5 * spread / math.sqrt(len(cells))
    assert moved.std(ddof=1) == pytest.approx(spread, rel=5 / math.sqrt(2 * len(cells)))


def test_the_drift_begins_at_the_conductances_at_the_end_of_training(
    first: xr.Dataset, folder: Path
) -> None:
    chip = chip_of(folder)
    chip.wait(1.0)
    found = first["drift"].values[:, 0]
    everything = chip.conductances().flatten().numpy()
    assert np.isin(found, everything).all()


def test_the_map_of_the_wires_solves_kirchhoffs_equations(first: xr.Dataset, folder: Path) -> None:
    """Against a sparse solve of every node of the chip's first array."""
    chip = chip_of(folder)
    ratio = first["ir_drop"].values
    rows, cols = chip.layout.tiling.rows[0], chip.layout.tiling.cols[0]
    g = interleaved(chip.conductances()[:, rows, cols]).double()
    assert ratio.shape == tuple(g.shape)
    wires = chip.parts.wiring.wires(chip._dials)
    exact = nodal_oracle(g, torch.eye(len(g), dtype=torch.float64), wires).currents
    shown = np.isfinite(ratio)
    np.testing.assert_allclose((ratio * g.numpy())[shown], exact.numpy()[shown], rtol=1e-5)
    assert (g.numpy()[~shown] < 0.9e-6 * 1.001).all(), "only faint cells are left blank"
    near, far = np.nanmean(ratio[:, 0]), np.nanmean(ratio[:, -1])
    assert near > far, "the far end of the word lines sees less"


def test_the_drawn_converter_is_the_worst_that_works(first: xr.Dataset, folder: Path) -> None:
    chip, codes = chip_of(folder), first["adc_codes"]
    a = codes.attrs
    errors = chip.parts.converters.errors(chip._dials, torch.device("cpu"))
    assert errors.factor is not None and errors.offset is not None and errors.inl is not None
    here = (int(a["converter"]), int(a["column"]))
    assert not bool(chip.parts.faults.columns(chip._dials).mask[here[1]])
    assert float(errors.factor[here]) == pytest.approx(1 + a["gain_error"])
    ideal = first["adc_ideal_codes"].values
    off = codes.values - ideal
    u = ideal / 128
    bow = a["bow_lsb"] * 1.5 * math.sqrt(3) * (u - u**3)
    # Two roundings; the bow bends with the signal after gain and offset.
    inner = (np.abs(ideal) < 100) & (np.abs(codes.values) < 127)
    expected = a["gain_error"] * ideal + a["offset_lsb"] + bow
    assert np.abs(off - expected)[inner].max() < 1.2
    working = ~chip.parts.faults.columns(chip._dials).mask
    rough = (errors.offset.abs() + 128 * (errors.factor - 1).abs())[:, working].max()
    assert np.abs(expected).max() > 0.8 * float(rough) - 1


def test_the_current_axis_ends_where_the_ranged_converter_does(
    first: xr.Dataset, folder: Path
) -> None:
    chip = chip_of(folder)
    column = int(first["adc_codes"].attrs["column"])
    nominal = chip.capabilities.readings[0].full_scale
    found = float(first["adc_amperes"][-1]) / 1.15
    assert found == pytest.approx(nominal * float(chip._ratio[column]), rel=1e-5)


def test_the_table_says_what_the_chip_is(first: xr.Dataset) -> None:
    facts = dict(first["facts"].values.tolist())
    assert facts["technology"] == "cmo-hfox-2"
    assert facts["window"] == "8 to 90 uS"
    assert facts["weights"] == "64 x 12 on 4 x 2 arrays of at most 16 x 8"
    assert facts["word ohm"].startswith("2 ohm") and facts["driver ohm"] == "10 ohm"
    assert "every 3 writes" in facts["wires"] and "exactly from then on" in facts["wires"]
    assert "left out" in facts["I-V"]
    assert "stuck low fraction" not in facts, "what is off is not listed"


# ---- other chips -----------------------------------------------------------------


def test_a_window_without_the_usual_state_is_shown_at_its_middle() -> None:
    data = chip_dataset(technology="hfo2-igvva100", linear_cells=True)
    assert data["quiet"].attrs["reference"] == "mid-window, 137.5 uS"
    assert abs(data["quiet"].attrs["mean_siemens"] - 137.5e-6) < 5e-6
    assert "drift" not in data, "no published drift, none drawn"


@pytest.mark.parametrize("technology", ["neurram-hfox", "pcm-joshi"])
def test_drift_ends_with_the_data_of_the_technology(technology: str) -> None:
    chip = written(technology=technology)
    assert chip.technology is not None and chip.technology.relaxation is not None
    last_s = chip.technology.relaxation.last_s
    data = xr.Dataset(memristor_devices.measured(chip))
    end = float(data["drift_s"][-1])
    assert end <= min(last_s, 1e6) and end > 0.99 * min(last_s, 1e6)


def test_an_ideal_chip_has_a_table_and_no_pictures() -> None:
    data = chip_dataset(preset="ideal")
    assert set(data) == {"facts"}
    assert memristor_devices.drawings(data, "unit 1") == []


@pytest.mark.parametrize(
    "options",
    [
        {"encoding": "offset"},
        {"encoding": "sliced", "slices": 2, "slice_bits": 2, "pair_layout": "separate"},
        {"dac_phases": 4, "rtn_active_fraction": 1.0},
        {"array_rows": 7, "stuck_column_fraction": 1.0, "stuck_cell_fraction": 1.0},
        {"g_min_siemens": 0.0, "programming_error": 0.0, "technology": "neurram-hfox"},
    ],
    ids=["offset", "sliced", "all trapped", "all broken", "empty cells"],
)
def test_any_chip_can_be_drawn(options: dict[str, Any]) -> None:
    wires = {"word_ohm": 1.0, "adc_gain_spread": 0.02, "linear_cells": True}
    data = chip_dataset(**wires, **options)
    drawn = memristor_devices.drawings(data, "unit 1")
    assert len({d.name for d in drawn}) == len(drawn) == len(set(data) & {
        "quiet", "trapped", "drift", "ir_drop", "adc_codes"
    })  # fmt: skip
    ratio = data["ir_drop"].values
    assert (ratio[np.isfinite(ratio)] > 0).all() and (ratio[np.isfinite(ratio)] < 1.001).all()
    assert np.isfinite(ratio).mean() > 0.3
    assert all(v.attrs.get("units") for n, v in data.items() if n != "facts")


def test_a_trap_alone_has_the_history_it_has_among_others() -> None:
    (traps,) = written(rtn_active_fraction=0.3).parts.cells.traps({"rtn_active_fraction": 0.3})
    times = torch.linspace(0, 50, 400, dtype=torch.float64)
    among = traps.history(times)
    for i in range(0, len(traps), 17):
        assert torch.equal(traps.only(i).history(times)[:, 0], among[:, i])


def test_linear_cells_leave_out_the_curve_and_nothing_else() -> None:
    curved = written(technology="neurram-hfox")
    linear = written(technology="neurram-hfox", linear_cells=True)
    assert curved.parts.curve is not None and linear.parts.curve is None
    written(technology="neurram-hfox", linear_cells=True, word_ohm=1.0)
    with pytest.raises(ConfigError, match="linear_cells"):
        written(technology="neurram-hfox", word_ohm=1.0)
    with pytest.raises(ConfigError, match="cubic_per_v2"):
        written(linear_cells=True, cubic_per_v2=0.1)


# ---- the run ---------------------------------------------------------------------


def test_looking_at_the_devices_changes_nothing_of_the_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running.devices, "measured", lambda *_, **__: xr.Dataset())
    run(job(tmp_path, ALL_ON))
    assert same_tensors(network_of(folder), network_of(tmp_path))
    blind, seen = history_of(tmp_path), history_of(folder)
    pictures = [name for name in seen.data_vars if str(name).startswith(devices.PREFIX)]
    assert len(pictures) > 10
    # Among them the features of the test images, measured after the pictures.
    xr.testing.assert_equal(seen.drop_vars(pictures), blind)


def test_what_is_reported_is_measured_through_exact_wires(folder: Path) -> None:
    """In training they were solved every third write."""
    chip = chip_of(folder)
    assert chip.config.wire_refresh == 3
    assert chip.snapshot().values["wire_refresh"] == 1
    assert chip.wire_error() == 0
    trained = open_run(folder)
    x, y = tensors(digits()).test
    features = trained.network.features(x, key=Key(3).child("test"))
    ended_with = float(history_of(folder)["confusion"].values.trace()) / 120
    accuracy = trained.readout.accuracy(seen_by_readout(trained.config, features), y)
    assert accuracy == pytest.approx(ended_with)


def test_exact_wires_stay_as_they_are_and_features_are_not_measured_again() -> None:
    network = build_network(config(), 64, key=Key(0))
    before = [torch.zeros(3, 12), torch.zeros(3, 8)]
    after = through_exact_wires(network, before, torch.zeros(3, 64), key=Key(0))
    assert all(a is b for a, b in zip(after, before, strict=True))
    assert network.units[0].fence.ledger.rows() == []


def test_devices_of_other_kinds_are_left_out() -> None:
    optical = TOML.replace(
        "[[unit]]", '[[unit]]\nbackend = "optics"\nkind = "broken-isomorphism"\n'
        "options = { pixels = 40 }", 1
    )  # fmt: skip
    found = config(optical)
    network = build_network(found, 64, key=Key(0))
    names = {str(n).split("_")[1] for n in devices.measured(found, network, key=Key(0))}
    assert names == {"2"}


# ---- the page --------------------------------------------------------------------


def test_the_report_shows_every_chip(folder: Path) -> None:
    page, outline = page_of(folder)
    section = page[page.index("<h2>The devices") :].split("</section>")[0]
    assert section.count("<h3>unit") == 2
    for text in ("nearest to 23.4 uS", "active trap", "IR drop in the first array",
                 "The converter furthest", "since the end of training",
                 "cmo-hfox-2", "every 3 writes"):  # fmt: skip
        assert text in section, text
    # The default chip in unit 2 has read noise and drift only; 23.4 uS is outside.
    assert "mid-window, 11 uS" in section
    assert section.count("<svg") == 5 + 2
    assert len(set(outline.ids)) == len(outline.ids)
    assert all(a.startswith(("#", "data:image/png;base64,")) for a in outline.addresses)


def test_a_run_folder_from_before_is_drawn_without_them(folder: Path, tmp_path: Path) -> None:
    old = history_of(folder)
    old = old.drop_vars([n for n in old.data_vars if str(n).startswith(devices.PREFIX)])
    old.to_netcdf(tmp_path / "history.nc", engine="h5netcdf")
    (tmp_path / "summary.json").write_bytes((folder / "summary.json").read_bytes())
    page, _ = page_of(tmp_path)
    assert "The devices" not in page
    assert "No pictures of the device were recorded for unit 1, unit 2." in page


# ---- the presets -----------------------------------------------------------------


def dials_of(found: RunConfig, unit: int) -> dict[str, float]:
    network = build_network(found, 64, key=Key(0))
    return {d.name: d.default for d in network.units[unit].fence.capabilities.dials if not d.shape}


@pytest.mark.parametrize("name", SEVERITIES)
def test_a_severity_preset_has_every_non_ideality_on_in_both_units(name: str) -> None:
    found = load_config(name)
    assert found.network.shared_clock
    assert [(u.outputs, u.epochs) for u in found.unit] == [(128, 60), (64, 60)]
    assert found.unit[0].options == found.unit[1].options
    for unit in (0, 1):
        dials = dials_of(found, unit)
        for dial in ("word_ohm", "bit_ohm", "adc_gain_spread", "adc_offset_lsb", "adc_inl_lsb",
                     "adc_noise_lsb", "thermal_floor", "rtn_active_fraction",
                     "stuck_cell_fraction", "programming_scale", "relaxation_scale",
                     "read_noise_scale"):  # fmt: skip
            assert dials[dial] > 0, dial
        assert dials["wire_refresh"] == 20


def test_severities_rise_in_every_dial() -> None:
    mild, moderate, severe = (dials_of(load_config(name), 0) for name in SEVERITIES)
    for name, value in mild.items():
        assert value <= moderate[name] <= severe[name], name
    bits = [load_config(name).unit[0].options["adc_bits"] for name in SEVERITIES]
    assert bits == [8, 7, 5]
