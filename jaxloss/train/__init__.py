"""From losses to steps: objectives, their exact gradients, and optax updates."""

from jaxloss.train.objective import (
    Objective as Objective,
    ObjectiveState as ObjectiveState,
    l2 as l2,
    objective as objective,
    uncertainty_weighted as uncertainty_weighted,
    weighted as weighted,
)
from jaxloss.train.step import (
    Evaluation as Evaluation,
    TrainState as TrainState,
    train_step as train_step,
    value_and_grad as value_and_grad,
)
