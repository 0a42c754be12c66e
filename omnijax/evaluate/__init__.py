"""What trained models can do, on held-out data: of a run's newest checkpoint, or of many checkpoints of many runs."""

from omnijax.evaluate.heldout import Heldout, heldout_of
from omnijax.evaluate.history import ROWS, mean_bits, read_rows
from omnijax.evaluate.loading import Trained, load_run
from omnijax.evaluate.many import Outcome, evaluate_many
from omnijax.evaluate.newest import EVAL, SAMPLES, evaluate
from omnijax.evaluate.table import print_table
from omnijax.evaluate.tasks import TASKS, check_tasks, measure
from omnijax.evaluate.watch import watch

__all__ = [
    "EVAL",
    "ROWS",
    "SAMPLES",
    "TASKS",
    "Heldout",
    "Outcome",
    "Trained",
    "check_tasks",
    "evaluate",
    "evaluate_many",
    "heldout_of",
    "load_run",
    "mean_bits",
    "measure",
    "print_table",
    "read_rows",
    "watch",
]
