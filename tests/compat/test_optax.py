"""`jaxloss.compat.optax`: the names of `optax.losses`, its numbers, and better ones."""

import inspect
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import optax.losses
import pytest

from bench import optax_edges
from jaxloss.compat import optax as compat
from jaxloss.testing import tolerance

NAMES = sorted(
    name
    for name, value in vars(optax.losses).items()
    if callable(value) and not name.startswith("_")
)
untyped: Any = compat  # the type checker would refuse some calls
PAGE = pathlib.Path(__file__).parents[2] / "docs" / "switching-from-optax.md"


def test_signatures(subtests):
    """Names, kinds, order and defaults of the arguments are those of optax."""
    for name in NAMES:
        with subtests.test(name):
            ours, theirs = getattr(compat, name), getattr(optax.losses, name)
            assert arguments(ours) == arguments(theirs)


def arguments(fn):
    """What a signature says, but for types."""
    given = inspect.signature(fn).parameters.values()
    return [(p.name, p.kind, p.default) for p in given]


def test_version_0_2_8_has_32_names():
    """The list that the signatures are compared by is the one that was written for."""
    assert len(NAMES) == 32


# --- where optax is right --------------------------------------------------------

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(2, 4, 5))
SIGNS = np.sign(RNG.normal(size=(4, 5)))
BITS = (SIGNS > 0).astype(float)
SOFT = RNG.uniform(0.1, 0.9, size=(4, 5))
P, Q = RNG.dirichlet(np.ones(5), size=(2, 4))
IDS = np.array([0, 3, 2, 2])
MASK = np.array(
    [[1, 1, 0, 1, 1], [1, 1, 1, 1, 1], [0, 0, 1, 1, 0], [1, 0, 1, 1, 0]], bool
)
IMAGES = 2 * RNG.normal(size=(2, 6, 6, 3))
MASKS = np.eye(3)[RNG.integers(0, 3, size=(2, 6, 6))]
FRAMES = RNG.normal(size=(2, 6, 5))
PADDINGS = np.array([[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1]], float)
WORDS = np.array([[1, 2, 2], [4, 3, 0]])
WORD_PADDINGS = np.array([[0, 0, 0], [0, 0, 1]], float)

ORDINARY = [
    ("squared_error", (X, Y), {}),
    ("squared_error", (X,), {}),
    ("l2_loss", (X, Y), {}),
    ("huber_loss", (X, Y), {"delta": 0.5}),
    ("huber_loss", (X,), {}),
    ("log_cosh", (X, Y), {}),
    ("cosine_similarity", (X, Y), {"where": MASK}),
    ("cosine_similarity", (X, Y), {"axis": None}),
    ("cosine_distance", (X, Y), {"axis": 0}),
    ("sigmoid_binary_cross_entropy", (X, SOFT), {}),
    ("sigmoid_focal_loss", (X, BITS), {"alpha": 0.25, "gamma": 1.5}),
    ("sigmoid_focal_loss", (X, SOFT), {"alpha": 0.25, "gamma": 1.5}),
    ("sigmoid_focal_loss", (X, SOFT), {}),
    ("sigmoid_binary_cross_entropy", (X, BITS), {}),
    ("hinge_loss", (X, SIGNS), {}),
    ("perceptron_loss", (X, SIGNS), {}),
    ("sparsemax_loss", (X, BITS), {}),
    ("softmax_cross_entropy", (X, P), {"where": MASK}),
    ("softmax_cross_entropy", (X, P), {"axis": (0, 1)}),
    ("softmax_cross_entropy", (X, P), {"where": MASK[:, 0]}),
    ("softmax_cross_entropy", (X, np.eye(5)[IDS]), {}),
    ("safe_softmax_cross_entropy", (X, P), {}),
    ("softmax_cross_entropy_with_integer_labels", (X, IDS), {"where": MASK}),
    ("poly_loss_cross_entropy", (X, P), {"where": MASK, "epsilon": -0.5}),
    ("multiclass_hinge_loss", (X, IDS), {}),
    ("multiclass_perceptron_loss", (X, IDS), {}),
    ("multiclass_sparsemax_loss", (X, IDS), {}),
    ("smooth_labels", (P, 0.2), {"axis": 0}),
    ("smooth_labels", (P, 0.2), {"axis": (1, 0)}),
    ("kl_divergence", (np.log(P), Q), {"where": MASK}),
    ("kl_divergence", (np.log(P), Q), {"axis": None}),
    ("kl_divergence", (np.log(P), np.eye(5)[IDS]), {}),
    ("kl_divergence_with_log_targets", (np.log(P), np.log(Q)), {"where": MASK}),
    ("generalized_kl_divergence", (X, SOFT), {"where": MASK, "axis": 0}),
    ("ranking_softmax_loss", (X, BITS), {"where": MASK, "weights": SOFT}),
    ("ranking_softmax_loss", (X, BITS), {"reduce_fn": None}),
    ("ranking_softmax_loss", (X, BITS), {"reduce_fn": jnp.max}),
    ("ntxent", (X, IDS), {"temperature": 0.5}),
    ("triplet_margin_loss", (X, Y, P), {"eps": 0.0}),
    ("triplet_margin_loss", (X, Y, P), {"margin": 2.0, "axis": 0, "eps": 0.0}),
    ("dice_loss", (IMAGES, MASKS), {}),
    (
        "dice_loss",
        (IMAGES, MASKS),
        {
            "alpha": 0.3,
            "beta": 0.8,
            "class_weights": np.array([1.0, 2.0, 0.5]),
            "reduction": "sum",
            "smooth": 0.5,
        },
    ),
    (
        "dice_loss",
        (IMAGES, MASKS),
        {"reduction": "none", "ignore_background": True, "axis": (0, 1, 2)},
    ),
    ("binary_dice_loss", (IMAGES[..., 0], MASKS[..., 0]), {"smooth": 0.25}),
    ("ctc_loss", (FRAMES, PADDINGS, WORDS, WORD_PADDINGS), {}),
]


@pytest.mark.parametrize(
    ("name", "args", "params"),
    ORDINARY,
    ids=[f"{n}-{i}" for i, (n, *_) in enumerate(ORDINARY)],
)
def test_ordinary_numbers_are_those_of_optax(name, args, params):
    """Value and gradient in float64, where optax has digits to lose: in every argument
    and hyperparameter that is not an integer, a mask or a padding, also where labels
    are 0 and 1; but where the slope is NaN in optax."""
    given = {str(i): x for i, x in enumerate(args)} | params
    moving = {
        k: jnp.asarray(x, float)
        for k, x in given.items()
        if np.asarray(x).dtype.kind == "f" and k != "eps" and (name, k) not in FIXED
    }

    def both(fn):
        def losses(moving):
            now = {**given, **moving}
            by_name = {k: now.pop(k) for k in params}
            return fn(*now.values(), **by_name)

        def total(moving):
            values = jnp.ravel(losses(moving))
            return jnp.sum(SLOPES[: values.size] * values)

        return jax.jit(lambda x: (losses(x), jax.grad(total)(x)))(moving)

    with jax.numpy_rank_promotion("allow"):
        value, slopes = both(getattr(optax.losses, name))
    ours, our_slopes = both(getattr(compat, name))
    assert ours.shape == value.shape
    # Sums of a few dozen terms, some of them differences.
    np.testing.assert_allclose(ours, value, rtol=1e-12, atol=1e-14)
    for key, slope in slopes.items():
        wrong = np.isnan(slope)
        assert not np.any(np.isnan(our_slopes[key]))
        expected = np.where(wrong, our_slopes[key], slope)
        np.testing.assert_allclose(
            our_slopes[key], expected, rtol=1e-12, atol=1e-14, err_msg=str(key)
        )


# Paddings are no numbers; and of a label that is 0 or 1 the logsumexp in optax forgets
# the probability that it multiplies by 0: see `test_focal_slope_in_the_labels`.
FIXED = {("ctc_loss", "1"), ("ctc_loss", "3"), ("sigmoid_focal_loss", "1")}


SLOPES = np.linspace(0.5, 1.5, 32)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_focal_slope_in_the_labels(gamma, alpha):
    """That of optax's formula, at labels of 0, of 1 and between, sure or not; and the
    slope of that in the logits, which is the slope in the labels of the gradient."""
    x, y = (
        a.ravel()
        for a in np.meshgrid(
            np.array([-30, -8, -0.5, -1e-3, 0, 1e-6, 0.5, 3, 30], np.float32),
            np.array([0, 1e-3, 0.5, 0.7, 1], np.float32),
        )
    )

    def formula(x, y):
        p, q = 1 / (1 + mp.exp(-x)), 1 / (1 + mp.exp(x))
        entropy = y * mp.log1p(mp.exp(-x)) + (1 - y) * mp.log1p(mp.exp(x))
        weight = 1 if alpha is None else y * alpha + (1 - y) * (1 - alpha)
        return weight * entropy * (y * q + (1 - y) * p) ** gamma

    loss = lambda x, y: compat.sigmoid_focal_loss(x, y, alpha=alpha, gamma=gamma)
    by_label = jax.grad(loss, 1)
    found = jax.jit(jax.vmap(by_label))(x, y)
    mixed = jax.jit(jax.vmap(jax.grad(by_label)))(x, y)
    with mp.workdps(200):
        points = [
            tuple(map(mp.mpf, p)) for p in zip(x.tolist(), y.tolist(), strict=True)
        ]
        by_y, by_both, values = (
            np.array([float(f(*point)) for point in points])
            for f in (by_differences(formula, 1), by_differences(formula, 2), formula)
        )
    # Where the slope crosses 0 it is as exact as its parts.
    size = np.abs(by_y) + np.maximum(np.abs(values), 1e-30)
    assert np.max(np.abs(np.asarray(found) - by_y) / size) < 1e-5
    np.testing.assert_allclose(mixed, by_both, 1e-5, 1e-5)


def by_differences(formula, order):
    """The slope in y, or the slope in x of that, by differences in 200 digits."""
    h = mp.mpf(10) ** -40
    in_y = lambda x, y: (formula(x, y + h) - formula(x, y - h)) / (2 * h)
    if order == 1:
        return in_y
    return lambda x, y: (in_y(x + h, y) - in_y(x - h, y)) / (2 * h)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_at_infinite_logits_has_no_nan(gamma):
    """Right labels cost 0, with all slopes 0 but the one that is infinite by itself."""
    loss = lambda *args: compat.sigmoid_focal_loss(*args[:2], alpha=0.5, gamma=args[2])
    for x, y in ((np.inf, 1.0), (-np.inf, 0.0), (200.0, 1.0)):
        args = np.array([x, y, gamma], np.float32)
        value, slopes = jax.value_and_grad(loss, (0, 1, 2))(*args)
        assert value < 1e-37
        assert slopes[0] == 0
        assert not np.any(np.isnan(slopes))


def test_no_overflow_before_the_factor():
    """What is halved or quartered need not be a number itself."""
    one = np.float32(1)
    for fn, x, args, value, slope in (
        (compat.l2_loss, 2e19, (), 2e38, 2e19),
        (compat.l2_loss, -2e19, (), 2e38, -2e19),
        (compat.sparsemax_loss, 2e38, (0 * one,), 2e38, 1),
        (compat.sparsemax_loss, -3e38, (one,), 3e38, -1),
    ):
        found = jax.value_and_grad(fn)(np.float32(x), *args)
        np.testing.assert_allclose(found, (value, slope), tolerance(np.float32))


def test_ordinary_names_are_all_names():
    """Each name is compared, but those whose value changes or with a test below."""
    without = {
        "convex_kl_divergence",  # a name of generalized_kl_divergence
        "ctc_loss_with_forward_probs",
        "make_fenchel_young_loss",
        "multiclass_generalized_dice_loss",  # a mean of ratios in optax
    }
    assert {name for name, *_ in ORDINARY} == set(NAMES) - without


def test_forward_probabilities_are_those_of_optax():
    """Where a state can be reached; where it cannot, -inf and not -100000."""
    args = FRAMES, PADDINGS, WORDS, WORD_PADDINGS
    ours = compat.ctc_loss_with_forward_probs(*args)
    theirs = optax.losses.ctc_loss_with_forward_probs(*args)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        # The second sequence has two labels: optax goes on into the padding.
        b = b if b.ndim == 1 else b.at[:, 1, -1:].set(-1e5)
        reached = b > -1e4
        assert np.all(a[~reached] == -np.inf)
        np.testing.assert_allclose(a[reached], b[reached], rtol=1e-12, atol=1e-14)


# --- where it is not -------------------------------------------------------------

EDGES = [(group, e) for group, edges in optax_edges.EDGES.items() for e in edges]


@pytest.mark.parametrize(("group", "edge"), EDGES, ids=[e.call for _, e in EDGES])
def test_edge(group, edge):
    """The value of the expression is its closed form, to a few ulps of float32."""
    found = optax_edges.value(edge, compat, jit=True)
    if isinstance(edge.truth, type):
        assert found is edge.truth
        return
    assert np.shape(found) == np.shape(edge.truth)
    assert found.dtype == np.float32 or edge.call.startswith("grad")
    # One ulp is up to twice `eps` of relative error.
    np.testing.assert_allclose(
        found, edge.truth, rtol=tolerance(np.float32, edge.ulps), equal_nan=True
    )


def test_the_page_has_every_edge():
    """`python -m bench.optax_edges --write` was run since the edges changed."""
    rows = re.findall(r"^\| `(.*)` \| .* \| .* \| (.*) \|$", PAGE.read_text(), re.M)
    expected = {e.call: optax_edges.shown(e.truth) for _, e in EDGES}
    assert dict(rows) == expected


@pytest.mark.parametrize(
    "name", ["softmax_cross_entropy", "kl_divergence", "cosine_distance"]
)
def test_a_mask_of_examples_is_that_mask_of_all_their_entries(name):
    """`where` of shape `[batch]` means the same as repeated over the classes."""
    fn, rows = getattr(compat, name), np.array([True, False, True, False])
    args = (np.log(P), Q)
    by_row = fn(*args, where=rows)
    np.testing.assert_array_equal(
        by_row, fn(*args, where=np.repeat(rows, 5).reshape(4, 5))
    )
    np.testing.assert_array_equal(by_row[rows], fn(*args)[rows])
    along = fn(*(x.T for x in args), axis=0, where=rows)
    np.testing.assert_array_equal(along, by_row)
    with pytest.raises(ValueError, match=rf"^{name}: `where` has shape \(5,\)"):
        fn(*args, where=MASK[0])


def test_a_masked_label_means_the_same_as_an_id_and_as_one_hot():
    """The gradient too, with a mask that drops one label, one row and nothing."""
    where = np.array(
        [[0, 1, 1, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [1, 0, 1, 1, 0]]
    )
    where = where.astype(bool)
    ids, one_hot = IDS, np.eye(5)[IDS]
    by_id = lambda x: compat.softmax_cross_entropy_with_integer_labels(
        x, ids, where=where
    )
    by_row = lambda x: compat.softmax_cross_entropy(x, one_hot, where=where)
    # The two add up different classes: all but the label, and all but the largest.
    np.testing.assert_allclose(by_id(X), by_row(X), rtol=tolerance(np.float64))
    np.testing.assert_array_equal(by_id(X)[:2], 0)
    slopes = [jax.grad(lambda x, f=f: jnp.sum(f(x)))(X) for f in (by_id, by_row)]
    np.testing.assert_allclose(*slopes, atol=tolerance(np.float64))
    np.testing.assert_array_equal(slopes[0][:2], 0)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_comes_back_as_float32(dtype):
    """The loss in float32, the gradient in the dtype of its argument."""
    x = jnp.asarray(X, dtype)
    for name, labels in (
        ("log_cosh", Y),
        ("softmax_cross_entropy", P),
        ("ntxent", IDS),
    ):
        fn = getattr(compat, name)
        y = labels if labels.dtype == int else jnp.asarray(labels, dtype)
        total = lambda x, f=fn, y=y: jnp.sum(f(x, y))
        assert jax.eval_shape(total, x).dtype == jnp.float32
        assert jax.eval_shape(jax.grad(total), x).dtype == dtype


def test_errors_name_the_function_and_its_own_arguments():
    """In optax's words, which are those of the caller."""
    with pytest.raises(ValueError, match=r"^hinge_loss: `targets` has shape"):
        compat.hinge_loss(X, SIGNS[0])
    with pytest.raises(TypeError, match=r"^log_cosh: `predictions` has dtype int"):
        compat.log_cosh(IDS)
    with pytest.raises(
        TypeError, match=r"^multiclass_sparsemax_loss: `labels` has dtype"
    ):
        compat.multiclass_sparsemax_loss(X, P)
    with pytest.raises(ValueError, match=r"^softmax_cross_entropy: `axis` is 2;"):
        compat.softmax_cross_entropy(X, P, axis=2)
    with pytest.raises(
        ValueError, match=r"^kl_divergence: `axis` has .*; expected dist"
    ):
        compat.kl_divergence(X, P, axis=(0, -2))
    with pytest.raises(TypeError, match=r"^triplet_margin_loss: `norm_degree` has"):
        jax.jit(compat.triplet_margin_loss)(X, Y, P, norm_degree=3)
    with pytest.raises(ValueError, match=r"^dice_loss: `reduction` is 'max'"):
        untyped.dice_loss(IMAGES, MASKS, reduction="max")
    with pytest.raises(ValueError, match=r"^ctc_loss: `logits` has shape"):
        compat.ctc_loss(FRAMES[0], PADDINGS, WORDS, WORD_PADDINGS)
    with pytest.raises(ValueError, match=r"^dice_loss: `predictions` has values from"):
        compat.dice_loss(IMAGES, MASKS, apply_softmax=False)
