"""Signals that ask a run to stop. It saves a checkpoint, and the same command goes on from there."""

from __future__ import annotations

import signal
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from omnijax.errors import RESUMABLE
from omnijax.run import end

if TYPE_CHECKING:  # signals are caught before JAX is imported, which takes seconds
    from omnijax.run.peers import Peers

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
SAME_SECONDS = 3.0
"""Two signals within this time are one request: a launcher and its process group often both deliver it."""


class Stop:
    """A context in which SIGTERM, SIGUSR1 (SLURM sends it before the time limit), SIGINT and SIGHUP ask to stop.

    A signal that the caller ignores (`nohup`) stays ignored. Only the main thread can catch signals; elsewhere a
    warning says so.

    Before the first step there is nothing to save, and a signal ends the process at once. After `begin`, the train loop
    saves after the step at which all processes agree to stop. A second signal ends the process without waiting. Where
    SIGINT would end a job of one process, it raises `KeyboardInterrupt` instead, so that a notebook keeps its kernel.

    Attributes:
        asked: a signal has come.
        peers: the other processes of the job; None for a job of one process.
    """

    def __init__(self, peers: Peers | None = None, signals: Sequence[signal.Signals] = SIGNALS) -> None:
        self.asked = False
        self._signals = signals
        self.peers = peers
        self._training = False
        self._since = 0.0

    def __enter__(self) -> Stop:
        self._before: dict[signal.Signals, Any] = {}
        if threading.current_thread() is not threading.main_thread():
            warnings.warn("no signal is caught in this thread, so none saves a run", RuntimeWarning, stacklevel=2)
            return self
        for number in self._signals:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def begin(self) -> None:
        """Says that there is something to save from now on."""
        self._training = True

    def after(self, step: int) -> bool:
        """Whether to stop after this step. Call it after every step; all processes get the same answer."""
        return self.asked if self.peers is None else self.peers.stop_after(step)

    def _ask(self, number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        again = self.asked and time.monotonic() - self._since > SAME_SECONDS
        if number == signal.SIGINT and self.peers is None and (again or not self._training):
            raise KeyboardInterrupt
        if not self._training:
            self._leave(f"{name} before the first step: nothing is lost")
        if again:
            self._leave(f"a second {name}: the run goes on from its last whole checkpoint")
        if not self.asked:
            self.asked, self._since = True, time.monotonic()
            if self.peers is not None:
                self.peers.ask_to_stop()

    def _leave(self, why: str) -> NoReturn:
        """Ends this process and the others of its job.

        It raises no exception, because the interpreter would then wait for threads, and JAX for other processes.
        """
        print(f"omnijax: {why}", file=sys.stderr)
        if self.peers is not None:
            self.peers.leave(RESUMABLE, why)
        end(RESUMABLE)
