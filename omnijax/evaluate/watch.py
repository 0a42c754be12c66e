"""Evaluates the checkpoints of runs while another process trains them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from omnijax.evaluate.loading import Meshes, OpenRun
from omnijax.evaluate.many import Session
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
) -> Session:
    """Evaluates each checkpoint of some runs as it comes, the oldest first.

    It ends when it has met the checkpoint of the last step of every run (`train.steps`), or when it is asked to stop. A
    run that deletes checkpoints faster than they can be evaluated (`train.keep_checkpoints`) leaves some out.

    Args:
        runs: directories of runs, which need no checkpoint yet.
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
        while waiting and not session.stop():
            for opened in waiting:
                with session.refusing(opened.run):
                    new = [step for step in opened.steps() if step not in met[opened]]
                    for step in new:
                        if not session.stop():
                            session.measure(opened, step)
                            met[opened].add(step)
                    if new:
                        after(opened)
            last = {opened for opened in waiting if opened.config.train.steps in met[opened]}
            waiting = [one for one in waiting if one not in last and str(one.run) not in session.refused]
            until = time.monotonic() + poll_seconds
            while waiting and time.monotonic() < until and not session.stop():
                time.sleep(min(LOOK_SECONDS, poll_seconds))
        session.stopped |= bool(waiting)
    return session
