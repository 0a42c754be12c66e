"""How fast is the vocabulary? Encoder, decoder and grammar, each against the best that this machine does for the case.

    pip install -e '.[bench]' && python experiments/bench/vocab.py
    python experiments/bench/vocab.py encode --json

Prints a table and one JSON line for each row: what the parts `vocab_encode.py`, `vocab_decode.py` and `vocab_sample.py`
measure, all in one process. A ratio compares neighbouring runs of the same process; figures in tokens a second are of
this machine in this minute. Takes about two minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import importlib

import rich.console
from row import print_machine, print_table

PARTS = {name: f"vocab_{name}" for name in ("encode", "decode", "sample")}


def main() -> None:
    """Runs the parts and prints what they give."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)}; all by default")
    parser.add_argument("--json", action="store_true", help="no table, only the lines")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: the parts are {', '.join(PARTS)}")
    console = rich.console.Console(quiet=arguments.json)
    lines = [print_machine(console)]
    for part in arguments.parts or PARTS:
        module = importlib.import_module(PARTS[part])
        title = f"{part}: {vars(module).get('UNIT', 'figures as its rows say')}"
        lines += print_table(console, title, module.rows(), part=part)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
