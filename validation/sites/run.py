"""Start two sites, look on, and (if asked) kill one in the middle and start it again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twin.errors import CheckpointError, ConfigError, DeviceUnavailable
from twin.files import write_atomic
from validation.sites import process as site_process
from validation.sites.order import ORDER, PROGRESS, ROLES, Order, Role

EVENTS = "events.json"
POLL_S = 0.05
GRACE_S = 30.0
Watch = Callable[[Mapping[Role, Mapping[str, Any]], str], None]


@dataclass(frozen=True)
class Kill:
    """SIGKILL for a site once `at` of its steps are done; `away_s` later it is back."""

    role: Role
    at: float = 0.5
    away_s: float = 5.0

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ConfigError(f"kill: expected upstream or downstream, got {self.role!r}.")
        if not 0 < self.at < 1 or self.away_s < 0:
            raise ConfigError(f"kill: at must be in (0, 1), away_s >= 0, got {self}.")


def claim(order: Order, resume: bool) -> None:
    """Take the run's folder, or make sure that it is this run's."""
    path = order.folder / ORDER
    mark = order.text()
    if resume:
        if not path.is_file():
            raise CheckpointError(f"{order.folder}: there is no run of two sites to resume here.")
        if path.read_text() != mark:
            raise ConfigError(
                f"{order.folder}: holds a run of another configuration, data set or seed. "
                "Give the same arguments, or another --out."
            )
        return
    for old in sorted(order.folder.glob("*/**/*"), reverse=True):
        if old.is_file() and old.relative_to(order.folder).parts[0] in (*ROLES, "post"):
            old.unlink()
    for role in ROLES:
        with suppress(OSError):
            (order.folder / role / "checkpoint").rmdir()
    (order.folder / EVENTS).unlink(missing_ok=True)
    write_atomic(path, mark.encode())


def run(orders: Mapping[Role, Order], kill: Kill | None = None, watch: Watch | None = None) -> None:
    """Run both sites to their ends; what happened when is in EVENTS.

    Ctrl-C stops both, each with durable state, and is raised again. A site
    that fails stops the other one too, and raises DeviceUnavailable with what
    it said. ConfigError if the site to be killed had finished by then; a
    run that is resumed after its kill is not killed again.
    """
    started = _Sites(orders)
    if kill is not None and started.was_killed(kill.role):
        kill = None
    try:
        for role in ROLES:
            started.start(role)
        while started.running() or started.away:
            time.sleep(POLL_S)
            heard = {role: progress(orders[role]) for role in ROLES}
            kill = started.mind(kill, heard)
            if watch is not None:
                watch(heard, started.take_news())
        if kill is not None:
            raise _missed(kill)
    finally:
        started.stop()


def progress(order: Order) -> dict[str, Any]:
    """What the site last said of itself; empty before it said anything."""
    try:
        return json.loads((order.own / PROGRESS).read_bytes())
    except (OSError, ValueError):
        return {}


class _Sites:
    """The processes, and the list of what happened to them."""

    def __init__(self, orders: Mapping[Role, Order]) -> None:
        self._orders = orders
        self._folder = orders["upstream"].folder
        self._processes: dict[Role, subprocess.Popen] = {}
        self.away: dict[Role, float] = {}
        self._news = ""
        path = self._folder / EVENTS
        self._events = json.loads(path.read_bytes()) if path.is_file() else []

    def was_killed(self, role: Role) -> bool:
        return any(e["site"] == role and e["event"] == "killed" for e in self._events)

    def start(self, role: Role) -> None:
        order = self._orders[role]
        order.own.mkdir(parents=True, exist_ok=True)
        path = order.own / ORDER
        write_atomic(path, order.text().encode())
        (order.own / PROGRESS).unlink(missing_ok=True)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        with (order.own / "errors.log").open("ab") as log:
            # Its own session: Ctrl-C reaches the sites through `stop` only, and once.
            self._processes[role] = subprocess.Popen(
                [sys.executable, "-m", site_process.__name__, str(path), str(os.getpid())],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                start_new_session=True,
            )  # fmt: skip
        self._note(role, "started")

    def running(self) -> bool:
        """Whether any site is at work; notes ends, raises if one failed."""
        for role, process in list(self._processes.items()):
            status = process.poll()
            if status is None:
                continue
            del self._processes[role]
            if status != 0:
                raise self._failure(role, status)
            self._note(role, "done")
        return bool(self._processes)

    def mind(self, kill: Kill | None, heard: Mapping[Role, Mapping[str, Any]]) -> Kill | None:
        """Kill the site when it is time, start it again when that is; what remains to do."""
        for role, due in list(self.away.items()):
            if time.monotonic() >= due:
                del self.away[role]
                self.start(role)
        if kill is None:
            return None
        if kill.role not in self._processes:
            raise _missed(kill)
        said = heard[kill.role]
        if said.get("step", 0) < kill.at * said.get("steps", 1):
            return kill
        process = self._processes.pop(kill.role)
        process.kill()
        # It may have ended by itself since its last word.
        status = process.wait()
        if status == 0:
            self._note(kill.role, "done")
            raise _missed(kill)
        if status > 0:
            raise self._failure(kill.role, status)
        self._note(kill.role, "killed", int(said["step"]))
        self.away[kill.role] = time.monotonic() + kill.away_s
        return None

    def take_news(self) -> str:
        news, self._news = self._news, ""
        return news

    def stop(self) -> None:
        """Ask whoever is at work to stop between two steps; insist after a while."""
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)
        for role, process in self._processes.items():
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self._note(role, "stopped")
        self._processes.clear()

    def _note(self, role: Role, what: str, step: int | None = None) -> None:
        self._events.append({"site": role, "event": what, "time_s": time.time(), "step": step})
        write_atomic(self._folder / EVENTS, json.dumps(self._events).encode())
        self._news = f"{role} {what}" + (f" at step {step}" if step is not None else "")

    def _failure(self, role: Role, status: int) -> DeviceUnavailable:
        order = self._orders[role]
        said = progress(order).get("error") or _tail(order.own / "errors.log")
        return DeviceUnavailable(
            f"the {role} site ended with status {status}: {said.rstrip('.') or 'no word'}. Its "
            "checkpoint is kept: give the same command with --resume."
        )


def _missed(kill: Kill) -> ConfigError:
    return ConfigError(
        f"kill: the {kill.role} site finished before it was seen at {kill.at:g} of its steps, so "
        "nothing was killed. Give an earlier `at`, or more epochs."
    )


def _tail(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines() if path.is_file() else []
    return lines[-1] if lines else ""
