"""Angular margins: published values, the ends of the angle, rows without a class."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

import jaxloss
from jaxloss.testing import tolerance

FLOAT32 = tolerance(np.float32)
FIRST, AXES = jnp.zeros((), jnp.int32), jnp.eye(2, 3, dtype=jnp.float32)


def at_angle(theta, dtype=jnp.float64):
    """A vector of length 1 at an angle to the first of `AXES`, at a right angle to the
    second."""
    return jnp.array([math.cos(theta), 0, math.sin(theta)], dtype)


at_angles = lambda thetas: jnp.stack([*map(at_angle, thetas)])


def own_logit(x, **settings: Any):
    """The logit of the first class."""
    return jaxloss.angular_margin(x, AXES, FIRST, **{"scale": 1.0, **settings})[..., 0]


def continued(psi):
    """`(-1)^k cos(psi) - 2k` for k half turns; pi itself is not beyond the first."""
    turns = psi / math.pi
    k = math.ceil(turns) - 1 if turns > 0 else math.floor(turns)
    return (-1) ** k * math.cos(psi) - 2 * k


def loss(x, prototypes: Any = AXES, labels: Any = FIRST, **settings: Any):
    logits = jaxloss.angular_margin(x, prototypes, labels, **settings)
    return jaxloss.softmax_cross_entropy(logits, labels)


# --- published values ----------------------------------------------------------------

THETA = math.acos(0.6)
WORKED: dict[str, tuple[dict[str, Any], float, float]] = {
    "ArcFace": ({"margin": math.pi / 6}, math.cos(THETA + math.pi / 6), 0.2641744038),
    "CosFace": ({"margin": 0.0, "cosine_margin": 0.2}, 0.6 - 0.2, 0.01814992792),
    "SphereFace": ({"margin": 0.0, "angle_factor": 2.0}, 2 * 0.6**2 - 1, 2.859032826),
}


@pytest.mark.parametrize("name", WORKED)
def test_worked_values(name):
    """One class at cosine 0.6, one at 0: cross entropy `log(1 + exp(-s phi))`."""
    settings, phi, published = WORKED[name]
    x = at_angle(THETA)
    np.testing.assert_allclose(own_logit(x, **settings), phi, rtol=1e-14)
    found = loss(x, scale=10.0, **settings)
    np.testing.assert_allclose(found, math.log1p(math.exp(-10 * phi)), rtol=1e-13)
    np.testing.assert_allclose(found, published, rtol=1e-9)


def test_all_margins_at_once():
    """Each in its place, at every label of a batch."""
    settings = {"margin": 0.2, "angle_factor": 1.3, "cosine_margin": 0.1}
    thetas = np.linspace(0.1, 1.8, 5)
    found = jax.vmap(lambda x: own_logit(x, scale=7.0, **settings))(at_angles(thetas))
    np.testing.assert_allclose(
        found, 7 * (np.cos(1.3 * thetas + 0.2) - 0.1), rtol=1e-13
    )


def test_other_classes_keep_their_cosines():
    """Times the scale, of vectors of any length."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(5, 4)), 9 * rng.normal(size=(7, 4))
    labels = np.arange(5)
    found = jaxloss.angular_margin(x, w, labels, scale=3.0)
    unit = lambda v: v / np.linalg.norm(v, axis=-1, keepdims=True)
    others = labels[:, None] != np.arange(7)
    np.testing.assert_allclose(
        found[others], 3 * (unit(x) @ unit(w).T)[others], rtol=1e-12
    )


def test_without_margins_it_is_the_normalised_softmax():
    """The cosine of the label to its last bits: that of `cosine_similarity`."""
    x, w = jax.random.normal(jax.random.key(0), (2, 64, 5), jnp.float32)
    found = jax.vmap(
        lambda x, w: jaxloss.angular_margin(x, w[None], FIRST, scale=1.0, margin=0.0)
    )(x, w)
    np.testing.assert_allclose(
        found[:, 0], jaxloss.cosine_similarity(x, w), rtol=FLOAT32
    )


# --- beyond pi -----------------------------------------------------------------------

SETTINGS = [
    dict(zip(("margin", "angle_factor", "cosine_margin"), numbers, strict=True))
    for numbers in (
        (0.5, 1.0, 0.0),
        (0.0, 4.0, 0.0),
        (0.3, 1.35, 0.2),
        (-0.4, 1.0, 0.0),
        (0.0, 1.0, 0.35),
    )
]


def test_it_goes_on_beyond_pi():
    """At cosine -0.95 and pi/6 it is -1.02; folded back it would be -0.979."""
    x = at_angle(math.acos(-0.95))
    psi = math.acos(-0.95) + math.pi / 6
    found = own_logit(x, margin=math.pi / 6)
    np.testing.assert_allclose(found, -2 - math.cos(psi), rtol=1e-13)
    np.testing.assert_allclose(found, -1.021150916, rtol=1e-9)


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_logit_falls_with_the_angle(settings):
    """All the way from 0 to pi, without a jump."""
    thetas = np.linspace(0, math.pi, 400)
    found = jax.vmap(lambda x: own_logit(x, **settings))(at_angles(thetas))
    steps = np.diff(found)
    assert (steps <= 1e-12).all()
    assert (steps >= -1.01 * settings["angle_factor"] * thetas[1]).all()


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_gradient_in_the_angle(settings):
    """`s |sin psi| angle_factor (1 - p)`, also beyond pi."""
    theta = np.array([1e-6, 0.3, 1.5, 2.9, math.pi - 1e-6])
    factor, x = settings["angle_factor"], at_angles(theta)
    slopes = jax.vmap(jax.grad(lambda x: loss(x, scale=2.0, **settings)))(x)
    # The way of the vector as the angle grows.
    way = np.stack([-np.sin(theta), 0 * theta, np.cos(theta)], axis=-1)
    phi = jax.vmap(lambda x: own_logit(x, **settings))(x)
    p = 1 / (1 + np.exp(-2 * phi))
    expected = 2 * abs(np.sin(factor * theta + settings["margin"])) * factor * (1 - p)
    found = np.sum(slopes * way, axis=-1)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-15)


# --- along the prototype, against it, no direction -----------------------------------


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_nothing_is_nan_at_a_prototype_or_opposite_to_it(dtype):
    """Value, gradient, second derivative; the logits are those of theta = 0 and pi."""

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0))
    @functools.partial(jax.vmap, in_axes=(0, None))
    def everything(sign, settings):
        w = jnp.array([[3, 1, -2], [1, 1, 1]], dtype)
        fn = lambda x, w: loss(x, w, scale=4.0, **settings)
        args = 5 * sign * w[0], w
        derivatives = fn, jax.grad(fn, (0, 1)), jax.hessian(fn, (0, 1))
        own = jaxloss.angular_margin(*args, FIRST, scale=1.0, **settings)[0]
        return own, [part(*args) for part in derivatives]

    names = SETTINGS[0]
    settings = {name: jnp.array([s[name] for s in SETTINGS], dtype) for name in names}
    with jax.debug_nans(True):
        own, found = everything(jnp.array([1, -1], dtype), settings)
    assert all(jnp.isfinite(part).all() for part in jax.tree.leaves(found))
    for s, logits in zip(SETTINGS, own, strict=True):
        psi = [s["angle_factor"] * theta + s["margin"] for theta in (0, math.pi)]
        ends = [continued(x) - s["cosine_margin"] for x in psi]
        np.testing.assert_allclose(
            logits, ends, rtol=0, atol=20 * float(jnp.finfo(dtype).eps)
        )


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_cosine_margin_has_a_second_derivative_there(sign):
    """`cos` has curvature -1 at 0 and 1 at pi; an angle has no direction to turn to."""
    x = jnp.array([sign, 0, 0])
    turned = jax.hessian(lambda x: own_logit(x, margin=0.0, cosine_margin=0.3))(x)
    np.testing.assert_allclose(
        turned, jnp.diag(jnp.array([0, -sign, -sign])), atol=1e-14
    )
    assert (jax.grad(lambda x: own_logit(x, margin=0.5))(x) == 0).all()


@pytest.mark.parametrize("size", [1e-20, 1e-3, 1e20])
def test_lengths_do_not_matter(size):
    """Of an embedding or of prototypes; the gradient is inversely proportional."""
    rng = np.random.default_rng(0)
    x, w = (jnp.asarray(rng.normal(size=(3, 4)), jnp.float32) for _ in range(2))
    labels, settings = jnp.arange(3), {"scale": 8.0, "margin": 0.5}
    total = lambda x, w: loss(x, w, labels, **settings).sum()
    value, (by_x, by_w) = jax.value_and_grad(total, (0, 1))(x, w)
    found, (near, far) = jax.value_and_grad(total, (0, 1))(size * x, w / size)
    np.testing.assert_allclose(found, value, rtol=8 * FLOAT32)
    np.testing.assert_allclose(near * size, by_x, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(far / size, by_w, rtol=1e-4, atol=1e-5)


def test_a_zero_vector_is_at_right_angles_to_all():
    """So its cosines are 0, and no gradient is NaN or not 0."""
    x, w = jnp.zeros(3), jnp.stack([jnp.arange(3.0), jnp.ones(3)])
    logits = jaxloss.angular_margin(x, w, FIRST, scale=2.0, margin=0.4)
    np.testing.assert_allclose(logits, [-2 * math.sin(0.4), 0], rtol=1e-14)
    fn = lambda x, w: loss(x, w, scale=2.0)
    lost = jnp.stack([x, w[1]])
    for args in ((x, w), (w[0], lost)):
        curves = jax.hessian(fn, (0, 1))(*args)
        assert all(jnp.isfinite(part).all() for part in jax.tree.leaves(curves))
    assert (jax.grad(fn)(x, w) == 0).all()
    assert (jax.grad(fn, 1)(w[0], lost)[0] == 0).all()


# --- labels --------------------------------------------------------------------------


@pytest.mark.parametrize("label", [-100, -1, 3])
def test_a_label_that_is_no_class_is_a_row_of_nan(label):
    """A mask drops it, whatever its embedding holds: nothing reaches a gradient."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
    labels, kept = np.array([1, label, 2]), np.array([0, 2])
    logits = jaxloss.angular_margin(x, w, labels, scale=4.0)
    assert jnp.isnan(logits[1]).all()
    x[1, 0] = np.nan
    mean = lambda x, w: jaxloss.mean(
        loss(x, w, labels, scale=4.0), where=(labels >= 0) & (labels < 3)
    )
    value, (by_x, by_w) = jax.value_and_grad(mean, (0, 1))(x, w)
    rest = lambda x, w: jaxloss.mean(loss(x, w, labels[kept], scale=4.0))
    expected, (first, second) = jax.value_and_grad(rest, (0, 1))(x[kept], w)
    np.testing.assert_allclose(value, expected, rtol=1e-14)
    np.testing.assert_allclose(by_x[kept], first, rtol=1e-12)
    np.testing.assert_allclose(by_w, second, rtol=1e-12)
    assert (by_x[1] == 0).all()


def test_every_number_may_be_one_for_each_label():
    """Margins of classes, scales of examples: as if each example came alone."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 3, 4)), rng.normal(size=(5, 4))
    labels = rng.integers(0, 5, size=(2, 3))
    settings: dict[str, Any] = {
        "scale": rng.uniform(1, 9, (2, 3)),
        "margin": rng.uniform(0, 0.5, 5)[labels],
        "angle_factor": rng.uniform(1, 2, (2, 1)),
        "cosine_margin": rng.uniform(0, 0.3, 5)[labels],
    }
    found = jaxloss.angular_margin(x, w, labels, **settings)
    for at in np.ndindex(2, 3):
        own = {k: float(np.broadcast_to(v, (2, 3))[at]) for k, v in settings.items()}
        alone = jaxloss.angular_margin(x[at], w, labels[at], **own)
        np.testing.assert_allclose(found[at], alone, rtol=1e-12)


def test_numbers_are_traced_and_differentiated():
    """By finite differences; another value compiles nothing."""
    settings = {"scale": 3.0, "margin": 0.4, "angle_factor": 1.2, "cosine_margin": 0.1}
    settings = {name: jnp.float64(v) for name, v in settings.items()}
    step: Any = jax.jit(lambda s: loss(at_angle(1.0), **s))
    slopes = jax.grad(step)(settings)
    for name, slope in slopes.items():
        more, less = (
            step({**settings, name: settings[name] + h}) for h in (1e-5, -1e-5)
        )
        np.testing.assert_allclose(slope, (more - less) / 2e-5, rtol=1e-8)
    assert step._cache_size() == 1


# --- what it costs, what it takes ----------------------------------------------------


def operations(jaxpr):
    """All equations, also of the programs inside of a program."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in core.jaxprs_in_params(equation.params):
            yield from operations(inner)


def test_it_is_one_matrix_product():
    """And, forward and backward, no array of examples by classes by components."""
    x, w, labels = jnp.ones((11, 5)), jnp.ones((13, 5)), jnp.zeros(11, jnp.int32)
    value = lambda x, w: jaxloss.angular_margin(x, w, labels, scale=1.0)
    forward = [*operations(jax.make_jaxpr(value)(x, w).jaxpr)]
    products = [e for e in forward if e.primitive.name == "dot_general"]
    assert [e.outvars[0].aval.shape for e in products] == [(11, 13)]
    both = jax.make_jaxpr(jax.grad(lambda x, w: value(x, w).sum(), (0, 1)))(x, w)
    sizes = [v.aval.size for e in operations(both.jaxpr) for v in e.outvars]
    assert max(sizes) == 11 * 13


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_widened(dtype):
    """The result is float32, the gradient the caller's dtype."""
    x, w = jnp.ones((2, 3), dtype), jnp.eye(3, dtype=dtype)
    labels = jnp.arange(2)
    assert jaxloss.angular_margin(x, w, labels, scale=2.0).dtype == jnp.float32
    slopes = jax.grad(lambda x, w: loss(x, w, labels, scale=2.0).sum(), (0, 1))(x, w)
    assert [slope.dtype for slope in slopes] == [dtype, dtype]


def test_shapes_of_examples():
    """One example, a batch, a batch of sequences; under `vmap` the same."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 3, 4)), rng.normal(size=(5, 4))
    labels = rng.integers(0, 5, size=(2, 3))
    fn = lambda x, labels: jaxloss.angular_margin(x, w, labels, scale=2.0)
    found = fn(x, labels)
    assert found.shape == (2, 3, 5)
    np.testing.assert_allclose(found[1, 2], fn(x[1, 2], labels[1, 2]), rtol=1e-13)
    twice = jax.vmap(jax.vmap(fn))(x, labels)
    np.testing.assert_allclose(found, twice, rtol=1e-13)
    assert fn(x[:0], labels[:0]).shape == (0, 3, 5)


X, W, IDS = np.ones((2, 3)), np.ones((4, 3)), np.array([0, 1])
REFUSED = {
    "`embeddings` has dtype int": ((X.astype(int), W, IDS), {}, TypeError),
    "`embeddings` has shape": ((X[:, :0], W[:, :0], IDS), {}, ValueError),
    "`prototypes` has shape (3, 4)": ((X, W.T, IDS), {}, ValueError),
    "`prototypes` has shape (3,)": ((X, W[0], IDS), {}, ValueError),
    "`prototypes` has shape (0, 3)": ((X, W[:0], IDS), {}, ValueError),
    "`labels` has shape (1,)": ((X, W, IDS[:1]), {}, ValueError),
    "`labels` has dtype float": ((X, W, IDS + 0.5), {}, TypeError),
    "`scale` is 0": ((X, W, IDS), {"scale": 0.0}, ValueError),
    "`angle_factor` is -1": ((X, W, IDS), {"angle_factor": -1.0}, ValueError),
    "`margin` is nan": ((X, W, IDS), {"margin": math.nan}, ValueError),
    "`margin` has shape (4,)": ((X, W, IDS), {"margin": np.ones(4)}, ValueError),
    "`cosine_margin` has shape (3, 1)": (
        (X, W, IDS),
        {"cosine_margin": np.ones((3, 1))},
        ValueError,
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_refused(message):
    """Dtypes, shapes that do not fit, and numbers out of their interval."""
    args, settings, error = REFUSED[message]
    with pytest.raises(error) as raised:
        jaxloss.angular_margin(*args, **{"scale": 2.0, **settings})
    assert str(raised.value).startswith(f"angular_margin: {message}")
