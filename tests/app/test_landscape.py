"""Landscapes: closed forms of quadratics, normalised directions, known spectra."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.datasets
from jax.flatten_util import ravel_pytree

import jaxloss
from jaxloss import landscape
from jaxloss.testing import tolerance

FLOAT64 = tolerance(np.float64)
KEY = jax.random.key(0)


def quadratic(eigenvalues, seed=0):
    """A symmetric matrix with this spectrum, and the loss `x H x / 2 + x g`."""
    rng = np.random.default_rng(seed)
    n = len(eigenvalues)
    turn, _ = np.linalg.qr(rng.normal(size=(n, n)))
    h, g = turn * eigenvalues @ turn.T, rng.normal(size=n)
    return h, g, lambda x: 0.5 * (x @ h @ x) + x @ g


@functools.cache
def digits():
    """A small network, its mean loss on digits of 4 x 4 pixels, and its parameters
    before and after some training."""
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    x = x[:400].reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16) / 16
    x, y = jnp.asarray(x), jnp.asarray(y[:400])

    def loss(params):
        add = lambda b, x: x + jnp.broadcast_to(b, x.shape)
        hidden = jnp.tanh(add(params["b"], x @ params["w"]))
        return jnp.mean(jaxloss.softmax_cross_entropy(hidden @ params["v"], y))

    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape)) / np.sqrt(shape[0])
    first = {"w": draw(16, 4), "b": jnp.zeros(4), "v": draw(4, 10)}
    step = lambda _, p: jax.tree.map(lambda x, g: x - g, p, jax.grad(loss)(p))
    return loss, first, jax.jit(lambda p: jax.lax.fori_loop(0, 100, step, p))(first)


# --- lines -------------------------------------------------------------------------


def test_a_line_begins_at_one_end_and_passes_the_other():
    """At t = 0 the loss of `a`, at t = 1 that of `b`, to the last bit of the
    parameters; both are among the default steps."""
    loss, first, last = digits()
    seen = landscape.line(loss, first, last)
    assert seen.losses.shape == seen.steps.shape == (61,)
    for t, params in ((0, first), (1, last)):
        (at,) = np.flatnonzero(seen.steps == t)
        np.testing.assert_allclose(seen.losses[at], loss(params), rtol=FLOAT64)
    assert loss(last) < loss(first) / 2
    # Entries of any size, which a step from the one to the other would round.
    a, b = jnp.float32([0.1, 3e20, -7]), jnp.float32([7e-3, 1.7e-9, 1e30])
    exact = lambda x: jnp.sum(jnp.where(x == a, 1.0, 0) + jnp.where(x == b, 8.0, 0))
    seen = landscape.line(exact, a, b, steps=jnp.array([0.0, 1.0]))
    np.testing.assert_array_equal(seen.losses, [3, 24])


def test_a_quadratic_along_a_line_is_a_parabola():
    """Its coefficients are those of the ends, in any pytree, in batches or not."""
    h, g, of = quadratic([3.0, -1.0, 0.5, 2.0])
    loss = lambda p: of(jnp.concatenate([p["x"][0], p["y"].ravel()]))
    a, b = np.random.default_rng(1).normal(size=(2, 4))
    tree = lambda v: {"x": (v[:1],), "y": v[1:].reshape(3, 1)}
    t, d = np.linspace(-2, 3, 7), b - a
    want = a @ h @ a / 2 + a @ g + t * (d @ h @ a + d @ g) + t**2 * (d @ h @ d) / 2
    for size in (None, 3):
        seen = landscape.line(loss, tree(a), tree(b), steps=t, batch_size=size)
        np.testing.assert_array_equal(seen.steps, t)
        np.testing.assert_allclose(seen.losses, want, rtol=0, atol=64 * FLOAT64)


# --- planes ------------------------------------------------------------------------


def test_a_quadratic_in_a_plane_is_a_paraboloid():
    """At [i, j], step i along the second direction and step j along the first."""
    h, g, loss = quadratic([3.0, -1.0, 0.5, 2.0])
    x = np.random.default_rng(1).normal(size=4)
    seen = landscape.plane(
        loss, x, KEY, normalization=None, steps=np.array([-1.0, 0.0, 0.5]), batch_size=4
    )
    first, second = map(np.asarray, seen.directions)
    for i, t in enumerate(seen.steps):
        for j, s in enumerate(seen.steps):
            v = x + s * first + t * second
            want = v @ h @ v / 2 + v @ g
            np.testing.assert_allclose(seen.losses[i, j], want, atol=64 * FLOAT64)


def test_a_plane_of_a_network_is_one_program():
    """41 x 41 points: the loss is traced once for its shape and once for all of them;
    in the middle it is the loss of the parameters, which move under `jit` too."""
    loss, _, last = digits()
    traced = []
    counting = lambda params: traced.append(params) or loss(params)
    seen = landscape.plane(counting, last, KEY)
    assert len(traced) == 2
    assert seen.losses.shape == (41, 41)
    np.testing.assert_allclose(seen.losses[20, 20], loss(last), rtol=FLOAT64)
    assert seen.losses.min() > 0.9 * loss(last)  # the network is trained
    steps = seen.steps[::20]
    inside = jax.jit(lambda p: landscape.plane(loss, p, KEY, steps=steps).losses)
    np.testing.assert_allclose(inside(last), seen.losses[::20, ::20], rtol=64 * FLOAT64)


LAYERS = {
    "dense": 3 * np.random.default_rng(2).normal(size=(5, 3)),
    "conv": 1e-3 * np.random.default_rng(3).normal(size=(3, 3, 2, 4)),
    "bias": np.ones(3),
    "scale": np.array(2.0),
}


def directions(normalization, layers):
    plane = landscape.plane(
        lambda p: 0.0 * p["bias"][0],
        layers,
        KEY,
        normalization=normalization,
        steps=jnp.zeros(1),
    )
    return plane.directions


def test_filters_of_a_direction_have_the_length_of_those_of_the_parameters():
    """Unit by unit, the last axis; a unit of zeros and what has one axis stay put; the
    two directions differ."""
    layers = {**LAYERS, "dense": LAYERS["dense"] * [1, 0, 1e200]}
    first, second = directions("filter", layers)
    for found in (first, second):
        for name in ("dense", "conv"):
            units = layers[name].shape[-1]
            d, x = (v.reshape(-1, units) for v in (found[name], layers[name]))
            size = np.maximum(1, np.abs(x).max(axis=0))  # 1e200 squared is infinite
            lengths = [np.linalg.norm(v / size[None], axis=0) for v in (d, x)]
            np.testing.assert_allclose(*lengths, rtol=FLOAT64)
        np.testing.assert_array_equal(found["dense"][:, 1], 0)
        np.testing.assert_array_equal(found["bias"], 0)
        assert found["scale"] == 0
    cosine = np.vdot(first["conv"], second["conv"]) / np.vdot(*[LAYERS["conv"]] * 2)
    assert abs(cosine) < 0.5


def test_layers_of_a_direction_have_the_length_of_those_of_the_parameters():
    """As a whole; or, without normalisation, normal numbers, one-axis leaves too."""
    (found, _), (plain, _) = (directions(n, LAYERS) for n in ("layer", None))
    for name in ("dense", "conv"):
        np.testing.assert_allclose(
            np.linalg.norm(found[name]), np.linalg.norm(LAYERS[name]), rtol=FLOAT64
        )
        # The same direction, in other units.
        ratio = np.asarray(plain[name] / found[name])
        np.testing.assert_allclose(ratio, ratio.flat[0], rtol=FLOAT64)
    np.testing.assert_array_equal(found["bias"], 0)
    assert jnp.all(plain["bias"] != 0)
    entries = jnp.concatenate([x.ravel() for x in jax.tree.leaves(plain)])
    assert 0.7 < jnp.std(entries) < 1.3  # 91 of them: 4 standard errors


# --- spectra -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "eigenvalues",
    [
        [4.0, 2.5, 1.0, 0.3, 0.0, -0.2, -3.0],
        [5.0, 5, 5, 1, 1, -2, -2],
        [1.0] * 7,
        [0.0] * 7,
        [-1.0, -1, -1, -1, -1, -1, -2],
        [1e12, 1e6, 1, 1e-6, 0, 0, -1e6],
    ],
)
def test_all_eigenvalues_of_a_known_matrix(eigenvalues):
    """The largest first, negative ones last, each as often as it is there, with a
    vector of its own; all at right angles."""
    h, _, loss = quadratic(np.array(eigenvalues))
    found = landscape.hessian_eigenvalues(loss, np.ones(7), KEY, count=7)
    size = 8 * FLOAT64 * (np.abs(eigenvalues).max() or 1)
    want = np.linalg.eigvalsh(h)[::-1]
    np.testing.assert_allclose(found.values, want, rtol=0, atol=size)
    np.testing.assert_allclose(want, eigenvalues, rtol=0, atol=size)
    assert jnp.all(found.errors <= size)
    v = np.asarray(found.vectors)
    np.testing.assert_allclose(v @ v.T, np.eye(7), atol=8 * FLOAT64)
    np.testing.assert_allclose(v @ h, found.values[:, None] * v, atol=size)
    single = landscape.hessian_eigenvalues(loss, np.ones(7, np.float32), KEY, count=7)
    assert single.values.dtype == np.float32
    np.testing.assert_allclose(single.values, want, rtol=0, atol=2.0**29 * size)


def flat_hessian(loss, params):
    flat, restored = ravel_pytree(params)
    return np.asarray(jax.jit(jax.hessian(lambda x: loss(restored(x))))(flat))


def test_eigenvalues_of_a_network():
    """Those of `jax.hessian` of 108 parameters trained on digits, of which 14 products
    find the largest four to all digits; every stated error holds, and they say which
    are found and which are not."""
    loss, _, last = digits()
    h = flat_hessian(loss, last)
    want = np.linalg.eigvalsh(h)[::-1]
    found = landscape.hessian_eigenvalues(loss, last, KEY, count=12, iterations=14)
    values, errors = np.asarray(found.values), np.asarray(found.errors)
    rounding = 64 * FLOAT64 * want[0]
    nearest = np.abs(values[:, None] - want).min(axis=1)
    assert np.all(nearest <= errors + rounding)
    np.testing.assert_allclose(values[:4], want[:4], rtol=64 * FLOAT64)
    assert np.all((errors < 1e-10) == (np.arange(12) < 4))
    assert np.all(values <= want[:12] + rounding)  # as Ritz values are
    v = np.asarray(found.vectors)
    residual = np.linalg.norm(v @ h - values[:, None] * v, axis=1)
    np.testing.assert_allclose(residual, errors, atol=rounding)
    assert want[-1] < 0


def test_more_iterations_than_parameters_find_all_eigenvalues():
    """Of a network with a direction for each of 108 parameters, negative ones too."""
    loss, _, last = digits()
    want = np.linalg.eigvalsh(flat_hessian(loss, last))[::-1]
    found = landscape.hessian_eigenvalues(loss, last, KEY, count=108, iterations=500)
    size = 64 * FLOAT64 * want[0]
    np.testing.assert_allclose(found.values, want, rtol=0, atol=size)


# --- dtypes, and what is refused -----------------------------------------------------


def test_bfloat16_parameters():
    """Moved in float32 and rounded once before the loss, which gets bfloat16; the
    Hessian is that in float32.  No dtype is promoted in silence."""
    x = jnp.linspace(0.5, 2, 6).astype(jnp.bfloat16).reshape(3, 2)
    dtypes = set()

    def loss(w):
        dtypes.add(w.dtype)
        return jnp.sum(jnp.square(w.astype(jnp.float32)))

    with jax.numpy_dtype_promotion("strict"):
        seen = landscape.line(loss, x, 2 * x, steps=jnp.float32([0, 0.3, 1]))
        plane = landscape.plane(loss, x, KEY)
        assert dtypes == {jnp.dtype(jnp.bfloat16)}
        curves = landscape.hessian_eigenvalues(loss, x, KEY, count=2)
    between = (1.3 * x.astype(jnp.float32)).astype(jnp.bfloat16)
    want = [loss(w) for w in (x, between, 2 * x)]
    np.testing.assert_allclose(seen.losses, want, rtol=tolerance(np.float32))
    np.testing.assert_allclose(
        plane.losses[20, 20], want[0], rtol=tolerance(np.float32)
    )
    assert {d.dtype for d in plane.directions} == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(curves.values, [2, 2], rtol=tolerance(np.float32))
    assert curves.vectors.shape == (2, 6)


W, B = np.ones((3, 2)), np.ones(2)
PARAMS = {"w": W, "b": B}
total: Any = lambda p: sum(jnp.sum(x) for x in jax.tree.leaves(p))
pair: Any = lambda p: (1, 2)
line: Any = functools.partial(landscape.line, total)
plane: Any = functools.partial(landscape.plane, total)
eigenvalues: Any = functools.partial(landscape.hessian_eigenvalues, total)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: line({"w": W > 0}, {"w": W > 0}),
            TypeError,
            r"line: `a\['w'\]` has d",
        ),
        (lambda: line(W, 1 * (W > 0)), TypeError, "line: `b` has dtype int64"),
        (lambda: line(PARAMS, {"w": W}), ValueError, "line: `b` has another structure"),
        (
            lambda: line(PARAMS, {"w": W, "b": W}),
            ValueError,
            r"line: `b\['b'\]` has shape \(3, 2\) and dtype float64; expected shape "
            r"\(2,\) and dtype float64, as in `a`",
        ),
        (lambda: line(W, np.float32(W)), ValueError, "line: `b` has .* dtype float32"),
        (lambda: line([], []), ValueError, "line: `a` has no arrays"),
        (lambda: line(W, W, steps=W), ValueError, r"line: `steps` has shape \(3, 2\)"),
        (
            lambda: line(W, W, steps=np.arange(3)),
            TypeError,
            "line: `steps` has dtype int64",
        ),
        (lambda: line(W, W, batch_size=0), ValueError, "line: `batch_size` is 0"),
        (
            lambda: landscape.line(lambda w: w, W, W),
            ValueError,
            r"line: `loss` has a result of shape \(3, 2\); expected one number",
        ),
        (
            lambda: landscape.plane(pair, PARAMS, KEY),
            ValueError,
            "plane: `loss` has a result of a tuple; expected one number",
        ),
        (
            lambda: plane({"w": 1}, KEY),
            TypeError,
            r"plane: `params\['w'\]` has dtype i",
        ),
        (
            lambda: plane(PARAMS, KEY, normalization="unit"),
            ValueError,
            "plane: `normalization` is 'unit'; expected one of 'filter', 'layer', None",
        ),
        (
            lambda: plane(W, KEY, batch_size=1.0),
            TypeError,
            "plane: `batch_size` is flo",
        ),
        (lambda: eigenvalues(W > 0, KEY), TypeError, "hessian_eigenvalues: `params` h"),
        (
            lambda: eigenvalues(W, KEY, count=0),
            ValueError,
            ".*: `count` is 0; expected",
        ),
        (
            lambda: eigenvalues(W, KEY, count=7),
            ValueError,
            r".*: `count` has 7; expected at most 6 \(40 iterations, 6 parameters\)",
        ),
        (
            lambda: eigenvalues(W, KEY, iterations=2.0),
            TypeError,
            ".*: `iterations` is float",
        ),
    ],
)
def test_refuses(call, error, message):
    """What is no pytree of parameters, no loss or no step is refused, by name."""
    with pytest.raises(error, match=f"^{message}"):
        call()
