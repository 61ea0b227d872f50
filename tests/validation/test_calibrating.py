"""`pib-twin probe`, `calibrate`, `fidelity`, `recording`: from a device to a twin of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from twin.backend import MinimalBackend
from twin.complete import complete
from twin.key import Key
from twin.recording import Recording
from twin.registry import open_backend
from validation import calibrating, conformance
from validation.cli import app

SIZES = {
    "memristor": ["--option", "inputs=8", "--option", "outputs=4"],
    "optics": ["--option", "inputs=8", "--option", "pixels=12"],
}


def typed(*words: object) -> tuple[int, str]:
    found = CliRunner().invoke(app, [str(word) for word in words])
    return found.exit_code, found.output


@pytest.fixture(scope="module", params=SIZES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recording and a calibration of the kind that its name ends with."""
    kind = str(request.param)
    folder = tmp_path_factory.mktemp("calibrated") / kind
    folder.mkdir()
    code, told = typed("probe", kind, folder / "probed", "--passes", 2000, *SIZES[kind])
    assert code == 0, told
    code, told = typed(
        "calibrate", folder / "probed", "--twin", kind, "--out", folder / "calibration"
    )
    assert code == 0, told
    assert "held out" in told and "95 % from" in told
    return folder


def test_a_probe_takes_as_many_passes_as_it_says_and_its_recording_is_sound(made: Path) -> None:
    passes = sum(call.passes for call in Recording.load(made / "probed").calls)
    assert passes == 2000
    code, told = typed("recording", made / "probed")
    assert code == 0 and "all as recorded" in told


def test_a_damaged_recording_is_told_by_the_exit_code(made: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(made / "probed", copy)
    block = sorted((copy / "calls").iterdir())[3]
    content = bytearray(block.read_bytes())
    content[len(content) // 2] ^= 1
    block.write_bytes(bytes(content))
    assert typed("recording", copy)[0] != 0


def test_a_calibration_is_a_backend_that_keeps_the_contract(made: Path) -> None:
    uri = f"twin:{made / 'calibration'}"
    outcomes = conformance.run_checks(lambda: open_backend(uri, key=Key(1)))
    assert [o for o in outcomes if o.status == "failed"] == []


def test_the_twin_of_fixed_physics_is_as_close_as_the_device_is_to_itself(made: Path) -> None:
    """2,000 probes of a small rig; a chip is written anew here, each write with its own error."""
    kind, out = made.name, made / "fidelity"
    uri = f"twin:{made / 'calibration'}"
    code, told = typed("fidelity", uri, kind, *SIZES[kind], "--out", out)
    assert code == 0, told
    figures = {
        f["name"]: f["value"] for f in json.loads((out / "summary.json").read_text())["figures"]
    }
    assert figures["fidelity/correlation"] > 0.98
    assert figures["fidelity/ratio"] < (1.5 if kind == "optics" else 5)


def test_what_is_there_is_not_overwritten_and_a_wrong_kind_is_named(made: Path) -> None:
    kind = made.name
    code, told = typed("probe", kind, made / "probed", *SIZES[kind])
    assert code == 2 and "exists already" in told
    words = ("calibrate", made / "probed", "--out")
    code, told = typed(*words, made / "calibration", "--twin", kind)
    assert code == 2 and "exists already" in told
    code, told = typed(*words, made / "other", "--twin", "memristors")
    assert code == 2 and "Did you mean 'memristor'" in told


def test_options_of_a_twin_are_in_its_file(made: Path) -> None:
    uri = f"twin:{made / 'calibration'}"
    code, told = typed("fidelity", uri, made.name, *SIZES[made.name], "--twin-option", "what=3")
    assert code == 2 and "what" in told


def test_a_device_that_somebody_ranged_on_weak_drives_is_told_after_its_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a training: 46 % of the readings were cut off and nobody said so."""

    def used(name: str, **options: object) -> MinimalBackend:
        chip = complete(open_backend(name, **options))  # type: ignore[arg-type]
        chip.program(torch.full((8, 4), 0.05), key=Key(1))
        chip.set_range(torch.full((8, 8), 0.05), key=Key(2))
        return chip

    monkeypatch.setattr(calibrating, "open_backend", used)
    code, told = typed("probe", "memristor", tmp_path / "p", "--passes", 300, *SIZES["memristor"])
    assert code == 0
    assert "stood at an end of the converters' range" in " ".join(told.split())


def test_a_device_without_a_twin_model_is_refused_before_any_pass(tmp_path: Path) -> None:
    """Mirrors: a probe would run, and only its calibration would find that it was for nothing."""
    mirrors = [*SIZES["optics"], "--option", "modulator.kind=dmd"]
    code, told = typed("probe", "optics", tmp_path / "p", "--passes", 300, *mirrors)
    assert code == 2 and "'rad'" in told and not (tmp_path / "p").exists(), told
