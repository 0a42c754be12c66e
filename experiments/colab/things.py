# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/omnijax/blob/main/experiments/colab/things.ipynb)
#
# # One model of drawings, photographs, captions in ten languages and nine voices
#
# 147 things, drawn by nine artists, photographed, named in ten languages and spoken by nine people. One decoder of a
# million parameters learns all of it. On two CPU cores this takes about half an hour.

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
# ## The data
#
# The pictures, captions and recordings are in packages: drawings and Unicode's names on npm, photographs and voices in
# Debian and Ubuntu. The clients of both are here on Colab. Without network, or elsewhere, upload the files of the
# packages to a folder, and set `PACKAGES` to it; if some are missing, an error says which ones.
#
# With `MINIATURE`, twenty things are drawn here instead: it needs no package, and shows nothing but that it works.

# %%
import shutil

PACKAGES, MINIATURE = "", SMOKE
THINGS = ROOT / "experiments" / "things"

if not MINIATURE and not PACKAGES:
    print({client: shutil.which(client) or "missing" for client in ("apt-get", "npm")})

# %% [markdown]
# ## Train
#
# The same as `omnijax train experiments/things/experiment.py --workdir runs/things`. The first time it makes the data,
# which takes some minutes. Run the cell again after an interruption: it continues from the last checkpoint.

# %%
from omnijax.cli import main

EXPERIMENT, RUN = THINGS / "experiment.py", pathlib.Path("runs/things")
KNOBS = ["--data.directory", "data/things", "--data.packages", PACKAGES]
if MINIATURE:
    folder = pathlib.Path("miniature")
    subprocess.run([sys.executable, str(THINGS / "miniature.py"), str(folder)], check=True)
    text = EXPERIMENT.read_text().replace("pieces=2048", "pieces=50")  # twenty things have no more
    EXPERIMENT = pathlib.Path("miniature_experiment.py")
    EXPERIMENT.write_text(text)
    KNOBS = ["--data.directory", "data/miniature", "--data.folder", str(folder)]
    RUN = pathlib.Path("runs/miniature")
if SMOKE:
    KNOBS += ["--model.depth=1", "--model.unroll=1", "--model.width=32", "--train.steps=2", "--eval.examples=4"]
assert main(["train", str(EXPERIMENT), "--workdir", str(RUN), *KNOBS]) == 0

# %% [markdown]
# ## A picture that it never saw, named and spoken
#
# The pictures are by an artist of whom training had nothing.

# %%
from IPython.display import HTML, IFrame, display


def show(title, field, signal):
    shown = "it can't be decoded" if signal is None else run.modalities[field].html(signal, title)
    display(HTML(f"<b>{title}</b> {shown}"))


def usable(name):
    return name is not None and 0 < len(name.encode()) <= 80  # a model that has hardly learned writes anything


run = omnijax.load(RUN)
records = list(run.config.data.records("validation/artist"))
for record in records[:: 1 if SMOKE else 12][:6]:
    show(run.config.data.credit(record), "picture", record["picture"])
    for language in ("en", "ru", "fr"):
        name = run.sample({"picture": record["picture"]}, to=f"caption_{language}")
        show(language, f"caption_{language}", name)
    if usable(name):
        show("spoken", "speech_fr", run.sample({"caption_fr": name}, to="speech_fr"))

# %% [markdown]
# ## A word that it heard, drawn

# %%
clips = [record for record in run.config.data.records("validation/word") if record.get("speech_fr") is not None]
for record in clips[:6]:
    show(record["caption_fr"], "speech_fr", record["speech_fr"])
    name = run.sample({"speech_fr": record["speech_fr"]}, to="caption_fr")
    show("understood as", "caption_fr", name)
    if usable(name):
        show("drawn", "picture", run.sample({"caption_fr": name}, to="picture"))

# %% [markdown]
# ## Measure
#
# How often it is right on artists, photographs, words and voices that training had nothing of, beside baselines on the
# same records; a report with examples; and who made the pictures and sounds in it.

# %%
TASKS = ["--tasks", "directions,held_out"] if SMOKE else []
assert main(["evaluate", str(RUN), *TASKS]) == 0
if not SMOKE:
    display(IFrame(str(RUN / "report.html"), width="100%", height=600))
