"""`jaxloss.compat.keras`: the names of `keras.losses`, its numbers, and better ones."""

import functools
import inspect
import os
import pathlib
import re
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

os.environ["KERAS_BACKEND"] = "jax"

import keras

import jaxloss
from jaxloss.compat import keras as compat
from jaxloss.testing import tolerance

NAMES = sorted(
    name
    for name, value in vars(keras.losses).items()
    if inspect.isfunction(value) and name not in ("get", "serialize", "deserialize")
)


@pytest.mark.parametrize("name", NAMES)
def test_signature(name):
    """Names, kinds, order and defaults of the arguments are those of Keras."""
    theirs, ours = (
        [(p.name, p.kind, p.default) for p in inspect.signature(fn).parameters.values()]
        for fn in (getattr(keras.losses, name), getattr(compat, name))
    )
    assert ours == theirs


def test_version_3_15_has_22_names():
    """The list that the signatures are compared by is the one that was written for."""
    assert len(NAMES) == 22


def test_it_imports_no_keras():
    """Which Keras is configured by, and by its backend, before it is imported."""
    code = (
        "import sys; from jaxloss.compat import keras as losses\n"
        "import numpy as np\n"
        "losses.circle(np.array([0, 0]), np.eye(2))\n"
        "losses.sparse_categorical_crossentropy("
        "np.array([0]), np.ones((1, 2)), ignore_class=1)\n"
        "assert not {'keras', 'tensorflow', 'torch'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- where Keras is right --------------------------------------------------------

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(2, 4, 5))
SIGNS = np.sign(RNG.normal(size=(4, 5)))
BITS = (SIGNS > 0).astype(float)
SHARES, LABELS = RNG.dirichlet(np.ones(5), size=(2, 4))
P, SOFT = RNG.uniform(0.1, 0.9, size=(2, 4, 5))
IDS = np.array([0, 3, 2, 2])
ONE_HOT = np.eye(5)[IDS]
UNIT = X / np.linalg.norm(X, axis=-1, keepdims=True)
OTHERS = Y / np.linalg.norm(Y, axis=-1, keepdims=True)
FRAMES = RNG.normal(size=(2, 6, 5))
WORDS = np.array([[1, 2, 2], [4, 3, 0]])
FOUR = RNG.normal(size=(2, 5, 3, 3))
LOGITS = {"from_logits": True}
SMOOTH = {"label_smoothing": 0.1}

ORDINARY = [
    ("mean_squared_error", Y, X, {}),
    ("mean_squared_error", Y[:, 0], X[:, :1], {}),
    ("mean_squared_error", FOUR[..., :1], FOUR[..., 1], {}),
    ("mean_absolute_error", Y, X, {}),
    ("mean_absolute_percentage_error", Y, X, {}),
    ("mean_squared_logarithmic_error", Y, X, {}),
    ("huber", Y, X, {"delta": 0.5}),
    ("log_cosh", Y, X, {}),
    ("poisson", Y**2, P, {}),
    ("cosine_similarity", Y, X, {}),
    ("cosine_similarity", Y, X, {"axis": 0}),
    ("categorical_crossentropy", LABELS, X, LOGITS | SMOOTH),
    ("categorical_crossentropy", LABELS, P, SMOOTH),
    ("categorical_focal_crossentropy", LABELS, X, LOGITS | SMOOTH),
    ("categorical_focal_crossentropy", LABELS, X, LOGITS | {"gamma": 0.5}),
    ("categorical_focal_crossentropy", LABELS, P, {"alpha": [0.1, 0.2, 0.3, 1, 2]}),
    ("sparse_categorical_crossentropy", IDS, X, LOGITS),
    ("sparse_categorical_crossentropy", IDS[:, None], X, {"ignore_class": 2} | LOGITS),
    ("sparse_categorical_crossentropy", IDS.astype(float), P, {"ignore_class": 2}),
    ("sparse_categorical_crossentropy", IDS - 2, P, {"ignore_class": -2}),
    ("categorical_generalized_cross_entropy", IDS, SHARES, {"q": 0.7}),
    ("categorical_hinge", ONE_HOT, X, {}),
    ("categorical_hinge", 2 * ONE_HOT - 1, X - 9, {}),
    ("binary_crossentropy", SOFT, X, LOGITS | SMOOTH),
    ("binary_crossentropy", SOFT, P, SMOOTH | {"axis": 0}),
    ("binary_focal_crossentropy", SOFT, X, LOGITS | SMOOTH),
    ("binary_focal_crossentropy", BITS, X, LOGITS | {"apply_class_balancing": True}),
    (
        "binary_focal_crossentropy",
        SOFT,
        P,
        {"apply_class_balancing": True, "alpha": 0.3, "gamma": 1.5},
    ),
    ("hinge", SIGNS, X, {}),
    ("hinge", BITS, X, {}),
    ("squared_hinge", SIGNS, X, {}),
    ("squared_hinge", BITS, X, {}),
    ("kl_divergence", LABELS, SHARES, {}),
    ("kl_divergence", ONE_HOT, SHARES, {}),
    ("dice", BITS, P, {}),
    ("dice", BITS, P, {"axis": -1}),
    ("tversky", BITS, P, {"alpha": 0.3, "beta": 0.6}),
    ("tversky", BITS, P, {"alpha": 0.3, "beta": 0.6, "axis": (0,)}),
    ("circle", IDS, UNIT, {"gamma": 8.0}),
    (
        "circle",
        IDS,
        UNIT,
        {
            "ref_labels": np.array([0, 3, 3, 1]),
            "ref_embeddings": OTHERS,
            "remove_diagonal": False,
            "gamma": 8,
            "margin": 0.25,
        },
    ),
    ("ctc", WORDS, FRAMES, {}),
]
SLOPES = np.linspace(0.5, 1.5, 32)


@pytest.mark.parametrize(
    ("name", "y_true", "y_pred", "params"),
    ORDINARY,
    ids=[f"{n}-{i}" for i, (n, *_) in enumerate(ORDINARY)],
)
def test_ordinary_numbers_are_those_of_keras(name, y_true, y_pred, params):
    """Value and gradient in float64, of which Keras takes some means in float32."""

    def both(fn):
        loss = lambda x: fn(jnp.asarray(y_true), x, **params)
        size = jax.eval_shape(loss, y_pred).size
        total = lambda x: jnp.sum(SLOPES[:size] * jnp.ravel(loss(x)))
        return jax.jit(lambda x: (loss(x), jax.grad(total)(x)))(y_pred)

    with jax.numpy_rank_promotion("allow"):
        theirs = both(getattr(keras.losses, name))
    ours = both(getattr(compat, name))
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        # A few roundings of float32 of the largest entry; the 1e-7 that Keras adds.
        scale = np.max(np.abs(b))
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * scale)


def test_ordinary_names_are_all_names():
    """Each name is compared."""
    assert {name for name, *_ in ORDINARY} == set(NAMES)


# --- where it is not -------------------------------------------------------------

f32 = lambda *rows: jnp.array(rows, jnp.float32)
ids = lambda *rows: jnp.array(rows, jnp.int32)


def slope(fn):
    """The gradient with respect to the predictions."""
    return lambda y_true, y_pred: jax.grad(lambda x: jnp.sum(fn(y_true, x)))(y_pred)


def given(name, **params):
    """A function of ours, with its other arguments."""
    return functools.partial(getattr(compat, name), **params)


TINY = np.float32(6e-8)  # 1 - TINY is the last float32 before 1: 2^-24 away
FAR = 1 / (1 + np.exp(-20.0)), np.exp(-20.0) / (1 + np.exp(-20.0))
GAP = 2.0**-24
CLIPPED = np.float64(np.float32(1 - 1e-7))
EDGES = [
    ("log_cosh", given("log_cosh"), f32(0.0), f32(1e-4), 5e-9),
    (
        "softmax of 20",
        given("categorical_crossentropy", from_logits=True),
        f32([1, 0, 0]),
        f32([20, 0, 0]),
        [np.log1p(2 * np.exp(-20.0))],
    ),
    (
        "a masked class",
        given("categorical_crossentropy", from_logits=True),
        f32([1, 0]),
        f32([0, -np.inf]),
        [0],
    ),
    (
        "no class, of 3",
        given("sparse_categorical_crossentropy", from_logits=True),
        ids(3, -1),
        f32([1, 2, 3], [1, 2, 3]),
        [np.nan, np.nan],
    ),
    (
        "no class, 1.5",
        given("sparse_categorical_crossentropy"),
        f32(1.5, 1.0),
        f32([1, 2, 1], [1, 2, 1]),
        [np.nan, np.log(2)],
    ),
    (
        "NaN behind ignore_class",
        given("sparse_categorical_crossentropy", ignore_class=-1),
        ids(-1, 0),
        f32([np.nan, np.nan], [1, 3]),
        [0, np.log(4)],
    ),
    (
        "its gradient",
        slope(given("sparse_categorical_crossentropy", ignore_class=-1)),
        ids(-1, 0),
        f32([np.nan, np.nan], [1, 3]),
        [[0, 0], [-3 / 4, 1 / 4]],  # of log(a + b) - log(a)
    ),
    (
        "focal of 20",
        given("binary_focal_crossentropy", from_logits=True),
        f32(1.0),
        f32(20.0),
        FAR[1] ** 2 * np.log1p(np.exp(-20.0)),
    ),
    (
        "focal of classes",
        given("categorical_focal_crossentropy", from_logits=True),
        f32([1, 0]),
        f32([20, 0]),
        [0.25 * FAR[1] ** 2 * np.log1p(np.exp(-20.0))],
    ),
    (
        "the slope of a small power at 1",
        slope(given("binary_focal_crossentropy", gamma=0.5)),
        f32(1.0),
        f32(1.0),
        [0],  # behind the clip
    ),
    (
        "wrong and certain",
        given("binary_crossentropy"),
        f32([1], [0]),
        f32([0], [1]),
        [-np.log(1e-7), -np.log1p(-CLIPPED)],
    ),
    (
        "of the last digits",
        given("categorical_generalized_cross_entropy", q=0.7),
        ids(0),
        f32([1 - GAP, GAP]),
        [-np.expm1(0.7 * np.log1p(-GAP)) / 0.7],
    ),
    (
        "of probability 0",
        given("categorical_generalized_cross_entropy", q=0.5),
        ids(0, 2),
        f32([0, 1], [0, 1]),
        [2, np.nan],
    ),
    (
        "its gradient, 0 as that of a softmax",
        slope(given("categorical_generalized_cross_entropy", q=0.5)),
        ids(0),
        f32([0, 1]),
        [[0, 0]],
    ),
    ("a zero vector", given("cosine_similarity"), f32([1, 0]), f32([0, 0]), [0]),
    (
        "the slope at a zero vector",
        slope(given("cosine_similarity")),
        f32([1, 0]),
        f32([0, 0]),
        [[0, 0]],
    ),
    ("of any scale", given("cosine_similarity"), f32([1e25, 0]), f32([3e-25, 0]), [-1]),
    ("empty masks", given("dice"), f32(0, 0), f32(0, 0), 0),
    ("empty masks of tversky", given("tversky"), f32(0, 0), f32(0, 0), 0),
    (
        "a residual of 1e19",
        given("huber"),
        f32(0.0),
        f32(1e19),
        np.float64(np.float32(1e19)) - 0.5,
    ),
    (
        "no alignment",
        given("ctc"),
        ids([1, 1]),
        jnp.zeros((1, 2, 3), jnp.float32),
        [np.inf],
    ),
    (
        "a 0 among labels is padding",
        given("ctc"),
        ids([1, 0, 2], [1, 2, 0]),
        jnp.zeros((2, 3, 3), jnp.float32),
        # [1 2] of 3 frames: one of them again, or a blank at one of three places.
        [-np.log(5 / 27)] * 2,
    ),
    ("no partner", given("circle"), ids(0, 1), f32([1, 0], [0, 1]), [0, 0]),
]


@pytest.mark.parametrize(
    ("fn", "y_true", "y_pred", "truth"),
    [e[1:] for e in EDGES],
    ids=[e[0] for e in EDGES],
)
def test_edge(fn, y_true, y_pred, truth):
    """The closed form, to a few ulps of float32."""
    with jax.enable_x64(False):
        found = jax.jit(fn)(y_true, y_pred)
    assert found.dtype == jnp.float32
    assert np.shape(found) == np.shape(truth)
    np.testing.assert_allclose(
        found, truth, rtol=tolerance(np.float32, 4), equal_nan=True
    )


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_comes_back_as_float32(dtype):
    """The loss in float32, the gradient in the dtype of its argument."""
    for name in ("log_cosh", "categorical_crossentropy", "dice"):
        fn = getattr(compat, name)
        y, x = jnp.asarray(LABELS, dtype), jnp.asarray(P, dtype)
        assert jax.eval_shape(fn, y, x).dtype == jnp.float32
        assert jax.eval_shape(slope(fn), y, x).dtype == dtype


@pytest.mark.parametrize("x64", [False, True])
def test_they_trace_under_strict_promotion(x64):
    """Each, of half precision too; value and gradient have their dtypes."""
    for name, y_true, y_pred, params in ORDINARY:
        fn = given(name, **params)
        for dtype in (jnp.float32, jnp.bfloat16):
            with jax.enable_x64(x64), jax.numpy_dtype_promotion("strict"):
                x = jnp.asarray(np.float32(y_pred), dtype)
                assert jax.eval_shape(fn, y_true, x).dtype == jnp.float32
                assert jax.eval_shape(slope(fn), y_true, x).dtype == dtype


def test_integers_and_lists_are_numbers():
    """Also as predictions, which Keras averages as numbers too."""
    assert untyped.mean_squared_error([4, 8], [[3], [0]]).tolist() == [1, 64]
    assert untyped.hinge(np.array([True, False]), [2, 3]).tolist() == 2
    assert untyped.dice([1, 1], np.array([1, 0])) == pytest.approx(1 / 3)


untyped: Any = compat


def test_errors_name_the_function_and_its_own_arguments():
    """In Keras' words, which are those of the caller."""
    with pytest.raises(
        ValueError,
        match=r"^hinge: `y_true` has shape \(5,\); expected that of `y_pred`, \(4, 5\)",
    ):
        compat.hinge(SIGNS[0], X)
    with pytest.raises(ValueError, match=r"^huber: `y_true` is a scalar"):
        untyped.huber(1.0, 2.0)
    with pytest.raises(ValueError, match=r"^huber: `delta` is -1"):
        compat.huber(Y, X, delta=-1)
    with pytest.raises(ValueError, match=r"^binary_focal_crossentropy: `gamma` is -1"):
        compat.binary_focal_crossentropy(SOFT, P, gamma=-1)
    with pytest.raises(
        ValueError, match=r"^categorical_crossentropy: `axis` is 2; .*`y_pred`"
    ):
        compat.categorical_crossentropy(LABELS, P, axis=2)
    with pytest.raises(
        ValueError,
        match=r"^sparse_categorical_crossentropy: `y_true` has shape \(3,\); expected "
        r"\(4,\), one class id per example",
    ):
        compat.sparse_categorical_crossentropy(IDS[:3], P)
    with pytest.raises(
        TypeError,
        match=r"^sparse_categorical_crossentropy: `y_true` has dtype bfloat16, which "
        "does not tell 258 classes apart; expected integers, or float32",
    ):
        compat.sparse_categorical_crossentropy(
            jnp.zeros(2, jnp.bfloat16), jnp.ones((2, 258))
        )
    with pytest.raises(ValueError, match=r"^ctc: `y_true` has shape \(1, 3\)"):
        compat.ctc(WORDS[:1], FRAMES)
    with pytest.raises(ValueError, match=r"^ctc: `y_pred` has shape \(6, 5\)"):
        compat.ctc(WORDS, FRAMES[0])
    with pytest.raises(ValueError, match=r"^circle: `y_pred` has shape \(4, 5\), and"):
        compat.circle(IDS, UNIT, ref_labels=IDS, ref_embeddings=UNIT[:, :2])
    with pytest.raises(ValueError, match=r"^circle: `ref_labels` has shape \(3,\)"):
        compat.circle(IDS, UNIT, ref_labels=IDS[:3])
    with pytest.warns(SyntaxWarning, match="one class, whose loss is 0"):
        compat.categorical_crossentropy(P[:, :1], P[:, :1])


# --- in Keras --------------------------------------------------------------------

POINTS = np.asarray(RNG.normal(size=(32, 4)), np.float32)
CLASSES = np.argmax(POINTS[:, :3], axis=-1).astype(np.int32)
UNKNOWN = np.where(np.arange(32) % 4 == 0, np.int32(-1), CLASSES)  # a quarter of them
WEIGHTS = np.asarray(RNG.uniform(size=32), np.float32)


def fitted(loss, labels=CLASSES, outputs=3, weights=None, **compiled):
    """The history of a real model, which starts from the same numbers each time."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((4,)), keras.layers.Dense(outputs)]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.5), loss, **compiled)
    with jax.enable_x64(False), jax.numpy_rank_promotion("allow"):
        kwargs: Any = {"epochs": 4, "batch_size": 16, "verbose": 0}
        return model, model.fit(POINTS, labels, sample_weight=weights, **kwargs).history


def of_classes(losses):
    """As a user writes it."""

    def loss(y_true, y_pred):
        return losses.sparse_categorical_crossentropy(
            y_true, y_pred, from_logits=True, ignore_class=-1
        )

    return loss


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_a_model_trains_as_with_the_losses_of_keras(weights):
    """Step by step to rounding, with a class to ignore, weights and a metric."""
    (_, theirs), (_, ours) = (
        fitted(
            of_classes(losses),
            UNKNOWN,
            weights=weights,
            metrics=[losses.sparse_categorical_crossentropy],
        )
        for losses in (keras.losses, compat)
    )
    assert ours["loss"][-1] < ours["loss"][0] / 1.5
    assert ours.keys() == theirs.keys()
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-5)


def test_a_partial_is_a_loss_and_a_string_is_that_of_keras():
    """`functools.partial` passes the other arguments on."""
    partial = functools.partial(
        compat.sparse_categorical_crossentropy, from_logits=True
    )
    _, ours = fitted(partial)
    _, theirs = fitted(keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-5)


# Of a variable of Keras', which NumPy asks for a copy.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_saved_model_finds_the_loss(tmp_path):
    """Among `custom_objects`; without them it has that of Keras."""
    model, _ = fitted(compat.mean_squared_error, POINTS[:, :3])
    path = tmp_path / "model.keras"
    model.save(path)
    load: Any = keras.saving.load_model
    assert load(path, custom_objects=vars(compat)).loss is compat.mean_squared_error
    assert load(path).loss is keras.losses.mean_squared_error


BITS_OF_POINTS = np.asarray(POINTS[:, :1] > 0, np.float32)


@pytest.mark.parametrize(
    "loss",
    [
        jaxloss.sigmoid_cross_entropy,
        functools.partial(jaxloss.huber, delta=2.0),
        functools.partial(jaxloss.nt_xent, temperature=0.1),
        jaxloss.compat.optax.l2_loss,
    ],
)
def test_swapped_arguments_are_refused(loss):
    """A loss that takes predictions first, as a loss and as a metric."""
    message = r"^\w+: Keras calls it as `\w+\(y_true, y_pred\)`, but predictions come"
    with pytest.raises(TypeError, match=message):
        fitted(loss, BITS_OF_POINTS, outputs=1)
    with pytest.raises(TypeError, match=message):
        fitted("mse", BITS_OF_POINTS, outputs=1, metrics=[loss])
    distilled = keras.distillation.LogitsDistillation(loss=loss)
    with pytest.raises(TypeError, match=message):
        distilled.compute_loss(f32([0, 1]), f32([1, 0]))


def test_what_turns_them_round_is_not_refused():
    """The remedy of the message trains, and as with the adapter."""
    turned = lambda y_true, y_pred: jaxloss.sigmoid_cross_entropy(y_pred, y_true)
    _, by_hand = fitted(turned, BITS_OF_POINTS, outputs=1)
    adapter = functools.partial(compat.binary_crossentropy, from_logits=True)
    _, adapted = fitted(adapter, BITS_OF_POINTS, outputs=1)
    np.testing.assert_allclose(by_hand["loss"], adapted["loss"], rtol=1e-6)


def test_the_page_runs():
    """Its code, block after block, and the models it makes train."""
    names = {}
    page = pathlib.Path(__file__).parents[2] / "docs" / "switching-from-keras.md"
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)
    assert len(blocks) == 2
    with jax.enable_x64(False), jax.numpy_rank_promotion("allow"):
        for block in blocks:
            exec(compile(block, page.name, "exec"), names)
            names["model"].fit(POINTS, BITS_OF_POINTS, verbose=0)


def test_the_page_is_right_about_the_last_digits():
    """What it says of Keras is so: wrong zeros, NaN, and the loss 0 of no class."""
    with jax.enable_x64(False):
        theirs = keras.losses
        focal = theirs.binary_focal_crossentropy(f32(1), f32(20), from_logits=True)
        assert focal == 0
        assert theirs.log_cosh(f32(0), f32(1e-4)) == 0
        wrong = theirs.sparse_categorical_crossentropy(
            ids(3), f32([1, 2, 3]), from_logits=True
        )
        assert wrong.tolist() == [0]
        one = theirs.sparse_categorical_crossentropy(f32(1.5), f32([1, 3]))
        assert one == pytest.approx(np.log(4 / 3))
        assert theirs.dice(f32(0), f32(0)) == 1
