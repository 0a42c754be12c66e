"""Every knob of a run: nested frozen dataclasses, documented here, overridable as `--model.depth 6`.

An experiment file returns one `Config`. It is saved, resolved, with the run and with each checkpoint; a run directory
goes on only with the configuration that it was started with.
"""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from typing import Any, Literal

from omnijax.errors import ConfigError
from omnijax.vocab.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class SpeechConfig:
    """How a waveform becomes fragments: log-mel frames, a few of them in a fragment, through a codebook."""

    window_samples: int = 512
    """Length of the Hann window, and of the Fourier transform."""
    hop_samples: int = 138
    """From one frame to the next."""
    mels: int = 40
    """Mel bands in a frame."""
    frames: int = 4
    """Frames in one fragment."""
    codes: int = 289
    """Entries of the codebook; what the speech space of the vocabulary has to hold."""
    griffin_lim_iterations: int = 60
    """Rounds of phase estimation when a waveform is made again."""


@dataclasses.dataclass(frozen=True)
class LookupConfig:
    """Keys, and fragments to be looked up by them: records `text` and `item`, made from these knobs and no file."""

    keys: int = 4096
    """Of them one record each, times `copies`; at most 2^20."""
    space: int = 2**14
    """Fragments that there are: the size of the vocabulary's space `item`; at most 2^64."""
    items: int = 4
    """Fragments that belong to a key."""
    choices: int = 1
    """A fragment is one of so many different ones that its key has, drawn evenly, anew for each record."""
    rule: Literal["random", "composed"] = "random"
    """Which fragments a key has: `random` ones, to be learned by heart; or `composed`: the digits of their ids, in the
    radices of `attributes`, are the attributes of the key, each permuted, so that they can be told for new keys."""
    attributes: tuple[int, ...] = ()
    """How many values each attribute of a key has; the text of a key is a general token for each, or its number in
    decimals where there are none. Where fragments are composed of them, their product is `space`."""
    heldout: float = 0.1
    """Share of the keys that is held out of composed fragments. Of random ones the same keys are, with new choices."""
    copies: int = 1
    """Training records of a key."""
    seed: int = 0
    """Draws keys, fragments and choices."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The data set, and where it lies. What shapes the spoken digits needs, with another value, another directory."""

    source: Literal["spoken_digits", "lookup"] = "spoken_digits"
    """Which data: `lookup` is made from `lookup` alone, the spoken digits from all else."""
    lookup: LookupConfig = LookupConfig()
    directory: str = "data/spoken_digits"
    """Where the data set is, or is to be built."""
    seed: int = 0
    """Draws voices, rates, pitches and the held-out split."""
    utterances: int = 8
    """Spoken utterances, hence records, for each training image."""
    heldout_images: int = 360
    """Images kept from training, one record each."""
    heldout_voices: int = 20
    """Voice variants kept from training."""
    sample_rate_hz: int = 11025
    """Of the stored speech."""
    speech: SpeechConfig = SpeechConfig()


@dataclasses.dataclass(frozen=True)
class Task:
    """A kind of training document: these modalities of one record, one segment each, in this order."""

    segments: tuple[str, ...]
    """Names of modalities, or of views of one, for example `("image/moved", "text")`."""
    weights: tuple[float, ...]
    """What a token of each segment weighs in the loss."""
    repeats: int = 1
    """How often every record appears in this form in an epoch."""
    random_order: tuple[float, ...] = ()
    """For each segment the share of documents that write its fragments in a random order, anew each time; () is none.
    Their positions still say where they belong, so that a model learns to go on from any of them."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """Of the segments: a view like `image/moved` is one of `image`."""
        return tuple(modality_of(name) for name in self.segments)

    @property
    def random_orders(self) -> tuple[float, ...]:
        """`random_order`, one for each segment."""
        return self.random_order or (0.0,) * len(self.segments)


@dataclasses.dataclass(frozen=True)
class BatchConfig:
    """How documents become batches."""

    tasks: tuple[Task, ...]
    size: int = 48
    """Sequences in a global batch, over all processes."""
    sequence_length: int = 256
    """Tokens in a sequence; documents are packed into sequences and never cut."""
    sequence_items: int = 0
    """If above 0, sequences are packed by items instead of tokens: a document counts its items, two for each segment,
    and one. So each step has the same documents in every vocabulary, and a model that steps once an item (`model.head`)
    takes `sequence_items` steps for a sequence. `sequence_length` must hold the longest sequence."""
    seed: int = 0
    """Draws the order of the documents, anew each epoch."""
    prefetch: int = 4
    """Batches that are made ahead on the host."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The decoder-only transformer."""

    depth: int = 4
    width: int = 128
    heads: int = 4
    kv_heads: int = 2
    """Grouped-query attention: each key/value head serves `heads / kv_heads` query heads."""
    head_size: int = 32
    mlp_width: int = 384
    rope_base: float = 10_000.0
    """Longest wavelength of the rotary positions, in units of 2π tokens."""
    head: Literal["token", "depth", "parallel"] = "token"
    """What predicts the tokens of an item. `token`: the backbone steps once a token. `depth`: it steps once an item,
    whose tokens a small network behind it writes one after the other. `parallel`: the same, but each token without a
    look at those before it in the item, which is a control: it can't say what goes with what. The last two need
    `batch.sequence_items` and fixed width."""
    head_depth: int = 1
    """Gated MLPs of that small network."""
    dropout: float = 0.0
    """Share of the residual updates that is dropped in training."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of activations and matrix products; parameters are float32."""
    attention: Literal["auto", "reference", "blocks", "cudnn", "splash"] = "auto"
    """How training attends: `reference` in whole matrices; `blocks` over causal blocks of queries, on any platform;
    `cudnn` on NVIDIA GPUs and `splash` on TPUs fused, which never writes the scores; `auto` what the platform has."""
    remat: Literal["none", "dots", "attention", "full"] = "none"
    """What the forward pass keeps of a layer for the backward pass, which computes the rest again: `none` computes
    nothing again, `dots` keeps the results of matrix products with parameters, `attention` what attention gave,
    `full` the layer's input alone."""
    unroll: int = 1
    """Layers in one iteration of the scan over layers; `depth` unrolls it, which is faster for small models on CPU."""


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """AdamW with warm-up, cosine and clipping."""

    learning_rate: float = 3e-3
    """At the end of the warm-up."""
    warmup_steps: int = 100
    final_fraction: float = 0.02
    """Of `learning_rate`, at the last step."""
    beta1: float = 0.9
    beta2: float = 0.98
    weight_decay: float = 0.1
    """On matrices only; norms and embeddings are left alone."""
    clip_norm: float = 1.0
    """Largest global norm of a gradient."""
    accumulate: int = 1
    """Micro-batches in a step; the rows of a batch are divided among them."""
    moments: Literal["float32", "bfloat16", "factored"] = "float32"
    """How Adam's moments are kept: `bfloat16` the first one in half the bytes; `factored` also the second one of each
    matrix as the means of its rows and columns (Adafactor, arXiv:1804.04235 §3), a few thousandths of the bytes."""


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis of the mesh, in one slice; one of them may be -1: all that are left.

    Several slices (TPUs without a fast network between them) are further rows along `data`, so that between them only
    gradients cross, and the same experiment runs on any number of them.
    """

    data: int = -1
    """Copies of the model, each with rows of its own."""
    fsdp: int = 1
    """Parts that parameters and moments are kept in; each of them has rows of its own, too."""
    context: int = 1
    """Parts that the tokens of a row are split in."""
    tensor: int = 1
    """Parts that heads and hidden units are split in."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The loop."""

    steps: int = 2200
    seed: int = 0
    """Draws the initial parameters, the dropout and the digit noise."""
    log_every: int = 20
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    start_from: str = ""
    """A run whose newest parameters this one begins with, at step 0 and with fresh moments, instead of random ones. Its
    vocabulary is the same, or one that this run's has grown from: new tokens begin with random parameters."""
    digit_noise: float = 0.0
    """Share of the digits that the model reads which are drawn anew, evenly below their radix; what it has to predict
    stays clean. So it meets wrong digits in training, as it does when it reads its own."""


@dataclasses.dataclass(frozen=True)
class SampleConfig:
    """How tokens are drawn."""

    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_k: int = 0
    """Draw from the k likeliest; 0 from all."""
    top_p: float = 1.0
    """Draw from the likeliest tokens that together have this probability."""
    grammar: bool = True
    """Only tokens that can still become a decodable document."""
    retries: int = 0
    """How often a fragment is drawn again whose check digit comes out wrong; then the right digit is written. Needs
    `vocabulary.check_digit` and fixed width, the grammar, and a temperature above 0."""


@dataclasses.dataclass(frozen=True)
class Target:
    """One modality as something to generate: how long it may get, and how its tokens are drawn."""

    name: str
    min_items: int
    max_items: int
    sample: SampleConfig = SampleConfig()
    order: Literal["raster", "any"] = "raster"
    """In which the fragments are written: by position, or as the model likes, which needs `vocabulary.position`."""


@dataclasses.dataclass(frozen=True)
class Route:
    """The modalities an evaluated direction goes through, for example `("image", "text", "speech")`."""

    through: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """What `omnijax evaluate` measures, on the held-out split."""

    targets: tuple[Target, ...]
    routes: tuple[Route, ...]
    examples: int = 360
    """Held-out records; the first ones of the split."""
    batch_size: int = 120
    """Documents that are sampled side by side."""
    seed: int = 0
    show: int = 20
    """Examples of each direction that the report gets."""
    completions: tuple[Literal["left", "right", "top", "bottom"], ...] = ()
    """Halves of a picture that are given, for the rest of it to be completed; needs pictures in random order."""


@dataclasses.dataclass(frozen=True)
class Config:
    """One run."""

    vocabulary: Vocabulary
    data: DataConfig
    batch: BatchConfig
    model: ModelConfig
    optim: OptimConfig
    train: TrainConfig
    eval: EvalConfig
    mesh: MeshConfig = MeshConfig()

    def __post_init__(self) -> None:
        _check(self)


def modality_of(name: str) -> str:
    """The modality that a view like `image/moved` is one of."""
    return name.split("/")[0]


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as nested dicts and lists, as JSON has them."""
    return dict(json.loads(json.dumps(dataclasses.asdict(config))))


def from_dict(parts: dict[str, Any]) -> Config:
    """The configuration that `to_dict` gave.

    Raises:
        ConfigError: a knob is unknown or missing.
    """
    return _build(Config, parts, "config")


def _build(kind: Any, parts: Any, path: str) -> Any:
    """A value of a dataclass, tuple or plain type from JSON."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return tuple(_build(arguments[0], part, f"{path}.{i}") for i, part in enumerate(parts))
    if kind is Vocabulary:
        return Vocabulary.from_dict(parts)
    if not dataclasses.is_dataclass(kind):
        return parts
    assert isinstance(kind, type)
    hints = typing.get_type_hints(kind)
    known = {field.name for field in dataclasses.fields(kind)}
    for name in sorted(known ^ set(parts)):
        rule = "it is missing" if name in known else "there is no such knob in this version"
        raise ConfigError(
            f"{path}.{name}", None if name in known else parts[name], rule, "use the version that wrote it"
        )
    return kind(**{name: _build(hints[name], part, f"{path}.{name}") for name, part in parts.items()})


def _check(config: Config) -> None:
    """Holds the parts against each other, and each number against its bounds."""
    for path, least in (
        ("batch.size", 1),
        ("batch.sequence_length", 2),
        ("batch.sequence_items", 0),
        ("batch.prefetch", 1),
        ("model.depth", 1),
        ("model.width", 1),
        ("model.heads", 1),
        ("model.kv_heads", 1),
        ("model.mlp_width", 1),
        ("model.head_depth", 1),
        ("optim.warmup_steps", 0),
        ("optim.accumulate", 1),
        ("train.steps", 1),
        ("train.log_every", 1),
        ("train.checkpoint_every", 1),
        ("train.keep_checkpoints", 1),
        ("eval.examples", 1),
        ("eval.batch_size", 1),
        ("eval.show", 1),
    ):
        part, name = path.split(".")
        value = getattr(getattr(config, part), name)
        if value < least:
            raise ConfigError(path, value, f"must be at least {least}", f"use {least} or more")
    optim = config.optim
    for name, holds, rule in (
        ("learning_rate", 0 < optim.learning_rate < math.inf, "must be a number above 0"),
        ("clip_norm", 0 < optim.clip_norm < math.inf, "must be a number above 0"),
        ("weight_decay", 0 <= optim.weight_decay < math.inf, "must be a number, 0 or above"),
        ("final_fraction", 0 <= optim.final_fraction <= 1, "must be in [0, 1]"),
        ("beta1", 0 <= optim.beta1 < 1, "must be in [0, 1)"),
        ("beta2", 0 <= optim.beta2 < 1, "must be in [0, 1)"),
    ):
        if not holds:
            raise ConfigError(f"optim.{name}", getattr(optim, name), rule, "see --knobs for what it means")
    if not 0 <= config.model.dropout < 1:
        raise ConfigError("model.dropout", config.model.dropout, "must be in [0, 1)", "use 0 for none")
    if not 0 <= config.train.digit_noise < 1:
        raise ConfigError("train.digit_noise", config.train.digit_noise, "must be in [0, 1)", "use 0 for none")
    _check_lookup(config.data.lookup)
    _check_tasks(config)
    targets = {target.name for target in config.eval.targets}
    for route in config.eval.routes:
        if len(route.through) < 2 or not set(route.through[1:]) <= targets:
            rule = f"a source, then modalities that can be generated ({', '.join(sorted(targets))})"
            raise ConfigError("eval.routes", route.through, rule, "add the target, or another route")
    if config.eval.completions and not any(
        task.modalities[0] == "image" and task.random_orders[0] > 0 for task in config.batch.tasks
    ):
        rule = "needs a task whose documents begin with an image, some of them in random order"
        raise ConfigError("eval.completions", config.eval.completions, rule, "set random_order there, or use ()")


def _check_lookup(lookup: LookupConfig) -> None:
    composed, sizes = lookup.rule == "composed", lookup.attributes
    combinations, fragments = math.prod(sizes), lookup.keys * lookup.items
    most_keys = min(2**20, combinations) if sizes else 2**20
    most_choices = min(lookup.space, 256, *(sizes[:1] if composed else ()))
    held = round(lookup.heldout * lookup.keys)
    for name, holds, rule in (
        ("space", 2 <= lookup.space <= 2**64, "must be in 2 … 2^64"),
        ("attributes", all(2 <= size <= 256 for size in sizes), "each must have 2 … 256 values"),
        ("attributes", combinations <= 2**64, "there can be 2^64 combinations"),
        ("attributes", not composed or combinations == lookup.space, f"must multiply to space, {lookup.space}"),
        ("keys", 1 <= lookup.keys <= most_keys, f"must be in 1 … {most_keys}, so that all differ"),
        ("items", lookup.items >= 1, "must be at least 1"),
        ("choices", 1 <= lookup.choices <= most_choices, f"must be in 1 … {most_choices}, so that all differ"),
        ("choices", fragments * lookup.choices <= 2**26, "all keys can have 2^26 fragments to choose from"),
        ("copies", lookup.copies >= 1 and lookup.copies * fragments <= 2**26, "1 or more; 2^26 fragments in all"),
        ("heldout", 0 <= lookup.heldout < 1, "must be in [0, 1)"),
        ("heldout", not composed or 0 < held < lookup.keys, f"leaves {held} of {lookup.keys} keys to be held out"),
        ("seed", lookup.seed >= 0, "must be 0 or more"),
    ):
        if not holds:
            raise ConfigError(f"data.lookup.{name}", getattr(lookup, name), rule, "see --knobs for what it means")


def _check_tasks(config: Config) -> None:
    if not config.batch.tasks:
        raise ConfigError("batch.tasks", (), "there must be something to train on", "add a task")
    for number, task in enumerate(config.batch.tasks):
        field = f"batch.tasks.{number}"
        if not task.segments or len(task.segments) != len(task.weights):
            raise ConfigError(
                f"{field}.weights", task.weights, f"one for each of the segments {task.segments}", "add or drop one"
            )
        if task.repeats < 1 or min(task.weights) < 0 or max(task.weights) <= 0:
            raise ConfigError(
                field, task, "repeats must be ≥ 1, weights ≥ 0 and one of them > 0", "or leave the task out"
            )
        if task.random_order and not (
            len(task.random_order) == len(task.segments) and all(0 <= share <= 1 for share in task.random_order)
        ):
            rule = f"one share in [0, 1] for each of the segments {task.segments}"
            raise ConfigError(f"{field}.random_order", task.random_order, rule, "use () for none")
        spaces = {space.name for space in config.vocabulary.spaces}
        for name, share in zip(task.modalities, task.random_orders, strict=True):
            if share > 0 and name not in spaces:
                rule = f"{name!r} has no space of fragments, and nothing else is written with its position"
                raise ConfigError(f"{field}.random_order", task.random_order, rule, "set its share to 0")
            if share > 0 and config.vocabulary.position != "before":
                rule = (
                    f"vocabulary.position is {config.vocabulary.position!r}, so that nothing says where the next "
                    "fragment belongs before it is written"
                )
                raise ConfigError(f"{field}.random_order", task.random_order, rule, "use position='before', or ()")
