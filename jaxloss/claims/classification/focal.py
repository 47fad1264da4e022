"""What is claimed of every loss of `jaxloss.losses.classification.focal`."""

import numpy as np

import jaxloss
from jaxloss.claims import common, domains
from jaxloss.claims.classification import cross_entropy
from jaxloss.claims.classification.cross_entropy import (
    distribution,
    dot,
    log_probs,
    setting,
    sigmoid,
    softplus,
)
from jaxloss.testing import LossSpec, accuracy
from jaxloss.testing.accuracy import EDGES, FLUSH, Case
from jaxloss.testing.claim import Claim
from jaxloss.testing.exact import mp

GAMMAS = 0.0, 0.5, 1.0, 2.0, 5.0


def focal_bound(gamma):
    """A power of a probability that was rounded costs gamma of its roundings."""
    return 6 + 2.5 * gamma


def bounds(gamma):
    return focal_bound(gamma), focal_bound(gamma), 12.0


def curvature_terms(p, q, nll, gamma, slope=1):
    """Sizes of what adds up to the second derivative, which crosses 0.

    Along the log-odds m of the label, of which `slope` is the derivative.
    """
    first = gamma**2 * p * nll + (2 * gamma + 1) * q + gamma * nll * q
    return q**gamma * p * first * slope**2


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


def binary(sample, params, **more):
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
        **more,
    )


def binary_terms(x, y, gamma):
    half = lambda x: curvature_terms(sigmoid(x), sigmoid(-x), softplus(-x), gamma)
    return y * half(x) + (1 - y) * half(-x)


def binary_cases():
    far = accuracy.decades(largest=1e4, points=12)
    x = np.concatenate([accuracy.line(points=45), far, EDGES])
    case = lambda name, gamma, x, y, **more: Case(
        name=f"{name}, gamma={gamma}",
        columns=(x, y, np.full_like(x, gamma)),
        names=("gamma",),
        bounds=bounds(gamma),
        floor=FLUSH,
        **more,
    )
    for gamma in GAMMAS:
        yield case("of positives", gamma, x, np.ones_like(x), terms=binary_terms)
    x, y = accuracy.pairs(x[::2], np.array([0.3]))
    more = {"conditioned": (False, True, True), "halves": False}
    for gamma in (0.5, 2.0):
        yield case("of soft labels", gamma, x, y, **more)
        yield case("in the label", gamma, x, y, argument=1, halves=False)
        late = {**more, "conditioned": (False, False, True)}
        yield case("in gamma", gamma, x, y, argument=2, **late)


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


def poly(kind, sample, edges, epsilon, **more):
    more |= {"params": {"epsilon": epsilon}, "convex": epsilon <= 1}
    return rows(jaxloss.poly1, kind, sample, edges, poly_value, poly_slope, **more)


def softmax_terms(x, y, gamma):
    """d2f/dx_j^2 = f''(m) m_j^2 + f'(m) m_jj, with m_y = 1 and m_j = -p_j / q."""
    logs = log_probs(x)
    p, q, nll = mp.exp(logs[int(y)]), -mp.expm1(logs[int(y)]), -logs[int(y)]
    outer = q**gamma * (gamma * p * nll + q)
    terms = []
    for j, v in enumerate(logs):
        share = mp.exp(v) / q
        slope, curve = (1, 0) if j == int(y) else (share, share * (1 - share))
        terms.append(curvature_terms(p, q, nll, gamma, slope) + outer * curve)
    return terms


LOGITS = accuracy.rows(3, count=8)
CLASSES = np.arange(len(LOGITS)) % 3
WEIGHTS = np.random.default_rng(1).dirichlet(np.ones(3), size=len(LOGITS))
WEIGHTS[0] = 1, 0, 0


def softmax_cases():
    case = lambda name, gamma, y, **more: Case(
        name=f"{name}, gamma={gamma}",
        columns=(LOGITS[: len(y)], y, np.full(len(y), gamma)),
        names=("gamma",),
        bounds=bounds(gamma),
        floor=FLUSH,
        **more,
    )
    for gamma in GAMMAS:
        yield case("of ids", gamma, CLASSES, fixed=(1,), terms=softmax_terms)
    more = {"conditioned": (False, True, True), "halves": False}
    yield case("of distributions", 0.5, WEIGHTS[:5], **more)
    yield case("in the distribution", 2.0, WEIGHTS, argument=1, halves=False)
    yield case("in gamma", 0.5, WEIGHTS, argument=2, halves=False)


def poly_cases():
    epsilon = np.resize([1.0, 0.0, -0.5, 3.0], len(LOGITS))
    more = {"names": ("epsilon",), "halves": False}
    for name, y, fixed in (("ids", CLASSES, (1,)), ("distributions", WEIGHTS, ())):
        yield Case(
            name=f"of {name}",
            columns=(LOGITS[:6], y[:6], epsilon[:6]),
            fixed=fixed,
            floor=FLUSH,
            bounds=(3, 3, 4),
            conditioned=(False, True, True),
            **more,
        )
    yield Case(
        name="in epsilon",
        columns=(LOGITS, WEIGHTS, epsilon),
        argument=2,
        bounds=(3, 3, 0),
        **more,
    )


IDS, DISTRIBUTIONS = common.logits_and_ids(), common.logits_and_distributions()

CLAIMS = [
    Claim(
        fn=jaxloss.sigmoid_focal,
        domains=domains.ONE_LOGIT,
        settings=(
            binary(
                common.logits_and_bits,
                {"gamma": 0.5},
                symmetries=(cross_entropy.OTHER_LABEL,),
            ),
            binary(common.logits_and_probabilities, {"gamma": 2.0, "alpha": 0.25}),
        ),
        accuracy=tuple(binary_cases()),
        line=cross_entropy.LOGIT,
    ),
    Claim(
        fn=jaxloss.softmax_focal,
        domains=domains.ROWS,
        settings=(
            softmax(
                0,
                IDS,
                cross_entropy.id_edges,
                params={"gamma": 2.0},
                symmetries=cross_entropy.OF_IDS,
            ),
            softmax(
                0,
                cross_entropy.logits_ids_mask,
                cross_entropy.mask_edges,
                ", where",
                params={"gamma": 0.0},
                keywords=("where",),
                convex=True,
                symmetries=cross_entropy.OF_MASKED_IDS,
            ),
            softmax(
                1,
                DISTRIBUTIONS,
                cross_entropy.distribution_edges,
                params={"gamma": 0.5, "alpha": np.array([0.25, 1.0, 2.0, 0.5])},
                # The classes are told apart by their weights.
                symmetries=(common.shift(0), common.scale(1, 1)),
            ),
        ),
        accuracy=tuple(softmax_cases()),
        line=cross_entropy.CLASS_LOGIT,
    ),
    Claim(
        fn=jaxloss.poly1,
        domains=domains.ROWS,
        settings=(
            poly(
                0,
                IDS,
                cross_entropy.id_edges,
                1.0,
                symmetries=cross_entropy.OF_IDS,
            ),
            poly(
                1,
                DISTRIBUTIONS,
                cross_entropy.distribution_edges,
                -0.5,
                symmetries=cross_entropy.OF_DISTRIBUTIONS,
            ),
        ),
        accuracy=tuple(poly_cases()),
        line=cross_entropy.CLASS_LOGIT,
        drawn=tuple({"epsilon": e} for e in (-1.0, 0.0, 2.0)),
    ),
]
