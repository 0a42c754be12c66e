"""Evaluates the checkpoints of runs while another process trains them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from omnijax.errors import OmnijaxError
from omnijax.evaluate.loading import Meshes, OpenRun
from omnijax.evaluate.many import Outcome, Session
from omnijax.step.sharding import mesh_that_fits

POLL_SECONDS = 5.0
LOOK_SECONDS = 0.2
"""How long a signal waits while nothing happens."""


def watch(
    runs: Sequence[Path],
    session: Session,
    meshes: Meshes = mesh_that_fits,
    poll_seconds: float = POLL_SECONDS,
    after: Callable[[OpenRun], object] = lambda opened: None,
) -> Outcome:
    """Evaluates each checkpoint of some runs as it comes, those that are there first, the oldest before the others.

    It ends when it has met the checkpoint of the last step of every run (`train.steps`), or when it is asked to stop. A
    run that deletes checkpoints faster than they can be evaluated (`train.keep_checkpoints`) leaves some out.

    Args:
        runs: their directories; they must be runs already, but need no checkpoint yet.
        session: measures, and says when to stop.
        meshes: the devices, whatever a run is trained on.
        poll_seconds: from one look to the next.
        after: called when checkpoints of a run have been evaluated.

    Raises:
        ConfigError: a run doesn't fit the mesh; nothing has been measured then.
    """
    with contextlib.ExitStack() as stack:
        met: dict[OpenRun, set[int]] = {opened: set() for opened in session.open(runs, meshes, stack)}
        waiting = list(met)
        while waiting and not session.stopped():
            for opened in list(waiting):
                try:
                    news = _look(session, opened, met[opened])
                except OmnijaxError as error:  # of its data: all checkpoints of the run have the same
                    session.outcome.refuse(opened.run, error)
                    waiting.remove(opened)
                    continue
                if news:
                    after(opened)
                if opened.config.train.steps in met[opened]:
                    waiting.remove(opened)
            until = time.monotonic() + poll_seconds
            while waiting and time.monotonic() < until and not session.stopped():
                time.sleep(min(LOOK_SECONDS, poll_seconds))
        session.outcome.stopped |= bool(waiting)
    return session.outcome


def _look(session: Session, opened: OpenRun, met: set[int]) -> bool:
    """Evaluates what has come; whether something has."""
    news = [step for step in opened.steps() if step not in met]
    for step in news:
        if session.stopped():
            break
        session.measure(opened, step)
        met.add(step)
    return bool(news)
