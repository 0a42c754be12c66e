"""The notebooks as they run in Colab: an environment with Colab's versions, and without omnijax.

    python3.13 experiments/bench/colab.py [--smoke 0] [--directory DIRECTORY]

Makes a virtual environment with the packages that Colab preinstalls, in the versions of launch/constraints/colab.txt,
clones what is committed here, and executes the six notebooks in turn. The set-up cell of the first notebook installs
omnijax and missing packages. Every preinstalled package must keep its version. Prints a JSON line for each
notebook and a last line with the versions. The exit status is 0 if all notebooks ran and no version changed. Needs only
Python and a package index. With `--smoke 0` the notebooks run at full size. With `--directory` the environment and
the notebooks that ran are kept, and a later call goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[2]
NOTEBOOKS = ("quickstart", "your_files", "things", "vocabulary", "radix", "evaluate")
PREINSTALLED = (
    *("jax", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy", "scipy", "scikit-learn"),
    *("matplotlib", "pillow", "protobuf", "pyarrow", "tqdm", "ipykernel", "nbclient"),
)
"""Packages that a Colab runtime has and omnijax needs, and those that execute a notebook."""
NOT_ITS_BUSINESS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_CONSTRAINT", "PIP_TARGET")


def versions(python: pathlib.Path) -> dict[str, str]:
    """What is installed, by name."""
    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True)
    return {one["name"]: one["version"] for one in json.loads(listed.stdout)}


def prepared(room: pathlib.Path, kept: dict[str, str]) -> dict[str, str]:
    """Makes the environment and the clone; returns the versions of the preinstalled packages."""
    record = room / "preinstalled.json"
    if not record.exists():
        python, constraints = room / "env" / "bin" / "python", ROOT / "launch" / "constraints" / "colab.txt"
        subprocess.run([sys.executable, "-m", "venv", "--clear", room / "env"], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--constraint", constraints, *PREINSTALLED], check=True, env=kept)
        shutil.rmtree(room / "omnijax", ignore_errors=True)
        subprocess.run(["git", "clone", "--quiet", ROOT, room / "omnijax"], check=True)
        record.write_text(json.dumps(versions(python)))
    return json.loads(record.read_text())


def check(room: pathlib.Path, smoke: int) -> int:
    """Runs the notebooks that didn't run yet, and compares the versions; returns the exit status."""
    kept = {name: value for name, value in os.environ.items() if name not in NOT_ITS_BUSINESS}
    environment = kept | {"OMNIJAX_SMOKE": str(smoke), "JUPYTER_PREFER_ENV_PATH": "1"}
    before, failed = prepared(room, kept), []
    for name in NOTEBOOKS:
        ran = room / f"{name}-{smoke}.json"
        if not ran.exists():
            start = time.monotonic()
            notebook = room / "omnijax" / "experiments" / "colab" / f"{name}.ipynb"
            status = subprocess.run([room / "env" / "bin" / "jupyter-execute", notebook], env=environment).returncode
            line = json.dumps({"notebook": name, "status": status, "seconds": round(time.monotonic() - start)})
            print(line, flush=True)
            if status:
                failed.append(name)
            else:
                ran.write_text(line)
    after = versions(room / "env" / "bin" / "python")
    changed = {name: (version, after.get(name)) for name, version in before.items() if after.get(name) != version}
    shown = {name: after.get(name) for name in ("jax", "jaxlib", "flax", "orbax-checkpoint", "omnijax")}
    python = ".".join(map(str, sys.version_info[:3]))
    print(json.dumps({"failed": failed, "changed": changed, "python": python, "versions": shown}))
    return 1 if failed or changed else 0


def main() -> int:
    """Runs the check; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", type=int, choices=(0, 1), default=1, help="1: tiny runs")
    parser.add_argument("--directory", type=pathlib.Path, help="keeps what is done, so that a later call goes on")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        room = (options.directory or pathlib.Path(temporary)).resolve()
        room.mkdir(parents=True, exist_ok=True)
        return check(room, options.smoke)


if __name__ == "__main__":
    sys.exit(main())
