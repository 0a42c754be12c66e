"""Does the step of a 6.5 B model fit on 256 TPU v5e chips, and how much does it send? Compiled without a TPU.

    JAX_PLATFORMS=cpu python experiments/bench/pod.py

Needs `pip install -e '.[tpu]'`. Plans experiments/digits.py at size `large` on v5e:16x16, as `omnijax plan` does. The
exit status is 0 if a chip needs at most 2.0 GB at the peak and gathers at most 26 GB in a step.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import tempfile

PEAK_BYTES, GATHERED_BYTES = 2.0e9, 26e9
DIGITS = pathlib.Path(__file__).parents[1] / "digits.py"


def main() -> int:
    """Plans, prints a JSON line, and returns the exit status."""
    with tempfile.TemporaryDirectory() as out:
        arguments = ["plan", str(DIGITS), "--size", "large", "--topology", "v5e:16x16", "--json", "--out", out]
        call = [sys.executable, "-c", "import sys; from omnijax.cli import main; sys.exit(main())", *arguments]
        found = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=False)
    if found.returncode:
        print(found.stdout)
        return found.returncode
    (step,) = json.loads(found.stdout)["programs"]
    gathered = sum(row["bytes"] for row in step["collectives"] if row["kind"] == "all-gather")
    peak = step["memory"]["peak"]
    print(json.dumps({"peak_bytes": peak, "gathered_bytes": gathered, "most": [PEAK_BYTES, GATHERED_BYTES]}))
    return int(peak > PEAK_BYTES or gathered > GATHERED_BYTES)


if __name__ == "__main__":
    sys.exit(main())
