"""The recipes of the guide on metric learning are the formulas of their papers.

Each formula is a loop over pairs in NumPy, as the paper writes it.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxloss.testing import tolerance
from tests.docs.test_guides import BLOCK, DOCS

TEXT = (DOCS / "metric-learning.md").read_text()
SIZE = 64 * tolerance(np.float64)
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(2, 8, 16)) / 4
PROXIES = RNG.normal(size=(5, 16))
IDS = np.array([0, 0, 0, 1, 1, 2, 2, 3])
QUEUE, QUEUE_IDS = RNG.normal(size=(6, 16)), np.array([0, 1, 2, 4, 4, 1])
QUEUE = QUEUE / np.linalg.norm(QUEUE, axis=1, keepdims=True)
EVERY = range(8)
SAME = [(i, j) for i, j in itertools.permutations(EVERY, 2) if IDS[i] == IDS[j]]
OTHER = [(i, j) for i, j in itertools.permutations(EVERY, 2) if IDS[i] != IDS[j]]
unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
cos = lambda a, b: float(unit(a) @ unit(b))
far = lambda a, b: float(np.linalg.norm(a - b))


@functools.cache
def recipes():
    """The functions that the page defines, after its code has run."""
    names = {}
    for block in BLOCK.findall(TEXT):
        exec(compile(block, "metric-learning.md", "exec"), names)
    return names


def masks():
    same = IDS[:, None] == IDS[None]
    return jnp.asarray(same & ~np.eye(8, dtype=bool)), jnp.asarray(~same)


# --- the formulas --------------------------------------------------------------------


def all_pairs():
    pull = [far(X[i], X[j]) ** 2 for i, j in SAME]
    push = [max(0, 1 - far(X[i], X[j])) ** 2 for i, j in OTHER]
    return np.mean(pull + push)


def all_triplets():
    gaps = [
        max(0, far(X[i], X[p]) - far(X[i], X[n]) + 0.2)
        for (i, p), (a, n) in itertools.product(SAME, OTHER)
        if i == a
    ]
    return np.mean([gap for gap in gaps if gap > 0])


def mined_multi_similarity():
    """Eq. 11 and 12, and then eq. 15."""
    losses = []
    for i in EVERY:
        near = [cos(X[a], X[j]) for a, j in SAME if a == i]
        away = [cos(X[a], X[j]) for a, j in OTHER if a == i]
        pull = sum(np.exp(-2 * (s - 0.5)) for s in near if s < max(away) + 0.1)
        hard = [s for s in away if near and s > min(near) - 0.1]
        push = sum(np.exp(50 * (s - 0.5)) for s in hard)
        losses.append(np.log1p(pull) / 2 + np.log1p(push) / 50)
    return np.mean(losses)


def lifted_structure():
    """Eq. 4, over the ordered pairs: each one counts twice, and is halved twice."""
    total = 0
    for i, j in SAME:
        rivals = [(a, n) for a, n in OTHER if a in (i, j)]
        powers = sum(np.exp(1 - far(X[a], X[n])) for a, n in rivals)
        total += max(0, np.log(powers) + far(X[i], X[j])) ** 2
    return total / 2 / len(SAME)


def n_pairs():
    """Eq. 7 and section 3.2.2: log(1 + sum exp(f.f_j - f.f_i)), and the lengths."""
    losses = [
        np.log1p(sum(np.exp(X[i] @ Y[j] - X[i] @ Y[i]) for j in EVERY if j != i))
        for i in EVERY
    ]
    lengths = np.mean(np.sum(X**2 + Y**2, axis=1))
    return np.mean(losses) + 0.002 * lengths / 4


def nca():
    losses = []
    for i in range(7):  # the last one is alone
        powers = {j: np.exp(-(far(X[i], X[j]) ** 2)) for j in EVERY if j != i}
        right = sum(p for j, p in powers.items() if IDS[j] == IDS[i])
        losses.append(-np.log(right / sum(powers.values())))
    return np.mean(losses)


def proxy_scores(i):
    return [-(far(unit(X[i]), unit(p)) ** 2) for p in PROXIES]


def proxy_nca():
    losses = []
    for i in EVERY:
        d, y = np.exp(proxy_scores(i)), IDS[i]
        losses.append(-np.log(d[y] / sum(d[k] for k in range(5) if k != y)))
    return np.mean(losses)


def proxy_nca_plus():
    powers = [np.exp(9 * np.array(proxy_scores(i))) for i in EVERY]
    return np.mean([-np.log(powers[i][IDS[i]] / sum(powers[i])) for i in EVERY])


def proxy_anchor():
    """Eq. 4: positives over the proxies that have one, negatives over all."""
    pull, push = [], []
    for k, proxy in enumerate(PROXIES):
        own = [cos(X[i], proxy) for i in EVERY if IDS[i] == k]
        other = [cos(X[i], proxy) for i in EVERY if IDS[i] != k]
        pull += [np.log1p(sum(np.exp(-32 * (s - 0.1)) for s in own))] if own else []
        push.append(np.log1p(sum(np.exp(32 * (s + 0.1)) for s in other)))
    return np.mean(pull) + np.mean(push)


def decoupled():
    """Eq. 6, of both views."""
    views, losses = (unit(X), unit(Y)), []
    for k, i in itertools.product(range(2), EVERY):
        u, v = views[k], views[1 - k]
        rivals = [z[j] for z in (u, v) for j in EVERY if j != i]
        powers = sum(np.exp(u[i] @ z / 0.1) for z in rivals)
        losses.append(-u[i] @ v[i] / 0.1 + np.log(powers))
    return np.mean(losses)


SIMILARITY = np.array([0.0, 1, 2, 3, 3, 4, 5, 5])


def cosent():
    total = 0
    for i, j in itertools.product(EVERY, EVERY):
        if SIMILARITY[i] > SIMILARITY[j]:
            total += np.exp(20 * (cos(X[j], Y[j]) - cos(X[i], Y[i])))
    return np.log1p(total)


TEACHER = RNG.uniform(size=(8, 8))


def without_false_negatives():
    losses = []
    for i in EVERY:
        kept = [j for j in EVERY if TEACHER[i, j] <= TEACHER[i, i]]
        powers = {j: np.exp(cos(X[i], Y[j]) / 0.05) for j in kept}
        losses.append(-np.log(powers[i] / sum(powers.values())))
    return np.mean(losses)


def with_queue():
    """Eq. 1."""
    losses = []
    for i in EVERY:
        own = np.exp(cos(X[i], Y[i]) / 0.07)
        others = sum(np.exp(cos(X[i], k) / 0.07) for k in QUEUE)
        losses.append(-np.log(own / (own + others)))
    return np.mean(losses)


def multi_similarity_with_queue():
    losses = []
    for i in EVERY:
        near = [cos(X[i], QUEUE[k]) for k in range(6) if QUEUE_IDS[k] == IDS[i]]
        away = [cos(X[i], QUEUE[k]) for k in range(6) if QUEUE_IDS[k] != IDS[i]]
        pull = np.log1p(sum(np.exp(-2 * (s - 0.5)) for s in near)) / 2
        losses.append(pull + np.log1p(sum(np.exp(50 * (s - 0.5)) for s in away)) / 50)
    return np.mean(losses)


def matryoshka():
    total = 0
    for n, i in itertools.product((4, 8, 16), EVERY):
        powers = [np.exp(cos(X[i, :n], Y[j, :n]) / 0.05) for j in EVERY]
        total -= np.log(powers[i] / sum(powers)) / 8
    return total


# --- and the recipes -----------------------------------------------------------------

OF_PAIRS = lambda: (X, *masks())
OF_PROXIES = lambda: (X, PROXIES, IDS)
RECIPES = {
    all_pairs: OF_PAIRS,
    all_triplets: OF_PAIRS,
    mined_multi_similarity: OF_PAIRS,
    lifted_structure: OF_PAIRS,
    n_pairs: lambda: (X, Y),
    nca: OF_PAIRS,
    proxy_nca: OF_PROXIES,
    proxy_nca_plus: OF_PROXIES,
    proxy_anchor: OF_PROXIES,
    decoupled: lambda: (X, Y),
    cosent: lambda: (X, Y, SIMILARITY),
    without_false_negatives: lambda: (X, Y, TEACHER),
    with_queue: lambda: (X, Y, QUEUE),
    multi_similarity_with_queue: lambda: (X, IDS, QUEUE, QUEUE_IDS),
    matryoshka: lambda: (X, Y),
}


def test_every_recipe_is_tested():
    defined = {name for name in recipes() if f"\ndef {name}(" in TEXT}
    assert {formula.__name__ for formula in RECIPES} == defined - {"cosines"}


def value(formula):
    found = recipes()[formula.__name__](*map(jnp.asarray, RECIPES[formula]()))
    return found[0] if isinstance(found, tuple) else found


@pytest.mark.parametrize("formula", RECIPES, ids=lambda f: f.__name__)
def test_the_formula_of_the_paper(formula):
    np.testing.assert_allclose(value(formula), formula(), rtol=SIZE)


@pytest.mark.parametrize("formula", RECIPES, ids=lambda f: f.__name__)
def test_a_gradient_is_finite(formula):
    """Also where two embeddings are the same, and where one is 0."""
    x, *rest = map(jnp.asarray, RECIPES[formula]())
    x = x.at[1].set(x[0]).at[3].set(0)
    total = lambda x: jax.tree.leaves(recipes()[formula.__name__](x, *rest))[0]
    assert jnp.isfinite(jax.grad(total)(x)).all()


def test_a_queue_forgets_the_oldest():
    """The keys of the batch come first, and as many as before are left."""
    _, queue = recipes()["with_queue"](*map(jnp.asarray, (X[:2], Y[:2], QUEUE)))
    np.testing.assert_allclose(queue[:2], unit(Y[:2]), rtol=SIZE)
    np.testing.assert_array_equal(queue[2:], QUEUE[:4])
