"""One site in training: its own unit, its own steps, and the door to the other site.

A site's trajectory is a pure function of (key, step, publications consumed).
Two sites that run freely consume what happens to be there, so two runs differ;
the schedule that a site writes down repeats it bit for bit (`mailbox.Scheduled`).
"""

from __future__ import annotations

import time

from torch import Tensor

from pib.local import LocalTraining, Outcome
from pib.plan import TrainingData
from pib.readout import ReadoutRecipe, hard_example_weights, train_readout
from twin.key import Key
from twin.ledger import Ledger
from validation.experiment import Tensors
from validation.sites.mailbox import Post
from validation.sites.order import Order
from validation.sites.own import own_network, stand_in
from validation.sites.publication import Publication, coded
from validation.sites.record import Record, number

NOTES = 60
WEIGHING = ReadoutRecipe(epochs=2, min_steps=200)
"""The classifier that weighs examples, anew for fresh features: shorter than the
one of sequential training, which is trained once (ours)."""


class Site:
    """Unit `order.index` at its site.

    door: to the other site. version, seen_step: of the publication in use,
    0 and -1 before the first. said: what the site has to say, oldest first.
    """

    def __init__(self, order: Order, data: Tensors, door: Post) -> None:
        config = order.run_config()
        self.order, self.door = order, door
        self.record, self.said, self.ledger = Record(), list[str](), Ledger()
        self.version, self.seen_step, self.last_heard = 0, -1, 0
        self.begun = self.complete = False
        self._images, self._labels, self._classes = *data.train, data.classes
        key, index = Key(order.seed), order.index
        pixels = data.train[0].shape[1]
        self.network = own_network(config, pixels, index, key=key, ledger=self.ledger)
        # The keys of sequential training: the first unit learns exactly what it would there.
        self.key = key.child("train", "unit", index)
        self.before: Tensor | None = None
        if index:
            width = config.unit[index - 1].outputs
            self.before = stand_in(self._images, width, config.network.skip)
        self.offset = config.network.hard_offset if config.network.hard_examples else None
        before = [] if self.before is None else [self.before]
        data_of = TrainingData(
            images=self._images, labels=self._labels, shape=data.shape,
            probe_images=data.validation[0], probe_labels=data.validation[1],
        )  # fmt: skip
        plan = order.plan()
        batches = plan.batches.of(data_of, plan.batch, key.child("train", "batches"))
        self.local = LocalTraining(
            self.network, index, plan, data_of, before, batches, key=self.key
        )
        self.per_epoch = batches.steps
        self.publish_every = max(1, round(self.local.steps / max(1, order.publications)))
        expected = self.local.steps / max(1, order.publications)
        self.silence_steps = max(1, round(order.silence * expected))

    @property
    def finished(self) -> bool:
        return self.local.step == self.local.steps

    def advance(self) -> None:
        """One step; before it, news is taken, after it, published where due."""
        if not self.begun:
            self.local.begin()
            self.begun = True
        at_door = self.door.traffic.seconds
        if self.before is not None:
            self.take()
            self._mind_silence()
            # Once an epoch, for the trainer draws an epoch's batches together.
            if self.version and self.offset and self.local.step % self.per_epoch == 0:
                self._weigh(self.before, self.offset)
        noting = self.local.due(NOTES)
        self.local.whole_step(noting, self._note)
        if self.before is None and self._due():
            self.publish()
        self.record.steps[-1][-1] = self.door.traffic.seconds - at_door

    def take(self) -> None:
        """Take the latest publication into the drive, if it is new."""
        news = self.door.latest(self.version, self.local.step)
        if news is None or self.before is None:
            return
        # In place: the trainer's store of features is this very tensor.
        self.before.copy_(news.fractions())
        self.version, self.seen_step = news.version, news.step
        self.complete, self.last_heard = news.last, self.local.step

    def publish(self) -> None:
        """Make this site's present features the latest publication."""
        features = self.local.measured()
        self.network.calibrate_link(self.order.index, features)
        scale, step = self.network.scales[self.order.index], self.local.step
        codes = coded(features, scale, self.order.code)
        version = 1 + -(-step // self.publish_every)
        version -= int(step < self.publish_every)
        sent = self.door.publish(
            Publication(version=version, step=step, last=self.finished, scale=scale, codes=codes)
        )
        self.record.published.append([version, step, sent.time_s, sent.size])

    def _due(self) -> bool:
        """After the first step, every so often, and after the last one."""
        step = self.local.step
        return step == 1 or self.finished or step % self.publish_every == 0

    def _mind_silence(self) -> None:
        """Sound the alarm, once, where news has been missing for long; training goes on."""
        silent = self.local.step - self.last_heard
        if silent == self.silence_steps and not self.complete:
            have = f"version {self.version} of its step {self.seen_step}"
            self.said.append(
                f"step {self.local.step}: nothing new from upstream for {silent} steps; "
                f"going on with {have if self.version else 'the stand-in'}"
            )

    def _weigh(self, features: Tensor, offset: float) -> None:
        """Weigh the examples by what a readout on the features in use gets wrong."""
        key, labels = self.key.child("hard", self.local.step), self._labels
        readout = train_readout(features, labels, self._classes, key=key, recipe=WEIGHING)
        weights = hard_example_weights(readout, features, labels, offset)
        arrays, text = self.local.state()
        self.local.load(arrays | {"unit.weights": weights}, text)

    def _note(self, outcome: Outcome) -> None:
        loss = number(outcome.verdict.loss)
        if outcome.noted is not None:
            i_yz = number(outcome.noted.information_yz)
            self.record.noted.append([self.local.step + 1, number(outcome.noted.loss), i_yz])
        self.record.steps.append([time.time(), loss, self.version, self.seen_step, 0.0])
