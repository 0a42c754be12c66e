# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/omnijax/blob/main/experiments/colab/radix.ipynb)
#
# # What does the radix do?
#
# The ablation `experiments/ablations/base_size.py` in small: the same small transformer on the same pictures and
# words, once with a flat softmax over all 83,521 patches and in a few radices, at equal items seen. Expect about ten
# minutes on two CPU cores. With so few steps and seeds it shows how the instrument works, and settles nothing.

# %% [markdown]
# ## Set-up
#
# Where omnijax is missing, the next cell installs it: from the checkout that this notebook lies in, else from
# `REPOSITORY`. Whatever is preinstalled keeps its version, above all jax, which belongs to the runtime's drivers.

# %%
import importlib.util
import os
import pathlib
import subprocess
import sys
import warnings

REPOSITORY = "https://github.com/OWNER/omnijax"  # put whoever keeps your copy in place of OWNER

# Processes that the cells below start share a GPU with this one.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
warnings.filterwarnings("ignore", 'install "ipywidgets"')  # without it there are lines instead of bars

found = importlib.util.find_spec("omnijax")
if found is None or found.origin is None:  # a folder that happens to have this name is no package
    folders = (pathlib.Path.cwd(), *pathlib.Path.cwd().parents)
    checkout = next((folder for folder in folders if (folder / "omnijax" / "__init__.py").is_file()), None)
    if checkout is None:
        if "/OWNER/" in REPOSITORY:
            raise ValueError("REPOSITORY: there is no omnijax here; put whoever keeps your copy in place of OWNER")
        checkout = pathlib.Path("omnijax-checkout").resolve()
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", REPOSITORY, str(checkout)], check=True)
    pip = [sys.executable, "-m", "pip"]
    listed = subprocess.run([*pip, "list", "--format=freeze"], check=True, capture_output=True, text=True)
    pathlib.Path("preinstalled.txt").write_text(listed.stdout)
    kept = ["--constraint", "preinstalled.txt"]
    subprocess.run([*pip, "install", "--quiet", *kept, "--editable", f"{checkout}[demo]"], check=True)
    sys.path.insert(0, str(checkout))  # this process looked for packages before there was this one

import jax

import omnijax

ROOT = pathlib.Path(omnijax.__file__).parents[1]
print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, omnijax {omnijax.__version__} from {ROOT}")

# %%
SMOKE = os.environ.get("OMNIJAX_SMOKE", "0") != "0"  # as small as can be: whether all of it works, and no more

# %% [markdown]
# ## What would be run
#
# Arms have names; a pattern chooses among them. `--dry-run` resolves everything and trains nothing: steps, tokens,
# parameters, FLOPs and memory of each arm, and the command that would run it alone.

# %%
from omnijax.cli import main

OUT = pathlib.Path("sweeps/radix")
ONLY = "base=1[67]" if SMOKE else "*[47t]"  # the latter: base=4, base=17, base=64 and flat
SIZE = ["--smoke", "--seeds", "1"] if SMOKE else ["--budget", "items=48000", "--seeds", "2"]
SWEEP = ["sweep", str(ROOT / "experiments" / "ablations" / "base_size.py"), "--out", str(OUT), "--only", ONLY, *SIZE]

assert main([*SWEEP, "--dry-run"]) == 0

# %% [markdown]
# ## Run it
#
# One process for each arm and seed. If it is interrupted, run the cell again: it goes on with what isn't done. Every
# arm reads the same documents in the same steps and is measured on the same held-out records, which hashes make sure
# of.

# %%
assert main(SWEEP) == 0

# %% [markdown]
# ## The table
#
# Bits of an item, renormalised under the grammar, mean over the seeds with a 95 % interval of Student's t (two seeds
# give a very wide one); the difference to the baseline, seed for seed, and whether that can be told from nothing.
# Fewer bits are better. `image|text` is a picture given its word.

# %%
from omnijax.sweep.inputs import read_results
from omnijax.sweep.table import rows_of

results = read_results(OUT)
for form in results.forms:
    print(f"\n{form}\n  {'arm':10s} {'bits an item':24s} {'difference':>12s}   verdict")
    for row in rows_of(results, form):
        if row.bits.count:
            told = f"[{row.bits.low:6.2f}, {row.bits.high:6.2f}]" if row.bits.count > 1 else ""
            print(f"  {row.arm:10s} {row.bits.mean:7.3f} {told:16s} {row.difference.mean:+12.3f}   {row.verdict}")

# %% [markdown]
# ## The plots
#
# A picture given its word: bits of each arm, every seed a dot, the line the baseline.

# %%
import io

from IPython.display import Image, display

from omnijax.report.theme import LIGHT
from omnijax.sweep.figures import Mark, rows_figure

FORM = "image|text"
done = [row for row in rows_of(results, FORM) if row.bits.count]
seeds = [tuple(results.values(row.arm, "bits", FORM, "renormalised").values()) for row in done]
marks = [Mark(row.arm, row.bits, values) for row, values in zip(done, seeds, strict=True)]
buffer = io.BytesIO()
rows_figure(marks, results.baseline, {}, f"bits an item, {FORM}", LIGHT).savefig(buffer, format="png", dpi=160)
display(Image(buffer.getvalue(), width=560))

# %% [markdown]
# From the page of the sweep, `report.html` in its directory, which also says in words what the figures do and don't
# show (arms that weren't chosen are called missing there): the same bits against the base, against the seconds of
# training, and what an item costs.

# %%
for name in ("base_image_text", "seconds_image_text", "cost"):
    picture = OUT / "figures" / f"{name}.png"
    if picture.exists():  # one base alone makes no line
        display(Image(picture.read_bytes(), width=560))

# %% [markdown]
# All arms at full length, with three seeds: `omnijax sweep experiments/ablations/base_size.py`.
