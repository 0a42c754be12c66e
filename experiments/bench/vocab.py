"""How fast is the vocabulary? Encoder, decoder and grammar, each against the best of this machine for the case.

    pip install -e '.[bench]' && python experiments/bench/vocab.py
    python experiments/bench/vocab.py encode --json

Prints a table and a JSON line for each row of the parts `vocab_encode.py`, `vocab_decode.py` and `vocab_sample.py`, all
measured in one process. A ratio compares neighbouring runs of the same process. Tokens a second depend on the machine
and its other load. Takes about two minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import importlib

import rich.console
from row import print_machine, print_table

PARTS = {name: f"vocab_{name}" for name in ("encode", "decode", "sample")}


def main() -> None:
    """Runs the parts and prints their rows."""
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
        title = f"{part}: {vars(module).get('UNIT', 'units are in the rows')}"
        lines += print_table(console, title, module.rows(), part=part)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
