# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/omnijax/blob/main/experiments/colab/radix.ipynb)
#
# # What does the radix do?
#
# This is a small version of the ablation `experiments/ablations/base_size.py`. It trains the same small transformer on
# the same pictures and words, with a flat softmax over all 83,521 patches and with a few radices, at the same number of
# items. It takes about ten minutes on two CPU cores. With so few steps and seeds it only shows how a sweep works: the
# differences prove nothing.

# %% [markdown]
# ## Set-up
#
# If omnijax is missing, the next cell installs it from the checkout around this notebook, or from `REPOSITORY`.
# Preinstalled packages keep their versions, above all jax, which has to fit the drivers of the runtime.

# %%
import importlib.util
import os
import pathlib
import subprocess
import sys
import warnings

REPOSITORY = "https://github.com/OWNER/omnijax"  # replace OWNER by the owner of your copy

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # this process shares its GPU with those it starts
warnings.filterwarnings("ignore", 'install "ipywidgets"')  # without ipywidgets, progress is shown as text

# A folder with this name can be found, too. It isn't the package and has no origin.
if getattr(importlib.util.find_spec("omnijax"), "origin", None) is None:
    folders, clone = (pathlib.Path.cwd(), *pathlib.Path.cwd().parents), pathlib.Path("omnijax-checkout").resolve()
    checkout = next((folder for folder in folders if (folder / "omnijax" / "__init__.py").is_file()), clone)
    if checkout == clone:
        if "/OWNER/" in REPOSITORY:
            raise ValueError("REPOSITORY: omnijax isn't installed here; replace OWNER by the owner of your copy")
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", REPOSITORY, str(clone)], check=True)
    pip, kept = [sys.executable, "-m", "pip"], pathlib.Path("preinstalled.txt")
    kept.write_text(subprocess.check_output([*pip, "list", "--format=freeze"], text=True))
    install = ["install", "--quiet", "--constraint", str(kept), "--editable", f"{checkout}[things]"]
    subprocess.run([*pip, *install], check=True)
    sys.path.insert(0, str(checkout))  # so that this process finds the new package

import jax

import omnijax

ROOT = pathlib.Path(omnijax.__file__).parents[1]
print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, omnijax {omnijax.__version__} from {ROOT}")

# %%
SMOKE = os.environ.get("OMNIJAX_SMOKE", "0") != "0"  # a tiny run, which only tests that everything works

# %% [markdown]
# ## The plan
#
# Arms have names, and a pattern chooses among them. `--dry-run` trains nothing. It shows steps, tokens, parameters,
# FLOPs and memory of each arm, and the command that runs it by itself.

# %%
from omnijax.cli import main

OUT = pathlib.Path("sweeps/radix")
ONLY = "base=17" if SMOKE else "*[47t]"  # the second pattern chooses base=4, base=17, base=64 and flat
SIZE = ["--smoke", "--seeds", "1"] if SMOKE else ["--budget", "items=48000", "--seeds", "2"]
SWEEP = ["sweep", str(ROOT / "experiments" / "ablations" / "base_size.py"), "--out", str(OUT), "--only", ONLY, *SIZE]

assert main([*SWEEP, "--dry-run"]) == 0

# %% [markdown]
# ## Run it
#
# There is one process for each arm and seed. If it is interrupted, run the cell again: it continues with the arms that
# aren't done. Every arm reads the same documents in the same steps and is measured on the same held-out records. Hashes
# check this.

# %%
assert main(SWEEP) == 0

# %% [markdown]
# ## The table
#
# The table shows the bits per item, renormalised under the grammar: the mean over the seeds with a 95 % interval of
# Student's t (very wide for two seeds), the difference to the baseline, seed for seed, and whether it is
# distinguishable from zero. Fewer bits are better. `image|text` is a picture given its word.

# %%
from omnijax.sweep.comparison import read_results, rows_of

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
# Bits per item of a picture given its word. Each dot is a seed, and the line is the baseline.

# %%
import io

from IPython.display import Image, display

from omnijax.report.theme import LIGHT
from omnijax.sweep.figures import rows_figure

FORM = "image|text"
seeds = {row.arm: row.values("renormalised_bits") for row in rows_of(results, FORM)}
done = {arm: values for arm, values in seeds.items() if values}
buffer = io.BytesIO()
rows_figure(done, results.baseline, {}, f"bits an item, {FORM}", LIGHT).savefig(buffer, format="png", dpi=160)
display(Image(buffer.getvalue(), width=560))

# %% [markdown]
# The following figures are from the report of the sweep, `report.html` in its directory: the same bits against the base
# and against the seconds of training. Arms that weren't chosen are missing there.

# %%
for name in ("base_image_text", "seconds_image_text"):
    picture = OUT / "figures" / f"{name}.png"
    if picture.exists():  # a single base makes no line
        display(Image(picture.read_bytes(), width=560))

# %% [markdown]
# All arms in full, with three seeds: `omnijax sweep experiments/ablations/base_size.py`.
