"""Makes several processes one job: `job()` joins them before anything touches a device.

A single process needs no set-up. On Cloud TPU, GKE and SLURM the processes of a job find each other through variables
that JAX reads itself. Anywhere else they need three variables:

    OMNIJAX_COORDINATOR=host:port   address of process 0, the same for all
    OMNIJAX_PROCESSES=4             number of processes
    OMNIJAX_PROCESS=0               number of this process, from 0

`OMNIJAX_DISTRIBUTED=off` makes a process run alone. `omnijax.run.peers` holds what the processes tell each other.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import itertools
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import jax

from omnijax.errors import RESUMABLE, ConfigError, OmnijaxError, PeerLostError
from omnijax.run import end
from omnijax.run.peers import Peers
from omnijax.run.stopping import Stop

T = TypeVar("T")

EXPLICIT = COORDINATOR, PROCESSES, PROCESS = "OMNIJAX_COORDINATOR", "OMNIJAX_PROCESSES", "OMNIJAX_PROCESS"
MODE = "OMNIJAX_DISTRIBUTED"
WAIT = "OMNIJAX_START_SECONDS"
START_SECONDS = 300
"""How long a process waits for the others at the start. Machines of a pod boot minutes apart."""
HEARTBEAT_SECONDS = 120
"""JAX aborts a process when a peer has been silent for this long, or for half of it, since it looks every half.
`omnijax.run.peers` ends a process in good order, and has to notice the silence well before JAX does."""
SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/attributes/worker-network-endpoints"

_peers: Peers | None = None
_meetings = itertools.count(1)


class Place(NamedTuple):
    """The place of this process in its job. JAX finds out whatever is None."""

    processes: int
    coordinator: str | None = None
    process: int | None = None
    local_devices: list[int] | None = None


def peers() -> Peers | None:
    """The other processes of the job; None for a job of one process."""
    return _peers


def first(name: str, work: Callable[[], T], within_seconds: float) -> T:
    """Runs `work` in process 0, and in the others once process 0 has finished, so that they find its results.

    Raises a `PeerLostError` if process 0 hasn't finished in time.
    """
    if _peers is not None and _peers.process > 0:
        _peers.wait(name, f"process 0 to finish: {name}", within_seconds)
    result = work()
    if _peers is not None and _peers.process == 0:
        _peers.say(name, "done")
    return result


def gather(value: str, within_seconds: float = 600.0) -> list[str]:
    """Collects one value from every process, in their order. All processes have to call it equally often.

    Raises a `PeerLostError` if a process didn't come in time.
    """
    if _peers is None:
        return [value]
    meeting = f"meeting {next(_meetings)}"
    _peers.say(f"{meeting}/{_peers.process}", value)
    processes = range(_peers.processes)
    return [_peers.wait(f"{meeting}/{i}", f"process {i} to come to {meeting}", within_seconds) for i in processes]


@contextlib.contextmanager
def job(stop: Stop | None = None, environment: Mapping[str, str] = os.environ) -> Iterator[int]:
    """A context for the work of one process of a job. An error in one process ends all, with the same exit status.

    Args:
        stop: is given the other processes of the job, so that a signal to one process stops all.
        environment: describes the job. A job of one process needs nothing, and nothing is started.

    Yields:
        The index of this process.

    Raises:
        ConfigError: the environment lacks something, or says something impossible.
        PeerLostError: the other processes didn't come in time.
    """
    global _peers
    place = find_place(environment)
    if place is None or place.processes == 1:
        yield 0
        return
    _join(place, _number(environment, WAIT, 1) if WAIT in environment else START_SECONDS)
    state = jax._src.distributed.global_state  # it isn't public; orbax-checkpoint uses it as well
    _peers = Peers(state.client, int(state.process_id), int(state.num_processes))
    if stop is not None:
        stop.peers = _peers
    try:
        yield _peers.process
    finally:
        if (error := sys.exception()) is not None:
            status = RESUMABLE if isinstance(error, PeerLostError) else 2 if isinstance(error, OmnijaxError) else 1
            traceback.print_exception(error) if status == 1 else print(f"omnijax: {error}", file=sys.stderr)
            if isinstance(error, jax.errors.JaxRuntimeError):
                _peers.wait_for_news()  # a sum over processes fails when one is gone; the watch finds out which one
            _peers.leave(status, f"{type(error).__name__}: {error}")
        gather("bye")
        _peers.part()
        _peers = None
        jax.distributed.shutdown()


# ---------------------------------------------------------------------- the environment


def find_place(environment: Mapping[str, str]) -> Place | None:
    """The place of this process, from the environment; None for a process that runs alone.

    Raises a `ConfigError` if the environment lacks something, or says something impossible.
    """
    mode = environment.get(MODE, "auto")
    if mode not in ("auto", "off"):
        raise ConfigError(MODE, mode, "must be auto or off", "unset it")
    if mode == "off":
        return None
    return _explicit(environment) or _slurm(environment) or _tpu(environment)


def _explicit(environment: Mapping[str, str]) -> Place | None:
    there = [name for name in EXPLICIT if environment.get(name)]
    if not there:
        return None
    if len(there) < len(EXPLICIT):
        missing = ", ".join(name for name in EXPLICIT if name not in there)
        rule = f"{', '.join(EXPLICIT)} must be set together, and {missing} isn't"
        raise ConfigError(there[0], environment[there[0]], rule, f"set {missing}, or unset all three")
    address = environment[COORDINATOR]
    if not re.fullmatch(r"\S+:\d{1,5}", address):
        raise ConfigError(COORDINATOR, address, "must be host:port of process 0", "for example localhost:9876")
    processes, process = _number(environment, PROCESSES, 1), _number(environment, PROCESS, 0)
    if process >= processes:
        rule = f"must be less than {PROCESSES} = {processes}"
        raise ConfigError(PROCESS, process, rule, f"number the processes 0 … {processes - 1}")
    return Place(processes, address, process)


def _slurm(environment: Mapping[str, str]) -> Place | None:
    if "SLURM_JOB_ID" not in environment or environment.get("SLURM_NTASKS", "1") == "1":
        return None
    missing = [name for name in SLURM if name not in environment]
    if missing:
        rule = f"this shell is inside a SLURM job of several tasks, but is no task ({', '.join(missing)} not set)"
        fix = f"start it with srun, or set {MODE}=off to run one process alone"
        raise ConfigError("SLURM_NTASKS", environment["SLURM_NTASKS"], rule, fix)
    # JAX gives each task one GPU, by its local rank. The only task of a node gets all GPUs.
    alone = re.fullmatch(r"1(\(x\d+\))?", environment.get("SLURM_STEP_TASKS_PER_NODE", "")) is not None
    gpus = environment.get("SLURM_GPUS_ON_NODE", "")
    devices = list(range(int(gpus))) if alone and gpus.isdigit() and int(gpus) else None
    return Place(_number(environment, "SLURM_NTASKS", 1), local_devices=devices)


def _tpu(environment: Mapping[str, str]) -> Place | None:
    vendors = (Path(path).read_text().strip() for path in glob.glob("/sys/bus/pci/devices/*/vendor"))
    if environment.get("JAX_PLATFORMS", "tpu") not in ("tpu", "", "tpu,cpu") or "0x1ae0" not in vendors:
        return None  # this machine has no TPU, or the user doesn't want it
    slices = int(environment.get("MEGASCALE_NUM_SLICES") or 1)
    hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")  # GKE
    if hosts is None and "TPU_SKIP_MDS_QUERY" not in environment:
        hosts = _tpu_workers()
    processes = slices * (1 + hosts.count(",") if hosts else 1)
    return Place(processes) if processes > 1 else None


def _tpu_workers() -> str | None:
    """The workers of a Cloud TPU, from its metadata server."""
    request = urllib.request.Request(METADATA, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return str(answer.read().decode())
    except (urllib.error.URLError, TimeoutError):
        return None


def _number(environment: Mapping[str, str], name: str, least: int) -> int:
    text = environment[name]
    if not text.isdigit() or int(text) < least:
        raise ConfigError(name, text, f"must be a whole number, {least} or more", "set it to such a number")
    return int(text)


# ---------------------------------------------------------------------- JAX's part


def _join(place: Place, seconds: int) -> None:
    """Joins the others, in a thread: while JAX waits, no signal reaches Python in the thread that called it."""
    _end_clearly_on_abort(place, seconds)
    failed: list[BaseException] = []

    def join() -> None:
        try:
            jax.distributed.initialize(
                place.coordinator,
                place.processes if place.coordinator else None,
                place.process,
                place.local_devices,
                cluster_detection_method="deactivate" if place.coordinator else None,
                initialization_timeout=2 * seconds + 60,
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            )
        except (RuntimeError, ValueError, OSError) as error:
            failed.append(error)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    deadline = time.monotonic() + seconds
    thread = threading.Thread(target=join, name="omnijax-start", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.2)
        if time.monotonic() > deadline:  # JAX would wait longer, and then some versions end the process by themselves
            _say_and_end(_not_found(place, seconds))
    for number, handler in before.items():
        signal.signal(number, handler)  # JAX has taken SIGTERM for its preemption service
    if failed:
        raise _not_found(place, seconds, f" ({failed[0]})") from failed[0]


def _not_found(place: Place, seconds: int, why: str = "") -> PeerLostError:
    rule = f"the {place.processes} processes of the job didn't find each other within {seconds} s{why}"
    return PeerLostError("process", place.coordinator or "the other processes", rule, "start all processes again")


def _say_and_end(lost: PeerLostError) -> NoReturn:
    print(f"omnijax: {f'process {_peers.process} ends: ' if _peers else ''}PeerLostError: {lost}", file=sys.stderr)
    end(RESUMABLE)


def _why_aborted(place: Place, seconds: int) -> PeerLostError | None:
    """Why JAX's client aborts: a process never came, or has died; None for any other cause."""
    if _peers is None:
        return _not_found(place, seconds)
    if _peers.lost is not None:
        return _peers.lost
    coordinator = str(jax._src.distributed.global_state.coordinator_address)
    host, port = coordinator.rsplit(":", 1)
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
    except OSError as error:
        rule = f"it has died, and it coordinated the job ({error})"
        return PeerLostError("process", f"process 0 at {coordinator}", rule, "run the same command again everywhere")
    return None


def _end_clearly_on_abort(place: Place, seconds: int) -> None:
    """When JAX's client aborts the process, prints why and exits with the status on which launchers restart."""

    def aborted(number: int) -> None:
        lost = _why_aborted(place, seconds)
        if lost is not None:
            _say_and_end(lost)
        ctypes.CDLL(None).signal(number, None)  # an abort with another cause keeps its usual effect

    global _on_abort
    _on_abort = ctypes.CFUNCTYPE(None, ctypes.c_int)(aborted)
    ctypes.CDLL(None).signal(int(signal.SIGABRT), _on_abort)


_on_abort: Any = None  # C calls it, so that it has to stay alive
