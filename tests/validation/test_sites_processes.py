"""Two sites as two processes: stopped, killed, interrupted. Neither waits for the other.

They run freely, so what the downstream site consumes differs from run to run; what
is asserted holds for every schedule.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pib import checkpoint
from tests.validation import sitecases as cases
from twin.errors import CheckpointError, ConfigError, DeviceUnavailable
from validation.sites import joint, main, picture, run, timeline
from validation.sites.order import CHECKPOINT, ROLES, Order, Role
from validation.sites.run import Kill

pytestmark = pytest.mark.slow


def orders(folder: Path, epochs: tuple[int, int], **changes: Any) -> dict[Role, Order]:
    config = cases.config(epochs=epochs).model_dump_json()
    changes = {"checkpoint_s": 0.2, **changes}
    made = {r: cases.order(folder, r, config=config, **changes) for r in ROLES}
    run.claim(made["upstream"], resume=False)
    return made


def final(order: Order) -> tuple[int, torch.Tensor]:
    """Steps done and the weights of a site's checkpoint."""
    found = checkpoint.load(order.own / CHECKPOINT)
    name = f"network.parameter.unit {order.index + 1}.weight"
    return int(found.text["step"]), found.arrays[name]


def undisturbed(folder: Path, order: Order) -> torch.Tensor:
    """The upstream site's weights without processes: it takes nothing from anyone."""
    alone = cases.order(folder / "alone", "upstream", config=order.config)
    site = cases.finish(cases.site(alone, cases.data()))
    return site.local.unit.parameters["weight"]


def test_with_the_upstream_site_stopped_the_downstream_site_goes_on_at_the_same_rate(
    tmp_path: Path,
) -> None:
    made = orders(tmp_path, epochs=(1000, 60))
    stopped: dict[str, float] = {}

    def watch(heard: Mapping[Role, Mapping[str, Any]], news: str) -> None:
        up, down = heard["upstream"], heard["downstream"]
        if not stopped and down.get("version", 0) >= 1 and down["step"] >= 60:
            os.kill(up["pid"], signal.SIGSTOP)
            stopped.update(upstream=up["step"], downstream=down["step"])
        if down.get("state") == "done":
            raise KeyboardInterrupt  # enough seen; `run` wakes and stops the other one

    with pytest.raises(KeyboardInterrupt):
        run.run(made, watch=watch)
    steps, _ = final(made["downstream"])
    assert steps == 240  # all of them, while upstream stood still
    rows = checkpoint.load(made["downstream"].own / CHECKPOINT).arrays["record.steps"]
    gaps = np.diff(rows[:, 0].numpy())
    at = int(stopped["downstream"])
    assert steps - at > 50
    before, after = np.median(gaps[20:at]), np.median(gaps[at:])
    # Medians of at least 40 steps; three times is far beyond what a busy machine does
    # to a median, and far below a wait for a site that does not move.
    assert after < 3 * before
    assert gaps[at:].max() < 5.0
    done, _ = final(made["upstream"])
    assert done < 4000


def test_a_killed_upstream_site_comes_back_and_learns_what_it_would_have(tmp_path: Path) -> None:
    made = orders(tmp_path, epochs=(60, 20))
    run.run(made, Kill("upstream", 0.3, 0.5))
    events = json.loads((tmp_path / run.EVENTS).read_bytes())
    told = [e["event"] for e in events if e["site"] == "upstream"]
    assert told == ["started", "killed", "started", "done"]
    steps, weights = final(made["upstream"])
    assert steps == 240
    assert torch.equal(weights, undisturbed(tmp_path, made["upstream"]))
    data = timeline.timeline(made)
    assert data.sizes == {
        **data.sizes, "upstream_step": 240, "downstream_step": 80, "publication": 5,
    }  # fmt: skip
    found = timeline.facts(data)
    assert found["steps_while_the_other_was_away"] >= 0
    assert 0 < found["door_seconds_max"] < 5
    assert found["looks"] == 80
    assert found["bytes_read"] <= found["bytes_published"]
    assert picture.drawn(data).axes[0].get_xlabel() == "time since the first step (s)"
    assert 0 <= joint.joint(made, cases.data()).accuracy <= 1


def test_a_killed_downstream_site_leaves_the_other_alone_and_finishes(tmp_path: Path) -> None:
    made = orders(tmp_path, epochs=(20, 60))
    run.run(made, Kill("downstream", 0.4, 0.3))
    steps, _ = final(made["downstream"])
    assert steps == 240
    rows = checkpoint.load(made["downstream"].own / CHECKPOINT).arrays["record.steps"]
    assert len(rows) == 240
    assert (np.diff(rows[:, 2].numpy()) >= 0).all()  # versions never go back, also not over a kill
    _, weights = final(made["upstream"])
    assert torch.equal(weights, undisturbed(tmp_path, made["upstream"]))


def test_ctrl_c_stops_both_sites_and_the_run_goes_on(tmp_path: Path) -> None:
    made = orders(tmp_path, epochs=(200, 200))  # long enough for a busy machine's uneven start

    def interrupt(heard: Mapping[Role, Mapping[str, Any]], news: str) -> None:
        if all(told.get("step", 0) > 5 for told in heard.values()):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run(made, watch=interrupt)
    for role in ROLES:
        assert 5 < final(made[role])[0] < 800
        assert run.progress(made[role])["state"] == "stopped"
    run.claim(made["upstream"], resume=True)
    run.run(made)
    assert all(final(made[role])[0] == 800 for role in ROLES)
    assert torch.equal(final(made["upstream"])[1], undisturbed(tmp_path, made["upstream"]))


def test_a_site_that_fails_says_why_and_stops_the_other(tmp_path: Path) -> None:
    made = orders(tmp_path, epochs=(500, 500))
    table = json.loads(made["downstream"].config)
    table["unit"][1]["options"] = {"no_such_option": 1}
    broken = cases.order(tmp_path, "downstream", config=json.dumps(table))
    with pytest.raises(DeviceUnavailable, match=r"downstream site ended .*no_such_option"):
        run.run({**made, "downstream": broken})
    assert run.progress(made["upstream"]).get("state") in ("stopped", None)


def test_the_command_leaves_a_summary_a_record_and_a_picture(tmp_path: Path) -> None:
    text = cases.config(epochs=(3, 3)).model_dump(exclude={"quick", "bounds"})
    preset = tmp_path / "small.toml"
    preset.write_text(_toml(text))
    summary = main.main(main.Request(preset=str(preset), out=tmp_path / "out", quiet=True, seed=1))
    names = {figure.name for figure in summary.figures}
    assert {"accuracy_joint", "accuracy_sequential", "door_seconds_max"} <= names
    for name in ("parallel.nc", "parallel.png", "summary.json", "order.json"):
        assert (tmp_path / "out" / name).is_file()


def _toml(table: Mapping[str, Any]) -> str:
    lines = []
    for name, value in table.items():
        if name == "unit":
            for unit in value:
                lines += ["[[unit]]", *_rows(unit)]
        elif isinstance(value, Mapping):
            lines += [f"[{name}]", *_rows(value)]
    return "\n".join(lines)


def _rows(table: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, value in table.items():
        if isinstance(value, Mapping):
            inner = ", ".join(f"{n} = {json.dumps(v)}" for n, v in value.items())
            rows.append(f"{name} = {{ {inner} }}")
        elif value is not None:
            rows.append(f"{name} = {json.dumps(value)}")
    return rows


def test_a_folder_of_another_run_is_not_resumed(tmp_path: Path) -> None:
    made = orders(tmp_path, epochs=(3, 3))
    other = cases.order(tmp_path, "upstream", seed=8)
    with pytest.raises(ConfigError, match="another configuration"):
        run.claim(other, resume=True)
    with pytest.raises(CheckpointError, match="no run of two sites"):
        run.claim(cases.order(tmp_path / "empty", "upstream"), resume=True)
    assert made["upstream"].folder == tmp_path


@pytest.mark.parametrize("at", [0.0, 1.0])
def test_a_kill_is_in_the_middle(at: float) -> None:
    with pytest.raises(ConfigError, match="at must be"):
        Kill("upstream", at)
