"""The other processes of a job: whether they are alive, what they say, and after which step all processes stop.

Processes talk through the key-value store of JAX's coordination service, which process 0 holds. No device takes part,
so that this works while devices wait for each other. In each process one daemon thread sends heartbeats, reads the
store, and acts on it.
"""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from typing import Any, NoReturn

import jax

from omnijax.errors import RESUMABLE, PeerLostError
from omnijax.run import end

BEAT_SECONDS = 1.0
LOST_AFTER_SECONDS = 20.0
"""A process without a heartbeat for this long is lost. No healthy process pauses for that long."""
TELL_EVERY_SECONDS = 30.0
ALIVE, WORDS, DONE = "omnijax/alive/", "omnijax/words/", "omnijax/done/"


class Peers:
    """The link of this process to the others of its job; `omnijax.run.distributed.job` makes one.

    Attributes:
        process: index of this process.
        processes: number of processes.
        lost: the error that this process is about to end with; None while no process is lost.
    """

    def __init__(self, client: Any, process: int, processes: int):
        self.process, self.processes = process, processes
        self.lost: PeerLostError | None = None
        self._client = client
        self._asked, self._agreeing = False, False
        self._step, self._stop_at = 0, math.inf
        self._stepping = threading.Lock()  # the thread holds it while processes agree, so that no step begins
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="omnijax-peers", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------ what the train loop asks

    def ask_to_stop(self) -> None:
        """Asks all processes to stop after a step that they agree on."""
        self._asked = True

    def stop_after(self, step: int) -> bool:
        """Whether all processes stop after this step. Call it after every step."""
        with self._stepping:
            self._step = step
            return step >= self._stop_at

    def say(self, key: str, value: str) -> None:
        """Stores a value that the others can wait for; a key is used once."""
        self._client.key_value_set(f"{DONE}{key}", value)

    def wait(self, key: str, what: str, within_seconds: float) -> str:
        """The value of a key, once a process has said it; `what` names the process and what it has to do.

        Raises a `PeerLostError` if it hasn't come in time.
        """
        started = time.monotonic()
        while (waited := time.monotonic() - started) < within_seconds:
            try:
                seconds = min(TELL_EVERY_SECONDS, within_seconds - waited)
                return str(self._client.blocking_key_value_get(f"{DONE}{key}", max(1, int(seconds * 1000))))
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise self._lost("process 0", "its key-value store doesn't answer") from error
            print(f"omnijax: process {self.process} waits for {what}", file=sys.stderr, flush=True)
        raise self._lost(what, f"not within {within_seconds:.0f} s")

    def leave(self, status: int, why: str) -> NoReturn:
        """Ends this process at once, and makes the others end with the same status."""
        self._leaving.set()
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # process 0 is gone: the others notice that themselves
            said = f"{status} process {self.process} has left: {why}"
            self._client.key_value_set(f"{WORDS}left", said, allow_overwrite=True)
            self._outlive()
        end(status)

    def wait_for_news(self) -> None:
        """Waits until the watch must have noticed a lost process, in which case it ends this process."""
        self._leaving.wait(LOST_AFTER_SECONDS + 5 * BEAT_SECONDS)

    def part(self) -> None:
        """Ends the watch, once all processes have finished: a silent process isn't lost any more."""
        self._leaving.set()
        self._thread.join()

    def _lost(self, who: str, how: str) -> PeerLostError:
        return PeerLostError("process", who, how, "run the same command again on all processes")

    def _outlive(self) -> None:
        """Lets the others read what was said last: the store ends with process 0."""
        time.sleep(2 * BEAT_SECONDS if self.process == 0 else 0)

    # ------------------------------------------------------------------ the thread

    def _watch(self) -> None:
        beat, reached = 0, time.monotonic()
        seen: dict[str, tuple[str, float]] = {str(i): ("", time.monotonic()) for i in range(self.processes)}
        while not self._leaving.wait(BEAT_SECONDS):
            beat += 1
            try:
                self._client.key_value_set(f"{ALIVE}{self.process}", str(beat), allow_overwrite=True)
                words = self._read(WORDS)
                if self.process == 0:
                    self._find_lost(seen)
                self._answer(words)
                reached = time.monotonic()
            except jax.errors.JaxRuntimeError:
                if time.monotonic() - reached > LOST_AFTER_SECONDS:
                    self._end(RESUMABLE, f"PeerLostError: {self._lost('process 0', 'it does not answer any more')}")

    def _read(self, folder: str) -> dict[str, str]:
        return {key.removeprefix(folder): str(value) for key, value in self._client.key_value_dir_get(folder)}

    def _find_lost(self, seen: dict[str, tuple[str, float]]) -> None:
        now = time.monotonic()
        for process, beat in self._read(ALIVE).items():
            if seen[process][0] != beat:
                seen[process] = beat, now
        silent = [process for process, (_, since) in seen.items() if now - since > LOST_AFTER_SECONDS]
        if silent:
            words = {"lost": ", ".join(silent)}
            self._client.key_value_set(f"{WORDS}lost", words["lost"], allow_overwrite=True)
            self._answer(words)

    def _answer(self, words: dict[str, str]) -> None:
        if "left" in words:
            status, why = words["left"].split(" ", 1)
            self._end(int(status), why)
        if "lost" in words:
            rule = f"it has sent no heartbeat for {LOST_AFTER_SECONDS:.0f} s"
            self.lost = self._lost(f"process {words['lost']}", rule)
            self._end(RESUMABLE, f"PeerLostError: {self.lost}")
        if ("stop" in words or self._asked) and not self._agreeing:
            self._client.key_value_set(f"{WORDS}stop", "", allow_overwrite=True)
            # No step begins until all processes have told their step; all stop one step after the largest.
            self._stepping.acquire()
            self._agreeing = True
            self._client.key_value_set(f"{WORDS}step/{self.process}", str(self._step))
        steps = [int(step) for key, step in words.items() if key.startswith("step/")]
        if self._agreeing and self._stop_at == math.inf and len(steps) == self.processes:
            self._stop_at = max(steps) + 1
            self._stepping.release()

    def _end(self, status: int, why: str) -> NoReturn:
        print(f"omnijax: process {self.process} ends: {why}", file=sys.stderr)
        self._outlive()
        end(status)
