"""One GPU: does it train and sample `base` close to its limits, and learn the demo as well as the CPU?

Question   On one GPU, what share of its matrix-product rate does training `base` (1.3 B, bf16) reach, how
           close to its memory bandwidth are sampling and the decoder, and does the demo reach the CPU's accuracy?
Command    python experiments/reproduce/accelerator.py
           (--tiny: toy sizes on any device, to test that it runs; --only train,sample or --skip demo: some parts)
Data       only the demo's, which is built if data/spoken_digits doesn't exist
Hardware   the demands below are for one NVIDIA H200 (jax 0.11, CUDA 13); any GPU with about 80 GB runs it
Time       under 10 minutes; parts that don't fit into this time are left out (--minutes)
Expected   model FLOPs utilization ≥ 0.50 of the matrix-product rate measured in the same process; sampling within 2 ×
           of the bound by weights and cache; the decoder within 8 × of one pass over the same bytes; accuracies of the
           demo at most 0.04 below those of experiments/digits.py
Result     not yet measured on a GPU; raw output goes to experiments/reproduce/results/<device>.json

Each part is a process of its own, with XLA's flags of launch/flags/, and measures the references of its figures itself.
Figures that a part has printed are kept if it fails later. The file is written again after each part.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import rich.box
import rich.console
import rich.table

HERE = Path(__file__).parent
FLAGS = HERE.parents[1] / "launch" / "flags"
# The module of each part, and its weight when the remaining time is divided among the parts that are left.
SECTIONS = {
    "attention": ("attention", 2),
    "train": ("base_step", 4),
    "sample": ("base_sampler", 3),
    "decode": ("decoder", 1),
    "demo": ("digits_demo", 6),
}
TAIL = 4000  # last characters of the output of a failed part that are shown


def main() -> int:
    """Runs the parts one after the other, writes their figures, and prints a table of the demands."""
    options = parse(sys.argv[1:])
    if options.section:
        return run_section(options)
    console = rich.console.Console()
    end = time.time() + 60 * options.minutes
    ran = call(options, "machine", end)
    if ran["status"] != "ran":
        print(ran["said"], file=sys.stderr)
        return 1
    (machine,) = ran.pop("figures")
    report: dict[str, Any] = {
        "form": "tiny" if options.tiny else "full",
        "utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "sections": {},
    }
    out = options.out or (None if options.tiny else HERE / "results")
    for number, name in enumerate(options.sections):
        shares = [SECTIONS[later][1] for later in options.sections[number:]]
        ran = call(options, name, time.time() + (end - time.time()) * shares[0] / sum(shares))
        report["sections"][name] = ran
        print(json.dumps({"section": name} | {key: ran[key] for key in ("status", "seconds")}), flush=True)
        if ran["said"]:
            print(ran["said"], file=sys.stderr)
        if out is not None:
            save(report, out)
    return print_table(report, console)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parses the command line; `sections` are the parts to run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="toy sizes on any device; demands on speed aren't checked")
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"parts to run, of {','.join(SECTIONS)}")
    parser.add_argument("--skip", default="", help="parts to leave out")
    parser.add_argument(
        "--out", type=Path, help="folder of the JSON file; experiments/reproduce/results, or none with --tiny"
    )
    parser.add_argument("--minutes", type=float, default=9.5, help="limit for all parts together")
    parser.add_argument("--section", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    only, skip = ([name for name in names.split(",") if name] for names in (options.only, options.skip))
    unknown = sorted({*only, *skip} - set(SECTIONS))
    if unknown:
        parser.error(f"{', '.join(unknown)}: the parts are {', '.join(SECTIONS)}")
    options.sections = [name for name in SECTIONS if name in only and name not in skip]
    return options


def run_section(options: argparse.Namespace) -> int:
    """Runs one part in this process, and prints a JSON line for each figure."""
    import jax
    import rates

    from omnijax.errors import OmnijaxError, PlatformError

    try:
        if not options.tiny and jax.default_backend() != "gpu":
            rule = f"the full sizes need a GPU, and jax {jax.__version__} finds none"
            raise PlatformError("device", jax.devices()[0].device_kind, rule, "install omnijax[cuda], or use --tiny")
        if options.section == "machine":
            rates.say(**rates.machine())
        else:
            part = importlib.import_module(SECTIONS[options.section][0])
            rates.say_figures(options.section, part.figures(options.tiny, options.until))
    except OmnijaxError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def call(options: argparse.Namespace, name: str, until: float) -> dict[str, Any]:
    """Runs a part in a process of its own, until a time, and prints its lines.

    Returns:
        `status` (`ran`, `failed …` or `out of time`), `seconds`, `figures` (its lines), and `said`: the end of what it
        wrote to stderr, if it failed.
    """
    flags = FLAGS / ("cpu.sh" if options.tiny else "gpu.sh")
    child = [sys.executable, __file__, "--section", name, "--until", str(until), *["--tiny"] * options.tiny]
    start = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as lines,
        tempfile.TemporaryFile("w+", encoding="utf-8") as said,
    ):
        command = ["bash", "-c", '. "$1"; shift; exec "$@"', "bash", str(flags), *child]
        process = subprocess.Popen(command, stdout=lines, stderr=said, start_new_session=True)
        try:
            code = process.wait(max(1.0, until - time.time()))
            status = "ran" if code == 0 else f"failed with status {code}"
        except subprocess.TimeoutExpired:
            status = "out of time"
        finally:
            stop(process)
        lines.seek(0)
        said.seek(0)
        # A part that is stopped may leave half a line.
        whole = [line for line in lines.read().splitlines() if line.startswith("{") and line.endswith("}")]
        tail = said.read()[-TAIL:]
    print("\n".join(whole), flush=True)
    return {
        "status": status,
        "seconds": round(time.perf_counter() - start, 1),
        "figures": [json.loads(line) for line in whole],
        "said": "" if status == "ran" else tail,
    }


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a part and the processes that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def save(report: dict[str, Any], folder: Path) -> None:
    """Writes `<device>.json`."""
    name = re.sub(r"[^a-z0-9]+", "-", report["machine"]["device"].lower()).strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}{'-tiny' if report['form'] == 'tiny' else ''}.json"
    file.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def print_table(report: dict[str, Any], console: rich.console.Console) -> int:
    """Prints demands and figures; returns 1 if a demand isn't met or a part didn't end, else 0."""
    machine = report["machine"]
    console.print(f"{machine['device']}, {machine['runtime']}, jax {machine['versions']['jax']}", highlight=False)
    table = rich.table.Table("", "demand", "measured", "held", box=rich.box.SIMPLE_HEAD)
    good = True
    for name, ran in report["sections"].items():
        good &= ran["status"] == "ran"
        if ran["status"] != "ran":
            table.add_row(name, "ends", ran["status"], "no")
        for figure in ran["figures"]:
            if figure["demand"]:
                value, unit = figure["value"], figure["unit"]
                measured = "" if value is None else f"{value:.3g} {unit}"
                held = {None: "not asked", True: "yes", False: "no"}[figure["held"]]
                table.add_row(figure["name"], figure["demand"], measured, held)
                good &= figure["held"] is not False
    console.print(table)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
