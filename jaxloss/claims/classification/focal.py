"""What is claimed of every loss of `jaxloss.losses.classification.focal`."""

import numpy as np

import jaxloss
from jaxloss.claims import common
from jaxloss.claims.classification import cross_entropy
from jaxloss.claims.classification.cross_entropy import (
    distribution,
    dot,
    log_probs,
    setting,
    sigmoid,
    softplus,
)
from jaxloss.testing import LossSpec
from jaxloss.testing.exact import mp


def focal_bound(gamma):
    """A power of a probability that was rounded costs gamma of its roundings."""
    return 6 + 2.5 * gamma


# --- one logit a decision ----------------------------------------------------------


def term(x, gamma):
    """The loss of a positive label with log-odds x, and its slope."""
    q, nll = sigmoid(-x), softplus(-x)
    slope = -(q**gamma) * (gamma * sigmoid(x) * nll + q)
    return q**gamma * nll, slope


def weights(alpha):
    return (1, 1) if alpha is None else (mp.mpf(alpha), 1 - mp.mpf(alpha))


@common.exact
def binary_reference(x, y, gamma, alpha=None):
    a, b = weights(alpha)
    return a * y * term(x, gamma)[0] + b * (1 - y) * term(-x, gamma)[0]


@common.exact
def binary_gradient(x, y, gamma, alpha=None):
    (a, b), (up, rise), (down, fall) = weights(alpha), term(x, gamma), term(-x, gamma)
    return a * y * rise - b * (1 - y) * fall, a * up - b * down


def binary(sample, **params):
    loss = "sigmoid_focal"
    refused = lambda **bad: common.refused(loss, *bad, *np.ones((2, 3)), **bad)
    return LossSpec(
        name=f"{loss}({setting(params)})",
        fn=jaxloss.sigmoid_focal,
        sample=sample,
        params=params,
        differentiable=(0, 1),
        reference=binary_reference,
        gradient=binary_gradient,
        ulps=focal_bound(params["gamma"]),
        extremes=cross_entropy.ladders,
        bad_calls=(
            *common.refused_pairs(loss, "logits", "labels"),
            refused(gamma=-1.0),
            refused(gamma=np.ones(4)),
            refused(alpha=1.5),
        ),
    )


# --- a row of logits a decision ----------------------------------------------------


def row_formulas(kind, value, slope):
    """Value and gradient of sum_j w_j f(log p_j), from f and p f'(log p)."""
    lift = common.exact_rows(1, kind)

    @lift
    def reference(x, y, where=None, **params):
        x = cross_entropy.masked(x, where)
        logs, w = log_probs(x), distribution(y, len(x))
        if not logs:
            return mp.mpf(0)
        values = [value(v, j, **params) for j, v in enumerate(logs)]
        return dot(w, values)

    @lift
    def gradient(x, y, where=None, **params):
        x = cross_entropy.masked(x, where)
        logs, w = log_probs(x), distribution(y, len(x))
        if not logs:
            return [mp.mpf(0)] * len(x)
        p, q = [mp.exp(v) for v in logs], [-mp.expm1(v) for v in logs]
        by_log = [
            a * slope(v, j, **params) if a else a
            for j, (a, v) in enumerate(zip(w, logs, strict=True))
        ]
        in_logits = [
            mp.fsum(s * (q[i] if i == j else -p[j]) for i, s in enumerate(by_log))
            for j in range(len(x))
        ]
        if kind == 0:
            return in_logits
        return in_logits, [value(v, j, **params) for j, v in enumerate(logs)]

    return {"reference": reference, "gradient": gradient}


def class_weight(alpha, j):
    return 1 if alpha is None else mp.mpf(float(np.broadcast_to(alpha, 4)[j]))


def focal_value(v, j, gamma, alpha=None):
    return -class_weight(alpha, j) * (-mp.expm1(v)) ** gamma * v


def focal_slope(v, j, gamma, alpha=None):
    p, q = mp.exp(v), -mp.expm1(v)
    ratio = p * v / q if q and p else -mp.mpf(q == 0)
    return -class_weight(alpha, j) * q**gamma * (1 - gamma * ratio)


def poly_value(v, j, epsilon):
    return -v - mp.mpf(epsilon) * mp.expm1(v)


def poly_slope(v, j, epsilon):
    return -1 - mp.mpf(epsilon) * mp.exp(v)


def rows(loss, kind, sample, edges, value, slope, name="", **more):
    ids = np.zeros(3, int)
    params, labels = more["params"], ("ids", "distributions")[kind]
    bad = {"gamma": -0.5, "alpha": np.ones(3), "epsilon": -1.5}
    x = np.ones((3, 4))
    return LossSpec(
        name=f"{loss.__name__}({labels}, {setting(params)}{name})",
        fn=loss,
        sample=sample,
        event_ndim=1,
        differentiable=(0, 1) if kind else 0,
        extremes=edges,
        bad_calls=(
            *cross_entropy.bad_labels(loss.__name__),
            *(common.refused(loss.__name__, k, x, ids, **{k: bad[k]}) for k in params),
        ),
        **row_formulas(kind, value, slope),
        **more,
    )


def softmax(kind, sample, edges, name="", **more):
    gamma = more["params"]["gamma"]
    return rows(
        jaxloss.softmax_focal,
        kind,
        sample,
        edges,
        focal_value,
        focal_slope,
        name,
        ulps=focal_bound(gamma),
        **more,
    )


def poly(kind, sample, edges, epsilon):
    more = {"params": {"epsilon": epsilon}, "convex": epsilon <= 1}
    return rows(jaxloss.poly1, kind, sample, edges, poly_value, poly_slope, **more)


IDS, DISTRIBUTIONS = common.logits_and_ids(), common.logits_and_distributions()

SPECS = [
    binary(common.logits_and_bits, gamma=0.5),
    binary(common.logits_and_probabilities, gamma=2.0, alpha=0.25),
    softmax(0, IDS, cross_entropy.id_edges, params={"gamma": 2.0}),
    softmax(
        0,
        cross_entropy.logits_ids_mask,
        cross_entropy.mask_edges,
        ", where",
        params={"gamma": 0.0},
        keywords=("where",),
        convex=True,
    ),
    softmax(
        1,
        DISTRIBUTIONS,
        cross_entropy.distribution_edges,
        params={"gamma": 0.5, "alpha": np.array([0.25, 1.0, 2.0, 0.5])},
    ),
    poly(0, IDS, cross_entropy.id_edges, 1.0),
    poly(1, DISTRIBUTIONS, cross_entropy.distribution_edges, -0.5),
]
