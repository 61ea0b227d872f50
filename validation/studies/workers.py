"""Where points are computed: a pool of processes here, or a dask cluster.

Both are plain `concurrent.futures` executors; `renew` replaces one that broke
because a process in it died.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Protocol

from twin.errors import ConfigError, DeviceUnavailable
from validation.studies import worker


class Workers(Protocol):
    """What the engine needs: submit, how many run at once, renew, stop."""

    @property
    def count(self) -> int: ...

    def submit(self, act: Callable[..., Any], *given: Any) -> Future[Any]: ...

    def renew(self) -> None: ...

    def stop(self) -> None: ...


class Pool:
    """`jobs` spawned processes with one thread for numbers each.

    They end with this process, however it ends.
    """

    _executor: ProcessPoolExecutor

    def __init__(self, jobs: int) -> None:
        if jobs < 1:
            raise ConfigError(f"jobs: expected at least 1 process, got {jobs}.")
        self.count = jobs
        self._begin()

    def submit(self, act: Callable[..., Any], *given: Any) -> Future[Any]:
        """As an executor's."""
        # Any call may start a process, until there are enough. Until it has got ready to
        # leave Ctrl-C to the parent, it inherits that it is held back.
        with _interrupts_held_back():
            return self._executor.submit(act, *given)

    def renew(self) -> None:
        """Give the processes up and begin with new ones."""
        self.stop()
        self._begin()

    def stop(self) -> None:
        """End the processes now; what they are at is lost."""
        self._lifeline.close()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _begin(self) -> None:
        # Spawned, not forked: a forked copy of a process with threads may hang.
        context = multiprocessing.get_context("spawn")
        theirs: Connection
        theirs, self._lifeline = context.Pipe(duplex=False)
        self._executor = ProcessPoolExecutor(
            self.count, mp_context=context, initializer=worker.prepare, initargs=(theirs,)
        )

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Ctrl-C waits until the end of the block, for this thread and what it starts."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Borrowed:
    """An executor of somebody else's, e.g. for SLURM; it is not shut down here."""

    def __init__(self, executor: Executor, count: int = 2) -> None:
        self._executor, self.count = executor, count

    def submit(self, act: Callable[..., Any], *given: Any) -> Future[Any]:
        """As the executor's."""
        return self._executor.submit(act, *given)

    def renew(self) -> None:
        """It cannot be replaced from here."""
        raise DeviceUnavailable(
            "the executor of this study is broken: a process in it died. Start the study again "
            "with a new one; finished points are kept."
        )

    def stop(self) -> None:
        """Its owner stops it."""


class Dask(Borrowed):
    """The workers of a dask cluster, by its scheduler's address."""

    def __init__(self, address: str, timeout_s: float = 30.0) -> None:
        try:
            from distributed import Client
        except ImportError:
            raise ConfigError(
                "--executor dask needs dask's scheduler: pip install 'pib-twin[cluster]'."
            ) from None
        try:
            self._client = Client(address, timeout=timeout_s, set_as_default=False)
        except (OSError, ValueError) as error:
            raise DeviceUnavailable(
                f"no dask scheduler answers at {address!r} ({error}). Start `dask scheduler` "
                "and give its address, e.g. tcp://10.0.0.1:8786."
            ) from None
        threads = sum(self._client.nthreads().values())
        super().__init__(self._client.get_executor(), max(1, threads))

    def stop(self) -> None:
        """Leave the cluster; it goes on."""
        self._client.close()

    def __enter__(self) -> Dask:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
