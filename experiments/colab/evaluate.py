# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/omnijax/blob/main/experiments/colab/evaluate.ipynb)
#
# # Evaluate checkpoints
#
# Measures the checkpoints of a run on pictures and voices that it never met, shows what it makes of them, and plays
# it. It uses the run of `quickstart.ipynb` where that is there, and trains it otherwise, in a few minutes.

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
# ## A run
#
# The same configuration as in the quickstart. A run that has ended stays as it is; one that was interrupted goes on.
# For a run of your own, leave this cell out and set `RUN`.

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
    config = override(config, ["--train.steps", "6", "--train.checkpoint_every", "3"])
    jax.config.update("jax_disable_most_optimizations", True)
print(f"trained to step {train(config, RUN).step}")

# %% [markdown]
# ## All checkpoints
#
# Exact bits of an item on held-out data, for every form of document that was trained on. Each measurement is a row of
# the run's `evaluations.jsonl`, and isn't made twice.

# %%
from IPython.display import Audio, Image, display

from omnijax.cli import main

assert main(["evaluate", str(RUN), "--steps", "all", "--tasks", "bits"]) == 0
display(Image((RUN / "evaluations.png").read_bytes(), width=520))

# %% [markdown]
# ## The newest one, in every way
#
# All six directions between text, image and speech, judged by classifiers that were fitted on real data.

# %%
import json

assert main(["evaluate", str(RUN)]) == 0
measured = json.loads((RUN / "eval.json").read_text())
print(f"\n{'direction':18s} right          decodable")
for direction, share in measured["directions"].items():
    error = measured["standard_errors"][direction]
    decodable = measured["decodable_by_direction"][direction]["grammar"]
    print(f"{direction:18s} {share:.2f} ± {error:.2f}    {decodable:.0%}")
print(f"chance {measured['chance']:.2f}; {measured['examples']} held-out records")

# %% [markdown]
# ## What it draws
#
# Figures of the report (`report.html` in the run's directory is one page with all of them). A frame marks a drawing
# in which the judge read another digit.

# %%
for name in ("samples", "bits"):
    picture = RUN / "figures" / f"{name}.png"
    if picture.exists():
        display(Image(picture.read_bytes(), width=640))

# %% [markdown]
# ## What it says
#
# A real held-out word, the same through the codebook and back, which is as good as generated speech can sound, and a
# word that the model spoke.

# %%
from omnijax.report.inputs import read_run

run = read_run(RUN)
spoken, real = run.direction("text->speech"), run.real()
place = spoken.distinct(1)[0]
print("given to the model:", spoken.source.values[place])
display(Audio(spoken.target.waveform(place), rate=run.sample_rate_hz))
for name in ("speech", "speech_codec"):
    signals, labels = real[name]
    print({"speech": "real", "speech_codec": "through the codebook"}[name], "- the digit", labels[0])
    display(Audio(signals.waveform(0), rate=run.sample_rate_hz))

# %% [markdown]
# ## An early checkpoint and the last one
#
# `load_run` gives any checkpoint, on whatever devices are here, however it was trained. The same words and the same
# random numbers, early and late:

# %%
import io

import numpy as np

from omnijax import load_run
from omnijax.data.corpus import digit_modalities
from omnijax.report.figures import sample_grid
from omnijax.report.theme import LIGHT
from omnijax.run.checkpoint import Checkpoints

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
modality, labels = digit_modalities(config.data), np.arange(len(WORDS))
prompts = [modality["text"].fragments(word) for word in WORDS]
with Checkpoints(RUN) as checkpoints:
    steps = checkpoints.steps
blocks = {}
for step in (steps[0], steps[-1]):
    drawn = load_run(RUN, step).generator.generate("text", prompts, "image", jax.random.key(0))
    pictures = np.stack([modality["image"].signal(fragments) for fragments in drawn.fragments])
    blocks[f"step {step}"] = (pictures, labels, labels)
buffer = io.BytesIO()
sample_grid(blocks, len(WORDS), 16, 1, LIGHT).savefig(buffer, format="png", dpi=160)
display(Image(buffer.getvalue(), width=640))

# %% [markdown]
# On the command line, for many runs, also while they train: `omnijax evaluate RUN RUN --steps all --watch`.
