"""Digits in order of similarity: four losses of lists.

A list is one handwritten digit, the query, and 30 others to be put in order.  Their
relevance is graded: 3 of the same digit that looks like it, 2 of the same digit, 1 of
another digit that looks like it, and 0.  A small network maps an image to 16 numbers,
and the score of an image is the inner product with those of the query.  All losses
train the same network from the same weights, on the same lists.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from sklearn.datasets import load_digits

import jaxloss
from jaxloss import stable

STEPS, SEEDS = 400, 4
SIZES, TRAINED, LISTS, ITEMS, TOP = (64, 64, 64, 16), 900, 64, 30, 10
RATE = 3e-3

images, digits = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(digits))
images, digits = jnp.float32(images[order] / 16), jnp.int32(digits[order])


def draw(key):
    keys = jax.random.split(key, len(SIZES) - 1)
    wide = zip(keys, SIZES[:-1], SIZES[1:], strict=True)
    layers = [jax.random.normal(k, (n, m)) * (2 / n) ** 0.5 for k, n, m in wide]
    return [{"kernel": w, "bias": jnp.zeros((1, w.shape[1]))} for w in layers]


def embed(params, x):
    *hidden, last = params
    for layer in hidden:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return x @ last["kernel"] + last["bias"]


def relevance(queries, items):
    """Of each item to its query, by the digit and by the cosine of the pixels."""
    looks = jnp.einsum(
        "qp,qip->qi", stable.unit(images[queries]), stable.unit(images[items])
    )
    same = digits[queries][:, None] == digits[items]
    return jnp.where(same, 2 + (looks > 0.85), jnp.where(looks > 0.7, 1, 0))


def score(params, queries, items):
    x = embed(params, images)
    return jnp.einsum("qc,qic->qi", x[queries], x[items]) / SIZES[-1] ** 0.5


def softmax(scores, grades):
    gains = 2.0**grades - 1
    return jaxloss.listwise_softmax(scores, gains)


def lambda_rank(scores, grades):
    weights = jaxloss.ndcg_weights(scores, grades, k=TOP)
    return jaxloss.pairwise_ranking(scores, grades, weights=weights)


def ndcg(scores, grades):
    """NDCG@10 of each list, by sorting."""
    ranks = 1.0 + jnp.arange(ITEMS)
    discounts = jnp.where(ranks <= TOP, 1 / jnp.log2(1 + ranks), 0)
    gains = 2.0**grades - 1
    ranked = jnp.take_along_axis(gains, jnp.argsort(-scores, axis=1), axis=1)
    return ranked @ discounts / (-jnp.sort(-gains, axis=1) @ discounts)


def lists(key, first, last):
    """Random queries, and for each random items, which may be of its digit or not."""
    keys = jax.random.split(key)
    queries = jax.random.randint(keys[0], (LISTS,), first, last)
    items = jax.random.randint(keys[1], (LISTS, ITEMS), first, last - 1)
    items = items + (items >= queries[:, None])  # never the query itself
    return queries, items


def judge(of_lists):
    """The mean over held-out lists, those where nothing is relevant left out."""
    every = jax.vmap(lambda key: lists(key, TRAINED, len(digits)))
    queries, items = every(jax.random.split(jax.random.key(1), 32))
    queries, items = queries.ravel(), items.reshape(-1, ITEMS)
    grades = relevance(queries, items)
    found = ndcg(of_lists(queries, items), grades)
    return jaxloss.mean(found, where=jnp.any(grades > 0, axis=1))


def fit(loss, key):
    """NDCG@10 on held-out lists after training."""
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, STEPS))
    first, *keys = jax.random.split(key, 1 + STEPS)
    params = draw(first)

    def step(state, key):
        params, moments = state
        queries, items = lists(key, 0, TRAINED)
        grades = relevance(queries, items)

        def mean(params):
            return jaxloss.mean(loss(score(params, queries, items), grades))

        updates, moments = optimizer.update(jax.grad(mean)(params), moments)
        return (optax.apply_updates(params, updates), moments), None

    state = params, optimizer.init(params)
    (params, _), _ = lax.scan(step, state, jnp.stack(keys))
    return judge(functools.partial(score, params))


def pixels(queries, items):
    x, y = stable.unit(images[queries]), stable.unit(images[items])
    return jnp.einsum("qp,qip->qi", x, y)


losses = {
    "listwise_softmax": softmax,
    "list_mle": jaxloss.list_mle,
    "pairwise_ranking": jaxloss.pairwise_ranking,
    "LambdaRank": lambda_rank,
    "approx_ndcg": functools.partial(jaxloss.approx_ndcg, temperature=0.1),
}
found = {"pixels": np.asarray(judge(pixels), float)[None]}
for name, loss in losses.items():
    every = jax.jit(jax.vmap(functools.partial(fit, loss)))
    keys = jax.random.split(jax.random.key(0), SEEDS)
    found[name] = np.asarray(every(keys), float)
for name, x in found.items():
    spread = f" ± {x.std(ddof=1):.4f}" if len(x) > 1 else ""
    print(f"{name:20} {x.mean():.4f}{spread}")
