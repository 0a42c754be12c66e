# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/omnijax/blob/main/experiments/colab/vocabulary.ipynb)
#
# # A tour of the two-level vocabulary
#
# The model sees a small *primary* vocabulary: general tokens, position tokens `p_k`, and digit tokens `v_k`. With these
# it writes the ids of a huge *secondary* vocabulary: patches of pictures, pieces of speech, anything. This notebook
# trains nothing and takes seconds.

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
# ## The worked example
#
# The document has four general tokens, A to D, and then five fragments, which are items 5 to 9. Each fragment is
# written as its id in radix 9, with digit tokens `v_k`, and a position token `p_k` that says which item it is.
# `voc_sp2` is fragment 9, which has two digits: `v_1 v_0`.

# %%
from omnijax.vocab.example import INFORMATION, worked_example

example = worked_example()
print("information  ", " ".join(INFORMATION))
print("tokens       ", " ".join(example["symbols"]))
print("ids          ", " ".join(map(str, example["ids"])))

# %% [markdown]
# ## Digits: one picture in several radices
#
# A picture of 8×8 pixels with 17 grey levels has 16 patches of 2×2 pixels. Each patch is one of 17⁴ = 83,521 fragments.
# The radix determines how many tokens a fragment needs, and how many rows the softmax has.

# %%
import numpy as np

from omnijax.modalities import Picture
from omnijax.vocab import Documents, SecondaryIds, Segment, Space, Vocabulary, encode

image = Picture("image", levels=17)
(part,) = image.parts
ramp = np.add.outer(np.arange(8), np.arange(8)).astype(np.uint8)  # a picture that gets brighter to the lower right
patches = part.numbers(image.encode([ramp]).digits)
print("fragments   ", *patches[:6], "…")


def pictures_in(base: int) -> Vocabulary:
    """A vocabulary for such pictures in a radix."""
    return Vocabulary(
        positions=17,  # p_0 … p_16
        digits=base,
        base=base,
        width="fixed",
        position="before",
        spaces=(Space(part.name, part.fragments),),
        control=("image", "eos"),
    )


print("radix   tokens of a picture   rows of the softmax   patch 6")
for base in (2, 9, 17, 64, 289, 4096):
    vocabulary = pictures_in(base)
    document = Documents.of([[Segment.of(vocabulary, "image", SecondaryIds("image", patches))]])
    tokens = encode(vocabulary, document).tokens.array
    width = tokens.size // len(patches)  # the other tokens are the marker, `aos` and the end
    symbols = vocabulary.symbols()
    sixth = " ".join(symbols[token] for token in tokens[2 + 5 * width : 2 + 6 * width])
    print(f"{base:5d}   {tokens.size:19d}   {vocabulary.size:19d}   {sixth}")

# %% [markdown]
# In radix 17 a digit is a pixel: the four digits of a patch are its four grey levels. `omnijax vocab cost` computes the
# cost of each radix for an experiment before any training:

# %%
from omnijax.cli import main

assert main(["vocab", "cost", str(ROOT / "experiments" / "digits.py")]) == 0

# %% [markdown]
# ## Positions
#
# Each fragment has its position, so fragments can be written in any order and are still decoded to the same picture.

# %%
from omnijax.vocab import PrimaryIds, assemble, decode

vocabulary = pictures_in(17)
symbols = vocabulary.symbols()
document = [Segment.of(vocabulary, "image", SecondaryIds("image", patches))]
backwards = np.arange(len(patches))[::-1].copy()
raster = encode(vocabulary, Documents.of([document])).tokens.array
reverse = encode(vocabulary, Documents.of([document]), backwards).tokens.array
for name, tokens in (("raster order", raster), ("backwards", reverse)):
    print(f"{name:13s}", " ".join(symbols[token] for token in tokens[:16]), "…")
    [[again]] = assemble(vocabulary, decode(vocabulary, PrimaryIds(tokens[None])))
    print(" " * 13, "the same picture:", again == document)

# %% [markdown]
# ## Malformed streams
#
# `decode` never fails. For a malformed stream it reports the error at each token, and keeps the valid items around it.

# %%
from omnijax.vocab.decode import Error

damaged = raster.copy()
damaged[12] = damaged[7]  # the third patch has the position of the second one
damaged[19] = damaged[17]  # a position between the digits of the fourth patch
damaged = np.delete(damaged, 40)  # a digit is lost
reading = decode(vocabulary, PrimaryIds(damaged[None]))
for place, (token, error) in enumerate(zip(damaged, np.asarray(reading.error)[0], strict=True)):
    if error != Error.NONE:
        print(f"token {place:2d}, {symbols[token]:6s}: {Error(error).name}")
print(int((np.asarray(reading.kind)[0] == 2).sum()), "of 16 patches can still be read")

# %% [markdown]
# A wrong configuration of a vocabulary is an error at once, and the message says how to fix it.

# %%
from omnijax import OmnijaxError

try:
    Vocabulary(positions=4, digits=9, base=9, position="none", width="minimal", spaces=(Space("image", 100),))
except OmnijaxError as error:
    print(error)

# %% [markdown]
# ## The grammar
#
# The grammar allows exactly those next tokens after which a valid document exists. With it, even an untrained model,
# like the one here, draws only pictures.

# %%
import jax.numpy as jnp

from omnijax.vocab import Grammar, SegmentRule

rule = SegmentRule("image", least=16, most=16, holds="fragments", then=("eos",))
grammar = Grammar(vocabulary, (rule,), start=("image",))
state = grammar.start_state(1)
for token in raster[:6]:
    legal = np.flatnonzero(np.asarray(grammar.mask(state))[0])
    told = " ".join(symbols[one] for one in legal[:8]) + (" …" if len(legal) > 8 else "")
    print(f"{len(legal):3d} can follow: {told:40s}   it goes on with {symbols[token]}")
    state = grammar.advance(state, jnp.asarray([token]))


# %%
def sample(key: jax.Array, rows: int, use_grammar: bool) -> PrimaryIds:
    """Samples documents from a model that gives every token the same probability."""
    tokens, state = [], grammar.start_state(rows)
    for one in jax.random.split(key, raster.size):
        legal = grammar.mask(state) if use_grammar else jnp.ones((rows, vocabulary.size), bool)
        token = jax.random.categorical(one, jnp.where(legal, 0.0, -jnp.inf))
        state = grammar.advance(state, token) if use_grammar else state
        tokens.append(token)
    return PrimaryIds(jnp.stack(tokens, axis=1))


for use_grammar in (True, False):
    drawn = sample(jax.random.key(0), 100, use_grammar)
    share = np.asarray(grammar.accepts(drawn)).mean()
    print(f"grammar {'on' if use_grammar else 'off':3s}: {share:.0%} of 100 random sequences are pictures")

# %% [markdown]
# ## Likelihood: the same distribution in two radices
#
# −log₂ p of a fragment is the sum over its digits, so bits of different radices can be compared. Here one distribution
# over 100 fragments is written in radix 2, in radix 10, and as a flat softmax (radix 100). The bits agree.

# %%
from omnijax.vocab import item_bits, token_bits

FRAGMENTS, ITEMS = 100, 5
random = np.random.default_rng(0)
p = random.dirichlet(np.full(FRAGMENTS, 0.3))
ids = random.choice(FRAGMENTS, ITEMS, p=p)
print("−log2 p        ", *(f"{-np.log2(p[one]):8.5f}" for one in ids))

for base in (2, 10, 100):
    small = Vocabulary(
        positions=0,
        digits=base,
        base=base,
        width="fixed",
        position="none",
        spaces=(Space("x", FRAGMENTS),),
        control=("x", "eos"),
    )
    tokens = encode(small, Documents.of([[Segment.of(small, "x", SecondaryIds("x", ids))]])).tokens.array
    logits = np.full((1, tokens.size, small.size), -1e9, np.float32)
    logits[0, np.arange(tokens.size), tokens] = 0.0  # tokens that are no digits are certain
    places = np.flatnonzero((small.digit_start <= tokens) & (tokens < small.digit_start + base))
    width = len(places) // ITEMS
    digits = np.arange(FRAGMENTS)[:, None] // base ** np.arange(width)[::-1] % base  # the digits of every fragment
    for number, place in enumerate(places):
        if number % width == 0:
            possible = np.ones(FRAGMENTS, bool)  # fragments that start with the digits so far
        mass = np.bincount(digits[possible, number % width], p[possible], base)
        with np.errstate(divide="ignore"):
            likely = np.maximum(np.log(mass / mass.sum()), -1e9)
        logits[0, place, small.digit_start : small.digit_start + base] = likely
        possible &= digits[:, number % width] == tokens[place] - small.digit_start
    row = PrimaryIds(jnp.asarray(tokens[None]))
    bits = token_bits(jnp.asarray(logits), row, Grammar(small).masks(row))
    of_items = np.asarray(item_bits(small, row, bits.renormalised).content)[0, places[width - 1 :: width]]
    print(f"radix {base:3d}, {width} tok.", *(f"{one:8.5f}" for one in of_items))

# %% [markdown]
# `omnijax/vocab/README.md` has all options and guarantees. Next: `radix.ipynb` trains models in several radices, and
# compares them by these bits.
