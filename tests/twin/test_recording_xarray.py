"""xarray opens a recording: every number is where its name says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from tests.planted import OUTPUTS, Healthy
from tests.twin.tapes import drive, play, weights
from twin.errors import DataError
from twin.faulty import Faulty
from twin.key import Key
from twin.recording import Recording, dataset
from twin.recordingxarray import UNKNOWN_VERSION, RecordingEntrypoint, as_dataset
from twin.wrap import Recorded


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    play(Recorded(Healthy(Key(3)), to=tmp_path / "run"))
    return tmp_path / "run"


def test_calls_are_in_their_order_with_what_they_cost(folder: Path) -> None:
    calls, found = Recording.load(folder).calls, dataset(folder)
    assert found["kind"].values.tolist() == [c.kind for c in calls]
    assert found["error"].values.tolist() == [c.error[0] if c.error else "" for c in calls]
    assert found["device_seconds"].values.tolist() == [c.device_seconds for c in calls]
    assert found["passes"].values.tolist() == [c.passes for c in calls]
    assert found["id"].values[7] == "r-5" and found["key"].values[7] == "a/1"
    assert found["version_before"].values[0] == UNKNOWN_VERSION
    assert found["wait"].values[6] == 12.5
    assert (found["dial"].values[4], found["value"].values[4]) == ("drift", 0.1)
    assert (found["ended"] >= found["began"]).all()
    assert found.attrs["device_id"] == "planted-3" and found.attrs["closed"] == 1


def test_every_reading_is_found_by_its_call_sample_and_shot(folder: Path) -> None:
    calls, found = Recording.load(folder).calls, dataset(folder)
    # Batches of 3, 1 and 3; the first with two shots.
    assert dict(found.sizes)["sample"] == 7 and dict(found.sizes)["pass"] == 10
    seen = 0
    for one in range(found.sizes["pass"]):
        sample = int(found["pass_sample"][one])
        call = calls[int(found["sample_call"][sample])]
        row = int((found["sample_call"][:sample] == found["sample_call"][sample]).sum())
        shot = int(found["pass_shot"][one])
        given = call.inputs["drive"]
        given = given["in"] if isinstance(given, dict) else given
        codes = call.answer.codes if call.inputs["shots"] else call.answer.codes[None]
        assert np.array_equal(found["drive_in"][sample], given[row])
        assert np.array_equal(found["codes_out"][one], codes[shot, row])
        assert int(found["sample_number"][sample]) == call.inputs["first_sample"] + row
        seen += 1
    assert seen == 10
    assert np.array_equal(found["setting_weights"][0], weights())
    assert int(found["write_call"][0]) == 1


def test_units_and_full_scales_are_attributes(folder: Path) -> None:
    found, ports = dataset(folder), Healthy(Key(3)).capabilities
    assert found["codes_out"].attrs["step"] == ports.readings[0].step
    assert found["codes_out"].attrs["full_scale_units"] == "V"
    assert found["setting_weights"].attrs["full_scale"] == 1e-4
    assert found["joules"].attrs["units"] == "J"
    assert found["codes_out"].dtype == np.int32


def test_xarray_opens_the_folder_by_the_engine(folder: Path) -> None:
    with xr.open_dataset(folder, engine=RecordingEntrypoint) as opened:
        xr.testing.assert_identical(opened.load(), dataset(folder))
    engine = RecordingEntrypoint()
    assert engine.guess_can_open(folder) and engine.guess_can_open(str(folder))
    assert not engine.guess_can_open(folder.parent) and not engine.guess_can_open(b"")
    assert "joules" not in engine.open_dataset(folder, drop_variables=["joules"])


def test_a_recording_as_arrays_can_be_kept_as_netcdf(folder: Path, tmp_path: Path) -> None:
    made = dataset(folder)
    made.to_netcdf(tmp_path / "run.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "run.nc", engine="h5netcdf") as again:
        assert np.array_equal(again["codes_out"], made["codes_out"])
        assert again["kind"].values.tolist() == made["kind"].values.tolist()


def test_failed_and_malformed_passes_are_calls_and_not_samples() -> None:
    device = Recorded(Faulty(Healthy(Key(3)), Key(0), at={1: "shape", 2: "dtype"}))
    for seed in range(3):
        device.forward(drive(seed=seed), key=Key(1))
    found = as_dataset(device.recording)
    assert found.sizes["call"] == 3
    assert set(found["sample_call"].values.tolist()) <= {1, 2}
    assert not (found["sample_call"] == 0).any()


def test_a_range_of_each_column_keeps_its_shape() -> None:
    device = Recorded(Healthy(Key(3)))
    device.forward(drive(), key=Key(1))
    device.wait(1.0)
    (forward, wait) = device.recording.calls
    ratio = torch.arange(1.0, OUTPUTS + 1)
    called = replace(forward, answer=replace(forward.answer, ratio=ratio))
    found = as_dataset(replace(device.recording, calls=(called, wait)))
    assert np.array_equal(found["ratio"][0], ratio)
    assert found["ratio"][1].isnull().all()


def test_an_empty_recording_is_an_empty_dataset() -> None:
    found = as_dataset(Recorded(Healthy(Key(3))).recording)
    assert dict(found.sizes)["call"] == dict(found.sizes)["sample"] == 0
    assert found["drive_in"].shape == (0, 6)


def test_a_damaged_recording_is_not_opened(folder: Path) -> None:
    path = folder / "calls" / "000000002.block"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=path.name):
        xr.open_dataset(folder, engine=RecordingEntrypoint)
