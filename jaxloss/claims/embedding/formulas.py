"""Formulas of embeddings: lengths and cosines, and what the papers sum over a batch."""

from jaxloss.claims import common
from jaxloss.testing.exact import mp

# --- vectors -------------------------------------------------------------------------


def dot(x, y):
    return mp.fsum(s * t for s, t in zip(x, y, strict=True))


def length(x):
    return mp.sqrt(dot(x, x))


def unit(x):
    return [v / (length(x) or 1) for v in x]


def minus(x, y):
    return [s - t for s, t in zip(x, y, strict=True)]


def cosine(a, b):
    return dot(unit(a), unit(b))


def cosine_slopes(a, b, factor=1):
    """The slopes of the cosine times a factor; 0 at a zero vector, as it has no
    direction and the other one gains nothing by turning."""
    c, u, v = cosine(a, b), unit(a), unit(b)
    slope = lambda x, u, v: [
        factor * (t - c * s) / (length(x) or mp.inf) for s, t in zip(u, v, strict=True)
    ]
    return slope(a, u, v), slope(b, v, u)


def absolute(matrix):
    return [[abs(v) for v in row] for row in matrix]


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
    return of_units(
        [unit(row) for row in x], [unit(row) for row in y], temperature, bias
    )


def of_units(u, v, temperature, bias=0):
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


# --- of inner products ---------------------------------------------------------------


def pulled(y, pull, temperature):
    """The gradient in the rows of x, from the derivative in each score with y."""
    columns = transposed(y)
    return [[dot(weights, c) / temperature for c in columns] for weights in pull]


def sizes_of(x, y, temperature, bias=0):
    """What each score is rounded in proportion to: the sizes of what it sums up."""
    return of_units(absolute(x), absolute(y), temperature, abs(bias))


def rounding_of_rows(y, pull, sizes, temperature):
    """What that costs each component of the gradient: a share is rounded in proportion
    to the largest score of its row and of its column."""
    across = [max(column) for column in transposed(sizes)]
    found = []
    for weights, own in zip(pull, sizes, strict=True):
        rows = zip(weights, across, strict=True)
        moved = [[abs(w) * max(*own, far) for w, far in rows]]
        found += pulled(absolute(y), moved, temperature)
    return found


def of_products(of, directions):
    """The formulas of `of_pairs`, of the embeddings as they are."""

    def pulls(x, y, where, **params):
        return directions(of, of_units(x, y, **params), coupled(where))

    def reference(x, y, where, **params):
        return pulls(x, y, where, **params)[0]

    def cancels(x, y, where, **params):
        sizes, (_, pull) = sizes_of(x, y, **params), pulls(x, y, where, **params)
        return mp.fsum(map(dot, absolute(pull), sizes))

    def gradient(x, y, where, temperature, **params):
        _, pull = pulls(x, y, where, temperature=temperature, **params)
        return pulled(y, pull, temperature), pulled(x, transposed(pull), temperature)

    def gradient_cancels(x, y, where, temperature, **params):
        _, pull = pulls(x, y, where, temperature=temperature, **params)
        sizes = sizes_of(x, y, temperature, **params)
        return (
            rounding_of_rows(y, pull, sizes, temperature),
            rounding_of_rows(x, transposed(pull), transposed(sizes), temperature),
        )

    formulas = (reference, cancels, gradient, gradient_cancels)
    return [common.exact_rows(2, 2, 1)(fn) for fn in formulas]
