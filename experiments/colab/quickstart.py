# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/omnijax/blob/main/experiments/colab/quickstart.ipynb)
#
# # Quickstart: train, sample, look
#
# One small transformer reads pictures of digits aloud, draws spoken digits, and names what it sees. This is the demo
# (`make demo`) with fewer steps: it takes a few minutes on two CPU cores, and its results are worse.

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
# ## The experiment
#
# An experiment is a Python file that returns one configuration. Every knob can be overridden, here and on the command
# line. A knob that doesn't exist is an error that names the most similar one.

# %%
from omnijax.experiment import load_experiment, override
from omnijax.testing import shrink

EXPERIMENT, RUN = ROOT / "experiments" / "digits.py", pathlib.Path("runs/quickstart")
KNOBS = [
    *("--train.steps", "500", "--train.checkpoint_every", "100", "--train.keep_checkpoints", "5"),
    *("--optim.warmup_steps", "60"),
    *("--data.directory", "data/quickstart", "--data.utterances", "2"),
]
config = override(load_experiment(EXPERIMENT), KNOBS)
if SMOKE:
    config = shrink(config, pathlib.Path("data/smoke"))
    config = override(config, ["--train.steps", "6", "--train.checkpoint_every", "3", "--model.depth", "1"])
    config = override(config, ["--eval.examples", "8", "--eval.batch_size", "8"])
    jax.config.update("jax_disable_most_optimizations", True)
print(f"{config.vocabulary.size} primary tokens name {config.vocabulary.secondary_size:,} fragments")

# %% [markdown]
# ## The data
#
# A source gives records: a signal for each field. Here a record has a picture, its English name, and this name spoken
# by a synthesiser. The first call builds the data set, and later calls check it.

# %%
import io

from IPython.display import HTML, Audio, Image, display

from omnijax.data.prepare import prepare
from omnijax.report.curves import loss_figure
from omnijax.report.theme import LIGHT

prepare(config)
source = config.data
validation = list(source.records("validation"))
print(f"{len(source.records('train')):,} records to train on, {len(validation)} for validation")
record = validation[0]
print(f"“{record['text']}”, by the voice {record['voice']}")
display(HTML(source.fields["image"].html(record["image"], record["text"])))
display(Audio(record["speech"], rate=source.speech.sample_rate_hz))

# %% [markdown]
# ## Train
#
# This is the same as `omnijax train experiments/digits.py --workdir runs/quickstart …`. If it is interrupted, run the
# cell again: it continues from the last checkpoint and ends with the same parameters.

# %%
from omnijax.train import train

print(f"trained to step {train(config, RUN).step}")

# %%
import json

metrics = [json.loads(line) for line in (RUN / "metrics.jsonl").read_text().splitlines()]
buffer = io.BytesIO()
loss_figure(metrics, {"loss": "all tokens"}, LIGHT).savefig(buffer, format="png", dpi=160)
display(Image(buffer.getvalue(), width=560))

# %% [markdown]
# ## Sample
#
# From words to pictures. A grammar inside the sampler allows only tokens that can be decoded. So every sample is a
# picture, even if the model has learned little.

# %%
run = omnijax.load(RUN)
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
drawn = run.sample_batch([{"text": word} for word in WORDS for _ in range(1 if SMOKE else 10)], to="image")
print(f"{sum(picture is not None for picture in drawn)} of {len(drawn)} samples are pictures")
sheet = io.BytesIO()
run.modalities["image"].sheet([picture for picture in drawn if picture is not None], sheet)
display(Image(sheet.getvalue(), width=360))  # a line for each word

# %% [markdown]
# From pictures of the validation split to words.

# %%
few = validation[: 8 if SMOKE else 40]
said = run.sample_batch([{"image": record["image"]} for record in few], to="text")
right = sum(word == record["text"] for word, record in zip(said, few, strict=True))
print(f"{right / len(few):.0%} of {len(few)} pictures are named correctly (chance 10%)")
for record, word in zip(few[:5], said, strict=False):
    print(f"  {record['text']:6s} read as {word!r}")

# %% [markdown]
# From a word to a voice. The command line does the same, and writes a file.

# %%
from omnijax.cli import main

display(Audio(run.sample({"text": "seven"}, to="speech"), rate=source.speech.sample_rate_hz))
arguments = ["--from", "text=seven", "--to", "image", "--out", "runs/seven.png"]
assert main(["sample", str(RUN), *arguments]) == 0
display(Image("runs/seven.png", width=96))

# %% [markdown]
# ## Rank
#
# The likelihood of a document is exact. So given answers can be ordered by their probability.

# %%
record = validation[0]
for answer, bits, probability in run.rank({"image": record["image"]}, among=WORDS)[:3]:
    print(f"{answer:6s} {probability:6.1%}  {bits:6.2f} bits")
print("right:", record["text"])

# %% [markdown]
# ## Data of your own
#
# Records can also come from arrays, from a function, or from a Hugging Face data set in memory. Here are colours and
# their names: a picture of 4×4 pixels with three channels is written as four patches, without loss.

# %%
import numpy as np

from omnijax.config import BatchConfig, Config, Task, TrainConfig, Writing
from omnijax.data.sources.memory import Arrays
from omnijax.modalities import Picture, Text

COLOURS = {"red": (220, 30, 30), "green": (30, 160, 60), "blue": (40, 60, 210)}
random, names = np.random.default_rng(0), list(COLOURS) * 100
pictures = [np.clip(COLOURS[name] + random.normal(0, 9, (4, 4, 3)), 0, 255).astype(np.uint8) for name in names]
fields = {"name": Text(most=5), "colour": Picture("colour", height=4, width=4, channels=3)}
own = Config(
    data=Arrays(fields, columns={"name": names, "colour": pictures}),
    writing=Writing(base=256),
    batch=BatchConfig((Task(("name", "colour"), weights=(0.1, 1.0)),), size=8, sequence_length=128),
    model=config.model,
    train=TrainConfig(steps=6 if SMOKE else 100),
)
train(own, pathlib.Path("runs/colours"))
coloured = omnijax.load("runs/colours", config=own)
sheet = io.BytesIO()
coloured.modalities["colour"].sheet(coloured.sample({"name": "blue"}, to="colour", count=4), sheet)
display(Image(sheet.getvalue(), width=96))

# %% [markdown]
# Next: `vocabulary.ipynb` shows the tokens of these documents, `evaluate.ipynb` measures this run, and `radix.ipynb`
# compares radices. The whole demo is `omnijax train experiments/digits.py`.
