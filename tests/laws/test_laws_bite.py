"""The laws, tested: each broken loss below must be refused by the law named beside it.

A test suite that has never been seen to fail proves nothing.  Every bug here is one
that some published loss has had; the sound losses they are made from pass all laws.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from jaxloss import _checks, reduce, testing as laws
from jaxloss.claims import common
from jaxloss.testing import LossSpec

# --- three sound losses, small enough to be read at once ---------------------------


def bounded(loss, like, interval, **value):
    _checks.in_interval(loss, interval, **value)
    return _checks.parameter(loss, like, **value)


def huber(predictions, targets, *, delta=1.0):
    p, t = _checks.floating("huber", predictions=predictions, targets=targets)
    _checks.same_shape("huber", predictions=p, targets=t)
    delta = bounded("huber", p, "(0, inf)", delta=delta)
    r = p - t
    c = jnp.clip(r, -delta, delta)
    return c * (r - 0.5 * c)


@jax.custom_jvp
def sigmoid(x):
    return jax.nn.sigmoid(x)


@jax.custom_jvp
def softplus(x):
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


sigmoid.defjvps(lambda dx, s, x: dx * s * sigmoid(-x))  # s (1 - s) is 0 from x = 17
softplus.defjvps(lambda dx, _, x: dx * sigmoid(x))


def focal(logits, labels, *, gamma=2.0):
    (x,) = _checks.floating("focal", logits=logits)
    (y,) = _checks.real("focal", x, labels=labels)
    _checks.same_shape("focal", logits=x, labels=y)
    gamma = bounded("focal", x, "[0, inf)", gamma=gamma)
    up, down = softplus(x), softplus(-x)
    return y * jnp.exp(-gamma * up) * down + (1 - y) * jnp.exp(-gamma * down) * up


def norm(v):
    scale = jax.lax.stop_gradient(jnp.max(jnp.abs(v), axis=-1, keepdims=True))
    scale = jnp.where(scale > 0, scale, jnp.ones_like(scale))
    square = jnp.sum(jnp.square(v / scale), axis=-1)
    root = jnp.sqrt(jnp.where(square == 0, jnp.ones_like(square), square))
    return jnp.where(square == 0, jnp.zeros_like(root), root) * scale[..., 0]


def triplet(anchors, positives, negatives, *, margin=1.0):
    a, p, n = _checks.floating(
        "triplet", anchors=anchors, positives=positives, negatives=negatives
    )
    _checks.same_shape("triplet", anchors=a, positives=p, negatives=n)
    margin = bounded("triplet", a, "(0, inf)", margin=margin)
    return jax.nn.relu(norm(a - p) - norm(a - n) + margin)


# --- what is claimed of them -------------------------------------------------------


@common.exact
def huber_reference(p, t, delta):
    r = abs(p - t)
    return r**2 / 2 if r <= delta else delta * (r - mpmath.mpf(delta) / 2)


def huber_extremes(dtype):
    residuals = np.append(common.ladder(dtype), [1.0, -1.0])
    return [(residuals, np.zeros_like(residuals)), (np.ones(1), np.ones(1))]


HUBER = LossSpec(
    name="huber",
    fn=huber,
    sample=common.pair,
    params={"delta": 1.0},
    differentiable=(0, 1),
    reference=huber_reference,
    gradient=lambda p, t, delta: (
        np.clip(p - t, -delta, delta),
        np.clip(t - p, -delta, delta),
    ),
    curvature=lambda p, t, delta: np.heaviside(delta - np.abs(p - t), np.nan),
    extremes=huber_extremes,
    minimiser=lambda t, delta: t,
    convex=True,
    bad_calls=(
        *common.refused_pairs("huber", "predictions", "targets"),
        common.refused("huber", "delta", np.ones(3), np.ones(3), delta=0.0),
    ),
)


@common.exact
def focal_reference(x, y, gamma):
    up, down = mpmath.log1p(mpmath.exp(x)), mpmath.log1p(mpmath.exp(-x))
    return y * mpmath.exp(-gamma * up) * down + (1 - y) * mpmath.exp(-gamma * down) * up


@common.exact
def focal_gradient(x, y, gamma):
    p, q = 1 / (1 + mpmath.exp(-x)), 1 / (1 + mpmath.exp(x))
    positive = -(q**gamma) * (gamma * p * mpmath.log1p(mpmath.exp(-x)) + q)
    negative = p**gamma * (gamma * q * mpmath.log1p(mpmath.exp(x)) + p)
    return y * positive + (1 - y) * negative


def focal_extremes(dtype):
    x = common.ladder(dtype)
    return [(x, np.full_like(x, y)) for y in (0.0, 0.5, 1.0)]


def focal_spec(gamma):
    return LossSpec(
        name=f"focal(gamma={gamma})",
        fn=focal,
        sample=common.logits_and_bits,
        params={"gamma": gamma},
        reference=focal_reference,
        gradient=focal_gradient,
        ulps=8 + 3 * gamma,  # the exponent of the weight is rounded at its own size
        extremes=focal_extremes,
        convex=gamma == 0,
        bad_calls=(
            common.refused("focal", "labels", np.ones(3), np.ones(4)),
            common.refused("focal", "gamma", np.ones(3), np.ones(3), gamma=-1.0),
        ),
    )


@common.exact_rows(1, 1, 1)
def triplet_reference(a, p, n, margin):
    near, far = (distance(a, b) for b in (p, n))
    return max(mpmath.mpf(0), near - far + margin)


def distance(a, b):
    return mpmath.sqrt(mpmath.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


@common.exact_rows(1, 1, 1)
def triplet_gradient(a, p, n, margin):
    if distance(a, p) - distance(a, n) + margin <= 0:
        return ([mpmath.mpf(0)] * len(a),) * 3
    near, far = (
        [(x - y) / (distance(a, b) or 1) for x, y in zip(a, b, strict=True)]
        for b in (p, n)
    )
    return [x - y for x, y in zip(near, far, strict=True)], [-x for x in near], far


def triplet_extremes(dtype):
    zero, one, top = np.zeros((1, 4)), np.eye(4)[:1], common.big(dtype) * np.eye(4)[:1]
    return [(zero, zero, zero), (one, one, zero), (top, zero, one), (zero, top, one)]


TRIPLET = LossSpec(
    name="triplet",
    fn=triplet,
    sample=common.vectors(3),
    params={"margin": 1.0},
    event_ndim=1,
    differentiable=(0, 1, 2),
    reference=triplet_reference,
    cancels=common.exact_rows(1, 1, 1)(
        lambda a, p, n, margin: distance(a, p) + distance(a, n)
    ),
    gradient=triplet_gradient,
    gradient_cancels=lambda a, p, n, margin: (np.full_like(a, 2.0),) * 3,
    extremes=triplet_extremes,
    bad_calls=(
        common.refused("triplet", "negatives", *[np.ones((3, 4))] * 2, np.ones((1, 4))),
        common.refused("triplet", "margin", *[np.ones((3, 4))] * 3, margin=-1.0),
    ),
)

# With a delta beyond all residuals it is half the squared error.
MEAN = dataclasses.replace(
    HUBER,
    name="mean",
    params={"delta": 1e3},
    extremes=None,
    functional=lambda t, delta: np.mean(t),
    symmetries=(common.shift(0, 1), common.flip(0, 1), common.swap()),
)


def yes_or_no(rng):
    """The log-odds of an event; whether it happens."""
    odds = 2 * rng.normal()
    yes = 1 / (1 + np.exp(-odds))
    return (np.full(2, odds), np.array([0.0, 1.0])), np.array([1 - yes, yes])


FORECAST = dataclasses.replace(focal_spec(0.0), name="forecast", proper=yes_or_no)

KERNEL = dataclasses.replace(
    HUBER, name="kernel", fn=jax.jit(huber), kernel=True, bad_calls=()
)
SOUND = [HUBER, MEAN, FORECAST, focal_spec(0.5), TRIPLET, KERNEL]


# --- the broken losses -------------------------------------------------------------


def averages(p, t, *, delta):
    return jnp.mean(huber(p, t, delta=delta))


def normalises_by_batch(p, t, *, delta):
    return huber(p, t, delta=delta) / p.size


def broadcasts(p, t, *, delta):
    c = jnp.clip(p - t, -delta, delta)
    return c * (p - t - 0.5 * c)


def branches_on_parameter(p, t, *, delta):
    return huber(p, t, delta=delta) if delta > 0 else jnp.abs(p - t)


def converts_parameter(p, t, *, delta):
    return huber(p, t, delta=float(delta))


def forgets_parameter(p, t, *, delta):
    return huber(p, t, delta=jax.lax.stop_gradient(delta))


def upcasts(p, t, *, delta):
    return huber(p, t, delta=delta) * jnp.ones(())  # a constant of the default dtype


def promotes(p, t, *, delta):
    return huber(p, t, delta=delta) * np.array(1, np.float32)


def returns_half(p, t, *, delta):
    return huber(p, t, delta=delta).astype(p.dtype)


def computes_in_half(p, t, *, delta):
    c = jnp.clip(p - t, -delta, delta)
    return (c * (p - t - 0.5 * c)).astype(jnp.promote_types(p.dtype, jnp.float32))


def loses_small_ones(p, t, *, delta):
    return (1 + huber(p, t, delta=delta)) - 1  # as in sqrt(1 + r^2) - 1


def is_nan(p, t, *, delta):
    return huber(p, t, delta=delta) * jnp.nan  # and NaN equals NaN, for assert_allclose


def masks_the_output_only(p, t, *, delta):
    r = p - t  # sqrt has an infinite slope at 0, and 0 * inf is NaN
    return huber(jnp.where(r == 0, 0, jnp.sqrt(r * r)), jnp.zeros_like(t), delta=delta)


def hides_nan(p, t, *, delta):
    r = jax.lax.stop_gradient(p - t)
    return huber(p, t, delta=delta) * jnp.where(r == 0, 1, r / r)


def sorts_nan_by_its_sign(p, t, *, delta):
    loss = huber(p, t, delta=delta)  # and a NaN below -inf is less than 0
    return jax.lax.top_k(jnp.stack([loss, jnp.zeros_like(loss)], -1), 1)[0][..., 0]


def keeps_infinity(p, t, *, delta):
    # Value and gradient are right; what the gradient is made of again is -inf.
    hidden = jnp.where(p == t, -jnp.inf, jnp.zeros_like(p))
    shown = lambda p, hidden: jnp.where(hidden < 0, 0, huber(p, t, delta=delta))
    return jax.checkpoint(shown)(p, hidden)


def subtracts_delta(p, t, *, delta):
    r = jnp.abs(p - t)  # the slope is q + delta - delta: 0 for a residual of 1e-8
    q = jnp.minimum(r, delta)
    return 0.5 * q * q + delta * (r - q)


def stops_gradient(p, t, *, delta):
    return huber(jax.lax.stop_gradient(p), t, delta=delta)


def stops_other_gradient(p, t, *, delta):
    return huber(p, jax.lax.stop_gradient(t), delta=delta)


@jax.custom_jvp
def magnitude(r):
    return jnp.abs(r)


@magnitude.defjvp
def _(primals, tangents):
    (r,), (dr,) = primals, tangents
    safe = jnp.where(r == 0, 1, r)  # under grad the value at 0 becomes 1
    return jnp.abs(safe), jnp.where(r == 0, 0, jnp.sign(safe) * dr)


def returns_wrong_primal(p, t, *, delta):
    return huber(magnitude(p - t), jnp.zeros_like(t), delta=delta)


@jax.custom_vjp
def square(r):
    return r * r


square.defvjp(
    lambda r: (r + r, r), lambda r, g: (2 * r * g,)
)  # the slope for the value


def returns_wrong_primal_in_reverse(p, t, *, delta):
    return 0.5 * square(p - t)


@jax.custom_jvp
def clipped(r, delta):
    return huber(r, jnp.zeros_like(r), delta=delta)


clipped.defjvps(
    # Right, but delta / |r| is infinite at 0, and so is what `minimum` hides of it.
    lambda dr, _, r, delta: dr * r * jnp.minimum(1, delta / jnp.sqrt(r * r)),
    lambda dd, _, r, delta: dd * jnp.maximum(0, jnp.abs(r) - delta),
)


def has_nan_curvature(p, t, *, delta):
    return clipped(p - t, delta)


def is_not_convex(p, t, *, delta):
    return jnp.log1p(huber(p, t, delta=delta))


def is_shifted(p, t, *, delta):
    return huber(p, t + 0.1, delta=delta)


def is_raised(p, t, *, delta):
    return huber(p, t, delta=delta) + 0.1


def is_flipped(p, t, *, delta):
    return -huber(p, t, delta=delta)


def power_of_probability(x, y, *, gamma):
    p = jax.nn.sigmoid(x)
    log_p, log_q = jax.nn.log_sigmoid(x), jax.nn.log_sigmoid(-x)
    return -y * (1 - p) ** gamma * log_p - (1 - y) * p**gamma * log_q


def clipped_log(x, y, *, gamma):
    p = jnp.clip(jax.nn.sigmoid(x), 1e-7, 1 - 1e-7)
    return -y * (1 - p) ** gamma * jnp.log(p) - (1 - y) * p**gamma * jnp.log(1 - p)


def saturates(x, y, *, gamma):
    # jax.nn.softplus has the second derivative s (1 - s): 0 beyond 17 in float32.
    up, down = jax.nn.softplus(x), jax.nn.softplus(-x)
    return y * jnp.exp(-gamma * up) * down + (1 - y) * jnp.exp(-gamma * down) * up


def is_focal(x, y, *, gamma):
    return focal(x, y, gamma=gamma + 2.0)  # the known exception


def plain_norm(a, p, n, *, margin):
    d = lambda v: jnp.sqrt(jnp.sum(v * v, axis=-1))
    return jax.nn.relu(d(a - p) - d(a - n) + margin)


def padded_norm(a, p, n, *, margin):
    d = lambda v: jnp.sqrt(jnp.sum(v * v, axis=-1) + 1e-6)
    return jax.nn.relu(d(a - p) - d(a - n) + margin)


def compares_examples(p, t, *, delta):
    gaps = p[..., :, None] - p[..., None, :]  # a rule of JAX refuses the sharding of it
    return huber(p, t, delta=delta) + 0 * jnp.sum(gaps, axis=-1)


def gathers_examples(p, t, *, delta):
    loss, mesh = huber(p, t, delta=delta), jax.typeof(p).sharding.mesh
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.sharding.reshard(loss, whole) if mesh.explicit_axes else loss


@functools.partial(jax.jit, static_argnames="delta")
def compiles_each_number(p, t, *, delta):
    return huber(p, t, delta=delta)


def compiles_each_call(p, t, *, delta):
    return jax.jit(lambda p, t, delta: huber(p, t, delta=delta))(p, t, delta)


BROKEN = [
    (computes_in_half, HUBER, laws.matches_reference),
    (loses_small_ones, HUBER, laws.matches_reference),
    (clipped_log, focal_spec(2.0), laws.matches_reference),
    (padded_norm, TRIPLET, laws.matches_reference),
    (is_nan, HUBER, laws.matches_reference),
    (stops_gradient, HUBER, laws.gradient_matches_derivation),
    (stops_other_gradient, HUBER, laws.gradient_matches_derivation),
    (subtracts_delta, HUBER, laws.gradient_matches_derivation),
    (stops_gradient, HUBER, laws.gradient_matches_differences),
    (is_nan, HUBER, laws.gradient_matches_differences),
    (is_shifted, HUBER, laws.minimiser_is_a_minimum),
    (is_raised, HUBER, laws.minimiser_is_a_minimum),
    (is_flipped, HUBER, laws.minimiser_is_a_minimum),
    (is_not_convex, HUBER, laws.is_convex),
    (averages, HUBER, laws.output_shape_and_dtype),
    (upcasts, HUBER, laws.output_shape_and_dtype),
    (returns_half, HUBER, laws.output_shape_and_dtype),
    (normalises_by_batch, HUBER, laws.transformations_agree),
    (is_nan, HUBER, laws.transformations_agree),
    (compares_examples, HUBER, laws.shardings_agree),
    (gathers_examples, HUBER, laws.shardings_agree),
    (returns_wrong_primal, HUBER, laws.value_survives_differentiation),
    (returns_wrong_primal_in_reverse, HUBER, laws.value_survives_differentiation),
    (is_nan, HUBER, laws.value_survives_differentiation),
    (branches_on_parameter, HUBER, laws.parameters_may_be_traced),
    (forgets_parameter, HUBER, laws.parameters_may_be_traced),
    (has_nan_curvature, HUBER, laws.second_order_is_finite),
    (saturates, focal_spec(0.0), laws.second_order_is_finite),
    (branches_on_parameter, HUBER, laws.compiles_once),
    (converts_parameter, HUBER, laws.compiles_once),
    (is_shifted, MEAN, laws.is_least_at_functional),
    (is_focal, FORECAST, laws.is_proper),
    (is_shifted, MEAN, laws.is_symmetric),
    (huber, KERNEL, laws.one_dispatch),
    (compiles_each_number, KERNEL, laws.one_dispatch),
    (compiles_each_call, KERNEL, laws.one_dispatch),
    (promotes, HUBER, laws.strict_promotion),
    (masks_the_output_only, HUBER, laws.finite_at_extremes),
    (power_of_probability, focal_spec(0.5), laws.finite_at_extremes),
    (plain_norm, TRIPLET, laws.finite_at_extremes),
    (hides_nan, HUBER, laws.debug_nans_stays_quiet),
    (sorts_nan_by_its_sign, HUBER, laws.nan_has_no_sign),
    (keeps_infinity, HUBER, laws.debug_infs_stays_quiet),
    (normalises_by_batch, HUBER, laws.masked_entries_do_not_exist),
    (normalises_by_batch, HUBER, laws.weights_count_repetitions),
    (broadcasts, HUBER, laws.bad_calls_raise),
]


REFUSALS = (
    AssertionError,
    jax.dtypes.TypePromotionError,
    jax.errors.ConcretizationTypeError,
)


@pytest.mark.parametrize(
    ("broken", "spec", "law"),
    BROKEN,
    ids=[f"{broken.__name__}-{law.__name__}" for broken, _, law in BROKEN],
)
def test_the_law_refuses_the_broken_loss(broken, spec, law):
    """The law that exists for a bug finds it."""
    assert law in laws.applicable(spec)
    with pytest.raises(REFUSALS):
        law(dataclasses.replace(spec, fn=broken))


def test_every_law_has_been_seen_to_refuse():
    """No law passes everything."""
    assert {law for _, _, law in BROKEN} == set(laws.LAWS)


@pytest.mark.parametrize(
    ("spec", "law"),
    [(spec, law) for spec in SOUND for law in laws.applicable(spec)],
    ids=[f"{s.name}-{law.__name__}" for s in SOUND for law in laws.applicable(s)],
)
def test_the_law_accepts_the_sound_loss(spec, law):
    """What a law refuses is the bug, not the loss it was put into."""
    law(spec)


def test_a_reduction_that_counts_what_it_dropped_is_refused(monkeypatch):
    """The laws of masks and weights judge the reduction along with the loss."""

    def mean(losses, *, weights=1.0, where=True):
        return jnp.sum(losses * weights * where) / losses.size

    monkeypatch.setattr(reduce, "mean", mean)
    # Another function, or the programs of the sound reduction would still be known.
    spec = dataclasses.replace(HUBER, fn=functools.partial(huber))
    for law in (laws.masked_entries_do_not_exist, laws.weights_count_repetitions):
        with pytest.raises(AssertionError):
            law(spec)


def test_an_infinity_that_is_due_is_allowed():
    """Of a loss that is infinite, and of one that hides a division by 0 in its call."""

    def inside(p, t, *, delta):
        hidden = jnp.where(p == t, 1 / (p - t), 0)
        return jnp.where(jnp.isinf(hidden), 0, huber(p, t, delta=delta))

    laws.debug_infs_stays_quiet(HUBER)
    laws.debug_infs_stays_quiet(dataclasses.replace(HUBER, fn=inside))
    infinite = lambda p, t, *, delta: huber(p, t, delta=delta) * jnp.float32(1e38)
    laws.debug_infs_stays_quiet(dataclasses.replace(HUBER, fn=infinite))
