"""`pib-twin reinforce`: an agent of physical units in an environment of gymnasium."""

from __future__ import annotations

import io
from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure as Picture

from twin.errors import ConfigError
from twin.files import write_atomic
from validation.console import console
from validation.pngstyle import style
from validation.rl.config import AgentConfig, load_agent
from validation.rl.live import LiveCurve
from validation.rl.outcome import figures
from validation.rl.picture import training_curve
from validation.rl.run import Job, run
from validation.summary import Figure, Summary

PRESET = "cartpole-optics"


def main(
    preset: str = PRESET,
    environment: str = "CartPole-v1",
    seed: int = 0,
    steps: int | None = None,
    information_weight: float | None = None,
    out: Path | None = None,
    resume: bool = False,
    quiet: bool = False,
    command: str = "",
) -> Summary:
    """Train an agent, show its curve, leave a run folder; returns the summary.

    steps, information_weight (lambda): instead of the preset's. Ctrl-C leaves a
    checkpoint at the end of the episode, and resume goes on from there.
    """
    config = _changed(load_agent(preset), steps, information_weight)
    out = out or Path("runs") / f"{preset_name(preset)}-{environment}-{seed}"
    job = Job(config=config, environment=environment, seed=seed, out=out, resume=resume)
    with LiveCurve(quiet=quiet) as live:
        data, play = run(job, live.show)
    summary = Summary(command, figures(data, play.facts, seed))
    summary.add(Figure("wall time", data.attrs["wall_seconds"], unit="s", seeds=[seed]))
    ledger = getattr(play.training.player, "ledger", None)
    summary.extra = {
        "environment": environment,
        "preset": preset,
        "solved": play.training.solved,
        "ledger": [] if ledger is None else ledger.rows(),
    }
    if "threads_changed" in data.attrs:
        summary.extra["threads_changed"] = data.attrs["threads_changed"]
    write_atomic(out / "curve.png", _png(data, environment, play.facts.good))
    summary.write(out)
    console.print(summary.table())
    console.print(f"run folder {out}", markup=False)
    return summary


def preset_name(preset: str) -> str:
    """The name of a preset or of a file, without folder and ending."""
    return Path(preset).stem


def _changed(config: AgentConfig, steps: int | None, weight: float | None) -> AgentConfig:
    if steps is not None and steps < 1:
        raise ConfigError(f"steps must be at least 1, got {steps}.")
    schedule = {} if steps is None else {"steps": steps}
    loss = {} if weight is None else {"information_weight": weight}
    return config.changed(schedule=schedule, loss=loss)


def _png(data: xr.Dataset, title: str, good: float | None) -> bytes:
    with style():
        picture = Picture(figsize=(7.0, 3.4), layout="constrained")
        training_curve(picture.subplots(), [data], title, good)
        image = io.BytesIO()
        picture.savefig(image, format="png", dpi=150)
    return image.getvalue()
