"""The notebooks as they find themselves in Colab: an environment with its versions, and without omnijax.

    python3.11 experiments/bench/colab.py [--smoke 0]

Makes a virtual environment with the packages that Colab preinstalls, in the versions of launch/constraints/colab.txt,
clones what is committed here, and executes the four notebooks in turn. The first one's set-up cell installs omnijax and
what it lacks; whatever was there before must keep its version, jax above all. Prints a JSON line for each notebook and
a last one with the versions; exit status 0 when all ran and nothing changed. Needs nothing but Python and a package
index; with `--smoke 0` the notebooks run at their full size.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[2]
NOTEBOOKS = ("quickstart", "vocabulary", "radix", "evaluate")
PREINSTALLED = (
    *("jax", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy", "scipy", "scikit-learn"),
    *("matplotlib", "pillow", "protobuf", "pyarrow", "tqdm", "ipykernel", "nbclient"),
)
"""Of what a runtime of Colab has, what omnijax needs, and what executes a notebook."""
NOT_ITS_BUSINESS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_CONSTRAINT", "PIP_TARGET")


def versions(python: pathlib.Path) -> dict[str, str]:
    """What is installed, by name."""
    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True)
    return {one["name"]: one["version"] for one in json.loads(listed.stdout)}


def main() -> int:
    """Runs the check; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", type=int, choices=(0, 1), default=1, help="1: as small as can be")
    smoke = parser.parse_args().smoke
    kept = {name: value for name, value in os.environ.items() if name not in NOT_ITS_BUSINESS}
    environment = kept | {"OMNIJAX_SMOKE": str(smoke), "JUPYTER_PREFER_ENV_PATH": "1"}
    with tempfile.TemporaryDirectory() as folder:
        room = pathlib.Path(folder)
        subprocess.run([sys.executable, "-m", "venv", room / "env"], check=True)
        binaries, constraints = room / "env" / "bin", ROOT / "launch" / "constraints" / "colab.txt"
        pip = [binaries / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--constraint", constraints, *PREINSTALLED], check=True, env=kept)
        before = versions(binaries / "python")
        subprocess.run(["git", "clone", "--quiet", ROOT, room / "omnijax"], check=True)
        failed = []
        for name in NOTEBOOKS:
            start = time.monotonic()
            command = [binaries / "jupyter-execute", room / "omnijax" / "experiments" / "colab" / f"{name}.ipynb"]
            status = subprocess.run(command, env=environment, check=False).returncode
            failed += [name] * (status != 0)
            print(json.dumps({"notebook": name, "status": status, "seconds": round(time.monotonic() - start)}))
        after = versions(binaries / "python")
    changed = {name: (version, after.get(name)) for name, version in before.items() if after.get(name) != version}
    shown = {name: after.get(name) for name in ("jax", "jaxlib", "flax", "orbax-checkpoint", "omnijax")}
    python = ".".join(map(str, sys.version_info[:3]))
    print(json.dumps({"failed": failed, "changed": changed, "python": python, "versions": shown}))
    return 1 if failed or changed else 0


if __name__ == "__main__":
    sys.exit(main())
