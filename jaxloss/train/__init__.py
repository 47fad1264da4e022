"""Objectives, their exact gradients, and training steps with optax."""

import typing as _typing

from jaxloss.train._results import Metric as Metric, metric as metric
from jaxloss.train.accumulate import (
    Accumulator as Accumulator,
    accumulate as accumulate,
    evaluate as evaluate,
    pad_batch as pad_batch,
)
from jaxloss.train.adapters import (
    objective_from_mean as objective_from_mean,
    objective_from_sum as objective_from_sum,
)
from jaxloss.train.combinators import (
    decayed as decayed,
    dynamic_weight_average as dynamic_weight_average,
    elastic_net as elastic_net,
    l1 as l1,
    l2 as l2,
    next_epoch as next_epoch,
    uncertainty_weighted as uncertainty_weighted,
    with_targets as with_targets,
)
from jaxloss.train.objective import (
    Objective as Objective,
    ObjectiveState as ObjectiveState,
    objective as objective,
    weighted as weighted,
)
from jaxloss.train.scaling import (
    DynamicScale as DynamicScale,
    ScaledState as ScaledState,
    scaled_train_step as scaled_train_step,
)
from jaxloss.train.step import (
    Evaluation as Evaluation,
    TrainState as TrainState,
    train_step as train_step,
    value_and_grad as value_and_grad,
)
from jaxloss.train.sweep import (
    Run as Run,
    grid as grid,
    grid_labels as grid_labels,
    runs as runs,
    sweep as sweep,
)
from jaxloss.train.task_updates import (
    GradNormState as GradNormState,
    PCGradState as PCGradState,
    gradnorm as gradnorm,
    pcgrad as pcgrad,
)
from jaxloss.train.tasks import (
    TaskEvaluation as TaskEvaluation,
    task_gradients as task_gradients,
    task_train_step as task_train_step,
)

if _typing.TYPE_CHECKING:
    from jaxloss.train import nnx as nnx


def __getattr__(name: str) -> _typing.Any:
    """Imports the adapter of Flax NNX at its first use, because it imports flax."""
    if name == "nnx":
        import importlib

        return importlib.import_module("jaxloss.train.nnx")
    raise AttributeError(f"module 'jaxloss.train' has no attribute {name!r}")
