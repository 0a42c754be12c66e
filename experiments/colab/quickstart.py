# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/omnijax/blob/main/experiments/colab/quickstart.ipynb)
#
# # Quickstart: train, sample, look
#
# One small transformer reads pictures of digits aloud, draws what it hears, and names what it sees. This is the demo
# (`make demo`) with fewer steps, so that it ends in a few minutes on two CPU cores; it comes out less well.

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
# ## The experiment
#
# An experiment is a Python file that gives one configuration. Every knob of it can be overridden, here as on the
# command line; one that doesn't exist is an error that names the nearest.

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
    config = override(config, ["--train.steps", "6", "--train.checkpoint_every", "3"])
    jax.config.update("jax_disable_most_optimizations", True)
print(f"{config.vocabulary.size} primary tokens name {config.vocabulary.secondary_size:,} fragments")

# %% [markdown]
# ## The data
#
# scikit-learn's 8×8 digits, their English names, and these spoken by a synthesiser. The data set is built on the
# first call, and checked on any other.

# %%
import io

import numpy as np
from IPython.display import Audio, Image, display
from matplotlib.figure import Figure

from omnijax.data.prepare import prepare
from omnijax.data.records import load_records
from omnijax.report.figures import sample_grid
from omnijax.report.theme import LIGHT


def show(figure: Figure, width: int = 640) -> None:
    """A figure, below the cell."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160)
    display(Image(buffer.getvalue(), width=width))


prepare(config.data)
heldout = load_records(config.data, "heldout")
print(f"{len(load_records(config.data, 'train')):,} records to train on, {len(heldout)} held out")
show(sample_grid({"real, held out": (heldout.images, heldout.labels, heldout.labels)}, 10, 16, 2, LIGHT))
print(f"“{heldout.words[0]}”, by the voice {heldout.voices[0]}")
display(Audio(heldout.speech[0], rate=config.data.sample_rate_hz))

# %% [markdown]
# ## Train
#
# The same as `omnijax train experiments/digits.py --workdir runs/quickstart …`. If it is interrupted, run the cell
# again: it goes on from the last checkpoint, to the same parameters.

# %%
from omnijax.train import train

print(f"trained to step {train(config, RUN).step}")

# %%
import json

from omnijax.report.curves import loss_figure

metrics = [json.loads(line) for line in (RUN / "metrics.jsonl").read_text().splitlines()]
show(loss_figure(metrics, ["loss"], ["all tokens"], LIGHT), 560)

# %% [markdown]
# ## Sample
#
# Words in, pictures out. A grammar inside the sampler lets through only what can be read back, so that every sample
# is a picture, however little the model has learned.

# %%
from omnijax import load_run
from omnijax.data.corpus import digit_modalities

generator, modality = load_run(RUN).generator, digit_modalities(config.data)
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
wanted = WORDS * (1 if SMOKE else 3)
drawn = generator.generate("text", [modality["text"].fragments(word) for word in wanted], "image", jax.random.key(0))
pictures = np.stack([modality["image"].signal(fragments) for fragments in drawn.fragments])
labels = np.array([WORDS.index(word) for word in wanted])
print(f"{drawn.decodable.mean():.0%} of the samples are pictures")
show(sample_grid({"drawn, by the word that was given": (pictures, labels, labels)}, 10, 16, 3, LIGHT))

# %% [markdown]
# Held-out pictures in, words out.

# %%
few = np.arange(min(len(heldout), 40))
read = generator.generate(
    "image", [modality["image"].fragments(heldout.images[place]) for place in few], "text", jax.random.key(1)
)
said = [modality["text"].signal(fragments) for fragments in read.fragments]
right = np.mean([word == heldout.words[place] for word, place in zip(said, few, strict=True)])
print(f"{right:.0%} of {len(few)} held-out pictures named right (chance 10%)")
for place in few[:5]:
    print(f"  {heldout.words[place]:6s} read as {said[place]!r}")

# %% [markdown]
# A word in, a voice out.

# %%
spoken = generator.generate("text", [modality["text"].fragments("seven")], "speech", jax.random.key(2))
display(Audio(modality["speech"].signal(spoken.fragments[0]), rate=config.data.sample_rate_hz))

# %% [markdown]
# Next: `vocabulary.ipynb` looks at the tokens that all of this is written in, `evaluate.ipynb` measures this run,
# `radix.ipynb` asks what the radix does. The whole demo is `omnijax train experiments/digits.py`.
