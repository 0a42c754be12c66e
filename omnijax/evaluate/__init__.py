"""What trained models can do: a run's newest checkpoint, or many checkpoints of many runs."""

from omnijax.evaluate.history import ROWS, mean_bits, read_rows
from omnijax.evaluate.loading import Trained
from omnijax.evaluate.many import Session, evaluate_many
from omnijax.evaluate.newest import EVAL, EXAMPLES, evaluate
from omnijax.evaluate.split import EvaluatedSplit, split_of
from omnijax.evaluate.table import print_table
from omnijax.evaluate.tasks import TASKS, check_tasks
from omnijax.evaluate.trained_run import TrainedRun, load
from omnijax.evaluate.watch import watch

__all__ = [
    "EVAL",
    "ROWS",
    "TASKS",
    "EXAMPLES",
    "EvaluatedSplit",
    "Session",
    "Trained",
    "TrainedRun",
    "check_tasks",
    "evaluate",
    "evaluate_many",
    "split_of",
    "load",
    "mean_bits",
    "print_table",
    "read_rows",
    "watch",
]
