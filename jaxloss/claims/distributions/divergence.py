"""What is claimed of every loss of `jaxloss.losses.distributions.divergence`."""

import numpy as np

import jaxloss
from jaxloss.claims import common
from jaxloss.testing import LossSpec, exact
from jaxloss.testing.exact import mp

ROW = np.log(np.full((3, 4), 0.25))


def distributions(rng, shape):
    """Log-probabilities, and probabilities of which none is 0, over four classes."""
    log_q = np.log(rng.dirichlet(np.ones(4), size=shape))
    return log_q, rng.dirichlet(np.ones(4), size=shape)


def entropic(x):
    """`x log x`, and 0 at 0."""
    return x * mp.log(x) if x else mp.mpf(0)


def edges(dtype):
    """Certain and impossible classes, on either side and on both; equal sides."""
    inf, big, tiny = np.inf, common.big(dtype), common.tiny(dtype)
    half, low = np.log(0.5), np.log(0.25)
    log_q = [
        [0.0, -inf, -inf, -inf],
        [half, half, -inf, -big],
        [-inf, 0.0, -inf, -50.0],
        [low, low, low, low],
        [0.0, -50.0, -80.0, -big],
        [-tiny, -17.0, -17.0, -17.0],
    ]
    t = [
        [1.0, 0.0, 0.0, 0.0],
        [1.0, tiny, 0.0, 0.0],
        [0.0, 0.5, 0.0, 0.5],
        [0.4, 0.3, 0.2, 0.1],
        [1.0, 0.0, tiny, 0.0],
        [1.0, 0.0, 0.0, 0.0],
    ]
    return [(np.array(log_q), np.array(t))]


def bad_calls(loss):
    row = np.full((3, 4), 0.25)
    return (
        common.refused(loss, "targets", np.log(row), row[:, :3]),
        common.refused(loss, "targets", np.log(row), row[0]),
        common.refused(loss, "targets", np.log(row), "row", error=TypeError),
        common.refused(loss, "log_predictions", row.astype(int), row, error=TypeError),
        common.refused(loss, "axis", np.log(row), row, axis=2),
        common.refused(loss, "axis", np.ones(()), np.ones(())),
        common.refused(loss, "axis", np.log(row), row, axis="c", error=TypeError),
    )


def kl_terms(log_q, t):
    return mp.fsum(
        entropic(y) - (x * y if y else 0) for x, y in zip(log_q, t, strict=True)
    )


kl_reference = common.exact_rows(1, 1)(kl_terms)


@common.exact_rows(1, 1)
def kl_gradient(log_q, t):
    slope = lambda x, y: mp.log(y) - x + 1 if y else mp.mpf(0)
    return [-y for y in t], [slope(x, y) for x, y in zip(log_q, t, strict=True)]


kl_divergence = LossSpec(
    name="kl_divergence",
    fn=jaxloss.kl_divergence,
    sample=distributions,
    event_ndim=1,
    differentiable=(0, 1),
    reference=kl_reference,
    gradient=kl_gradient,
    curvature=lambda log_q, t: np.zeros((*t.shape, t.shape[-1])),
    minimiser=lambda t: np.log(t),
    convex=True,
    fill=0.25,
    extremes=edges,
    bad_calls=bad_calls("kl_divergence"),
)


def log_distributions(rng, shape):
    """Log-probabilities on both sides, over four classes."""
    log_q, t = distributions(rng, shape)
    return log_q, np.log(t)


def log_edges(dtype):
    """As `edges`, on a logarithmic scale, down to what no float can represent."""
    inf, big = np.inf, common.big(dtype)
    ((log_q, _),) = edges(dtype)
    log_t = [
        [0.0, -inf, -inf, -inf],
        [0.0, -big, -inf, -inf],
        [-inf, -0.7, -inf, -0.7],
        [-0.9, -1.2, -1.6, -2.3],
        [0.0, -inf, -80.0, -inf],
        [0.0, -inf, -inf, -inf],
    ]
    return [(log_q, np.array(log_t))]


@common.exact_rows(1, 1)
def kl_of_logs_reference(log_q, log_t):
    pairs = [(x, y) for x, y in zip(log_q, log_t, strict=True) if y != -mp.inf]
    return mp.fsum(mp.exp(y) * (y - x) for x, y in pairs)


@common.exact_rows(1, 1)
def kl_of_logs_gradient(log_q, log_t):
    slope = lambda x, y: mp.exp(y) * (y - x + 1) if y != -mp.inf else mp.mpf(0)
    pairs = zip(log_q, log_t, strict=True)
    return [-mp.exp(y) for y in log_t], [slope(x, y) for x, y in pairs]


kl_divergence_with_log_targets = LossSpec(
    name="kl_divergence_with_log_targets",
    fn=jaxloss.kl_divergence_with_log_targets,
    sample=log_distributions,
    event_ndim=1,
    differentiable=(0, 1),
    reference=kl_of_logs_reference,
    gradient=kl_of_logs_gradient,
    minimiser=lambda log_t: log_t,
    convex=True,
    fill=0.25,
    extremes=log_edges,
    bad_calls=(
        common.refused("kl_divergence_with_log_targets", "log_targets", ROW, ROW[:2]),
        common.refused(
            "kl_divergence_with_log_targets",
            "log_targets",
            ROW,
            ROW.astype(int),
            error=TypeError,
        ),
        common.refused("kl_divergence_with_log_targets", "axis", ROW, ROW, axis=2),
    ),
)


def intensities(rng, shape):
    """Logarithms of positive intensities, and positive intensities."""
    log_q, t = rng.normal(size=(*shape, 4)), rng.normal(size=(*shape, 4))
    return log_q, np.exp(t)


@common.exact_rows(1, 1)
def generalized_reference(log_q, t):
    return kl_terms(log_q, t) + mp.fsum(map(mp.exp, log_q)) - mp.fsum(t)


@common.exact_rows(1, 1)
def generalized_gradient(log_q, t):
    slope = lambda x, y: mp.log(y) - x if y else mp.mpf(0)
    pairs = list(zip(log_q, t, strict=True))
    return [mp.exp(x) - y for x, y in pairs], [slope(x, y) for x, y in pairs]


generalized_kl_divergence = LossSpec(
    name="generalized_kl_divergence",
    fn=jaxloss.generalized_kl_divergence,
    sample=intensities,
    event_ndim=1,
    differentiable=(0, 1),
    reference=generalized_reference,
    gradient=generalized_gradient,
    minimiser=lambda t: np.log(t),
    convex=True,
    fill=0.25,
    extremes=edges,
    bad_calls=bad_calls("generalized_kl_divergence"),
)


@common.exact_rows(1, 1)
def js_reference(log_q, t):
    total = mp.mpf(0)
    for x, y in zip(log_q, t, strict=True):
        q = mp.exp(x)
        total += (entropic(q) + entropic(y)) / 2 - entropic((q + y) / 2)
    return total


@common.exact_rows(1, 1)
def js_gradient(log_q, t):
    log_share = lambda part, s: mp.log(2 * part / s) if part else mp.mpf(0)
    q = [mp.exp(x) for x in log_q]
    pairs = list(zip(q, t, strict=True))
    in_log_q = [x * log_share(x, x + y) / 2 for x, y in pairs]
    return in_log_q, [log_share(y, x + y) / 2 for x, y in pairs]


jensen_shannon = LossSpec(
    name="jensen_shannon",
    fn=jaxloss.jensen_shannon,
    sample=distributions,
    event_ndim=1,
    differentiable=(0, 1),
    reference=js_reference,
    gradient=js_gradient,
    minimiser=lambda t: np.log(t),
    fill=0.25,
    extremes=edges,
    bad_calls=bad_calls("jensen_shannon"),
)


@common.exact_rows(1, 1)
@exact.digits(700)  # 1 + v + v^2/2 - (1 + v) at v = 1e-308
def gaussian_reference(means, log_variances):
    terms = (
        m**2 + mp.exp(v) - 1 - v for m, v in zip(means, log_variances, strict=True)
    )
    return mp.fsum(terms) / 2


@common.exact_rows(1, 1)
def gaussian_gradient(means, log_variances):
    return means, [mp.expm1(v) / 2 for v in log_variances]


def moments(dtype):
    root, steps = common.root(dtype), common.ladder(dtype, top=50.0)
    zero = np.zeros_like(steps)
    low = np.full_like(steps, -common.big(dtype))
    return [
        (np.stack([zero, zero], -1), np.stack([steps, zero], -1)),
        (np.stack([steps, root + zero], -1), np.stack([zero, low], -1)),
    ]


gaussian_kl = LossSpec(
    name="gaussian_kl",
    fn=jaxloss.gaussian_kl,
    sample=common.vectors(2),
    event_ndim=1,
    differentiable=(0, 1),
    reference=gaussian_reference,
    gradient=gaussian_gradient,
    curvature=lambda means, _: np.broadcast_to(
        np.eye(means.shape[-1]), (*means.shape, means.shape[-1])
    ),
    minimiser=lambda log_variances: np.zeros_like(log_variances),
    minimum=lambda v: np.sum(np.expm1(v) - v, axis=-1) / 2,
    convex=True,
    extremes=moments,
    bad_calls=(
        common.refused("gaussian_kl", "log_variances", np.ones((3, 4)), np.ones(4)),
        common.refused("gaussian_kl", "axis", np.ones(3), np.ones(3), axis=1),
        common.refused(
            "gaussian_kl", "means", np.ones(3, int), np.ones(3), error=TypeError
        ),
        common.refused(
            "gaussian_kl",
            "log_variances",
            np.ones(3),
            np.ones(3, bool),
            error=TypeError,
        ),
    ),
)

SPECS = [
    kl_divergence,
    kl_divergence_with_log_targets,
    generalized_kl_divergence,
    jensen_shannon,
    gaussian_kl,
]
