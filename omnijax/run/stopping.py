"""Signals that ask a run to stop: it saves, and the same command goes on from there."""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType
from typing import NoReturn

from omnijax import errors

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
SAME_SECONDS = 3.0
"""Two signals so close together are one request: a launcher and a process group often both deliver it."""


class Stop:
    """While it is entered, SIGTERM and SIGUSR1 (SLURM's, before the time limit) ask to stop; it may be entered again.

    Before the first step there is nothing to save, and a signal ends the process at once. From `begin` on, the train
    loop saves after the step at which all processes agree to stop; a second signal doesn't wait for that.
    """

    def __init__(self) -> None:
        self.asked = False
        self._depth = 0
        self._training = False
        self._since = 0.0

    def __enter__(self) -> Stop:
        if self._depth == 0:
            self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def begin(self) -> None:
        """From now on there is something to save."""
        self._training = True

    def after(self, step: int) -> bool:
        """Whether to stop after this step; to be asked after every one. All processes are told the same."""
        from omnijax.run import distributed

        peers = distributed.peers()
        return self.asked if peers is None else peers.stop_after(step)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del frame
        name = signal.Signals(number).name
        if not self._training:
            leave(errors.RESUMABLE, f"{name} before the first step: nothing is lost")
        if self.asked and time.monotonic() - self._since > SAME_SECONDS:
            leave(errors.RESUMABLE, f"a second {name}: the run goes on from its last whole checkpoint")
        if not self.asked:
            self.asked, self._since = True, time.monotonic()
            distributed = sys.modules.get("omnijax.run.distributed")
            peers = None if distributed is None else distributed.peers()
            if peers is not None:
                peers.ask_to_stop()


def leave(status: int, why: str) -> NoReturn:
    """Ends the process at once, and, with a status other than 0, the other processes of its job.

    An exception wouldn't do: the interpreter would wait for threads, and JAX for processes that may be gone.
    """
    print(f"omnijax: {why}", file=sys.stderr)
    distributed = sys.modules.get("omnijax.run.distributed")  # not imported yet: then there are no others
    peers = None if distributed is None else distributed.peers()
    if peers is not None:
        peers.leave(status, why)
    end(status)


def end(status: int) -> NoReturn:
    """Ends the process without the good-byes of the interpreter and of JAX, which wait for what may be gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
