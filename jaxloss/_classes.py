"""Class labels of all losses over classes: ids or distributions."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss import _checks, stable
from jaxloss.stable import xla


@dataclasses.dataclass(frozen=True)
class Rows:
    """Scores with the classes last, and the labels of the examples."""

    given: jax.Array
    """Scores; -inf where a class is masked."""
    given_labels: jax.Array
    """Class ids, some of which may not be a class; or distributions, classes last."""

    @functools.cached_property
    def has_class(self) -> jax.Array:
        """Whether the example has a class at all: otherwise its loss is 0."""
        return jnp.max(self.given, axis=-1) != -jnp.inf

    @functools.cached_property
    def scores(self) -> jax.Array:
        """The scores, but 0 throughout an example without any class."""
        return jnp.where(self.has_class[..., None], self.given, 0)

    @functools.cached_property
    def known(self) -> jax.Array:
        """Whether the id is one of the classes: otherwise the loss is NaN."""
        ids = self.given_labels
        return (ids >= 0) & (ids < self.given.shape[-1])

    @functools.cached_property
    def labels(self) -> jax.Array:
        """The labels, safe to compute with: 0 where an id is no class."""
        ids = self.given_labels
        return jnp.where(self.known, ids, 0) if self.are_ids else ids

    @property
    def are_ids(self) -> bool:
        """Whether the labels are class ids and not distributions."""
        return jnp.issubdtype(self.given_labels.dtype, jnp.integer)

    def mass(self) -> jax.Array:
        """What the labels of each example sum to: 1 for class ids."""
        return (
            jnp.ones_like(self.given[..., 0])
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
        losses = jnp.where(self.has_class, losses, 0)
        if not self.are_ids:
            return losses
        # An example without classes is padding, and padding often has a label like -1.
        return nan_unless(self.known | ~self.has_class, losses)


def rows(
    loss: str,
    labels: ArrayLike,
    axis: int,
    where: ArrayLike | None = None,
    **scores: ArrayLike,
) -> Rows:
    """Checks and converts the arguments of a loss of class labels."""
    ((name, _),) = scores.items()
    x, axis = classes_last(loss, axis, where, **scores)
    like = jnp.moveaxis(x, -1, axis)
    labels = _checks.class_labels(loss, labels, axis, **{name: like})
    if jnp.issubdtype(labels.dtype, jnp.floating):
        labels = jnp.moveaxis(labels, axis, -1)
    return Rows(x, labels)


def classes_last(
    loss: str, axis: int, where: ArrayLike | None, **scores: ArrayLike
) -> tuple[jax.Array, int]:
    """Checked and masked scores with the classes last; and where those were."""
    ((name, _),) = scores.items()
    (x,) = _checks.floating(loss, **scores)
    _checks.at_least_1d(loss, **{name: x})
    axis = _checks.row_axis(loss, axis, "class", **{name: x})
    x = xla.gradient_written(x)
    if where is not None:
        (where,) = _checks.boolean(loss, where=where)
        _checks.same_shape(loss, **{name: x}, where=where)
        x = jnp.where(where, x, -jnp.inf)
    return jnp.moveaxis(x, axis, -1), axis


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
    """`(1 - part) first + part second`; a term with part 0 may be infinite.

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
    """`-sum(w log p)` with p the softmax of the scores, for either kind of labels.

    0 of an example without classes, and otherwise NaN if its id is no class.
    """
    if rows.are_ids:
        return stable.softmax_nll(rows.given, rows.given_labels)
    return stable.softmax_cross_entropy(rows.given, rows.labels)
