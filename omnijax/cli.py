"""The command line: `omnijax train`, `evaluate`, `sample`, `compress` and the other commands."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnijax.errors import RESUMABLE, WRONG_INPUT, ConfigError, OmnijaxError, PeerLostError, PlatformError, shortened
from omnijax.paths import as_path, store_errors
from omnijax.run import end
from omnijax.run.compiled import keep_compiled
from omnijax.run.stopping import Stop
from omnijax.run.streams import FULL, keep_streams, lost_output

if TYPE_CHECKING:
    import rich.console

    from omnijax.config import Config

DOESNT_FIT = 1
"""Exit status of a plan for a machine with too little memory."""
STOPPED = "omnijax: stopped; the same command goes on"
ALONE = ("evaluate", "sample", "rank", "compress", "decompress")
"""Commands that one process runs on the devices of one machine."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; bad input prints one line and gives exit status 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    keep_streams()
    if any("\0" in argument for argument in arguments):
        print("omnijax: an argument contains a null byte, which paths and values can't have", file=sys.stderr)
        return WRONG_INPUT
    keep_compiled()
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and "overrides" not in options:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    options.overrides, options.line = rest, shlex.join(["omnijax", *arguments])
    try:
        with contextlib.nullcontext() if argv is not None else _interruptible(options.command):
            if options.command in ALONE:
                _refuse_several(options.command)
            status = int(options.run(options))
        sys.stdout.flush()
        if why := lost_output():
            print(f"omnijax: some output was lost: {why}. Fix: make room where it goes.", file=sys.stderr)
        return status or bool(why)
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return RESUMABLE
    except (OmnijaxError, AssertionError, RuntimeError, OSError) + store_errors() as error:
        if (line := _message_of(error)) is None:
            raise
        print(f"omnijax: {line}", file=sys.stderr)
        return RESUMABLE if isinstance(error, PeerLostError) else WRONG_INPUT


def _message_of(error: Exception) -> str | None:
    """The line to print for an error; None for a bug, which gets a traceback."""
    if isinstance(error, OSError) and error.errno in FULL:
        return f"{type(error).__name__}: {error}. Fix: make room, and run the same command again."
    if isinstance(error, store_errors()) or "gcsfs" in _raised_in(error).parts:
        fix = "check the address, your credentials and the network"
        return f"{type(error).__name__}: {' '.join(str(error).split())}. Fix: {fix}."
    if isinstance(error, OSError) and not isinstance(error, OmnijaxError):
        fix = "give another path, or change its permissions"
        return f"{type(error).__name__}: {error}. Fix: {fix}." if error.filename is not None else None
    full = re.search("RESOURCE_EXHAUSTED|[Oo]ut of memory", str(error))
    if full and type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError"):
        fix = "lower batch.size (eval.batch_size in an evaluation), raise optim.accumulate, or set model.remat"
        error = PlatformError("memory", "too little", shortened(str(error).partition("\n")[0]), fix)
    if not isinstance(error, OmnijaxError) and _raised_in(error).name == "xla_bridge.py":
        why = str(error).partition("\n")[0] or "it isn't there"
        rule, fix = f"JAX can't start this platform ({why})", "unset the variable, or install what the platform needs"
        error = PlatformError("JAX_PLATFORMS", os.environ.get("JAX_PLATFORMS"), rule, fix)
    return f"{type(error).__name__}: {error}" if isinstance(error, OmnijaxError) else None


@contextlib.contextmanager
def _interruptible(command: str) -> Iterator[None]:
    """Makes Ctrl-C end the process at once, unless the command catches signals itself.

    The files of such a command are whole at any moment. A `KeyboardInterrupt` could be lost in a callback of Python.
    """

    def leave(*_: object) -> None:
        print(STOPPED, file=sys.stderr)
        end(RESUMABLE)

    catches = command in ("train", "evaluate", "sweep") or signal.getsignal(signal.SIGINT) != signal.default_int_handler
    if catches or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _raised_in(error: BaseException) -> Path:
    """The source file of the line that raised an error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return Path() if trace is None else Path(trace.tb_frame.f_code.co_filename)


def _refuse_several(command: str) -> None:
    from omnijax.run.distributed import MODE, find_place

    place = find_place(os.environ)
    if place is not None and place.processes > 1:
        rule = f"`omnijax {command}` works in one process, on the devices of one machine"
        raise ConfigError("processes", place.processes, rule, f"run it on one machine, with {MODE}=off")


def _parser() -> argparse.ArgumentParser:
    says = "One decoder-only transformer over every modality, by a two-level vocabulary."
    parser = argparse.ArgumentParser(prog="omnijax", description=says)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    train = _add_command(commands, "train", _train, "get_config")
    train.add_argument("--workdir", type=_path, help="the run directory; runs/NAME by default")
    _add_flags(train, knobs="explain every knob of the experiment, and leave")
    prepare = _add_command(commands, "prepare", _prepare, "get_config")
    beam = "build on Apache Beam's workers; with options of its pipelines, as in `--beam "
    beam += "runner=DataflowRunner project=my-project`; on this machine without"
    prepare.add_argument("--out", type=_path, metavar="DIR", help="the directory of the data set that a folder becomes")
    more = "another folder, which is mixed with the first; may be given several times"
    prepare.add_argument("--and", type=_path, metavar="FOLDER", dest="more", action="append", default=[], help=more)
    skip = "share of the files of a folder that may be left out because they can't be used; 0 by default"
    prepare.add_argument("--skip-bad", type=float, default=0.0, metavar="SHARE", help=skip)
    prepare.add_argument("--beam", nargs="*", metavar="OPTION", help=beam)
    show = _add_command(commands, "show", _show, "get_config")
    show.add_argument("--out", type=_path, metavar="DIR", help="where the page goes; the data set by default")
    evaluate = _add_command(commands, "evaluate", _evaluate)
    evaluate.add_argument("workdirs", type=_path, nargs="+", metavar="RUN", help="a run directory")
    best = "which checkpoints; best: the one with the least renormalised bits an item, the mean over all forms"
    evaluate.add_argument("--steps", metavar="all|last|best|N,N", help=best)
    evaluate.add_argument("--split", metavar="NAME", help="of the records; eval.split of the run by default")
    evaluate.add_argument("--out", type=_path, metavar="DIR", help="directory of figures and report; else the run")
    tasks = "bits, directions, completions, held_out; all by default"
    evaluate.add_argument("--tasks", metavar="TASK,TASK", help=tasks)
    watch = "wait for checkpoints to come, until the last step of each run"
    _add_flags(evaluate, watch=watch, again="measure what has been measured, too")
    evaluate.set_defaults(overrides=[])
    sample, rank = _add_command(commands, "sample", _sample), _add_command(commands, "rank", _rank)
    known: dict[str, Any] = {"dest": "given", "action": "append", "default": [], "metavar": "FIELD=VALUE"}
    for one in (sample, rank):
        one.add_argument("workdir", type=_path, metavar="RUN", help="a run directory")
        one.add_argument("--from", help="a field that is known", **known)
    compress = _add_command(commands, "compress", _compress)
    compress.add_argument("--field", metavar="FIELD", help="that the file belongs to, where its ending doesn't say it")
    decompress = _add_command(commands, "decompress", _decompress)
    for one, file in ((compress, "what to compress"), (decompress, "a file that compress made")):
        one.add_argument("workdir", type=_path, metavar="RUN", help="a run directory")
        one.add_argument("file", type=_path, metavar="FILE", help=file)
        one.add_argument("--out", type=_path, metavar="FILE", help="where it goes; beside FILE by default")
    for one in (evaluate, sample, rank, compress, decompress):
        _add_flags(one, trust="execute the experiment file of a run from elsewhere")
    sample.add_argument("--to", required=True, metavar="FIELD", help="the field to generate")
    sample.add_argument("--out", type=_path, metavar="FILE", help="where it goes; a folder for a batch")
    sample.add_argument("--count", type=int, default=1, metavar="N", help="samples of one input, written as a sheet")
    sample.add_argument("--seed", type=int, default=0, help="draws the tokens")
    sample.set_defaults(overrides=[])
    rank.add_argument("--to", metavar="FIELD", help="the field of the answers")
    rank.add_argument("--among", nargs="+", required=True, metavar="VALUE", help="the answers")
    sweep = _add_command(commands, "sweep", _sweep, "sweep")
    sweep.add_argument("--out", type=_path, metavar="DIR", help="the directory of the sweep; sweeps/NAME by default")
    sweep.add_argument("--only", metavar="PATTERN", help="only arms whose names match, as in --only 'base=*'")
    sweep.add_argument("--seeds", type=int, metavar="N", help="number of seeds; results that exist are kept")
    here = "arms that run here at the same time, each with its share of the cores; default 1, with --smoke up to 4"
    sweep.add_argument("--workers", type=int, metavar="N", help=here)
    sweep.add_argument("--budget", metavar="KIND=AMOUNT", help="flops=2e13, items=4e5 or seconds=60; default: its own")
    sweep.add_argument("--arm", metavar="NAME", help="run only this arm, in this process; needs --seed")
    sweep.add_argument("--seed", type=int, metavar="K", help="the seed of --arm")
    dry_run = "print the cost and the command of each arm, and train nothing (but a budget in seconds is measured)"
    _add_flags(sweep, dry_run=dry_run, smoke="small models and a few steps, to see whether all of it works")
    plan = _add_command(commands, "plan", _plan, "get_config")
    plan.add_argument("--topology", required=True, help="v5e:16x16, v5p:8x8x8, …; cpu:8 and gpu:8 need no TPU compiler")
    plan.add_argument("--slices", type=int, default=1, help="how many of it, with a slower network in between")
    plan.add_argument("--out", type=_path, default=Path("plans"), metavar="DIR", help="where it is saved; else plans/")
    _add_flags(plan, sample="compile the sampling loop, too", hlo="also save the text of the compiled programs")
    vocab = commands.add_parser("vocab", help="look at the vocabulary")
    topics = vocab.add_subparsers(dest="topic", required=True, metavar="TOPIC")
    example, cost = _add_command(topics, "example", _example), _add_command(topics, "cost", _cost, "get_config")
    _add_flags(example, printed="ids as the source document prints them, one higher than it lists")
    bases = "further ones, as in `--bases 20 64,64,4096`"
    cost.add_argument("--bases", nargs="+", default=[], metavar="BASE", help=bases)
    for one in (plan, example, cost):
        _add_flags(one, json="print it as JSON")
    return parser


def _path(text: str) -> Path:
    """A path in which a leading `~` is the home directory, even if the shell left it there (in quotes)."""
    try:
        return as_path(text).expanduser()
    except (RuntimeError, ConfigError) as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def _add_command(commands: Any, name: str, run: Callable[..., int], function: str = "") -> argparse.ArgumentParser:
    """A command whose help is the docstring of `run`.

    With the name of a `function` it takes an experiment file that defines this function, and overrides of its knobs.
    """
    says, _, more = inspect.cleandoc(run.__doc__ or "").partition("\n\n")
    says = says[0].lower() + says[1:].rstrip(".")
    parser: argparse.ArgumentParser = commands.add_parser(name, help=says, description=more or says)
    parser.set_defaults(run=run)
    if function:
        parser.add_argument("experiment", type=_path, help=f"a Python file with {function}()")
        parser.set_defaults(overrides=[])
    return parser


def _add_flags(parser: argparse.ArgumentParser, **helps: str) -> None:
    for name, text in helps.items():
        parser.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=text)


# Commands import what they need themselves: `omnijax --help` answers at once.


def _config(options: argparse.Namespace) -> Config:
    from omnijax.experiment import load_experiment, override

    return override(load_experiment(options.experiment), options.overrides)


def _train(options: argparse.Namespace) -> int:
    """Train an experiment, or go on with it.

    Trains the configuration of an experiment file. Every knob of it can be overridden, as in `--model.depth 6`;
    `omnijax train FILE --knobs` explains them. A run that was stopped or killed goes on with the same command, to the
    same parameters, bit for bit.
    """
    with Stop() as stop:
        from omnijax.experiment import explain_knobs
        from omnijax.run import distributed
        from omnijax.train import train

        config = _config(options)
        if options.knobs:
            print(explain_knobs(config))
            return 0
        run = options.workdir or Path("runs") / options.experiment.stem
        with distributed.job(stop) as process:
            outcome = train(config, run, options.line, stop, options.experiment)
    if process == 0 and outcome.stopped:
        print(f"stopped at step {outcome.step}; the same command goes on from there", file=sys.stderr)
    elif process == 0:
        print(f"{run}: trained to step {outcome.step}")
    return RESUMABLE if outcome.stopped else 0


def _prepare(options: argparse.Namespace) -> int:
    """Make a data set of a folder of files, or build that of an experiment.

    Of a folder, it reads all files, and writes the data set and an experiment file into --out; with files added since,
    the same command stores the new ones. `tfds:NAME` is a data set of TensorFlow Datasets. Of an experiment file, it
    builds the data set, or checks the one that is there. Knobs can be overridden as in `omnijax train`.
    """
    from omnijax.data.beam import Beam
    from omnijax.data.prepare import prepare

    if options.more or options.experiment.suffix != ".py":
        from omnijax.new_experiment import prepare_folders

        prepare_folders([options.experiment, *options.more], options.out, options.skip_bad, options.overrides)
        return 0
    config = _config(options)
    prepare(config, None if options.beam is None else Beam(options.beam))
    print(f"{config.data.directory}: ready" if config.data.directory else "this source stores nothing: ready")
    return 0


def _show(options: argparse.Namespace) -> int:
    """Write a page about a data set: examples, lengths, splits, problems.

    Writes data.html into the directory of the data set, or into --out.
    """
    from omnijax.data.manifest import EXPERIMENT_FILE, verify
    from omnijax.experiment import load_experiment, override
    from omnijax.files import check_writable
    from omnijax.report.data_page import write_data_page

    path = options.experiment / EXPERIMENT_FILE if options.experiment.is_dir() else options.experiment
    config = override(load_experiment(path), options.overrides)
    out = options.out or (options.experiment if path != options.experiment else as_path(config.data.directory or "."))
    check_writable(out, "--out")
    verify(config.data)
    out.mkdir(parents=True, exist_ok=True)
    print(f"page: {write_data_page(config, out)}")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    """Measure runs on held-out data: their newest checkpoints, or all of them, also while they train.

    Writes eval.json, examples.json and report.html of a run's newest checkpoint. With --steps, --tasks or --watch: any
    checkpoints, a table of them, and in each run directory a row for each in evaluations.jsonl and a plot,
    evaluations.png. Nothing is measured twice. Another split than the run's own, as in --split test, has files of its
    own, eval-test.json and so on. A damaged or foreign checkpoint is reported, the others are evaluated, and the exit
    status is 1. After the runs, knobs of `eval` and `mesh` can be set, as in `--mesh.data 2 --mesh.fsdp 4` or
    `--eval.targets.FIELD.top_p 0.9`. The row records knobs of `eval`. Without --out, they leave eval.json as it is.
    """
    from omnijax.config.experiment_file import trust
    from omnijax.evaluate.command import run_command
    from omnijax.run.directory import EXPERIMENT_FILE

    for run in options.workdirs if options.trust else ():
        trust(run / EXPERIMENT_FILE)
    return run_command(options, _console())


def _sample(options: argparse.Namespace) -> int:
    """Generate one field from others.

    Generates a field of a record from the fields that are known. The value of a text field is the text itself, or @FILE
    to read it from a file. The value of any other field is the path of a file. A folder of files, or a .jsonl file, is
    a batch. A batch that was stopped continues with the same command. Knobs of `eval` can be set, as in
    `--eval.targets.FIELD.top_p 0.9`.
    """
    from omnijax.evaluate.sample_command import sample

    drawn = (options.count, options.seed, options.trust, options.overrides)
    print(sample(options.workdir, options.given, options.to, options.out, *drawn))
    return 0


def _rank(options: argparse.Namespace) -> int:
    """Order given answers by their exact likelihood.

    Prints each answer with its share of the probability of all answers, and the bits of its exact likelihood, the
    likeliest first.
    """
    from omnijax.evaluate.sample_command import rank

    for answer, found in rank(options.workdir, options.given, options.to, options.among, options.trust):
        print(f"{found.probability:8.4f}  {found.bits:9.2f} bits  {answer}")
    return 0


def _compress(options: argparse.Namespace) -> int:
    """Compress a file of a lossless field with a run.

    An arithmetic coder writes the file in as many bits as its exact likelihood says. Decompress it with the same
    checkpoint, the same version of JAX and the same kind of processor: the model must compute the same floats.
    """
    from omnijax.evaluate.compress_command import compress

    out, payload, raw = compress(options.workdir, options.file, options.field, options.out, options.trust)
    print(f"{out}: {raw:,} bytes in {payload:,}, {100 * payload / max(raw, 1):.1f} %")
    return 0


def _decompress(options: argparse.Namespace) -> int:
    """Decompress a file that `omnijax compress` made with the same run."""
    from omnijax.evaluate.compress_command import decompress

    print(decompress(options.workdir, options.file, options.out, options.trust))
    return 0


def _sweep(options: argparse.Namespace) -> int:
    """Train and measure the arms of an ablation, at one budget.

    Runs the arms that the sweep() of an experiment file defines, one process for each arm and seed, and writes
    results.csv, curves.csv, table.csv and report.html. The same command resumes a stopped sweep. Any number of workers,
    on any number of machines that see the directory, share the arms. Knobs of every arm can be overridden as in
    `omnijax train`.
    """
    from omnijax.sweep.command import run

    return run(options)


def _plan(options: argparse.Namespace) -> int:
    """What an experiment takes on a machine that isn't here: memory, collectives, time.

    Compiles the real train step ahead of time for a topology, without devices or data, and says what it takes, whether
    it fits and what to change. Exit status 0: it fits, 1: it doesn't, 2: bad input. Knobs can be overridden as in
    `omnijax train`.
    """
    if options.topology.startswith(("cpu", "v", "tpu")):  # these need no device; JAX reads this when it is imported
        os.environ["JAX_PLATFORMS"] = "cpu"
    from omnijax.plan.make import make_plan, save_plan
    from omnijax.plan.table import print_plan

    plan = make_plan(_config(options), options.topology, options.slices, options.sample)
    sizes = re.findall(r"--size[= ](\w+)", " ".join(options.overrides))
    saved = save_plan(plan, "-".join([options.experiment.stem, *sizes]), options.out, options.hlo)
    if options.json:
        print(saved.read_text(encoding="utf-8"), end="")
    else:
        print_plan(plan, _console())
        print(f"saved: {saved}")
    return 0 if plan.fits else DOESNT_FIT


def _example(options: argparse.Namespace) -> int:
    """The worked example of the method: symbols and ids."""
    from omnijax.vocab.example import worked_example

    example = worked_example(options.printed)
    if options.json:
        print(json.dumps(example, ensure_ascii=False))
    else:
        print(*example["symbols"])
        print(*example["ids"])
    return 0


def _cost(options: argparse.Namespace) -> int:
    """What each base would cost an experiment: tokens, softmax, logits, FLOPs.

    Computes, without training, what the usual bases and the experiment's own would cost it with everything else as it
    is. Knobs can be overridden as in `omnijax train`.
    """
    from omnijax.plan.cost import compare_bases, parse_base, to_dict
    from omnijax.plan.table import print_costs

    config = _config(options)
    costs = compare_bases(config, [parse_base(text) for text in options.bases])
    if options.json:
        print(json.dumps(to_dict(costs)))
    else:
        print_costs(costs, config, _console())
    return 0


def _console() -> rich.console.Console:
    """The terminal, or as wide as one in a file."""
    import rich.console

    return rich.console.Console(width=None if sys.stdout.isatty() else 110)
