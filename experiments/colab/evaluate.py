# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/omnijax/blob/main/experiments/colab/evaluate.ipynb)
#
# # Evaluate checkpoints
#
# This notebook measures the checkpoints of a run on pictures and voices that it wasn't trained on, and shows and plays
# its samples. It uses the run of `quickstart.ipynb`, and trains it in a few minutes if it doesn't exist.

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
# ## A run
#
# The configuration is the same as in the quickstart. A finished run isn't changed, and an interrupted one continues.
# For a run of your own, skip this cell and set `RUN`.

# %%
from omnijax.experiment import load_experiment, override
from omnijax.testing import shrink
from omnijax.train import train

RUN = pathlib.Path("runs/quickstart")
KNOBS = [
    *("--train.steps", "500", "--train.checkpoint_every", "100", "--train.keep_checkpoints", "5"),
    *("--optim.warmup_steps", "60"),
    *("--data.directory", "data/quickstart", "--data.utterances", "2"),
]
config = override(load_experiment(ROOT / "experiments" / "digits.py"), KNOBS)
if SMOKE:
    config = shrink(config, pathlib.Path("data/smoke"))
    config = override(config, ["--train.steps", "6", "--train.checkpoint_every", "3", "--model.depth", "1"])
    config = override(config, ["--eval.examples", "8", "--eval.batch_size", "8"])
    jax.config.update("jax_disable_most_optimizations", True)
print(f"trained to step {train(config, RUN).step}")

# %% [markdown]
# ## All checkpoints
#
# Exact bits per item on the validation split, for every form of document in training. Each measurement is a line of
# the run's `evaluations.jsonl`, and isn't repeated.

# %%
from IPython.display import Image, display

from omnijax.cli import main

assert main(["evaluate", str(RUN), "--steps", "all", "--tasks", "bits"]) == 0
display(Image((RUN / "evaluations.png").read_bytes(), width=520))

# %% [markdown]
# ## The newest checkpoint in detail
#
# All six directions between text, image and speech. The judges are classifiers that were fitted on real data.

# %%
import json

assert main(["evaluate", str(RUN)]) == 0
measured = json.loads((RUN / "eval.json").read_text())
print(f"\n{'direction':18s} right          decodable")
for direction, found in measured["directions"].items():
    share, error = found["accuracy"], found["standard_error"]
    print(f"{direction:18s} {share:.2f} ± {error:.2f}    {found['decodable']:.0%}")
print(f"chance {found['chance']:.2f}; {measured['examples']} records of the {measured['split']} split")

# %% [markdown]
# ## Examples
#
# `report.html` in the directory of the run shows all examples and figures. Here are some of them: what was given to the
# model, what it generated, and the real signal of the same record. Speech is also shown after encoding and decoding.
# Generated speech can't sound better than that.

# %%
from IPython.display import HTML

examples = json.loads((RUN / "examples.json").read_text())
for direction in ("text->image", "image->text", "text->speech"):
    lines = "".join(
        f"<tr><td>{one['given']}</td><td>{one['made'] or 'nothing'}</td><td>{one['real']}</td></tr>"
        for one in examples["directions"][direction][:4]
    )
    display(HTML(f"<table><tr><th>{direction}</th><th>generated</th><th>real</th></tr>{lines}</table>"))
spoken = examples["real"]["speech"][0]
display(HTML(f"real {spoken['real']} encoded and decoded {spoken['coded']}"))

# %% [markdown]
# ## Bits
#
# Bits per item of each form of document. Pictures are lossless, so their bits can also be given per pixel.

# %%
for form, bits in measured["bits_per_item"].items():
    units = ", ".join(f"{value:.2f} bits per {unit}" for unit, value in bits["units"].items())
    print(f"{form:14s} {bits['renormalised']:6.2f} bits per item  {units}")

# %% [markdown]
# ## An early checkpoint and the last one
#
# `omnijax.load` loads any checkpoint on the devices of this machine, even if it was trained on others. Here both
# checkpoints get the same words and the same random numbers:

# %%
import io

from omnijax.run.checkpoint import Checkpoints

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
with Checkpoints(RUN) as checkpoints:
    steps = checkpoints.steps
for step in (steps[0], steps[-1]):
    run = omnijax.load(RUN, step)
    sheet = io.BytesIO()
    run.modalities["image"].sheet(run.sample_batch([{"text": word} for word in WORDS], to="image"), sheet)
    print(f"step {step}")
    display(Image(sheet.getvalue(), width=200))

# %% [markdown]
# The command line evaluates many runs, also during training: `omnijax evaluate RUN RUN --steps all --watch`.
