"""Restarting, stopping and watching: the scripts of launch/ run for real, on commands made for the test."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import signal
import subprocess

import pytest
from shell import ROOT, clean_environment, fake, run, wait_for

pytestmark = pytest.mark.usefixtures("interruptible")
RUN = {"EXPERIMENT": "experiments/digits.py", "WORKDIR": "/mnt/share/runs/digits"}
TPU = {"PROJECT": "my-project", "ZONE": "us-west4-a", "TPU_NAME": "omnijax", "ACCELERATOR_TYPE": "v5litepod-256"}

# ------------------------------------------------------------------ restarting

# Counts its runs in $COUNT, and ends run i as the i-th word of $ENDS says: a status, or the name of a signal.
COUNTED = """
runs=$(wc -l <"$COUNT"); echo "run $*" >>"$COUNT"
read -ra ends <<<"$ENDS"; end=${ends[$runs]:-0}
trap 'exit 75' TERM USR1; trap 'exit 130' INT
if [[ $end == wait ]]; then touch "$COUNT.ready"; for _ in {1..600}; do sleep 0.1; done; fi
if [[ $end == long ]]; then sleep 2; end=75; fi
if [[ $end =~ ^[0-9]+$ ]]; then exit "$end"; else kill -s "$end" $$; sleep 1; fi
"""


@pytest.fixture
def counted(tmp_path: pathlib.Path) -> dict[str, str]:
    (tmp_path / "count").touch()
    fake(tmp_path / "counted", COUNTED)
    return {"COMMAND": str(tmp_path / "counted"), "COUNT": str(tmp_path / "count"), "RETRY_FIRST_SECONDS": "0"}


def runs_of(counted: dict[str, str]) -> int:
    return len(pathlib.Path(counted["COUNT"]).read_text().splitlines())


@pytest.mark.parametrize(
    ("ends", "runs", "status"),
    [
        ("0", 1, 0),
        ("75 0", 2, 0),  # stopped, or lost a peer
        ("75 KILL ABRT SEGV TERM 0", 6, 0),  # killed
        ("2 0", 1, 2),  # wrong input: the same again would fail again
        ("1 0", 1, 1),
        ("75 3 0", 2, 3),
        ("INT 0", 1, 130),  # a person
        ("255 0", 1, 255),  # ssh's own, no signal
    ],
)
def test_retry_starts_again_while_it_makes_sense(counted: dict[str, str], ends: str, runs: int, status: int) -> None:
    result = run("launch/retry.sh", {**counted, "ENDS": ends}, counted["COMMAND"], "with", "a b")
    assert (runs_of(counted), result.returncode) == (runs, status), result.stderr
    assert set(pathlib.Path(counted["COUNT"]).read_text().splitlines()) == {"run with a b"}


def test_retry_gives_up_after_quick_failures_in_a_row(counted: dict[str, str]) -> None:
    result = run("launch/retry.sh", {**counted, "ENDS": "75 " * 9, "RETRY_QUICK_FAILURES": "3"}, counted["COMMAND"])
    assert (runs_of(counted), result.returncode) == (3, 75)
    assert "giving up" in result.stderr


def test_a_long_run_in_between_starts_the_count_anew(counted: dict[str, str]) -> None:
    limits = {"RETRY_QUICK_FAILURES": "2", "RETRY_QUICK_SECONDS": "1"}
    result = run("launch/retry.sh", {**counted, **limits, "ENDS": "75 long 75 long 0"}, counted["COMMAND"])
    assert (runs_of(counted), result.returncode) == (5, 0)


def test_retry_waits_twice_as_long_each_time_up_to_a_cap(counted: dict[str, str], tmp_path: pathlib.Path) -> None:
    slept = fake(tmp_path / "sleep", f'echo "$1" >>{tmp_path / "slept"}')
    path = f"{pathlib.Path(slept).parent}:{os.environ['PATH']}"
    limits = {"RETRY_FIRST_SECONDS": "5", "RETRY_MOST_SECONDS": "30", "PATH": path}
    run("launch/retry.sh", {**counted, **limits, "ENDS": "75 " * 5}, counted["COMMAND"])
    assert (tmp_path / "slept").read_text().split() == ["5", "10", "20", "30", "30"]


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_retry_hands_signals_on_and_then_lets_it_be(counted: dict[str, str], sent: signal.Signals, status: int) -> None:
    environment = clean_environment(**counted, ENDS="wait 0")
    process = subprocess.Popen(["bash", "launch/retry.sh", counted["COMMAND"]], cwd=ROOT, env=environment)
    wait_for(pathlib.Path(counted["COUNT"] + ".ready"))
    process.send_signal(sent)
    assert process.wait(60) == status
    assert runs_of(counted) == 1


def test_retry_can_be_stopped_while_it_waits(counted: dict[str, str]) -> None:
    environment = clean_environment(**{**counted, "RETRY_FIRST_SECONDS": "300"}, ENDS="75 0")
    command = ["bash", "launch/retry.sh", counted["COMMAND"]]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "starting again in 300 s" in process.stderr.readline()
        process.terminate()
        assert process.wait(60) == 75
    assert runs_of(counted) == 1


# ------------------------------------------------------------------ several processes

# Shows what it was given; ends as END_<process> says, or waits for a signal.
PROCESS = """
echo "process $OMNIJAX_PROCESS of $OMNIJAX_PROCESSES, coordinator $OMNIJAX_COORDINATOR, devices $JAX_NUM_CPU_DEVICES"
echo "platforms $JAX_PLATFORMS, no_proxy ${no_proxy-none}, arguments $*" >&2
trap 'echo told to stop; exit 75' TERM
end=END_$OMNIJAX_PROCESS; end=${!end:-0}
echo x >>"$SEEN/$OMNIJAX_PROCESS"
if (($(wc -l <"$SEEN/$OMNIJAX_PROCESS") > 1)); then exit 0; fi
if [[ $end == wait ]]; then for _ in {1..600}; do sleep 0.1; done; fi
while (($(ls "$SEEN" | wc -l) < OMNIJAX_PROCESSES)); do sleep 0.05; done
if [[ $end =~ ^[0-9]+$ ]]; then exit "$end"; else kill -s "$end" $$; sleep 1; fi
"""


def several(tmp_path: pathlib.Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    (tmp_path / "seen").mkdir()
    settings = {
        "EXPERIMENT": "experiments/digits.py",
        "OMNIJAX": fake(tmp_path / "omnijax", PROCESS),
        "SEEN": str(tmp_path / "seen"),
        "RETRY_FIRST_SECONDS": "0",
        "GRACE_SECONDS": "1",
    }
    return subprocess.Popen(
        ["bash", "launch/multiprocess_cpu.sh", *arguments],
        cwd=ROOT,
        env=clean_environment(**{**settings, **environment}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def lines_by_process(output: str) -> dict[str, list[str]]:
    lines: dict[str, list[str]] = {}
    for line in output.splitlines():
        match = re.fullmatch(r"\[(\d)\] (.*)", line)
        assert match, f"{line!r} doesn't say which process it is from"
        lines.setdefault(match[1], []).append(match[2])
    return lines


@pytest.mark.parametrize(
    ("proxy", "no_proxy"),
    [({}, "none"), ({"https_proxy": "http://proxy:8080", "no_proxy": "here"}, "127.0.0.1,localhost,here")],
)
def test_every_process_gets_its_environment_and_its_label(
    tmp_path: pathlib.Path, proxy: dict[str, str], no_proxy: str
) -> None:
    process = several(tmp_path, "--model.depth", "1 2", PROCESSES="3", DEVICES="2", **proxy)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    lines = lines_by_process(output)
    assert sorted(lines) == ["0", "1", "2"]
    address = re.search(r"coordinator (127\.0\.0\.1:\d+),", lines["0"][0])
    assert address
    for number, (first, second) in lines.items():
        assert first == f"process {number} of 3, coordinator {address[1]}, devices 2"
        arguments = "train experiments/digits.py --workdir runs/digits --model.depth 1 2"
        assert second == f"platforms cpu, no_proxy {no_proxy}, arguments {arguments}"


@pytest.mark.parametrize(("end", "status"), [("KILL", 75), ("75", 75), ("2", 2), ("1", 1)])
def test_when_one_dies_the_rest_is_ended(tmp_path: pathlib.Path, end: str, status: int) -> None:
    process = several(tmp_path, "--once", PROCESSES="2", END_0="wait", END_1=end)
    _, errors = process.communicate(timeout=60)  # far less than the minute that process 0 would go on for
    assert process.returncode == status, errors
    assert re.search(r"process 1 ended with status \d+; the others have 1 s", errors)
    assert "killing the 1 process(es) left" in errors


def test_after_a_death_all_are_started_again(tmp_path: pathlib.Path) -> None:
    process = several(tmp_path, PROCESSES="2", END_0="75", END_1="KILL")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "starting again" in errors
    starts = [line for lines in lines_by_process(output).values() for line in lines if line.startswith("process")]
    assert len(starts) == 4


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_stops_all_of_them(tmp_path: pathlib.Path, sent: signal.Signals, status: int) -> None:
    process = several(tmp_path, PROCESSES="2", END_0="wait", END_1="wait", GRACE_SECONDS="50")
    for number in "01":
        wait_for(tmp_path / "seen" / number)
    process.send_signal(sent)
    output, errors = process.communicate(timeout=45)  # before the time of grace is over: they were told
    assert process.returncode == status, errors
    assert all("told to stop" in lines for lines in lines_by_process(output).values())


# ------------------------------------------------------------------ TPU machines that are taken away

# `list` answers with the lines of $STATES in turn; when the last one is left, the training has ended with $STATUS.
GCLOUD = """
echo "$*" >>"$CALLS"
case "$4" in
  list) head -n 1 "$STATES"; if (($(wc -l <"$STATES") > 1)); then sed -i.old 1d "$STATES"; fi ;;
  ssh) if [[ "$*" == *"cat omnijax.status"* ]] && (($(wc -l <"$STATES") == 1)); then echo "$STATUS"; fi ;;
esac
"""


def watch(tmp_path: pathlib.Path, states: list[str], status: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    fake(tmp_path / "gcloud", GCLOUD)
    (tmp_path / "states").write_text("".join(f"{state}\n" for state in states))
    settings = {"CALLS": str(tmp_path / "calls"), "STATES": str(tmp_path / "states"), "STATUS": status}
    waits = {"POLL_SECONDS": "0", "RETRY_FIRST_SECONDS": "0", "RETRY_QUICK_FAILURES": "3"}
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    result = run("launch/tpu_vm/watch.sh", {**TPU, **RUN, **settings, **waits, **path}, "--size", "base")
    calls = [line.split()[3] for line in (tmp_path / "calls").read_text().splitlines()]
    return result, [call for call in calls if call not in ("list", "scp", "ssh")]


def test_watch_creates_machines_and_ends_with_the_training(tmp_path: pathlib.Path) -> None:
    result, calls = watch(tmp_path, ["", "WAITING_FOR_RESOURCES", "ACTIVE"], "0")
    assert result.returncode == 0, result.stderr
    assert calls == ["create"]
    assert "the training ended with status 0" in result.stderr


def test_watch_creates_machines_anew_when_they_are_taken_away(tmp_path: pathlib.Path) -> None:
    result, calls = watch(tmp_path, ["ACTIVE", "SUSPENDED", "SUSPENDED", "PROVISIONING", "ACTIVE"], "0")
    assert result.returncode == 0, result.stderr
    assert calls == ["delete", "create"]
    assert "is SUSPENDED: its machines are gone" in result.stderr


def test_watch_takes_up_a_request_that_is_there(tmp_path: pathlib.Path) -> None:
    result, calls = watch(tmp_path, ["PROVISIONING", "PROVISIONING", "ACTIVE"], "0")
    assert result.returncode == 0, result.stderr
    assert not calls


def test_watch_deletes_nothing_when_it_cannot_tell(tmp_path: pathlib.Path) -> None:
    result, calls = watch(tmp_path, ["STATE_UNSPECIFIED"], "")
    assert result.returncode == 75
    assert not calls


@pytest.mark.parametrize("status", ["2", "1"])
def test_watch_passes_a_failure_on(tmp_path: pathlib.Path, status: str) -> None:
    result, calls = watch(tmp_path, ["ACTIVE"], status)
    assert result.returncode == int(status)
    assert not calls


# ------------------------------------------------------------------ SLURM


@pytest.mark.parametrize(("ask_to_leave", "requeued"), [(True, True), (False, False)])
def test_the_job_goes_back_into_the_queue_when_asked_to_leave(
    counted: dict[str, str], tmp_path: pathlib.Path, ask_to_leave: bool, requeued: bool
) -> None:
    fake(tmp_path / "srun", COUNTED)
    fake(
        tmp_path / "scontrol",
        f'if [[ $1 == show ]]; then echo node1; echo node2; else echo "$*" >{tmp_path}/requeue; fi',
    )
    environment = clean_environment(
        **counted,
        **RUN,
        PATH=f"{tmp_path}:{os.environ['PATH']}",
        SLURM_SUBMIT_DIR=str(ROOT),
        SLURM_JOB_ID="7",
        SLURM_JOB_NODELIST="node[1-2]",
        ENDS="75 wait" if ask_to_leave else "75 75 2",
    )
    copy = tmp_path / "slurm_script"  # SLURM runs a copy
    shutil.copy(ROOT / "launch/slurm/train.sbatch", copy)
    process = subprocess.Popen(["bash", str(copy)], cwd=tmp_path, env=environment)
    if ask_to_leave:
        wait_for(pathlib.Path(counted["COUNT"] + ".ready"))
        process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == (75 if ask_to_leave else 2)
    assert (tmp_path / "requeue").exists() == requeued
    if requeued:
        assert (tmp_path / "requeue").read_text() == "requeue 7\n"
