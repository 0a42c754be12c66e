"""Prepares a folder of some gigabytes, and trains on it, with less memory than half its size.

    python experiments/bench/large_folder.py --gigabytes 4

Makes photographs of noise with captions. Then `omnijax prepare` and `omnijax train` run as a user runs them, and the
most memory of each of their processes (VmHWM) is read from /proc ten times a second. Prints a JSON line; exit status
0 says that both commands succeed and no process needs more than half of the folder's size.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import PIL.Image
import rich.progress

SIDE = 1024
EVERY_SECONDS = 0.1


def make_folder(folder: pathlib.Path, gigabytes: float) -> int:
    """Writes pictures with texts until there are so many; returns their bytes."""
    random, total, number = np.random.default_rng(0), 0, 0
    folder.mkdir()
    with rich.progress.Progress() as progress:
        bar = progress.add_task("Making pictures", total=gigabytes)
        while total < gigabytes * 1e9:
            path = folder / f"{number:06d}.png"
            pixels = random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
            PIL.Image.fromarray(pixels).save(path, compress_level=0)
            path.with_suffix(".txt").write_text(f"noise, number {number}")
            total, number = total + path.stat().st_size, number + 1
            progress.update(bar, completed=total / 1e9)
    return total


def descendants(process: int) -> list[int]:
    """A process, its children, and theirs."""
    found, waiting = [], [process]
    while waiting:
        one = waiting.pop()
        found.append(one)
        for path in pathlib.Path(f"/proc/{one}/task").glob("*/children"):
            try:
                waiting += map(int, path.read_text().split())
            except OSError:  # it has just ended
                continue
    return found


def most_memory(command: list[str]) -> tuple[int, int]:
    """Runs a command; returns its exit status, and the most bytes that any of its processes had."""
    most = 0
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            for one in descendants(process.pid):
                try:
                    lines = pathlib.Path(f"/proc/{one}/status").read_text().splitlines()
                except OSError:
                    continue
                most = max([most, *(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))])
            time.sleep(EVERY_SECONDS)
    return process.returncode, most


def main() -> int:
    """Prints a JSON line; 1 if a command fails, or needs too much memory."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=4.0, help="size of the folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        place, omnijax = pathlib.Path(directory), [str(pathlib.Path(sys.executable).with_name("omnijax"))]
        total = make_folder(place / "raw", options.gigabytes)
        experiment, run = place / "data" / "experiment.py", place / "run"
        found = {
            "prepare": most_memory([*omnijax, "prepare", str(place / "raw"), "--out", str(experiment.parent)]),
            "train": most_memory([*omnijax, "train", str(experiment), "--workdir", str(run), "--train.steps", "20"]),
        }
    bytes_ = {name: most for name, (_, most) in found.items()}
    print(json.dumps({"folder": total, "most bytes of a process": bytes_}))
    return int(any(status for status, _ in found.values()) or max(bytes_.values()) > total / 2)


if __name__ == "__main__":
    sys.exit(main())
