"""A site as a process of its own: `python -m validation.sites.process ORDER.json PID`.

It reads its order, goes on from its checkpoint if there is one, trains to the
end, and stops between two steps when asked (SIGINT, SIGTERM) or when PID, the
process that started it, is its parent no longer. It never looks whether the other site lives.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch

from twin.errors import PibTwinError
from validation import datasets
from validation.experiment import tensors
from validation.sites import durable
from validation.sites.mailbox import FilePost
from validation.sites.order import CHECKPOINT, PROGRESS, Order, read
from validation.sites.site import Site

STOPPED, FAILED = 130, 1
PROGRESS_S = 0.2


class Told:
    """What the site shows of itself: a small file, replaced now and then."""

    def __init__(self, order: Order) -> None:
        self._path, self._at = order.own / PROGRESS, 0.0

    def tell(self, state: str, site: Site | None = None, error: str = "") -> None:
        plain = {"state": state, "pid": os.getpid(), "error": error}
        if site is not None:
            plain |= _numbers(site)
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(plain))
        temporary.replace(self._path)
        self._at = time.monotonic()

    def step(self, site: Site) -> None:
        """Tell, if it is some time ago."""
        if time.monotonic() - self._at > PROGRESS_S:
            self.tell("training", site)


def _numbers(site: Site) -> dict:
    noted, published = site.record.noted, site.record.published
    return {
        "step": site.local.step,
        "steps": site.local.steps,
        "i_yz": noted[-1][2] if noted else None,
        "version": int(published[-1][0]) if published else site.version,
        "seen_step": site.seen_step,
        "said": site.said,
    }


def work(order: Order, parent: int) -> int:
    """Train to the end or until asked to stop; the exit status."""
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda signum, _: asked.append(signum))
    told = Told(order)
    told.tell("opening")
    config = order.run_config()
    data = tensors(datasets.load(config.data.name, data_dir=order.data, limit=config.data.limit))
    site = Site(order, data, FilePost(order.post, keep=order.keep))
    try:
        if (order.own / CHECKPOINT).is_dir():
            durable.resume(site)
        saved = 0.0
        while not site.finished:
            if asked or os.getppid() != parent:
                durable.save(site)
                told.tell("stopped", site)
                return STOPPED
            site.advance()
            told.step(site)
            if time.monotonic() - saved > order.checkpoint_s:
                durable.save(site)
                saved = time.monotonic()
        durable.save(site)
        told.tell("done", site)
        return 0
    finally:
        site.local.unit.fence.close()


def main(path: Path, parent: int) -> int:
    """Work off the order in the file; errors go into the progress file."""
    torch.set_num_threads(1)
    order = read(path)
    order.own.mkdir(parents=True, exist_ok=True)
    try:
        return work(order, parent)
    except PibTwinError as error:
        Told(order).tell("failed", error=f"{type(error).__name__}: {error}")
        return FAILED


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
