"""Class labels, as every loss over classes sees them: ids or distributions."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss import _checks, stable
from jaxloss.stable import xla


class Rows(NamedTuple):
    """Scores with the classes last, and labels that are safe to compute with."""

    scores: jax.Array
    """-inf where a class is masked; 0 throughout an example without any class."""
    labels: jax.Array
    """Class ids, 0 where they were no class; or distributions, classes last."""
    has_class: jax.Array
    """Whether the example has a class at all: otherwise its loss is 0."""
    known: jax.Array
    """Whether its id is one of the classes: otherwise its loss is NaN."""
    given: jax.Array
    """The scores before that 0: nothing was chosen yet, so a sum takes them up."""

    @property
    def are_ids(self) -> bool:
        """Whether the labels are class ids and not distributions."""
        return jnp.issubdtype(self.labels.dtype, jnp.integer)

    def mass(self) -> jax.Array:
        """What the labels of each example sum to: 1 for class ids."""
        return (
            jnp.ones_like(self.scores[..., 0])
            if self.are_ids
            else jnp.sum(self.labels, -1)
        )

    def expect(self, values: jax.Array) -> jax.Array:
        """`sum(w values)` over the classes; for class ids, the value at the label."""
        if self.are_ids:
            return score_of_class(values, self.labels)
        return jnp.sum(weighted(self.labels, values), axis=-1)

    def mask_invalid(self, losses: jax.Array) -> jax.Array:
        """The losses of these rows: computed, 0 or NaN."""
        # An example without classes is padding, and padding often has a label like -1.
        known = self.known | ~self.has_class
        return nan_unless(known, jnp.where(self.has_class, losses, 0))


def rows(
    loss: str,
    labels: ArrayLike,
    axis: int,
    where: ArrayLike | None = None,
    **scores: ArrayLike,
) -> Rows:
    """Checks and converts the arguments of a loss of class labels."""
    ((name, _),) = scores.items()
    given, x, has_class = _rows_of_scores(loss, axis, where, **scores)
    like = jnp.moveaxis(x, -1, axis)
    axis = _checks.one_axis(loss, axis, **{name: like})
    labels = _checks.class_labels(loss, labels, axis, **{name: like})
    if jnp.issubdtype(labels.dtype, jnp.floating):
        labels = jnp.moveaxis(labels, axis, -1)
        return Rows(x, labels, has_class, jnp.ones_like(has_class), given)
    known = (labels >= 0) & (labels < x.shape[-1])
    return Rows(x, jnp.where(known, labels, 0), has_class, known, given)


def unlabelled_rows(
    loss: str, axis: int, where: ArrayLike | None, **scores: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Checked scores, classes last, as in `Rows`; and which rows have a class."""
    return _rows_of_scores(loss, axis, where, **scores)[1:]


def _rows_of_scores(
    loss: str, axis: int, where: ArrayLike | None, **scores: ArrayLike
) -> tuple[jax.Array, jax.Array, jax.Array]:
    ((name, _),) = scores.items()
    (x,) = _checks.floating(loss, **scores)
    _checks.at_least_1d(loss, **{name: x})
    axis = _checks.one_axis(loss, axis, **{name: x})
    if where is not None:
        (where,) = _checks.boolean(loss, where=where)
        _checks.same_shape(loss, **{name: x}, where=where)
        x = jnp.where(where, x, -jnp.inf)
    x = jnp.moveaxis(x, axis, -1)
    has_class = jnp.max(x, axis=-1) != -jnp.inf
    return x, jnp.where(has_class[..., None], x, 0), has_class


def score_of_class(values: jax.Array, ids: jax.Array) -> jax.Array:
    """The entry of each row at its class id, found by comparison, not gathered."""
    at = lax.broadcasted_iota(ids.dtype, values.shape, values.ndim - 1)
    return jnp.sum(jnp.where(at == ids[..., None], values, 0), axis=-1)


def finite(slope: jax.Array) -> jax.Array:
    """A slope, but 0 where it is infinite."""
    # An infinite slope would become NaN as soon as it is multiplied by a zero.
    return jnp.where(jnp.isinf(slope), 0, slope)


@stable.slopes(
    lambda weight, loss: finite(loss),
    lambda weight, loss: jnp.broadcast_to(weight, loss.shape),
)
def weighted(weight: jax.Array, loss: jax.Array) -> jax.Array:
    """`weight * loss`, and 0 where the weight is 0, even of an infinite loss.

    The derivative with respect to the weight is the loss, and 0 of an infinite one.
    """
    return jnp.where(weight == 0, 0, weight * jnp.where(weight == 0, 0, loss))


@stable.slopes(
    lambda part, first, second, gap: finite(gap),
    lambda part, first, second, gap: jnp.broadcast_to(1 - part, gap.shape),
    lambda part, first, second, gap: jnp.broadcast_to(part, gap.shape),
    None,
)
def mix(
    part: jax.Array, first: jax.Array, second: jax.Array, gap: jax.Array
) -> jax.Array:
    """`(1 - part) first + part second`; what has no part may be infinite.

    `gap` is `second - first`, which is the derivative with respect to the part, from a
    formula that does not cancel.
    """
    return weighted(1 - part, first) + weighted(part, second)


@jax.custom_jvp
def nan_unless(known: jax.Array, losses: jax.Array) -> jax.Array:
    """`losses`, but NaN where not `known`; so is the gradient, unless multiplied by 0.

    So an example dropped by `jaxloss.mean(..., where=)` is harmless.
    """
    return losses + xla.nan_unless(known, losses)


@nan_unless.defjvp
def _(primals, tangents):
    known, losses = primals
    _, slope = tangents
    return nan_unless(known, losses), xla.nan_slope_unless(known, slope)


# --- cross entropy -----------------------------------------------------------------


def cross_entropy(rows: Rows) -> jax.Array:
    """`-sum(w log p)` with p the softmax of the scores, for either kind of labels."""
    if rows.are_ids:
        return stable.softmax_nll(rows.given, rows.labels)
    return _cross_entropy(rows.scores, rows.labels)


@jax.custom_jvp
def _cross_entropy(x: jax.Array, w: jax.Array) -> jax.Array:
    """`-sum(w log p)` along the last axis."""
    return jnp.sum(weighted(w, -stable.log_softmax(x)), axis=-1)


@_cross_entropy.defjvp
def _(primals, tangents):
    (x, w), (dx, dw) = primals, tangents
    # p sum(w) - w, arranged so that neither p nor w nearly 1 loses the other's digits,
    # and so that a one-hot w gives what a class id gives.
    by_logit = stable.softmax(x) * _others(w) - w * stable.softmax_complement(x)
    by_label = jnp.where(x == -jnp.inf, 0, -stable.log_softmax(x))
    return _cross_entropy(x, w), jnp.sum(by_logit * dx + by_label * dw, axis=-1)


def _others(w: jax.Array) -> jax.Array:
    """`sum(w) - w` along the last axis, added up without the largest where it is it."""
    largest = w == jnp.max(w, axis=-1, keepdims=True)
    alone = largest & (jnp.sum(largest, axis=-1, keepdims=True) == 1)
    rest = jnp.sum(jnp.where(largest, 0, w), axis=-1, keepdims=True)
    return jnp.where(alone, rest, jnp.sum(w, axis=-1, keepdims=True) - w)
