"""The losses that ask for an order: accuracy and facts."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

import jaxloss
from jaxloss import ranking
from tests.accuracy import Case, decades, line, pairs
from tests.specs.ranking import shortfall

SCORES = np.concatenate([line(-9, 9, points=13), decades(1e-4, 6e4, points=7), [0.0]])
HIGHER, LOWER = pairs(SCORES, SCORES)


def active(higher, lower, margin):
    return int(margin - (higher - lower) > 0)


def cases():
    signs = {"higher": -1, "lower": 1, "margin": 1}
    for argument, (name, sign) in enumerate(signs.items()):
        yield Case(
            name=f"margin_ranking in {name}",
            fn=lambda h, w, m: ranking.margin_ranking(h, w, margin=m),
            formula=lambda h, w, m: max(mp.mpf(0), m - (h - w)),
            first=lambda *a, sign=sign: mp.mpf(sign * active(*a)),
            second=lambda *a: mp.mpf(0),
            columns=(HIGHER, LOWER, np.resize([0.0, 0.3, 7.0], HIGHER.size)),
            argument=argument,
            # A difference of scores and a margin: two roundings of what it cancels.
            conditioned=(True, False, False),
            bounds=(1, 0, 0),
        )


ACCURACY = list(cases())


@pytest.mark.parametrize("case", ACCURACY, ids=lambda case: case.name)
def test_is_accurate(case):
    """Value and derivatives are within their bounds, in three dtypes, in both modes."""
    case.check()


H, L = (jnp.asarray(x) for x in np.random.default_rng(0).normal(size=(2, 40)))


def test_is_the_published_formula():
    """It is max(0, margin - lead), in float64 to the last bit but one."""
    for margin in (0.0, 1.0):
        loss = ranking.margin_ranking(H, L, margin=margin)
        expected = shortfall(np.asarray(H), np.asarray(L), margin=margin)
        np.testing.assert_allclose(loss, expected, rtol=0, atol=4 * 2.0**-52)


def test_is_a_hinge_of_the_lead():
    """At margin 1 it is the hinge loss of the difference, as a score labelled +1."""
    np.testing.assert_allclose(
        ranking.margin_ranking(H, L, margin=1.0),
        jaxloss.hinge(H - L, jnp.ones_like(H)),
        rtol=0,
        atol=4 * 2.0**-52,
    )


def test_knows_differences_only():
    """A constant added to all scores changes nothing."""
    np.testing.assert_array_equal(
        ranking.margin_ranking(jnp.array([3.0, 1.0]), jnp.array([1.0, 1.5])),
        ranking.margin_ranking(jnp.array([103.0, 101.0]), jnp.array([101.0, 101.5])),
    )


def test_a_satisfied_pair_is_at_rest():
    """Beyond the margin, and on it: loss 0 and gradient 0; short of it, slopes of 1."""
    higher, lower = jnp.array([3.0, 2.0, 1.5]), jnp.ones(3)
    loss = lambda *a: jnp.sum(ranking.margin_ranking(a[0], a[1], margin=a[2]))
    value, slopes = jax.value_and_grad(loss, (0, 1, 2))(higher, lower, 1.0)
    assert value == 0.5
    np.testing.assert_array_equal(slopes[0], [0, 0, -1])
    np.testing.assert_array_equal(slopes[1], [0, 0, 1])
    assert slopes[2] == 1


def test_ties_are_at_rest_without_a_margin():
    """Two equal scores cost 0 and are not pulled apart; a margin pulls them apart."""
    slope = jax.grad(lambda h, m: ranking.margin_ranking(h, jnp.ones(()), margin=m))
    assert slope(jnp.ones(()), 0.0) == 0
    assert slope(jnp.ones(()), 0.5) == -1


def test_orders_a_line():
    """Descending the loss of all pairs puts five items in order, a margin apart."""
    i, j = np.triu_indices(5, k=1)  # item i is to be above item j

    def loss(s):
        gaps = jnp.asarray(j - i, s.dtype)
        return jnp.mean(ranking.margin_ranking(s[i], s[j], margin=gaps))

    start = jnp.asarray(np.random.default_rng(1).normal(size=5))
    step = lambda _, s: s - 0.02 * jax.grad(loss)(s)
    scores = jax.lax.fori_loop(0, 2000, step, start)
    assert jnp.all(-jnp.diff(scores) > 0.9)


def test_messages():
    """Each names the loss, the argument, what it has and what was expected."""
    with pytest.raises(
        ValueError, match=r"^margin_ranking: `margin` is -1; .*\[0, inf"
    ):
        ranking.margin_ranking(H, L, margin=-1)
    with pytest.raises(
        ValueError, match=r"^margin_ranking: `lower` has shape \(39,\) "
    ):
        ranking.margin_ranking(H, L[1:])
