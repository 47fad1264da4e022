"""Claims of the in-batch contrastive losses."""

import jax.numpy as jnp
import numpy as np

import jaxloss
from jaxloss.claims import common
from jaxloss.testing import LossSpec
from jaxloss.testing.exact import mp


class OfBatch(LossSpec):
    """A loss that couples a batch `(batch, components)` and has a value per anchor.

    One example of the laws is a batch, so they see one number of it: the sum, in which
    every anchor has a weight of its own, or a swap of two anchors would not show.
    """

    def __call__(self, *args, **overrides):
        losses = super().__call__(*args, **overrides)
        weights = jnp.arange(1, losses.shape[-1] + 1, dtype=losses.dtype)
        return jnp.sum(losses * weights.reshape([1] * (losses.ndim - 1) + [-1]), -1)


def dot(x, y):
    return mp.fsum(s * t for s, t in zip(x, y, strict=True))


def length(x):
    return mp.sqrt(dot(x, x))


def unit(x):
    return [v / (length(x) or 1) for v in x]


def transposed(matrix):
    return [list(column) for column in zip(*matrix, strict=True)]


# --- the formulas of the papers, of one anchor ---------------------------------------

# Of the scores of all candidates, and which are positives and negatives: the loss, and
# its derivative in each score.


def nt_xent_of(scores, alike, others):
    """The mean of -log(e^s_j / (e^s_j + sum of e^s_k)) over the positives j."""
    loss, slopes = mp.mpf(0), [mp.mpf(0)] * len(scores)
    for j in alike:
        odds = {k: mp.exp(scores[k] - scores[j]) for k in others}
        rivals = mp.fsum(odds.values())
        loss += mp.log1p(rivals) / len(alike)
        slopes[j] -= rivals / (1 + rivals) / len(alike)
        for k in others:
            slopes[k] += odds[k] / (1 + rivals) / len(alike)
    return loss, slopes


def supervised_of(scores, alike, others):
    """The mean of -log(e^s_j / sum of all e^s_k) over the positives j."""
    loss, slopes, rows = mp.mpf(0), [mp.mpf(0)] * len(scores), alike + others
    for j in alike:
        odds = {k: mp.exp(scores[k] - scores[j]) for k in rows if k != j}
        rivals = mp.fsum(odds.values())
        loss += mp.log1p(rivals) / len(alike)
        slopes[j] -= rivals / (1 + rivals) / len(alike)
        for k, v in odds.items():
            slopes[k] += v / (1 + rivals) / len(alike)
    return loss, slopes


def sigmoid_of(scores, alike, others):
    """The sum of log(1 + e^-s_j) over the positives and log(1 + e^s_k) over the
    negatives."""
    signs = [(k in others) - (k in alike) for k in range(len(scores))]
    odds = [mp.exp(v * s) for v, s in zip(signs, scores, strict=True)]
    loss = mp.fsum(abs(v) * mp.log1p(o) for v, o in zip(signs, odds, strict=True))
    return loss, [v * o / (1 + o) for v, o in zip(signs, odds, strict=True)]


# --- of one batch, the sum with the weights 1, 2, ... --------------------------------


def by_anchor(of, scores, members):
    """The weighted sum of the losses, and its derivative in each score."""
    found = [of(row, *members(i)) for i, row in enumerate(scores)]
    total = mp.fsum((1 + i) * loss for i, (loss, _) in enumerate(found))
    return total, [[(1 + i) * s for s in row] for i, (_, row) in enumerate(found)]


def both_ways(of, scores, members):
    """The mean of what the rows and what the columns give."""
    rows = by_anchor(of, scores, members)
    columns = by_anchor(of, transposed(scores), members)
    pull = zip(rows[1], transposed(columns[1]), strict=True)
    pull = [[(s + t) / 2 for s, t in zip(*pair, strict=True)] for pair in pull]
    return (rows[0] + columns[0]) / 2, pull


def grouped(labels, where):
    """The positives and the negatives of an anchor, by group ids."""

    def members(i):
        rows = [j for j in range(len(labels)) if where[i] and where[j] and j != i]
        alike = [j for j in rows if labels[j] == labels[i]]
        return alike, [j for j in rows if labels[j] != labels[i]]

    return members


def coupled(where):
    """The positive of an anchor, the other one of its pair, and the negatives."""

    def members(i):
        rows = [j for j in range(len(where)) if where[i] and where[j]]
        return [j for j in rows if j == i], [j for j in rows if j != i]

    return members


def scores_of(x, y, temperature, bias=0):
    u, v = [unit(row) for row in x], [unit(row) for row in y]
    return [[dot(s, t) / temperature + bias for t in v] for s in u]


def turned(x, y, pull, temperature, bias=0):
    """The gradient in the rows of x, from the derivative in each score with y."""
    v, slopes = [unit(row) for row in y], []
    for row, weights in zip(x, pull, strict=True):
        g = [dot(weights, column) / temperature for column in zip(*v, strict=True)]
        u, far = unit(row), length(row) or mp.inf
        along = dot(g, u)
        slopes.append([(s - along * t) / far for s, t in zip(g, u, strict=True)])
    return slopes


# A cosine is rounded in proportion to 1, not to itself: 1 / temperature in a score.


def size_of(pull, temperature, bias=0):
    """What that costs the value, were every score the largest."""
    return mp.fsum(abs(s) for row in pull for s in row) * (1 / temperature + abs(bias))


def rounding(x, pull, temperature, bias=0):
    """What that costs each component of the gradient."""
    sizes = [size_of([row], temperature, bias) / temperature for row in pull]
    return [
        [size / (length(row) or mp.inf)] * len(row)
        for row, size in zip(x, sizes, strict=True)
    ]


def of_one_batch(of):
    """The formulas of a loss of embeddings, group ids and a mask."""

    def pulls(x, labels, where, **params):
        members = grouped(labels, where)
        total, pull = by_anchor(of, scores_of(x, x, **params), members)
        return total, [
            [s + t for s, t in zip(*rows, strict=True)]
            for rows in zip(pull, transposed(pull), strict=True)
        ]

    def reference(x, labels, where, **params):
        return pulls(x, labels, where, **params)[0]

    def cancels(x, labels, where, **params):
        return size_of(pulls(x, labels, where, **params)[1], **params) / 2

    def gradient(x, labels, where, **params):
        return turned(x, x, pulls(x, labels, where, **params)[1], **params)

    def gradient_cancels(x, labels, where, **params):
        return rounding(x, pulls(x, labels, where, **params)[1], **params)

    formulas = (reference, cancels, gradient, gradient_cancels)
    return [common.exact_rows(2, 1, 1)(fn) for fn in formulas]


def of_pairs(of, directions):
    """The formulas of a loss of two embeddings of each pair, and a mask."""

    def pulls(x, y, where, **params):
        return directions(of, scores_of(x, y, **params), coupled(where))

    def reference(x, y, where, **params):
        return pulls(x, y, where, **params)[0]

    def cancels(x, y, where, **params):
        return size_of(pulls(x, y, where, **params)[1], **params)

    def gradient(x, y, where, **params):
        pull = pulls(x, y, where, **params)[1]
        return turned(x, y, pull, **params), turned(y, x, transposed(pull), **params)

    def gradient_cancels(x, y, where, **params):
        pull = pulls(x, y, where, **params)[1]
        return rounding(x, pull, **params), rounding(y, transposed(pull), **params)

    formulas = (reference, cancels, gradient, gradient_cancels)
    return [common.exact_rows(2, 2, 1)(fn) for fn in formulas]


# --- samples and edges ---------------------------------------------------------------


def batches(rng, shape):
    """Five rows in groups, three and two, or with one that is alone; half of the
    batches have padding."""
    groups = np.array([[0, 0, 0, 1, 1], [-7, 5, -7, 5, 300]])
    labels = rng.permuted(groups[rng.integers(2, size=shape)], axis=-1)
    padded = rng.integers(2, size=(*shape, 1)) * rng.uniform(size=labels.shape) > 0.7
    return rng.normal(size=(*shape, 5, 3)), labels, ~padded


def pairs(rng, shape):
    """Four pairs that have to do with each other; half of the batches have padding."""
    x, noise = rng.normal(size=(2, *shape, 4, 3))
    padded = rng.integers(2, size=(*shape, 1)) * rng.uniform(size=(*shape, 4)) > 0.7
    return x, 0.5 * x + noise, ~padded


def edge_rows(dtype):
    """Zero, ordinary, identical, long and short, opposite and partly zero rows."""
    e, x = np.eye(3), np.random.default_rng(1).normal(size=(5, 3))
    # The second derivative, of size 1 / low^2, is still a number.
    top, low = common.big(dtype) / 4, 64 * np.sqrt(common.tiny(dtype))
    lengths = np.array([[1], [top], [low], [1], [low]])
    apart = np.stack([e[0], e[0], -e[0], -e[0], e[1]])
    return [0 * x, x, np.ones((5, 3)), lengths * x / 3, apart, x * (apart != 0)]


def edges(dtype):
    """Rows at the edges; no positives, no negatives."""
    ordinary, alike, alone = [3, 3, 4, 4, 3], [1, 1, 1, 1, 1], [-1, -2, -3, -4, -5]
    rows = edge_rows(dtype)
    pairs = [(r, ordinary) for r in rows]
    pairs += [(r, groups) for r in (rows[1], rows[4]) for groups in (alike, alone)]
    # With the samples no more than 32, the number that programs are compiled for.
    everyone, some = [True] * 5, [True, True, True, False, True]
    masks = [everyone] * len(pairs) + [some] * 5 + [[False] * 5]
    for (r, groups), where in zip(pairs + pairs[1:7], masks, strict=True):
        yield r[None], np.array([groups]), np.array([where])


def pair_edges(dtype):
    """The same for pairs: every kind of rows with itself, and with ordinary ones; one
    pair alone, or none."""
    rows = [r[:4] for r in edge_rows(dtype)]
    everyone, some, one = [True] * 4, [True, False, True, True], [False] * 3 + [True]
    found = [(r, r, everyone) for r in rows]
    found += [(r, rows[1], some) for r in rows] + [(rows[1], -r, some) for r in rows]
    found += [(rows[1], rows[5], where) for where in (one, [False] * 4)]
    for x, y, where in found:
        yield x[None], y[None], np.array([where])


# --- specs ---------------------------------------------------------------------------


def bad_temperatures(loss, *args, **params):
    refused = lambda temperature, **kw: common.refused(
        loss, "temperature", *args, **{**params, "temperature": temperature}, **kw
    )
    return (
        refused(0.0),
        refused(-0.1),
        refused(np.ones(2)),
    )


def batch_spec(fn, of, temperature):
    name, x, ids = fn.__name__, np.ones((3, 4)), np.zeros(3, int)
    refused = lambda argument, *args, **kw: common.refused(name, argument, *args, **kw)
    reference, cancels, gradient, gradient_cancels = of_one_batch(of)
    return OfBatch(
        name=f"{name}(temperature={temperature})",
        fn=fn,
        params={"temperature": temperature},
        sample=batches,
        keywords=("where",),
        event_ndim=2,
        reference=reference,
        cancels=cancels,
        gradient=gradient,
        gradient_cancels=gradient_cancels,
        extremes=edges,
        bad_calls=(
            refused("embeddings", x.astype(int), ids, error=TypeError),
            refused("embeddings", np.ones(3), ids),
            refused("labels", x, np.zeros((3, 1), int)),
            refused("labels", x, np.zeros(4, int)),
            refused("labels", x, np.zeros(3), error=TypeError),
            refused("where", x, ids, where=np.ones((3, 3), bool)),
            refused("where", x, ids, where=np.ones(3), error=TypeError),
            *bad_temperatures(name, x, ids),
            refused("temperature", x, ids, temperature="cold", error=TypeError),
        ),
    )


def pair_spec(fn, of, directions, first, second, **params):
    name, x = fn.__name__, np.ones((3, 4))
    refused = lambda argument, *args, **kw: common.refused(
        name, argument, *args, **{**params, **kw}
    )
    reference, cancels, gradient, gradient_cancels = of_pairs(of, directions)
    setting = ", ".join(f"{key}={value}" for key, value in params.items())
    return OfBatch(
        name=f"{name}({setting})",
        fn=fn,
        params=params,
        sample=pairs,
        keywords=("where",),
        event_ndim=2,
        differentiable=(0, 1),
        reference=reference,
        cancels=cancels,
        gradient=gradient,
        gradient_cancels=gradient_cancels,
        extremes=pair_edges,
        bad_calls=(
            refused(first, x.astype(int), x, error=TypeError),
            refused(second, x, x.astype(int), error=TypeError),
            refused(first, np.ones(3), np.ones(3)),
            refused(second, x, x[:2]),
            refused(second, x, x[:, :1]),
            refused("where", x, x, where=np.ones((3, 3), bool)),
            refused("where", x, x, where=np.ones(3), error=TypeError),
            *bad_temperatures(name, x, x, **params),
            *(refused(key, x, x, **{key: "high"}, error=TypeError) for key in params),
        ),
    )


# Not 0.07: differences of step 1e-5 do not resolve exp(-2 / temperature) there.
SPECS = [
    batch_spec(jaxloss.nt_xent, nt_xent_of, 0.1),
    pair_spec(jaxloss.clip, nt_xent_of, both_ways, "first", "second", temperature=0.1),
    batch_spec(jaxloss.supervised_contrastive, supervised_of, 0.1),
    pair_spec(
        jaxloss.info_nce,
        nt_xent_of,
        by_anchor,
        "anchors",
        "positives",
        temperature=0.1,
    ),
    pair_spec(
        jaxloss.siglip,
        sigmoid_of,
        by_anchor,
        "first",
        "second",
        temperature=0.1,
        bias=-4.0,
    ),
]
