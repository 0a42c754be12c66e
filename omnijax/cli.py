"""The command line: `omnijax train | evaluate | sample | rank | sweep | plan | prepare | vocab`."""

from __future__ import annotations

import argparse
import errno
import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnijax.errors import RESUMABLE, OmnijaxError, PeerLostError
from omnijax.run.compiled import keep_compiled
from omnijax.run.stopping import Stop

if TYPE_CHECKING:
    import rich.console

WRONG_INPUT = 2
TRUST = "execute the experiment file of a run from elsewhere"
DOESNT_FIT = 1
"""Exit status of a plan for a machine with too little memory."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; bad input prints one line and gives exit status 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    keep_compiled()
    try:
        return _run(arguments)
    except OmnijaxError as error:
        print(f"omnijax: {type(error).__name__}: {error}", file=sys.stderr)
        return RESUMABLE if isinstance(error, PeerLostError) else WRONG_INPUT
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"omnijax: {error}: make room, and run the same command again", file=sys.stderr)
        return WRONG_INPUT


def _run(arguments: list[str]) -> int:
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and "overrides" not in options:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    options.overrides = rest
    options.line = shlex.join(["omnijax", *arguments])
    return int(options.run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="omnijax", description="One decoder-only transformer over every modality, by a two-level vocabulary."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    train = commands.add_parser(
        "train",
        help="train an experiment, or go on with it",
        description="Trains the configuration of an experiment file. Every knob of it can be overridden, as in "
        "`--model.depth 6`; `omnijax train FILE --knobs` explains them. A run that was stopped or killed goes on "
        "with the same command, to the same parameters, bit for bit.",
    )
    train.add_argument("experiment", type=Path, help="a Python file with get_config()")
    train.add_argument("--workdir", type=Path, help="the run directory; runs/NAME by default")
    train.add_argument("--knobs", action="store_true", help="explain every knob of the experiment, and leave")
    train.set_defaults(run=_train, overrides=[])

    prepare = commands.add_parser(
        "prepare",
        help="build the data set of an experiment",
        description="Builds the data set of an experiment file, or checks the one that is there. Knobs can be "
        "overridden as in `omnijax train`.",
    )
    prepare.add_argument("experiment", type=Path, help="a Python file with get_config()")
    prepare.add_argument(
        "--beam",
        nargs="*",
        metavar="OPTION",
        help="on Apache Beam's workers, and store the fragments too; with options of its pipelines, as in "
        "`--beam runner=DataflowRunner project=my-project`; on this machine without",
    )
    prepare.set_defaults(run=_prepare, overrides=[])

    _add_evaluate(commands)

    _add_sample(commands)
    _add_sweep(commands)

    plan = commands.add_parser(
        "plan",
        help="what an experiment takes on a machine that isn't here: memory, collectives, time",
        description="Compiles the real train step ahead of time for a topology, without devices or data, and says what "
        "it takes, whether it fits and what to change. Exit status 0: it fits, 1: it doesn't, 2: bad input. Knobs can "
        "be overridden as in `omnijax train`.",
    )
    plan.add_argument("experiment", type=Path, help="a Python file with get_config()")
    plan.add_argument("--topology", required=True, help="v5e:16x16, v5p:8x8x8, …; cpu:8 and gpu:8 need no TPU compiler")
    plan.add_argument("--slices", type=int, default=1, help="how many of it, with a slower network in between")
    plan.add_argument("--sample", action="store_true", help="compile the sampling loop, too")
    plan.add_argument("--json", action="store_true", help="print the plan as JSON")
    plan.add_argument("--out", type=Path, default=Path("plans"), metavar="DIR", help="where it is saved; else plans/")
    plan.add_argument("--hlo", action="store_true", help="also save the text of the compiled programs")
    plan.set_defaults(run=_plan, overrides=[])

    _add_vocab(commands)
    return parser


def _add_evaluate(commands: Any) -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help="measure runs on held-out data: their newest checkpoints, or all of them, also while they train",
        description="Writes eval.json, examples.json and report.html of a run's newest checkpoint. With --steps, "
        "--tasks or --watch: any checkpoints, a table of them, and in each run directory a row for each in "
        "evaluations.jsonl and a plot, evaluations.png. Nothing is measured twice. A checkpoint that is damaged or "
        "foreign is named, the others are evaluated, and the exit status is 1. The mesh can be another than in "
        "training, as in `--mesh.data 2 --mesh.fsdp 4`, behind the runs.",
    )
    evaluate.add_argument("workdirs", type=Path, nargs="+", metavar="RUN", help="a run directory")
    evaluate.add_argument(
        "--steps",
        metavar="all|last|best|N,N",
        help="which checkpoints; best: the one with the least renormalised bits an item, the mean over all forms",
    )
    evaluate.add_argument("--tasks", metavar="TASK,TASK", help="bits, directions, completions; all by default")
    evaluate.add_argument(
        "--watch", action="store_true", help="wait for checkpoints to come, until the last step of each run"
    )
    evaluate.add_argument("--again", action="store_true", help="measure what has been measured, too")
    evaluate.add_argument("--trust", action="store_true", help=TRUST)
    evaluate.set_defaults(run=_evaluate, overrides=[])


def _add_sample(commands: Any) -> None:
    sample = commands.add_parser(
        "sample",
        help="generate one field from others",
        description="Generates a field of a record from the fields that are known. The value of a text field is the "
        "text itself, or @FILE to read it from a file. The value of any other field is the path of a file. A folder of "
        "files, or a .jsonl file, is a batch. A batch that was stopped continues with the same command.",
    )
    rank = commands.add_parser(
        "rank",
        help="order given answers by their exact likelihood",
        description="Prints each answer with its share of the probability of all answers, and the bits of its exact "
        "likelihood, the likeliest first.",
    )
    for parser in (sample, rank):
        parser.add_argument("workdir", type=Path, metavar="RUN", help="a run directory")
        parser.add_argument(
            "--from", dest="given", action="append", default=[], metavar="FIELD=VALUE", help="a field that is known"
        )
        parser.add_argument("--trust", action="store_true", help=TRUST)
    sample.add_argument("--to", required=True, metavar="FIELD", help="the field to generate")
    sample.add_argument("--out", type=Path, metavar="FILE", help="where it goes; a folder for a batch")
    sample.add_argument("--count", type=int, default=1, metavar="N", help="samples of one input, written as a sheet")
    sample.add_argument("--seed", type=int, default=0, help="draws the tokens")
    sample.set_defaults(run=_sample)
    rank.add_argument("--to", metavar="FIELD", help="the field of the answers")
    rank.add_argument("--among", nargs="+", required=True, metavar="VALUE", help="the answers")
    rank.set_defaults(run=_rank)


def _add_sweep(commands: Any) -> None:
    sweep = commands.add_parser(
        "sweep",
        help="train and measure the arms of an ablation, at one budget",
        description="Runs the arms that the sweep() of an experiment file defines, one process for each arm and seed, "
        "and writes results.csv, curves.csv, table.csv and report.html. The same command resumes a stopped sweep. "
        "Any number of workers, on any number of machines that see the directory, share the arms. Knobs of every arm "
        "can be overridden as in `omnijax train`.",
    )
    sweep.add_argument("experiment", type=Path, help="a Python file with sweep()")
    sweep.add_argument("--out", type=Path, metavar="DIR", help="the directory of the sweep; sweeps/NAME by default")
    sweep.add_argument("--only", metavar="PATTERN", help="only arms whose names match, as in --only 'base=*'")
    sweep.add_argument("--seeds", type=int, metavar="N", help="number of seeds; results that exist are kept")
    sweep.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="arms that run here at the same time, each with its share of the cores; default 1, with --smoke up to 4",
    )
    sweep.add_argument("--budget", metavar="KIND=AMOUNT", help="flops=2e13, items=4e5 or seconds=60; default: its own")
    sweep.add_argument(
        "--dry-run",
        action="store_true",
        help="print the cost and the command of each arm, and train nothing (but a budget in seconds is measured)",
    )
    sweep.add_argument(
        "--smoke", action="store_true", help="small models and a few steps, to see whether all of it works"
    )
    sweep.add_argument("--arm", metavar="NAME", help="run only this arm, in this process; needs --seed")
    sweep.add_argument("--seed", type=int, metavar="K", help="the seed of --arm")
    sweep.set_defaults(run=_sweep, overrides=[])


def _add_vocab(commands: Any) -> None:
    vocab = commands.add_parser("vocab", help="look at the vocabulary")
    topics = vocab.add_subparsers(dest="topic", required=True, metavar="TOPIC")
    example = topics.add_parser("example", help="the worked example of the method: symbols and ids")
    example.add_argument(
        "--printed", action="store_true", help="ids as the source document prints them, one higher than it lists"
    )
    example.add_argument("--json", action="store_true", help="as JSON")
    example.set_defaults(run=_vocab_example)
    cost = topics.add_parser(
        "cost",
        help="what each base would cost an experiment: tokens, softmax, logits, FLOPs",
        description="Reckons, without training, what the usual bases and the experiment's own would cost it with "
        "everything else as it is. Knobs can be overridden as in `omnijax train`.",
    )
    cost.add_argument("experiment", type=Path, help="a Python file with get_config()")
    cost.add_argument(
        "--bases", nargs="+", default=[], metavar="BASE", help="further ones, as in `--bases 20 64,64,4096`"
    )
    cost.add_argument("--json", action="store_true", help="as JSON")
    cost.set_defaults(run=_vocab_cost, overrides=[])


# Commands import what they need themselves: `omnijax --help` answers at once.


def _train(options: argparse.Namespace) -> int:
    with Stop() as stop:
        from omnijax.experiment import explain_knobs, load_experiment, override
        from omnijax.run import distributed
        from omnijax.train import train

        config = override(load_experiment(options.experiment), options.overrides)
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
    from omnijax.data.beam import Beam
    from omnijax.data.prepare import prepare
    from omnijax.experiment import load_experiment, override

    config = override(load_experiment(options.experiment), options.overrides)
    prepare(config, None if options.beam is None else Beam(options.beam))
    print(f"{config.data.directory}: ready" if config.data.directory else "this source stores nothing: ready")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from omnijax.evaluate.command import run_command
    from omnijax.run.directory import trust_stored
    from omnijax.run.distributed import refuse_several

    refuse_several("evaluate")
    for run in options.workdirs if options.trust else ():
        trust_stored(run)
    return run_command(options, _console())


def _sample(options: argparse.Namespace) -> int:
    from omnijax.evaluate.sample_command import sample
    from omnijax.run.distributed import refuse_several

    refuse_several("sample")
    given, count, seed = options.given, options.count, options.seed
    print(sample(options.workdir, given, options.to, options.out, count, seed, options.trust))
    return 0


def _rank(options: argparse.Namespace) -> int:
    from omnijax.evaluate.sample_command import rank
    from omnijax.run.distributed import refuse_several

    refuse_several("rank")
    for answer, found in rank(options.workdir, options.given, options.to, options.among, options.trust):
        print(f"{found.probability:8.4f}  {found.bits:9.2f} bits  {answer}")
    return 0


def _sweep(options: argparse.Namespace) -> int:
    from omnijax.sweep.command import run

    return run(options)


def _plan(options: argparse.Namespace) -> int:
    from omnijax.plan.environment import prepare_environment

    prepare_environment(options.topology)  # before JAX is imported
    from omnijax.experiment import load_experiment, override
    from omnijax.plan.make import make_plan, save_plan
    from omnijax.plan.table import print_plan

    config = override(load_experiment(options.experiment), options.overrides)
    plan = make_plan(config, options.topology, options.slices, options.sample)
    sizes = re.findall(r"--size[= ](\w+)", " ".join(options.overrides))
    saved = save_plan(plan, "-".join([options.experiment.stem, *sizes]), options.out, options.hlo)
    if options.json:
        print(saved.read_text(encoding="utf-8"), end="")
    else:
        print_plan(plan, _console())
        print(f"saved: {saved}")
    return 0 if plan.fits else DOESNT_FIT


def _vocab_example(options: argparse.Namespace) -> int:
    from omnijax.vocab.example import worked_example

    example = worked_example(options.printed)
    if options.json:
        print(json.dumps(example, ensure_ascii=False))
    else:
        print(" ".join(str(symbol) for symbol in example["symbols"]))
        print(" ".join(str(number) for number in example["ids"]))
    return 0


def _vocab_cost(options: argparse.Namespace) -> int:
    from omnijax.experiment import load_experiment, override
    from omnijax.plan.cost import compare_bases, parse_base, to_dict
    from omnijax.plan.cost_table import print_costs

    config = override(load_experiment(options.experiment), options.overrides)
    costs = compare_bases(config, [parse_base(text) for text in options.bases])
    if options.json:
        print(json.dumps(to_dict(costs)))
    else:
        print_costs(costs, config, _console())
    return 0


def _console() -> rich.console.Console:
    """The terminal, or as wide as one in a file."""
    import rich.console

    terminal = rich.console.Console()
    return terminal if terminal.is_terminal else rich.console.Console(width=110)
