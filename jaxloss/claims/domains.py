"""The domains of the arguments of the losses: what a `Claim` says of each by its name.

The words of a domain stand behind "expected" in an error, and have the remedy.
"""

import numpy as np

from jaxloss.testing.domain import (
    Argument,
    Complaint,
    Domain,
    all_of,
    entries,
    interval,
    rows_sum_to_one,
)

REAL = entries(np.isfinite, "finite numbers")
ANY_IDS = interval("[-inf, inf]", "integers, which are only compared")
LOGITS = interval("[-inf, inf)", "finite scores, or -inf for a class that is excluded")
LOG_ODDS = interval("[-inf, inf]", "scores that are no NaN")
LOGARITHMS = interval("[-inf, inf)", "finite logarithms, or -inf for an amount of 0")
NOT_NEGATIVE = interval("[0, inf)", "finite numbers >= 0")
POSITIVE = interval("(0, inf)", "finite numbers > 0")
LOG_DISPERSIONS = interval(
    "[-inf, 80]", "logarithms of dispersions, at most 80, or -inf for none"
)
DISTANCES = interval(
    "[0, inf)", "distances >= 0, such as `stable.norm(first - second)`"
)
ABOVE_MINUS_ONE = interval("(-1, inf)", "finite amounts > -1")
NOT_ZERO = entries(
    lambda x: np.isfinite(x) & (x != 0),
    "finite targets other than 0; leave those out by `jaxloss.mean(losses, "
    "where=targets != 0)`",
)

PROBABILITIES = interval(
    "[0, 1]",
    "probabilities in [0, 1], such as `jax.nn.sigmoid(logits)` or "
    "`jax.nn.softmax(logits)`",
)
BITS = interval(
    "[0, 1]", "labels in [0, 1], which are `(y + 1) / 2` of labels y = -1 and +1"
)
HARD = entries(
    lambda x: (x == 0) | (x == 1),
    "labels 0 and 1, which are `labels > 0.5` of soft ones",
)
SIGNS = entries(
    lambda x: np.abs(x) == 1,
    "labels -1 and +1, which are `2 * y - 1` of labels y = 0 and 1",
)

LOG_PROBS = interval(
    "[-inf, 0.001]", "log-probabilities, at most 0: neither probabilities nor logits"
)
LOG_ROWS = all_of(
    interval(
        "[-inf, 0.001]",
        "log-probabilities, at most 0, such as `stable.log_softmax(logits)`",
    ),
    rows_sum_to_one(
        "log-probabilities whose exponentials sum to 1, such as "
        "`stable.log_softmax(logits)`",
        logarithms=True,
    ),
)
DISTRIBUTIONS = all_of(
    interval("[0, inf)", "probabilities >= 0, such as `jax.nn.softmax(logits)`"),
    rows_sum_to_one(
        "probabilities that sum to 1 along the axis of the classes, such as "
        "`jax.nn.softmax(logits)`"
    ),
)


def _increasing(argument: Argument) -> Complaint | None:
    steps = np.diff(argument.x, axis=-1)
    if np.all(steps > 0):
        return None
    has = f"a step of {steps[~(steps > 0)][0]:.6g} from one to the next"
    return Complaint(
        has, "cutpoints that increase, such as `jnp.cumsum` of exponentials"
    )


INCREASING = all_of(REAL, _increasing)


def classes(scores: str, *, more: int = 0, mask: str = "where") -> Domain:
    """Class ids of the argument `scores`, or weights >= 0 of its shape.

    `more` is how many classes there are beside the entries of the scores.
    """

    def look(argument: Argument) -> Complaint | None:
        if np.issubdtype(argument.dtype, np.integer):
            shape = np.shape(argument.given[scores])
            return _ids(shape[argument.axis] + more, mask)(argument)
        return WEIGHTS(argument)

    return look


def _ids(count: int, mask: str) -> Domain:
    """Class ids below a number of classes."""

    def look(argument: Argument) -> Complaint | None:
        x = argument.x[argument.counted(mask)]
        from_one = x.size and x.min() == 1 and x.max() == count
        remedy = "; ids that count from 1 are `labels - 1`" if from_one else ""
        if np.any(x < 0):
            remedy = "; select the examples that count, as `labels[labels >= 0]`"
        within = lambda x: (x >= 0) & (x < count)
        return entries(within, f"class ids in [0, {count}){remedy}", mask)(argument)

    return look


def _no_blank(argument: Argument) -> Complaint | None:
    """Labels of a sequence are none of them the blank."""
    blank = argument.given["blank"]
    expected = f"class ids other than the blank, {blank}"
    return entries(lambda x: x != blank, expected, "label_where")(argument)


WEIGHTS = interval("[0, inf)", "class ids as integers, or a distribution >= 0")
IDS_OF_LOGITS, IDS_OF_SCORES = classes("logits"), classes("scores")

# --- the arguments of the losses, by family ----------------------------------------

RESIDUAL = {"predictions": REAL, "targets": REAL}
ROWS = {"logits": LOGITS, "labels": IDS_OF_LOGITS}
ONE_LOGIT = {"logits": LOG_ODDS, "labels": BITS}
SCORED = {"scores": LOGITS, "labels": IDS_OF_SCORES}
SIGNED = {"scores": REAL, "labels": SIGNS}
MASKS = {"probabilities": PROBABILITIES, "targets": BITS, "complements": PROBABILITIES}
GROUPS = {"embeddings": REAL, "labels": ANY_IDS}
ANSWERS = {"chosen_log_probs": LOG_PROBS, "rejected_log_probs": LOG_PROBS}
PREFERENCE = {
    **ANSWERS,
    "chosen_reference_log_probs": LOG_PROBS,
    "rejected_reference_log_probs": LOG_PROBS,
}
SEQUENCE = {
    "logits": LOGITS,
    "labels": all_of(classes("logits", mask="label_where"), _no_blank),
}
