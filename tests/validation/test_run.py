"""One run from end to end on a handful of digits: what it leaves, repeats and refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr

from pib import checkpoint
from pib.local import LocalTraining
from pib.train import Trainer
from substrates.memristor.crossbar import Crossbar
from tests.pib.tiny import same_tensors
from twin.errors import CheckpointError, ConfigError, UnknownName
from twin.key import Key
from validation import datasets, evaluation, references, summary
from validation import run as running
from validation.config import RunConfig, load_config, parse_config, presets
from validation.evaluation import Place, open_run
from validation.experiment import seen_by_readout, tensors
from validation.export import export
from validation.job import Job, Silent
from validation.run import run

ROOT = Path(__file__).parent.parent.parent
TOML = """
[augment]
noise = 0.1

[training]
batch = 50
warm_up = 2
range_every = 3

[[unit]]
outputs = 12
epochs = 2

[[unit]]
outputs = 8
epochs = 2

[readout]
epochs = 1
"""
OPTICAL = TOML.replace(
    "[[unit]]", '[[unit]]\nbackend = "optics"\nkind = "broken-isomorphism"\nrecapture = "epoch"\n'
    "options = { pixels = 40 }", 1
)  # fmt: skip


def config(text: str = TOML) -> RunConfig:
    return parse_config(text, "test")


def job(out: Path, text: str = TOML, **changes: object) -> Job:
    given = {"config": config(text), "data": digits(), "seed": 3, "out": out, "references": False}
    return Job(**(given | changes))  # type: ignore[arg-type]


def digits() -> datasets.Dataset:
    data = datasets.load("digits", limit=100)
    few = slice(0, 120)
    return replace(data, test_x=data.test_x[few], test_y=data.test_y[few])


@dataclass(frozen=True)
class Done:
    folder: Path
    summary: summary.Summary
    said: list[str]


class Listener(Silent):
    """Keeps what was said; may do something after a step."""

    def __init__(self, after: Callable[[Trainer], None] = lambda _: None) -> None:
        self.said: list[str] = []
        self.after = after

    def step(self, trainer: Trainer) -> None:
        self.after(trainer)

    def say(self, what: str) -> None:
        self.said.append(what)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A run with its references, and a cache of its own."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIB_TWIN_CACHE", str(folder / "cache"))
        listener = Listener()
        bounds = {"accuracy": ">= 0.0", "never_measured": ">= 0.5"}
        found = run(job(folder / "one", references=True, bounds=bounds), listener)
    return Done(folder / "one", found, listener.said)


@pytest.fixture(scope="module")
def optical(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("optical")
    return Done(folder, run(job(folder, OPTICAL)), [])


def values(found: summary.Summary) -> dict[str, float | None]:
    return {f.name: f.value for f in found.figures}


def network_of(folder: Path) -> dict[str, torch.Tensor]:
    return dict(checkpoint.load(folder / "network").arrays)


# ---- what a run leaves -------------------------------------------------------


def test_a_run_leaves_its_folder(done: Done) -> None:
    for name in ("config.json", "summary.json", "history.nc", "run.txt"):
        assert (done.folder / name).is_file()
    for name in ("checkpoint", "network"):
        assert (done.folder / name / "manifest.json").is_file()
    assert not [p for p in done.folder.rglob("*") if p.suffix in (".pt", ".pkl", ".pickle", ".tmp")]


def test_the_summary_names_the_figures_and_their_spread(done: Done) -> None:
    figures = {
        f["name"]: f for f in json.loads((done.folder / "summary.json").read_text())["figures"]
    }
    wanted = {"accuracy", "accuracy_backprop_digital", "accuracy_backprop_deployed",
              "accuracy_backprop_deployed_retrained", "accuracy_local_cross_entropy",
              "accuracy_linear_on_physics", "accuracy_untrained", "accuracy_unit_1",
              "gap_to_backprop_deployed", "gain_of_later_units", "wall_seconds"}  # fmt: skip
    assert wanted <= set(figures)
    for name in wanted - {"wall_seconds"}:
        assert figures[name]["n"] == 120
        assert figures[name]["seeds"] == [3]
    accuracy = figures["accuracy"]
    assert 0.3 < accuracy["value"] <= 1
    p = accuracy["value"]
    # At most a plain binomial error and never zero.
    assert 0 < accuracy["standard_error"] <= max((p * (1 - p) / 120) ** 0.5 * 1.2, 0.02)
    assert accuracy["holds"] is True
    assert figures["never_measured"]["holds"] is False, "an absent figure has failed"
    gap = figures["accuracy_backprop_deployed"]["value"] - p
    assert figures["gap_to_backprop_deployed"]["value"] == pytest.approx(gap)


def test_the_history_has_every_unit_and_its_confusion_adds_up(done: Done) -> None:
    with xr.open_dataset(done.folder / "history.nc", engine="h5netcdf") as history:
        assert list(history.unit.values) == ["unit 1", "unit 2"]
        assert bool(history.loss.notnull().all())
        assert int(history.confusion.sum()) == 120
        right = float(history.confusion.values.trace()) / 120
        assert right == pytest.approx(values(done.summary)["accuracy"])
        assert history.features_before_1.shape == (120, 12)


def test_a_run_without_references_says_so(optical: Done) -> None:
    assert optical.summary.extra["references_off"] is True
    assert "accuracy_untrained" not in values(optical.summary)


def test_references_are_answered_from_the_cache_the_second_time(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "reference: backpropagation" in done.said
    monkeypatch.setenv("PIB_TWIN_CACHE", str(done.folder.parent / "cache"))
    monkeypatch.setattr(references, "backprop_digital", None)  # to be called no more
    said: list[str] = []
    data = tensors(digits())
    found = references.references(
        config(), data, key=Key(3), cache=references.cache_folder(), say=said.append
    )
    assert said == ["references: cached"]
    kept = values(done.summary)
    assert all(kept.get(name) == value for name, value in vars(found).items())


def test_another_question_is_not_answered_from_the_cache() -> None:
    data, other = tensors(digits()), tensors(replace(digits(), train_x=1 - digits().train_x))
    questions = {
        references._question(config(), data, Key(3)),
        references._question(config(), data, Key(4)),
        references._question(config(), other, Key(3)),
        references._question(config(TOML.replace("outputs = 8", "outputs = 9")), data, Key(3)),
    }
    assert len(questions) == 4


# ---- opened again -----------------------------------------------------------


@pytest.mark.parametrize("which", ["done", "optical"])
def test_an_opened_run_measures_the_accuracy_it_ended_with(
    which: str, request: pytest.FixtureRequest
) -> None:
    finished: Done = request.getfixturevalue(which)
    trained = open_run(finished.folder)
    x, y = tensors(digits()).test
    features = trained.network.features(x, key=Key(3).child("test"))
    accuracy = trained.readout.accuracy(seen_by_readout(trained.config, features), y)
    assert accuracy == values(finished.summary)["accuracy"]
    assert trained.seed == 3
    trained.network.close()


@pytest.mark.parametrize("after", [0.0, 1e7])
def test_evaluate_repeats_the_run_unless_time_has_passed(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: float
) -> None:
    data = digits()
    monkeypatch.setattr(datasets, "load", lambda *_, **__: data)
    found = evaluation.main(done.folder, Place(), after, [], None, None, tmp_path, "evaluate")
    now, then = (values(found)[n] for n in ("accuracy", "accuracy_at_the_end_of_the_run"))
    assert then == values(done.summary)["accuracy"]
    assert (now == then) is (after == 0)
    assert json.loads((tmp_path / "summary.json").read_text())["figures"][0]["n"] == 120


def test_a_run_on_a_fold_is_evaluated_on_a_named_data_set_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data set's test images may be among the fold's training images."""
    run(job(tmp_path, data=replace(digits(), name="digits fold 1/5")))
    data = digits()
    monkeypatch.setattr(datasets, "load", lambda *_, **__: data)
    with pytest.raises(ConfigError, match=r"'digits fold 1/5'.*--dataset digits"):
        evaluation.main(tmp_path, Place(), 0.0, [], None, None, None, "evaluate")
    assert not (tmp_path / "evaluation").exists()
    found = evaluation.main(tmp_path, Place(), 0.0, [], "digits", None, None, "evaluate")
    assert found.figures[0].n == 120


def test_two_openings_of_a_run_measure_the_same_to_the_last_bit(done: Done) -> None:
    """Devices, clocks and noise are restored."""
    x, _ = tensors(digits()).test
    found = []
    for _ in range(2):
        trained = open_run(done.folder)
        found.append(trained.network.features(x, key=Key(9)))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a run folder"):
        open_run(tmp_path)


def test_an_export_has_conductances_in_siemens_inside_the_window(
    done: Done, tmp_path: Path
) -> None:
    path = export(done.folder, tmp_path / "network.nc")
    with xr.open_dataset(path, engine="h5netcdf") as found:
        for unit, shape in ((1, (2, 64, 12)), (2, (2, 76, 8))):
            g = found[f"unit_{unit}_device_programmed_siemens"]
            assert g.shape == shape
            assert g.attrs["units"] == "S"
            # 2 % write error of a window of 18 uS, five sigma, never negative.
            assert float(g.min()) >= 0 and float(g.max()) <= 20e-6 + 5 * 0.02 * 18e-6
            assert found[f"unit_{unit}_weight"].shape == shape[1:]
        assert found["readout_weight"].shape == (20, 10)
        assert found.attrs["seed"] == 3


def test_an_export_carries_the_digital_layer_of_fixed_physics(optical: Done) -> None:
    with xr.open_dataset(export(optical.folder), engine="h5netcdf") as found:
        assert found["unit_1_weight"].shape == (40, 12)
        assert found["unit_1_mean"].shape == (40,)


# ---- stopped and gone on -----------------------------------------------------


def stop_at(step: int, how: Callable[[], None]) -> Callable[[Trainer], None]:
    seen = 0

    def after(_: Trainer) -> None:
        nonlocal seen
        seen += 1
        if seen == step:
            how()

    return after


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("step", [1, 4, 5, 7])
def test_ctrl_c_leaves_a_checkpoint_and_resuming_changes_nothing(
    done: Done, tmp_path: Path, step: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(job(tmp_path), Listener(stop_at(step, interrupt)))
    again = run(job(tmp_path, resume=True))
    assert again.extra["resumed"] is True
    assert same_tensors(network_of(done.folder), network_of(tmp_path))
    assert values(again)["accuracy"] == values(done.summary)["accuracy"]


def test_a_signal_in_the_middle_of_a_step_waits_for_its_end(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a step in the checkpoint could not be repeated."""
    whole, calls = LocalTraining._update, 0
    before = signal.getsignal(signal.SIGINT)  # ignored in a background job

    def interrupted(self: LocalTraining, *given: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            os.kill(os.getpid(), signal.SIGINT)
        whole(self, *given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(LocalTraining, "_update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(job(tmp_path))
    assert checkpoint.load(tmp_path / "checkpoint").text["trainer.step"] == "3"
    run(job(tmp_path, resume=True))
    assert same_tensors(network_of(done.folder), network_of(tmp_path))
    assert signal.getsignal(signal.SIGINT) is before


CHILD = """
import sys, time, torch
from pathlib import Path
from typing import Any
torch.set_num_threads(1)
from tests.validation.test_run import Listener, job
from validation import run as running
running.CHECKPOINT_SECONDS = 0.0
running.run(job(Path(sys.argv[1])), Listener(lambda trainer: time.sleep(0.05)))
"""


def test_a_killed_process_is_resumed_bit_for_bit(done: Done, tmp_path: Path) -> None:
    """SIGKILL while checkpoints are written after every step."""
    manifest = tmp_path / "checkpoint" / "manifest.json"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], cwd=ROOT)
    try:
        deadline = time.monotonic() + 60
        while not manifest.exists() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert child.poll() is None, "the child ended before it could be killed"
    finally:
        child.kill()
        child.wait()
    assert child.returncode == -signal.SIGKILL
    step = checkpoint.load(tmp_path / "checkpoint").text
    assert (step["trainer.unit_index"], step["trainer.step"]) < ("2", "0")
    again = run(job(tmp_path, resume=True))
    assert same_tensors(network_of(done.folder), network_of(tmp_path))
    assert values(again)["accuracy"] == values(done.summary)["accuracy"]


class Killed(BaseException):
    """The process ends here, without a word."""


def die() -> None:
    raise Killed


def test_a_run_killed_right_after_its_first_step_can_go_on(done: Done, tmp_path: Path) -> None:
    """Long before the first ten seconds are over."""
    with pytest.raises(Killed):
        run(job(tmp_path), Listener(stop_at(2, die)))
    assert checkpoint.load(tmp_path / "checkpoint").text["trainer.step"] == "1"
    run(job(tmp_path, resume=True))
    assert same_tensors(network_of(done.folder), network_of(tmp_path))


def test_no_call_to_a_device_has_the_label_of_another_also_after_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A remote device answers a label it has seen from memory."""
    labels: list[str | None] = []
    whole = Crossbar.forward

    def noted(self: Crossbar, *given: Any, key: Key, **named: Any) -> Any:
        labels.append(key.call_id)
        return whole(self, *given, key=key, **named)

    monkeypatch.setattr(Crossbar, "forward", noted)
    with pytest.raises(Killed):
        run(job(tmp_path), Listener(stop_at(2, die)))
    run(job(tmp_path, resume=True))
    assert len(labels) == len(set(labels)) > 10
    assert None not in labels


def test_another_thread_count_is_told_in_the_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        # Said, not done: threads on a busy machine make this test slow.
        patch.setattr(torch, "get_num_threads", lambda: 7)
        with pytest.raises(KeyboardInterrupt):
            run(job(tmp_path), Listener(stop_at(2, interrupt)))
    found = run(job(tmp_path, resume=True))
    assert found.extra["threads_changed"] == f"checkpoint: 7, now: {torch.get_num_threads()}"


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 4},
        {"text": TOML.replace("outputs = 8", "outputs = 9")},
        {"data": replace(digits(), train_y=digits().train_y[::-1].copy())},
    ],
    ids=["seed", "configuration", "data"],
)
def test_resuming_the_run_of_another_question_is_refused(
    done: Done, change: dict[str, object]
) -> None:
    before = (done.folder / "summary.json").read_bytes()
    with pytest.raises(ConfigError, match="another configuration, data set or seed"):
        run(job(done.folder, resume=True, **change))  # type: ignore[arg-type]
    assert (done.folder / "summary.json").read_bytes() == before


def test_resuming_what_was_never_started_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no run to resume"):
        run(job(tmp_path, resume=True))


def test_resuming_from_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(job(tmp_path), Listener(stop_at(1, interrupt)))
    for path in checkpoint.files(tmp_path / "checkpoint"):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        with pytest.raises(CheckpointError, match=path.name.split("-")[0]):
            run(job(tmp_path, resume=True))
        path.write_bytes(whole)
    run(job(tmp_path, resume=True))


def test_a_fresh_run_replaces_what_is_in_its_folder(done: Done, tmp_path: Path) -> None:
    run(job(tmp_path, text=TOML.replace("outputs = 8", "outputs = 5")))
    (tmp_path / "network" / "manifest.json").write_bytes(b"damaged")
    run(job(tmp_path))
    assert same_tensors(network_of(done.folder), network_of(tmp_path))
    assert running.CHECKPOINT_SECONDS > 1


# ---- configurations ---------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TOML.replace("epochs = 2", "epoch = 2", 1), r"unit\.0\.epoch: unknown key.*'epochs'"),
        (TOML.replace("warm_up", "warmup"), r"training\.warmup: unknown key.*'warm_up'"),
        (TOML.replace("outputs = 12", "outputs = 1"), r"test\.unit\.0\.outputs: .*got 1"),
        (TOML.replace("noise = 0.1", 'noise = "loud"'), r"test\.augment\.noise: .*got 'loud'"),
        (TOML.replace("noise = 0.1", "noise = nan"), r"test\.augment\.noise"),
        (TOML.replace("[augment]", "[augmnet]"), r"test\.augmnet: unknown key.*'augment'"),
        (TOML + "[unit", "not valid TOML"),
        ("", r"test\.unit: "),
    ],
)  # fmt: skip
def test_a_wrong_configuration_is_refused_by_path(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(text)


def test_a_backends_own_options_are_checked_and_named(tmp_path: Path) -> None:
    text = TOML.replace("outputs = 8", "outputs = 8\noptions = { adc_bit = 6 }")
    with pytest.raises(ConfigError, match=r"unit\.1 \(memristor\): .*adc_bit: .*'adc_bits'"):
        run(job(tmp_path, text))


def test_an_unknown_backend_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    text = TOML.replace("outputs = 8", 'outputs = 8\nbackend = "memristro"')
    with pytest.raises(ConfigError, match="Did you mean 'memristor'"):
        run(job(tmp_path, text))


def test_an_unknown_preset_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'memristor-digits'"):
        load_config("memristor-digit")
    with pytest.raises(ConfigError, match=r"no configuration file .*nowhere\.toml"):
        load_config("nowhere.toml")


@pytest.mark.parametrize("name", presets())
def test_every_shipped_preset_can_be_read(name: str) -> None:
    assert load_config(name).about


def test_the_five_presets_are_shipped() -> None:
    wanted = {"memristor-digits", "memristor-mnist", "memristor-fashion", "optics-fashion"}
    assert wanted | {"hybrid-fashion"} <= set(presets())


@pytest.mark.parametrize("preset", ["optics-fashion", "hybrid-fashion", "memristor-fashion"])
def test_every_kind_of_network_runs_beside_its_references(preset: str, tmp_path: Path) -> None:
    """Small units on digits; behind a second medium nothing can be deployed."""
    table = load_config(preset).model_dump()
    table["data"] = {"name": "digits", "limit": 100}
    table["augment"] = {}
    for unit in table["unit"]:
        unit |= {"outputs": 12, "epochs": 1, "batch": 50}
        if unit["backend"] == "optics":
            unit["options"] = {"pixels": 32}
    config = RunConfig(**table)
    data = datasets.load("digits", limit=100)
    found = values(run(Job(config=config, data=data, seed=0, out=tmp_path)))
    assert found["accuracy_backprop_digital"] > 0
    assert ("accuracy_backprop_deployed" in found) == (preset != "optics-fashion")
