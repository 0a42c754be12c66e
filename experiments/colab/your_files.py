# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/omnijax/blob/main/experiments/colab/your_files.ipynb)
#
# # Your own files: a folder becomes a model
#
# Three commands make a model of a folder of pictures, sounds and texts. On one GPU this takes minutes; on two CPU cores
# about half an hour.

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
# ## A folder
#
# Set `FOLDER` to a folder of yours: on Colab, upload one, or mount Google Drive. Files with one stem are one record:
# `cat.jpg`, `cat.wav`, `cat.txt`. A table `metadata.csv`, names of folders as labels, and `.tar` archives work, too.
#
# Without one, this cell cuts 200 pieces out of two photographs, each with a text and a tone.

# %%
import numpy as np
import PIL.Image
import sklearn.datasets
import soundfile

FOLDER, DATA, RUN = "", pathlib.Path("data/mine"), pathlib.Path("runs/mine")

if not FOLDER:
    folder, random = pathlib.Path("mine"), np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    photographs = sklearn.datasets.load_sample_images().images
    for number in range(40 if SMOKE else 200):
        kind = number % 2
        top, left = random.integers(0, 300), random.integers(0, 500)
        piece = PIL.Image.fromarray(photographs[kind][top : top + 96, left : left + 128]).resize((32, 24))
        piece.save(folder / f"{number:03d}.png")
        (folder / f"{number:03d}.txt").write_text(["a Chinese temple", "a red flower"][kind])
        tone = 0.3 * np.sin(2 * np.pi * (220, 440)[kind] * np.arange(4000) / 8000)
        soundfile.write(folder / f"{number:03d}.wav", tone + 0.01 * random.normal(size=4000), 8000)
    FOLDER = str(folder)
print(f"{sum(path.is_file() for path in pathlib.Path(FOLDER).rglob('*'))} files in {FOLDER}")

# %% [markdown]
# ## 1. Prepare
#
# The same as `omnijax prepare mine --out data/mine`. It reads every file, writes the data set, and an experiment file
# beside it that fits what was found. A file that can't be used is named; `--skip-bad 0.01` allows a share of them.

# %%
from omnijax.cli import main

TINY = "--model.depth 1 --model.unroll 1 --model.width 16 --model.heads 2 --model.kv_heads 1 --model.head_size 8"
KNOBS = f"{TINY} --model.mlp_width 16 --train.steps 4 --batch.size 8".split() if SMOKE else []
assert main(["prepare", FOLDER, "--out", str(DATA), *KNOBS]) == 0
print((DATA / "experiment.py").read_text())

# %% [markdown]
# A page shows the data: examples, lengths, splits, and what was left out.

# %%
from IPython.display import IFrame, Image, display

assert main(["show", str(DATA)]) == 0
display(IFrame(str(DATA / "data.html"), width="100%", height=600))

# %% [markdown]
# ## 2. Train
#
# The same as `omnijax train data/mine/experiment.py --workdir runs/mine`. Run the cell again after an interruption: it
# continues from the last checkpoint. Every knob of the experiment can be set behind it, as in `--train.steps 3000`.

# %%
assert main(["train", str(DATA / "experiment.py"), "--workdir", str(RUN), *KNOBS]) == 0

# %% [markdown]
# ## 3. Sample
#
# A value of the validation split in, a new value of every other field out.

# %%
from IPython.display import HTML

run = omnijax.load(RUN)
record = run.config.data.records("validation")[0]
for given, signal in record.items():
    display(HTML(f"<h4>given: {given}</h4>{run.modalities[given].html(signal, given)}"))
    for field in run.modalities:
        if field != given:
            made = run.sample({given: signal}, to=field)
            shown = "it can't be decoded" if made is None else run.modalities[field].html(made, field)
            display(HTML(f"{given} → {field}: {shown}"))

# %% [markdown]
# The command line does the same with a file or a text, and writes a file:
# `omnijax sample runs/mine --from caption="a red flower" --to picture --out flower.png`.

# %%
fields = list(run.modalities)
if {"caption", "picture"} <= set(fields):
    given = f"caption={record['caption']}"
    assert main(["sample", str(RUN), "--from", given, "--to", "picture", "--out", "runs/made.png"]) == 0
    display(Image("runs/made.png", width=192))

# %% [markdown]
# ## Measure
#
# Bits per item of each field, given each other one, and a report with curves and examples.

# %%
assert main(["evaluate", str(RUN)]) == 0
display(IFrame(str(RUN / "report.html"), width="100%", height=600))

# %% [markdown]
# Next: open `data/mine/experiment.py`. What it says is yours to change: the sizes of pictures, the tasks and their
# weights, the model (`--size base`), the steps. For films, `pip install av`.
