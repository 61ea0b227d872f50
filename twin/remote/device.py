"""One served device: a bounded queue, one call at a time, each request id once.

A repeated id gets the stored answer, or waits for the call that is running; the
device never acts twice for it.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from twin.backend import Backend, MinimalBackend, Snapshot
from twin.complete import complete
from twin.errors import DataError, DeviceUnavailable, OutcomeUnknown, PibTwinError
from twin.remote.errors import Busy, Outdated, PastDeadline, Repeated, StillRunning
from twin.remote.journal import Journal
from twin.remote.memory import Memory, Reply

GRACE_S = 5.0
"""How long closing waits for a call that is running."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request as the device sees it.

    deadline_s: on time.monotonic(). act: makes the call and gives the reply and
    the state version after it, from the one before it (None if not known).
    reads_only: nothing to journal or remember. expect_version, instance: what
    the caller believes, None if nothing.
    """

    request_id: str
    fingerprint: str
    deadline_s: float
    act: Callable[[Backend, int | None], tuple[Reply, int | None]]
    reads_only: bool = False
    expect_version: int | None = None
    instance: str | None = None


@dataclass(eq=False)
class _Job:
    request: Request
    others: deque[threading.Event] = field(default_factory=deque)
    """Who waits for the same answer by another way, oldest first."""
    reply: Reply | None = None
    error: PibTwinError | None = None


class Device:
    """A backend with its queue and its memory of replies; calls come one by one.

    queue: how many calls may wait. journal: where state and replies are kept.
    """

    def __init__(
        self, name: str, backend: MinimalBackend, *, queue: int = 8, journal: Journal | None = None
    ) -> None:
        self.name = name
        self.capabilities = backend.capabilities
        self.instance = uuid.uuid4().hex if journal is None else journal.instance
        self._driver = backend
        self._backend: Backend = complete(backend)
        self._limit = queue
        self._journal = journal
        self._memory = Memory()
        self._version: int | None = None
        self._changed = threading.Condition()
        self._waiting: deque[_Job] = deque()
        self._jobs: dict[str, _Job] = {}
        self._busy = self._closing = False
        self._take_up()

    @property
    def ready(self) -> bool:
        return not self._closing

    @property
    def durable(self) -> bool:
        """Whether replies outlive the server's process."""
        return self._journal is not None

    def call(self, request: Request) -> Reply:
        """The reply to a request, stored or new. Raises typed errors.

        The device is used in the caller's thread: a device's own thread would
        cost two switches a call, milliseconds each where cores are busy.
        """
        with self._changed:
            stored = self._stored(request)
            if stored is not None:
                return stored
            job = self._jobs.get(request.request_id)
            if job is not None and job.request.fingerprint != request.fingerprint:
                raise _repeated(request)
            other = None if job is None else self._beside(job)
            if job is None:
                job = self._queued(request)
        if other is None:
            self._in_turn(job)
        else:
            self._await_other(job, other, request.deadline_s)
        if job.error is not None:
            raise job.error
        assert job.reply is not None
        return job.reply

    def close(self) -> None:
        """Let the running call end, refuse those that wait, close the backend once."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._busy, GRACE_S)
        try:
            self._driver.close()
        finally:
            if self._journal is not None:
                self._journal.close()

    def _stored(self, request: Request) -> Reply | None:
        found = self._memory.find(request.request_id)
        if found is None:
            return None
        if found.fingerprint not in ("", request.fingerprint):
            raise _repeated(request)
        if found.reply is None:
            raise OutcomeUnknown(
                f"{self.name}: request {request.request_id!r} began earlier and its answer is "
                "not known any more. Look at the device before going on."
            )
        return found.reply

    def _queued(self, request: Request) -> _Job:
        self._refuse_if_closing()
        if self._busy and len(self._waiting) >= self._limit:
            raise Busy(f"{self.name}: {self._limit} calls wait already. Try again later.")
        job = _Job(request)
        self._jobs[request.request_id] = job
        self._waiting.append(job)
        return job

    def _refuse_if_closing(self) -> None:
        if self._closing:
            raise DeviceUnavailable(f"{self.name}: the server is closing.")

    def _in_turn(self, job: _Job) -> None:
        """Wait for the device, use it, and let the next one have it."""
        try:
            self._await_turn(job)
        except PibTwinError as error:
            with self._changed:
                self._waiting.remove(job)
                self._finish(job, error=error)
            return
        try:
            self._run(job)
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _await_turn(self, job: _Job) -> None:
        with self._changed:
            while self._busy or self._waiting[0] is not job:
                left_s = job.request.deadline_s - time.monotonic()
                if not self._changed.wait(max(0.0, left_s)) and left_s <= 0:
                    raise self._late(job)
                self._refuse_if_closing()
            self._waiting.popleft()
            self._busy = True

    def _beside(self, job: _Job) -> threading.Event:
        """A place beside a request that came before; the oldest of too many gives its up.

        It has most likely hung up, and would hold a thread until its deadline.
        """
        other = threading.Event()
        job.others.append(other)
        if len(job.others) > max(1, self._limit):
            job.others.popleft().set()
        return other

    def _await_other(self, job: _Job, other: threading.Event, deadline_s: float) -> None:
        """Wait for the same request, which came before by another way."""
        other.wait(max(0.0, deadline_s - time.monotonic()))
        if job.reply is None and job.error is None:
            raise StillRunning(
                f"{self.name}: request {job.request.request_id!r} is not answered yet. "
                "Ask again with the same id."
            )

    def _late(self, job: _Job) -> PastDeadline:
        return PastDeadline(
            f"{self.name}: request {job.request.request_id!r} waited past its deadline; "
            "the device did not act."
        )

    def _finish(
        self, job: _Job, reply: Reply | None = None, error: PibTwinError | None = None
    ) -> None:
        job.reply, job.error = reply, error
        self._jobs.pop(job.request.request_id, None)
        for other in job.others:
            other.set()

    def _run(self, job: _Job) -> None:
        reply: Reply | None = None
        error: PibTwinError | None = None
        try:
            with torch.no_grad():
                reply = self._acted(job)
        except PibTwinError as caught:
            error = caught
        except Exception as caught:
            error = OutcomeUnknown(f"{self.name}: {type(caught).__name__} in the server.")
        with self._changed:
            if reply is not None and not job.request.reads_only:
                # Before the job is forgotten: a repeat finds one or the other.
                self._memory.keep(job.request.request_id, job.request.fingerprint, reply)
            self._finish(job, reply, error)

    def _acted(self, job: _Job) -> Reply:
        request = job.request
        if time.monotonic() > request.deadline_s:
            raise self._late(job)
        self._check_belief(request)
        begins = self._journal is not None and not request.reads_only
        if begins and not self.capabilities.restorable:
            assert self._journal is not None
            self._journal.begin(request.request_id, request.fingerprint)
        reply, version = request.act(self._backend, self._version)
        if not request.reads_only:
            self._version = version
        if begins:
            self._record(request, reply)
        return reply

    def _check_belief(self, request: Request) -> None:
        if request.instance not in (None, self.instance):
            raise Outdated(
                f"{self.name}: the server was restarted without a journal, so the device was made "
                "anew. Connect again and program it, or serve with a journal."
            )
        if request.expect_version not in (None, self._version):
            raise Outdated(
                f"{self.name}: expected state version {request.expect_version}, the device is at "
                f"{self._version}. Somebody else changed it; read it before writing."
            )

    def _record(self, request: Request, reply: Reply) -> None:
        assert self._journal is not None
        state: Snapshot | None = None
        if self.capabilities.restorable:
            state = self._backend.snapshot()
        self._journal.commit(request.request_id, request.fingerprint, reply, self._version, state)

    def _take_up(self) -> None:
        """Go on where a journal ends."""
        past = None if self._journal is None else self._journal.load()
        if past is None:
            return
        if past.device_id != self.capabilities.device_id:
            raise DataError(
                f"{self.name}: the journal is of device {past.device_id!r}, this is "
                f"{self.capabilities.device_id!r}. Give each device its own folder."
            )
        if past.state is not None:
            self._backend.restore(past.state)
        self._version = past.version
        for request_id, fingerprint, reply in past.replies:
            self._memory.keep(request_id, fingerprint, reply)


def _repeated(request: Request) -> Repeated:
    return Repeated(
        f"request id {request.request_id!r} was used before for another request. "
        "Give every request its own id; repeat one only with the same content."
    )
