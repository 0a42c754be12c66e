"""The scripts of launch/: their commands, and messages for missing settings. test_restart.py runs them for real.

Commands for gcloud, kubectl, xpk and srun are compared with goldens and given to fakes. None was run on a cluster here.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from shell import ROOT, clean_environment, run

GOLDENS = ROOT / "tests" / "golden" / "launch"
SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix() for path in (ROOT / "launch").rglob("*") if path.suffix in (".sh", ".sbatch")
)
SOURCED = [script for script in SCRIPTS if "/flags/" in script or script.endswith("common.sh")]
CLUSTER = {"PROJECT": "my-project", "ZONE": "us-west4-a"}
RUN = {"EXPERIMENT": "experiments/digits.py", "WORKDIR": "/mnt/share/runs/digits"}
TPU = {**CLUSTER, "TPU_NAME": "omnijax", "ACCELERATOR_TYPE": "v5litepod-256"}
GKE = {**RUN, "JOB_NAME": "digits", "IMAGE": "registry/omnijax:1"}
POD = {"TPU_ACCELERATOR": "tpu-v5-lite-podslice", "TOPOLOGY": "16x16", "CLAIM": "share"}
SWEEP = {"EXPERIMENT": "experiments/ablations/base_size.py", "OUT": "/mnt/share/sweeps/base", "OMNIJAX": "omnijax"}
LOCAL = {"EXPERIMENT": "experiments/digits.py", "OMNIJAX": "omnijax"}
OVERRIDES = ["--size", "base", "--data.directory", "a b's"]
# Name of the golden: script, environment, arguments. A script needs the names of its first case, except OPTIONAL ones.
CASES: dict[str, tuple[str, dict[str, str], list[str]]] = {
    "local": ("launch/local.sh", {**LOCAL, "ACCELERATOR": "cpu"}, OVERRIDES),
    "local_gpu_once": ("launch/local.sh", {**LOCAL, "ACCELERATOR": "gpu", "RETRY": "0", "WORKDIR": "/runs/a"}, []),
    "multiprocess_cpu": ("launch/multiprocess_cpu.sh", {**LOCAL, "PROCESSES": "2", "DEVICES": "4"}, OVERRIDES),
    "tpu_vm_create": ("launch/tpu_vm/create.sh", TPU, []),
    "tpu_vm_create_slices": (
        "launch/tpu_vm/create.sh",
        {**TPU, "ACCELERATOR_TYPE": "v6e-256", "SLICES": "4"},
        ["--spot"],
    ),
    "tpu_vm_setup": ("launch/tpu_vm/setup.sh", {**TPU, "NFS": "10.0.0.2:/share"}, []),
    "tpu_vm_run": ("launch/tpu_vm/run.sh", {**TPU, **RUN}, OVERRIDES),
    "tpu_vm_watch": ("launch/tpu_vm/watch.sh", {**TPU, **RUN, "SPOT": "1"}, OVERRIDES),
    "tpu_vm_delete": ("launch/tpu_vm/delete.sh", TPU, []),
    "gke_apply": ("launch/gke/apply.sh", {**GKE, **POD}, OVERRIDES),
    "gke_apply_slices": ("launch/gke/apply.sh", {**GKE, **POD, "TOPOLOGY": "8x8x8", "SLICES": "4"}, []),
    "gke_xpk": ("launch/gke/xpk.sh", {**GKE, **CLUSTER, "CLUSTER": "c", "TPU_TYPE": "v5litepod-256"}, OVERRIDES),
    "slurm_train": ("launch/slurm/train.sbatch", RUN, OVERRIDES),
    "slurm_sweep": ("launch/slurm/sweep.sbatch", SWEEP, ["--seeds", "3", *OVERRIDES[2:]]),
}
OPTIONAL = {"OMNIJAX", "OUT", "ACCELERATOR", "DEVICES", "SLICES", "NFS", "SPOT", "RETRY"}
NOT_NEEDED = {name: {"ACCELERATOR_TYPE"} for name in ("tpu_vm_setup", "tpu_vm_run", "tpu_vm_delete")}
NOT_NEEDED["slurm_train"] = {"WORKDIR"}
FIRST = {script: name for name, (script, _, _) in reversed(CASES.items())}


# ------------------------------------------------------------------ all scripts


def test_every_script_has_a_case() -> None:
    # launch/retry.sh takes a command. test_restart.py tests it.
    assert {script for script, _, _ in CASES.values()} | {"launch/retry.sh", *SOURCED} == set(SCRIPTS)


def test_scripts_can_be_started() -> None:
    for script in set(SCRIPTS) - set(SOURCED):
        assert script.endswith(".sbatch") or os.access(ROOT / script, os.X_OK), f"chmod +x {script}"


def test_shellcheck_is_clean() -> None:
    shellcheck = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(pathlib.Path(sys.executable).parent))
    assert shellcheck, "shellcheck is missing: pip install -e '.[test]'"
    found = subprocess.run([shellcheck, "--external-sources", *SCRIPTS], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("name", CASES)
def test_dry_run_prints_the_commands(name: str) -> None:
    script, environment, arguments = CASES[name]
    result = run(script, {**environment, "DRY_RUN": "1"}, *arguments)
    assert result.returncode == 0, result.stderr
    path = GOLDENS / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDENS") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(result.stdout)
    golden = path.read_text() if path.exists() else ""
    assert golden == result.stdout, (
        f"{path} says otherwise. It is right to refresh this golden when the commands of {script} are meant to change, "
        "and their syntax was looked up. To refresh: run this test with UPDATE_GOLDENS=1, and read the diff."
    )


@pytest.mark.parametrize("name", CASES)
def test_what_is_printed_can_be_pasted(name: str) -> None:
    script, environment, arguments = CASES[name]
    printed = run(script, {**environment, "DRY_RUN": "1"}, *arguments).stdout
    # Every program is replaced by one that prints its arguments, as the shell reads them.
    shows = "".join(
        f'{program}() {{ printf "<%s>" "$@"; echo; }}\n'
        for program in ("env", "gcloud", "git", "kubectl", "xpk", "srun", "omnijax", "launch/retry.sh")
    )
    read = subprocess.run(
        ["bash", "-c", shows + printed], cwd=ROOT, env=clean_environment(), capture_output=True, text=True
    )
    assert not re.search("syntax error|unexpected", read.stderr), read.stderr
    if arguments == OVERRIDES and script in (
        "launch/local.sh",
        "launch/multiprocess_cpu.sh",
        "launch/slurm/train.sbatch",
    ):
        assert "<--size><base><--data.directory><a b's>" in read.stdout


@pytest.mark.parametrize("script", FIRST)
def test_every_missing_name_is_named(script: str) -> None:
    _, environment, arguments = CASES[FIRST[script]]
    needed = set(environment) - OPTIONAL - NOT_NEEDED.get(FIRST[script], set())
    for missing in [{name} for name in needed] + [needed]:
        left = {name: value for name, value in environment.items() if name not in missing}
        result = run(script, {**left, "DRY_RUN": "1"}, *arguments)
        assert result.returncode == 2
        # The names of a cluster are asked for before those of the run.
        named = set(re.findall(r"^\S+: (\w+) is not set", result.stderr, re.MULTILINE))
        assert named
        assert named <= missing
        assert not result.stdout


@pytest.mark.parametrize(
    ("script", "name", "value"),
    [
        ("launch/local.sh", "ACCELERATOR", "abacus"),
        ("launch/multiprocess_cpu.sh", "PROCESSES", "two"),
        ("launch/multiprocess_cpu.sh", "DEVICES", "0"),
        ("launch/gke/apply.sh", "TOPOLOGY", "16"),
        ("launch/gke/apply.sh", "CHIPS", "3"),
        ("launch/tpu_vm/create.sh", "SLICES", "-1"),
    ],
)
def test_a_bad_value_is_refused(script: str, name: str, value: str) -> None:
    _, environment, _ = CASES[FIRST[script]]
    result = run(script, {**environment, name: value, "DRY_RUN": "1"})
    assert result.returncode == 2
    assert f"{name}={value}" in result.stderr


# ------------------------------------------------------------------ GKE


@pytest.mark.parametrize(("name", "hosts", "slices"), [("gke_apply", 64, 1), ("gke_apply_slices", 128, 4)])
def test_the_jobset_is_what_was_asked_for(name: str, hosts: int, slices: int) -> None:
    text = (GOLDENS / f"{name}.txt").read_text()
    jobset = yaml.safe_load(text.split("<<'YAML'\n")[1].removesuffix("YAML\n"))
    job = jobset["spec"]["replicatedJobs"][0]
    assert (job["replicas"], job["template"]["spec"]["parallelism"]) == (slices, hosts)
    assert job["template"]["spec"]["completions"] == hosts
    container = job["template"]["spec"]["template"]["spec"]["containers"][0]
    assert container["args"] == CASES[name][2]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert environment == {**RUN, "ACCELERATOR": "tpu", "RETRY": "0"}
    left = re.findall(r"\$\{(?!NAMES\b)\w+\}", text)
    assert not left


# ------------------------------------------------------------------ SLURM


def test_sbatch_options_fit_what_the_script_says() -> None:
    text = (ROOT / "launch/slurm/train.sbatch").read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(\S*)", text, re.MULTILINE))
    assert options["gres"] == f"gpu:{options['ntasks-per-node']}"
    assert options["signal"].startswith("B:USR1@")
    assert {"requeue", "open-mode"} <= set(options)
    assert "gpus-per-task" not in options


# ------------------------------------------------------------------ flags

ASK_JAXLIB = "import jax; jax.devices()"
ASK_LIBTPU = """
from jax.experimental import topologies
topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
"""


def flags(accelerator: str, **environment: str) -> dict[str, str]:
    """What launch/flags/ exports."""
    command = f"set -euo pipefail; . launch/flags/{accelerator}.sh; env -0"
    printed = subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return dict(entry.split("=", 1) for entry in printed.split("\0") if entry)


def ask(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    quiet = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **quiet, **environment}, capture_output=True, text=True
    )


def test_jaxlib_knows_the_flags() -> None:
    # The CPU build parses GPU flags too: they are fields of one message.
    every = " ".join(flags(kind, DETERMINISTIC="1")["XLA_FLAGS"] for kind in ("cpu", "gpu"))
    assert "--xla_gpu_deterministic_ops=true" in every
    known = ask(ASK_JAXLIB, XLA_FLAGS=every)
    assert known.returncode == 0, known.stderr
    assert ask(ASK_JAXLIB, XLA_FLAGS=every + " --xla_gpu_no_such_flag=1").returncode != 0


@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs the libtpu wheel of the [tpu] extra")
def test_libtpu_knows_the_flags() -> None:
    every = flags("tpu")["LIBTPU_INIT_ARGS"]
    known = ask(ASK_LIBTPU, LIBTPU_INIT_ARGS=every)
    assert known.returncode == 0, known.stderr
    assert ask(ASK_LIBTPU, LIBTPU_INIT_ARGS=every + " --xla_tpu_no_such_flag=1").returncode != 0


@pytest.mark.parametrize("accelerator", ["cpu", "gpu", "tpu"])
def test_the_callers_flags_come_last(accelerator: str) -> None:
    name = "LIBTPU_INIT_ARGS" if accelerator == "tpu" else "XLA_FLAGS"
    assert flags(accelerator, **{name: "--mine=1"})[name].endswith("--mine=1")
