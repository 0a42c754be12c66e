"""What trained models can do: a run's newest checkpoint, or many checkpoints of many runs."""

from omnijax.evaluate.loading import Trained
from omnijax.evaluate.many import Session, evaluate
from omnijax.evaluate.split import EvaluatedSplit, split_of
from omnijax.evaluate.tasks import check_tasks
from omnijax.evaluate.trained_run import TrainedRun, load

__all__ = ["EvaluatedSplit", "Session", "Trained", "TrainedRun", "check_tasks", "evaluate", "load", "split_of"]
