"""`jaxloss.compat.optax`: the names of `optax.losses`, its numbers, and better ones."""

import inspect
import pathlib
import re

import jax
import jax.numpy as jnp
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
    ("hinge_loss", (X, SIGNS), {}),
    ("perceptron_loss", (X, SIGNS), {}),
    ("sparsemax_loss", (X, BITS), {}),
    ("softmax_cross_entropy", (X, P), {"where": MASK}),
    ("softmax_cross_entropy", (X, P), {"axis": (0, 1)}),
    ("softmax_cross_entropy", (X, P), {"where": MASK[:, 0]}),
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
    """Value and gradient in float64, where optax has digits to lose."""

    def both(fn):
        loss = lambda x: fn(x, *args[1:], **params)
        size = jax.eval_shape(loss, args[0]).size
        total = lambda x: jnp.sum(SLOPES[:size] * jnp.ravel(loss(x)))
        return jax.jit(lambda x: (loss(x), jax.grad(total)(x)))(args[0])

    with jax.numpy_rank_promotion("allow"):
        theirs = both(getattr(optax.losses, name))
    ours = both(getattr(compat, name))
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        # Sums of a few dozen terms, some of them differences.
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


SLOPES = np.linspace(0.5, 1.5, 32)


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
        compat.dice_loss(IMAGES, MASKS, reduction="max")
    with pytest.raises(ValueError, match=r"^ctc_loss: `logits` has shape"):
        compat.ctc_loss(FRAMES[0], PADDINGS, WORDS, WORD_PADDINGS)
    with pytest.raises(ValueError, match=r"^dice_loss: `predictions` has values from"):
        compat.dice_loss(IMAGES, MASKS, apply_softmax=False)
