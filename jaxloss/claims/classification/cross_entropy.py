"""The claim of sigmoid cross entropy; formulas and edges of all losses of logits."""

import functools

import numpy as np

import jaxloss
from jaxloss.claims import common, domains
from jaxloss.testing import LossSpec, Symmetry, accuracy
from jaxloss.testing.accuracy import EDGES, FLUSH, Case
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import mp

INF = np.inf


def setting(params):
    """Hyperparameters as they are written in a call."""
    return ", ".join(f"{k}={np.asarray(v).tolist()}" for k, v in params.items())


# --- one logit a decision ----------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + mp.exp(-x))


def softplus(x):
    return max(x, 0) + mp.log1p(mp.exp(-abs(x)))


@common.exact
def binary_reference(x, y, pos_weight=1):
    return pos_weight * y * softplus(-x) + (1 - y) * softplus(x)


@common.exact
def binary_gradient(x, y, pos_weight=1):
    in_logit = (1 - y) * sigmoid(x) - pos_weight * y * sigmoid(-x)
    return in_logit, pos_weight * softplus(-x) - softplus(x)


@common.exact
def binary_curvature(x, y, pos_weight=1):
    return (1 - y + pos_weight * y) * sigmoid(x) * sigmoid(-x)


def ladders(dtype):
    """Every magnitude of logit, confident or not, right or wrong."""
    x = common.ladder(dtype)
    return [(x, np.full_like(x, y)) for y in (0.0, 0.5, 1.0)]


def binary_minimiser(y, pos_weight=1):
    """The log-odds of the label; if it is hard, 800 is as good as infinity."""
    return np.clip(np.log(pos_weight * y / (1 - y)), -800, 800)


@common.exact
def binary_minimum(y, pos_weight=1):
    """The entropy of the label: what is left at p = v y / (1 - y + v y)."""
    a, b = pos_weight * y, 1 - y
    return sum((c * mp.log((a + b) / c) for c in (a, b) if c), mp.mpf(0))


def binary_functional(labels, pos_weight=1):
    """The log-odds of the mean label."""
    return binary_minimiser(np.mean(labels), pos_weight)


def binary_forecast(rng):
    """The log-odds of a probability; a positive and a negative."""
    q = rng.uniform(0.02, 0.98)
    return (np.full(2, np.log(q / (1 - q))), np.array([1.0, 0.0])), np.array([q, 1 - q])


OTHER_LABEL = Symmetry(
    "the other label with the other sign of the logit", lambda rng, x, y: (-x, 1 - y)
)


def binary(sample, params, **more):
    refused = functools.partial(common.refused, "sigmoid_cross_entropy")
    return LossSpec(
        name=f"sigmoid_cross_entropy({setting(params)})",
        fn=jaxloss.sigmoid_cross_entropy,
        sample=sample,
        params=params,
        differentiable=(0, 1),
        reference=binary_reference,
        gradient=binary_gradient,
        curvature=binary_curvature,
        convex=True,
        minimiser=binary_minimiser,
        minimum=binary_minimum,
        functional=binary_functional,
        extremes=ladders,
        bad_calls=(
            *common.refused_pairs("sigmoid_cross_entropy", "logits", "labels"),
            refused("pos_weight", *np.ones((2, 3)), pos_weight=0.0),
            refused("pos_weight", *np.ones((2, 3)), pos_weight=np.ones(2)),
        ),
        **more,
    )


def binary_cases():
    far = accuracy.decades(largest=1e4, points=20)
    x = np.concatenate([accuracy.line(points=89), far, EDGES])
    hard = accuracy.pairs(x, np.array([0.0, 1.0]))
    soft = accuracy.pairs(x, np.array([1e-6, 0.1, 0.5]))
    yield Case(name="of hard labels", columns=hard, bounds=(2, 2, 3))
    yield Case(name="of soft labels", columns=soft, bounds=(2, 6, 3))
    more = {"argument": 1, "bounds": (2, 0.5, 0), "halves": False}
    yield Case(name="in the label", columns=soft, **more)
    x, y = accuracy.pairs(x[::7], np.array([0.0, 0.3, 1.0]))
    x, weight = accuracy.pairs(x, np.array([0.1, 9.0]))
    for argument, where in enumerate(("logit", "label", "weight")):
        yield Case(
            name=f"with pos_weight, in the {where}",
            columns=(x, np.repeat(y, 2), weight),
            names=("pos_weight",),
            argument=argument,
            bounds=(2, 3, 3),
            # Near y = v y the two terms of the gradient cancel.
            conditioned=(False, True, False),
            floor=9 * FLUSH,
            halves=False,
        )


LOGIT = Line("logit, label 1", (-6, 6), lambda x, _: (x, 0 * x + 1))


# --- a row of logits a decision ----------------------------------------------------


def log_probs(x):
    """log softmax, by log1p of all classes but the largest; empty if there are none."""
    top = max(range(len(x)), key=x.__getitem__)
    if x[top] == -mp.inf:
        return []
    rest = mp.fsum(mp.exp(v - x[top]) for j, v in enumerate(x) if j != top)
    return [v - x[top] - mp.log1p(rest) for v in x]


def log_sum(x):
    top = max(x)
    return top + mp.log(mp.fsum(mp.exp(v - top) for v in x))


def masked(x, where=None):
    return (
        x
        if where is None
        else [v if m else -mp.inf for v, m in zip(x, where, strict=True)]
    )


def distribution(labels, classes):
    """Class ids and distributions alike, as weights."""
    if isinstance(labels, list):
        return labels
    return [mp.mpf(j == labels) for j in range(classes)]


def dot(weights, values):
    return mp.fsum(w * v for w, v in zip(weights, values, strict=True) if w)


def smoothed(w, x, part):
    valid = [mp.mpf(v != -mp.inf) for v in x]
    share = mp.mpf(part) * mp.fsum(w) / mp.fsum(valid)
    return [(1 - mp.mpf(part)) * a + share * v for a, v in zip(w, valid, strict=True)]


def softmax_value(x, y, label_smoothing):
    logs, w = log_probs(x), distribution(y, len(x))
    return -dot(smoothed(w, x, label_smoothing), logs) if logs else mp.mpf(0)


def softmax_formulas(kind):
    """Value, gradient and Hessian of cross entropy, for one kind of labels."""
    lift = common.exact_rows(1, kind)

    @lift
    def reference(x, y, where=None, label_smoothing=0.0):
        return softmax_value(masked(x, where), y, label_smoothing)

    @lift
    def gradient(x, y, where=None, label_smoothing=0.0):
        x = masked(x, where)
        logs = log_probs(x)
        if not logs:
            return [mp.mpf(0)] * len(x)
        w = smoothed(distribution(y, len(x)), x, label_smoothing)
        in_logits = [
            mp.exp(v) * mp.fsum(b for i, b in enumerate(w) if i != j) + a * mp.expm1(v)
            for j, (v, a) in enumerate(zip(logs, w, strict=True))
        ]
        if kind == 0:
            return in_logits
        even = -mp.fsum(logs) / len(x)
        part = mp.mpf(label_smoothing)
        return in_logits, [-(1 - part) * v + part * even for v in logs]

    @lift
    def curvature(x, y, where=None, label_smoothing=0.0):
        x = masked(x, where)
        logs = log_probs(x)
        if not logs:
            return [[mp.mpf(0)] * len(x)] * len(x)
        mass = mp.fsum(distribution(y, len(x)))
        return [
            [
                -mass * mp.exp(a) * (mp.expm1(a) if i == j else mp.exp(b))
                for j, b in enumerate(logs)
            ]
            for i, a in enumerate(logs)
        ]

    return {"reference": reference, "gradient": gradient, "curvature": curvature}


def logit_rows(dtype):
    """Ties, confidence right and wrong, offsets, the ends of the dtype."""
    b = common.big(dtype) / 2
    return np.array(
        [
            [0.0, 0.0, 0.0, 0.0],
            [20.0, 0.0, 0.0, -20.0],
            [-50.0, 0.0, 0.0, 50.0],
            [1e4 + 5, 1e4, 1e4, 1e4],
            [b, b, 0.0, 0.0],
            [b, -b, 0.0, 1.0],
            [-b, -b, -b, -b],
        ]
    )


def id_edges(dtype):
    """Every edge with a likely and an unlikely label; impossible classes; none."""
    x = logit_rows(dtype)
    gone = np.array([[0.0, 1.0, -INF, -INF], [0.0, -INF, -INF, -INF], [-INF] * 4])
    return [
        *((x, np.full(len(x), y)) for y in (0, 1)),
        (gone, np.array([1, 0, 3])),
    ]


def distribution_edges(dtype):
    """Every edge with a hard, an even and a nearly hard distribution, and no weight."""
    x, small = logit_rows(dtype), 1e-6
    rows = ([1, 0, 0, 0], [0.25] * 4, [small, 1 - 3 * small, small, small], [0] * 4)
    return [(x, np.tile(np.array(w, float), (len(x), 1))) for w in rows]


def logits_ids_mask(rng, shape):
    """Rows of logits, ids, and masks that keep the label."""
    x, ids = common.logits_and_ids()(rng, shape)
    where = rng.random(x.shape) < 0.6
    return x, ids, where | (np.arange(4) == ids[..., None])


def mask_edges(dtype):
    """Masks of all classes but the label, and of all."""
    x, few, none = np.zeros((2, 4)), [True, False, False, False], [False] * 4
    return [(x, np.zeros(2, int), np.array([few, none]))]


def bad_labels(loss, first="logits"):
    """What every loss of class labels refuses."""
    x, ids = np.ones((3, 4)), np.zeros(3, int)
    refused = functools.partial(common.refused, loss)
    return (
        refused("labels", x, ids[:2]),
        refused("labels", x, ids[:, None]),
        refused("labels", x, ids.astype(float), error=TypeError),
        refused("labels", x, x.astype(int), error=TypeError),
        refused("labels", x, x.astype(bool), error=TypeError),
        refused("labels", x, x[:, :3]),
        refused("labels", x, ids.astype(bool), error=TypeError),
        refused("labels", x, "ids", error=TypeError),
        refused(first, x.astype(int), ids, error=TypeError),
        refused(first, np.ones(()), ids),
        refused("axis", x, ids, axis=2),
        refused("axis", x, ids, axis="c", error=TypeError),
    )


def bad_masks(loss, *labels):
    x = np.ones((3, 4))
    return (
        common.refused(loss, "where", x, *labels, where=np.ones(3, bool)),
        common.refused(loss, "where", x, *labels, where=x, error=TypeError),
    )


def distributions(count, classes=4):
    """Even and uneven ones, a hard one, and one nearly as sure as its logits are.

    There p sum(w) - w is a difference of two small numbers.
    """
    w = np.random.default_rng(1).dirichlet(0.5 * np.ones(classes), size=count)
    w[0], w[-3] = np.eye(classes)[0], 1e-8
    w[-3, 0] = 1 - 1e-8 * (classes - 1)
    return w


def class_forecast(rng):
    """The logs of four probabilities; every class."""
    q = rng.dirichlet(np.ones(4))
    return (np.tile(np.log(q), (4, 1)), np.arange(4)), q


OF_IDS = common.shift(0), common.permutation(0, ids=1)
OF_DISTRIBUTIONS = common.shift(0), common.permutation(0, 1), common.scale(1, 1)
OF_MASKED_IDS = common.shift(0), common.permutation(0, 2, ids=1)
CLASS_LOGIT = Line(
    "logit of the right class, two others 0",
    (-6, 6),
    lambda x, _: (common.vector(x, 0, 0), 0),
)


CLAIMS = [
    Claim(
        fn=jaxloss.sigmoid_cross_entropy,
        domains=domains.ONE_LOGIT,
        settings=(
            binary(
                common.logits_and_bits,
                params={},
                proper=binary_forecast,
                symmetries=(OTHER_LABEL,),
            ),
            binary(common.logits_and_probabilities, params={"pos_weight": 3.0}),
        ),
        accuracy=tuple(binary_cases()),
        line=LOGIT,
    ),
]
