"""What is claimed of every loss of `jaxloss.losses.classification.cross_entropy`."""

import functools

import numpy as np

import jaxloss
from jaxloss.claims import common
from jaxloss.testing import LossSpec
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


def binary(sample, **params):
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
        extremes=ladders,
        bad_calls=(
            *common.refused_pairs("sigmoid_cross_entropy", "logits", "labels"),
            refused("pos_weight", *np.ones((2, 3)), pos_weight=0.0),
            refused("pos_weight", *np.ones((2, 3)), pos_weight=np.ones(2)),
        ),
    )


# --- a row of logits a decision ----------------------------------------------------


def log_probs(x):
    """log softmax, by log1p of all classes but the largest; empty if there are none."""
    top = max(range(len(x)), key=x.__getitem__)
    if x[top] == -mp.inf:
        return []
    rest = mp.fsum(mp.exp(v - x[top]) for j, v in enumerate(x) if j != top)
    return [v - x[top] - mp.log1p(rest) for v in x]


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


def softmax_formulas(kind):
    """Value, gradient and Hessian of cross entropy, for one kind of labels."""
    lift = common.exact_rows(1, kind)

    @lift
    def reference(x, y, where=None, label_smoothing=0.0):
        x = masked(x, where)
        logs = log_probs(x)
        w = distribution(y, len(x))
        return -dot(smoothed(w, x, label_smoothing), logs) if logs else mp.mpf(0)

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
        refused("labels", x, ids.astype(float)),
        refused("labels", x, x.astype(int)),
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


def softmax(kind, sample, edges, name, **more):
    loss, ids = "softmax_cross_entropy", np.zeros(3, int)
    x = np.ones((3, 4))
    return LossSpec(
        name=f"{loss}({name})",
        fn=jaxloss.softmax_cross_entropy,
        sample=sample,
        event_ndim=1,
        differentiable=(0, 1) if kind else 0,
        convex=True,
        extremes=edges,
        bad_calls=(
            *bad_labels(loss),
            *bad_masks(loss, ids),
            common.refused(loss, "label_smoothing", x, ids, label_smoothing=1.5),
            common.refused(loss, "label_smoothing", x, ids, label_smoothing=np.ones(4)),
        ),
        **softmax_formulas(kind),
        **more,
    )


@common.exact_rows(1, 0)
def picked(logs, y):
    return -logs[y]


@common.exact_rows(1, 0)
def picked_gradient(logs, y):
    return [-mp.mpf(j == y) for j in range(len(logs))]


@common.exact_rows(1, 1)
def expected(logs, w):
    return -dot(w, logs)


@common.exact_rows(1, 1)
def expected_gradient(logs, w):
    return [-v for v in w], [-v for v in logs]


def normalised(sample):
    """Log-probabilities instead of logits."""

    def draw(rng, shape):
        x, y = sample(rng, shape)
        return x - np.log(np.sum(np.exp(x), axis=-1, keepdims=True)), y

    return draw


def log_prob_rows(dtype):
    low = np.log(0.25)
    return np.array(
        [
            [low] * 4,
            [0.0, -50.0, -common.big(dtype), -90.0],
            [-1e-30, -70.0, -70.0, -70],
        ]
    )


def likelihood(name, sample, value, slope, wrt, labels):
    return LossSpec(
        name=f"nll({name})",
        fn=jaxloss.nll,
        sample=normalised(sample),
        event_ndim=1,
        differentiable=wrt,
        reference=value,
        gradient=slope,
        curvature=lambda logs, y: np.zeros((*logs.shape, logs.shape[-1])),
        convex=True,
        extremes=lambda dtype: [(log_prob_rows(dtype), y) for y in labels],
        bad_calls=bad_labels("nll", "log_probs"),
    )


# --- no label ----------------------------------------------------------------------


def log_sum(x):
    top = max(x)
    return top + mp.log(mp.fsum(mp.exp(v - top) for v in x))


@common.exact_rows(1, 1)
def z_reference(x, where):
    x = masked(x, where)
    return log_sum(x) ** 2 if log_probs(x) else mp.mpf(0)


@common.exact_rows(1, 1)
def z_gradient(x, where):
    x = masked(x, where)
    logs = log_probs(x)
    return [2 * log_sum(x) * mp.exp(v) for v in logs] if logs else [mp.mpf(0)] * len(x)


def logits_and_masks(rng, shape):
    x = 3 * rng.normal(size=(*shape, 4))
    return x, rng.random(x.shape) < 0.7


def z_edges(dtype):
    r = common.root(dtype)
    x = np.array([[0.0] * 4, [r, r, 0, 0], [-r] * 4, [20, 0, -20, 5]])
    return [(x, np.ones(x.shape, bool)), (x, np.zeros(x.shape, bool))]


SPECS = [
    binary(common.logits_and_bits),
    binary(common.logits_and_probabilities, pos_weight=3.0),
    softmax(0, common.logits_and_ids(), id_edges, "ids"),
    softmax(
        1,
        common.logits_and_distributions(),
        distribution_edges,
        "distributions",
        minimiser=np.log,
        minimum=common.exact_rows(1)(lambda w: -dot(w, map(mp.log, w))),
    ),
    softmax(
        0,
        common.logits_and_ids(),
        id_edges,
        "ids, label_smoothing=0.1",
        params={"label_smoothing": 0.1},
    ),
    softmax(0, logits_ids_mask, mask_edges, "where", keywords=("where",)),
    likelihood(
        "ids",
        common.logits_and_ids(),
        picked,
        picked_gradient,
        0,
        [np.array([0, 1, 2])],
    ),
    likelihood(
        "distributions",
        common.logits_and_distributions(),
        expected,
        expected_gradient,
        (0, 1),
        [np.full((3, 4), 0.25), np.eye(4)[:3]],
    ),
    LossSpec(
        name="z_loss",
        fn=jaxloss.z_loss,
        sample=logits_and_masks,
        keywords=("where",),
        event_ndim=1,
        reference=z_reference,
        gradient=z_gradient,
        extremes=z_edges,
        bad_calls=(
            *bad_masks("z_loss"),
            common.refused("z_loss", "logits", np.ones(3, int), error=TypeError),
            common.refused("z_loss", "logits", np.ones(())),
            common.refused("z_loss", "axis", np.ones((3, 4)), axis=-3),
        ),
    ),
]
