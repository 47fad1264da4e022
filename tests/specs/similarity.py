"""Claims of the in-batch contrastive losses."""

import jax.numpy as jnp
import mpmath as mp
import numpy as np

from jaxloss import similarity
from jaxloss.testing import LossSpec
from tests.specs import common


class OfBatch(LossSpec):
    """A loss that couples a batch `(batch, components)` and has a value per anchor.

    One example of the laws is a batch, so they see one number of it: the sum, in which
    every anchor has a weight of its own, or a swap of two anchors would not show.
    """

    def __call__(self, *args, **overrides):
        losses = super().__call__(*args, **overrides)
        weights = jnp.arange(1, losses.shape[-1] + 1, dtype=losses.dtype)
        return jnp.sum(losses * weights.reshape([1] * (losses.ndim - 1) + [-1]), -1)


# --- the formula of the paper, of one batch ------------------------------------------


def dot(x, y):
    return mp.fsum(s * t for s, t in zip(x, y, strict=True))


def length(x):
    return mp.sqrt(dot(x, x))


def unit(x):
    return [v / (length(x) or 1) for v in x]


def members(labels, where, i):
    """The positives and the negatives of the anchor i."""
    rows = [j for j in range(len(labels)) if where[i] and where[j] and j != i]
    alike = [j for j in rows if labels[j] == labels[i]]
    return alike, [j for j in rows if labels[j] != labels[i]]


def scores_of(x, temperature):
    u = [unit(row) for row in x]
    return [[dot(v, w) / temperature for w in u] for v in u]


def anchor_loss(scores, alike, others):
    """The mean of -log(e^s_j / (e^s_j + sum of e^s_k)) over the positives j."""
    pairs = [
        mp.log1p(mp.fsum(mp.exp(scores[k] - scores[j]) for k in others)) for j in alike
    ]
    return mp.fsum(pairs) / max(1, len(alike))


def anchor_slopes(scores, alike, others):
    """The derivative of `anchor_loss` in each score."""
    slopes = [mp.mpf(0)] * len(scores)
    for j in alike:
        odds = {k: mp.exp(scores[k] - scores[j]) for k in others}
        lost = 1 + mp.fsum(odds.values())
        slopes[j] -= mp.fsum(odds.values()) / lost / len(alike)
        for k in others:
            slopes[k] += odds[k] / lost / len(alike)
    return slopes


def losses_of(x, labels, where, temperature):
    scores = scores_of(x, temperature)
    return [
        anchor_loss(scores[i], *members(labels, where, i)) for i in range(len(labels))
    ]


@common.exact_rows(2, 1, 1)
def reference(x, labels, where, *, temperature):
    losses = losses_of(x, labels, where, temperature)
    return mp.fsum((1 + i) * loss for i, loss in enumerate(losses))


def pulls(x, labels, where, temperature):
    """The derivative of the weighted sum in the cosine of each pair, < 0 to attract."""
    scores, n = scores_of(x, temperature), range(len(labels))
    rows = [anchor_slopes(scores[i], *members(labels, where, i)) for i in n]
    weigh = lambda i, j: (1 + i) * rows[i][j] + (1 + j) * rows[j][i]
    return [[weigh(i, j) / temperature for j in n] for i in n]


@common.exact_rows(2, 1, 1)
def gradient(x, labels, where, *, temperature):
    u, pull = [unit(row) for row in x], pulls(x, labels, where, temperature)
    slopes = []
    for i, row in enumerate(x):
        g = [dot(pull[i], column) for column in zip(*u, strict=True)]
        along = dot(g, u[i])
        far = length(row) or mp.inf
        slopes.append([(s - along * t) / far for s, t in zip(g, u[i], strict=True)])
    return slopes


# --- what rounded cosines cost -------------------------------------------------------

# A cosine is rounded in proportion to 1, not to itself: 1 / temperature in a score.


@common.exact_rows(2, 1, 1)
def cancels(x, labels, where, *, temperature):
    pull = pulls(x, labels, where, temperature)
    return mp.fsum(abs(p) for row in pull for p in row) / 2


@common.exact_rows(2, 1, 1)
def gradient_cancels(x, labels, where, *, temperature):
    pull = pulls(x, labels, where, temperature)
    return [
        [mp.fsum(map(abs, pull[i])) / (length(row) or mp.inf) / temperature] * len(row)
        for i, row in enumerate(x)
    ]


# --- specs ---------------------------------------------------------------------------


def batches(rng, shape):
    """Five rows in groups, three and two, or with one that is alone; half of the
    batches have padding."""
    groups = np.array([[0, 0, 0, 1, 1], [-7, 5, -7, 5, 300]])
    labels = rng.permuted(groups[rng.integers(2, size=shape)], axis=-1)
    padded = rng.integers(2, size=(*shape, 1)) * rng.uniform(size=labels.shape) > 0.7
    return rng.normal(size=(*shape, 5, 3)), labels, ~padded


def edges(dtype):
    """Zero, identical, opposite, long and short rows; no positives, no negatives."""
    e, x = np.eye(3), np.random.default_rng(1).normal(size=(5, 3))
    # The second derivative, of size 1 / low^2, is still a number.
    top, low = common.big(dtype) / 4, 64 * np.sqrt(common.tiny(dtype))
    lengths = np.array([[1], [top], [low], [1], [low]])
    apart = np.stack([e[0], e[0], -e[0], -e[0], e[1]])
    ordinary, alike, alone = [3, 3, 4, 4, 3], [1, 1, 1, 1, 1], [-1, -2, -3, -4, -5]
    rows = [0 * x, x, np.ones((5, 3)), lengths * x / 3, apart, x * (apart != 0)]
    pairs = [(r, ordinary) for r in rows]
    pairs += [(r, groups) for r in (x, apart) for groups in (alike, alone)]
    # With the samples no more than 32, the number that programs are compiled for.
    everyone, some = [True] * 5, [True, True, True, False, True]
    masks = [everyone] * len(pairs) + [some] * 5 + [[False] * 5]
    for (r, groups), where in zip(pairs + pairs[1:7], masks, strict=True):
        yield r[None], np.array([groups]), np.array([where])


def nt_xent(temperature):
    x, ids = np.ones((3, 4)), np.zeros(3, int)
    refused = lambda argument, *args, **kw: common.refused(
        "nt_xent", argument, *args, **kw
    )
    return OfBatch(
        name=f"nt_xent(temperature={temperature})",
        fn=similarity.nt_xent,
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
            refused("temperature", x, ids, temperature=0.0),
            refused("temperature", x, ids, temperature=-0.1),
            refused("temperature", x, ids, temperature=np.ones(2)),
            refused("temperature", x, ids, temperature="cold", error=TypeError),
        ),
    )


# Not 0.07: differences of step 1e-5 do not resolve exp(-2 / temperature) there.
SPECS = [nt_xent(0.1)]
