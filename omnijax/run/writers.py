"""Writes the metrics of a run to `metrics.jsonl` and TensorBoard, and shows them as a progress bar or lines."""

from __future__ import annotations

import contextlib
import pathlib
import time

import jax
import rich.console
import rich.progress
import tensorboardX.summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from omnijax.files import GrowingFile, line_of, read_lines
from omnijax.paths import move
from omnijax.run.directory import METRICS


class Writer:
    """Writes the metrics of a run, in process 0 only; a context manager.

    A run that resumes drops the lines of steps that it will do again, so that each step has one line.
    """

    def __init__(self, run: pathlib.Path, start: int, steps: int):
        self._active = jax.process_index() == 0
        if not self._active:
            return
        path = run / METRICS
        whole = read_lines(path)
        if path.exists() and path.read_bytes().count(b"\n") > len(whole):  # keeps damaged lines
            move(path, path.with_stem(f"{path.stem}-damaged-at-{start}"))
        kept = [line for line in whole if line["step"] <= start]
        self._before = float(kept[-1]["seconds"]) if kept else 0.0
        self._file = GrowingFile(path, b"".join(map(line_of, kept)))
        # Written in this thread: the thread of tensorboardX dies when the disk is full, and its queue then blocks.
        (run / "tensorboard").mkdir(exist_ok=True)
        self._board = EventsWriter(str(run / "tensorboard" / "events"))
        self._board.write_event(Event(step=start, session_log=SessionLog(status=SessionLog.START)))  # drops later steps
        self._console = rich.console.Console(soft_wrap=True)
        columns = (rich.progress.BarColumn(), rich.progress.MofNCompleteColumn(), "{task.fields[note]}")
        quiet, left = not self._console.is_terminal, rich.progress.TimeRemainingColumn()
        self._progress = rich.progress.Progress("training", *columns, left, console=self._console, disable=quiet)
        self._task = self._progress.add_task("training", total=steps, completed=start, note="compiling …")
        self._line_every, self._next_line = max(1, steps // 20), start
        self._started = time.perf_counter()

    def __enter__(self) -> Writer:
        if self._active:
            self._progress.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._active:
            self._progress.stop()
            with contextlib.nullcontext() if kind is None else contextlib.suppress(OSError):  # it would hide an error
                self._file.close()
                self._board.close()

    def flush(self) -> None:
        """Makes sure that all that was written is in the files. Before a checkpoint, so that none is ahead of them."""
        if self._active:
            self._file.flush()
            self._board.flush()

    def advance(self, step: int) -> None:
        """Moves the bar."""
        if self._active:
            self._progress.update(self._task, completed=step)

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Writes one line of `metrics.jsonl` and the same values to TensorBoard, and shows a few of them."""
        if not self._active:
            return
        metrics = {**metrics, "seconds": self._before + time.perf_counter() - self._started}
        line = {name: float(f"{value:.7g}") for name, value in metrics.items()}  # a float32 has no more digits
        self._file.write(line_of({"step": step, **line}))
        event = Event(step=step, wall_time=time.time())
        for name, value in metrics.items():
            event.summary.value.extend(tensorboardX.summary.scalar(name, value).value)
        self._board.write_event(event)
        tokens, items = metrics["tokens_per_second"], metrics["items_per_second"]
        note = f"loss {metrics['loss']:.3f} · {tokens:,.0f} tokens/s · {items:,.0f} items/s"
        self._progress.update(self._task, completed=step, note=note)
        if not self._console.is_terminal and step >= self._next_line:
            self._next_line = step + self._line_every
            self._console.print(f"step {step:5d} · {note} · {metrics['seconds']:.0f} s", highlight=False)
