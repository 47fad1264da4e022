"""The losses that ask for an order: facts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxloss
from jaxloss.claims.ranking.lists import shortfall

H, L = (jnp.asarray(x) for x in np.random.default_rng(0).normal(size=(2, 40)))


def test_is_the_published_formula():
    """It is max(0, margin - lead), in float64 to the last bit but one."""
    for margin in (0.0, 1.0):
        loss = jaxloss.margin_ranking(H, L, margin=margin)
        expected = shortfall(np.asarray(H), np.asarray(L), margin=margin)
        np.testing.assert_allclose(loss, expected, rtol=0, atol=4 * 2.0**-52)


def test_is_a_hinge_of_the_lead():
    """At margin 1 it is the hinge loss of the difference, as a score labelled +1."""
    np.testing.assert_allclose(
        jaxloss.margin_ranking(H, L, margin=1.0),
        jaxloss.hinge(H - L, jnp.ones_like(H)),
        rtol=0,
        atol=4 * 2.0**-52,
    )


def test_knows_differences_only():
    """A constant added to all scores changes nothing."""
    np.testing.assert_array_equal(
        jaxloss.margin_ranking(jnp.array([3.0, 1.0]), jnp.array([1.0, 1.5])),
        jaxloss.margin_ranking(jnp.array([103.0, 101.0]), jnp.array([101.0, 101.5])),
    )


def test_a_satisfied_pair_is_at_rest():
    """Beyond the margin, and on it: loss 0 and gradient 0; short of it, slopes of 1."""
    higher, lower = jnp.array([3.0, 2.0, 1.5]), jnp.ones(3)
    loss = lambda *a: jnp.sum(jaxloss.margin_ranking(a[0], a[1], margin=a[2]))
    value, slopes = jax.value_and_grad(loss, (0, 1, 2))(higher, lower, 1.0)
    assert value == 0.5
    np.testing.assert_array_equal(slopes[0], [0, 0, -1])
    np.testing.assert_array_equal(slopes[1], [0, 0, 1])
    assert slopes[2] == 1


def test_ties_are_at_rest_without_a_margin():
    """Two equal scores cost 0 and are not pulled apart; a margin pulls them apart."""
    slope = jax.grad(lambda h, m: jaxloss.margin_ranking(h, jnp.ones(()), margin=m))
    assert slope(jnp.ones(()), 0.0) == 0
    assert slope(jnp.ones(()), 0.5) == -1


def test_orders_a_line():
    """Descending the loss of all pairs puts five items in order, a margin apart."""
    i, j = np.triu_indices(5, k=1)  # item i is to be above item j

    def loss(s):
        gaps = jnp.asarray(j - i, s.dtype)
        return jnp.mean(jaxloss.margin_ranking(s[i], s[j], margin=gaps))

    start = jnp.asarray(np.random.default_rng(1).normal(size=5))
    step = lambda _, s: s - 0.02 * jax.grad(loss)(s)
    scores = jax.lax.fori_loop(0, 2000, step, start)
    assert jnp.all(-jnp.diff(scores) > 0.9)


# --- lists -------------------------------------------------------------------------


@jax.jit
def lists(s, y, where=None):
    """Losses, and the gradients of their sum."""
    loss = lambda s, y: jaxloss.listwise_softmax(s, y, where=where)
    losses, pull = jax.vjp(loss, s, y)
    return losses, *pull(jnp.ones_like(losses))


def test_worked_list():
    """The values in optax's documentation: one relevant item, second of three."""
    s, y = jnp.array([2.0, 1.0, 3.0]), jnp.array([1.0, 0.0, 0.0])
    found = lists(s, y)[0]
    np.testing.assert_allclose(found, np.log1p(np.exp(-1) + np.exp(1)), rtol=1e-15)
    np.testing.assert_allclose(found, 1.4076059, rtol=1e-7)
    found = lists(s, y, jnp.array([True, False, True]))[0]
    np.testing.assert_allclose(found, np.log1p(np.e), rtol=1e-15)


GRADES = np.random.default_rng(3).integers(0, 4, size=(6, 5))
LISTS = np.random.default_rng(2).normal(size=(6, 5))


def test_listwise_is_cross_entropy_with_weights():
    """Grades are weights, of any real dtype; one relevant item is a class id."""

    @jax.jit
    def run(s, y):
        loss, entropy = jaxloss.listwise_softmax, jaxloss.softmax_cross_entropy
        weighed = loss(s, y), loss(s, y.astype(jnp.bfloat16)), loss(s.T, y.T, axis=0)
        ids = jnp.arange(6) % 5
        one = loss(s, jax.nn.one_hot(ids, 5, dtype=bool))
        return weighed, entropy(s, y.astype(s.dtype)), one, entropy(s, ids)

    weighed, expected, one, expected_one = run(LISTS, GRADES)
    for found in weighed:
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(one, expected_one, rtol=1e-14)


def test_agrees_with_optax_on_lists():
    """Value and gradient, with and without a mask."""
    theirs = functools.partial(optax.losses.ranking_softmax_loss, reduce_fn=None)
    mask = np.random.default_rng(6).random((6, 5)) < 0.7
    for where in (np.ones_like(mask), mask):
        loss = lambda s, where=where: theirs(s, jnp.asarray(1.0 * GRADES), where=where)
        found = lists(LISTS, 1.0 * GRADES, where)
        np.testing.assert_allclose(found[0], loss(LISTS), atol=1e-13)
        slope = jax.jit(jax.grad(lambda s, loss=loss: jnp.sum(loss(s))))(LISTS)
        np.testing.assert_allclose(found[1], slope, atol=1e-13)


def test_masked_items_do_not_exist():
    """NaN scores and any relevance behind the mask; a list without items costs 0."""
    nan = np.nan
    s = np.array([[1.0, nan, 2.0], [nan, nan, nan]])
    y = np.array([[1.0, nan, 3.0], [-1.0, 5.0, nan]])
    where = np.array([[True, False, True], [False] * 3])
    losses, by_score, by_gain = lists(s, y, where)
    p = 1 / (1 + np.exp(-1))
    np.testing.assert_allclose(losses, [-np.log(1 - p) - 3 * np.log(p), 0], rtol=1e-14)
    np.testing.assert_allclose(by_score[0], [4 * (1 - p) - 1, 0, 4 * p - 3], rtol=1e-14)
    np.testing.assert_allclose(by_gain[0], [-np.log(1 - p), 0, -np.log(p)], rtol=1e-14)
    np.testing.assert_array_equal([by_score[1], by_gain[1]], 0)


def test_items_that_are_never_first():
    """A score of -inf costs nothing if irrelevant and everything if not; a list without
    relevance, or without any score, costs nothing."""
    inf = np.inf
    s = np.array([[-inf, 0.0, 1.0]] * 3 + [[-inf] * 3])
    y = np.array([[0.0, 2.0, 1.0], [1.0, 0.0, 0.0], [0.0] * 3, [1.0] * 3])
    losses, by_score, by_gain = lists(s, y)
    np.testing.assert_allclose(losses, [3 * np.log1p(np.e) - 1, inf, 0, 0], rtol=1e-15)
    assert np.all(np.isfinite([by_score, by_gain]))
    np.testing.assert_array_equal(by_score[2:], 0)


def test_messages():
    """Each names the loss, the argument, what it has and what was expected."""
    with pytest.raises(
        ValueError, match=r"^margin_ranking: `margin` is -1; .*\[0, inf"
    ):
        jaxloss.margin_ranking(H, L, margin=-1)
    with pytest.raises(
        ValueError, match=r"^margin_ranking: `lower` has shape \(39,\) "
    ):
        jaxloss.margin_ranking(H, L[1:])
