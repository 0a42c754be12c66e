"""Every knob of a run: nested frozen dataclasses, documented here, overridable as `--model.depth 6`.

An experiment file returns one `Config`. It is saved, resolved, with the run and with each checkpoint; a run directory
goes on only with the configuration that it was started with.
"""

from omnijax.config.batch import BatchConfig, Task, field_of
from omnijax.config.config import Config
from omnijax.config.evaluation import Completion, EvalConfig, HeldOut, Route, SampleConfig, Target
from omnijax.config.model import ModelConfig
from omnijax.config.optim import MeshConfig, OptimConfig, TrainConfig
from omnijax.config.serial import from_dict, to_dict
from omnijax.config.writing import Writing

__all__ = ["BatchConfig", "Completion", "Config", "EvalConfig", "HeldOut", "MeshConfig", "ModelConfig", "OptimConfig"]
__all__ += ["Route", "SampleConfig", "Target", "Task", "TrainConfig", "Writing", "field_of", "from_dict", "to_dict"]
