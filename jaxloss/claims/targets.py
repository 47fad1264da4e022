"""Claims of the transforms of targets."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxloss import targets
from jaxloss.testing.accuracy import Case, pairs
from jaxloss.testing.claim import Claim
from jaxloss.testing.exact import mp

LABELS, SHARES = pairs(
    np.array([0.0, 1e-4, 0.01, 0.3, 0.9999, 1.0]),
    np.array([0.0, 1e-4, 0.01, 0.1, 0.7, 1.0]),
)


@jax.vmap
def smoothed(y: jax.Array, smoothing: jax.Array) -> jax.Array:
    """The smoothed first weight of one example; four other classes share the rest."""
    labels = jnp.concatenate([y[None], jnp.broadcast_to((1 - y) / 4, (4,))])
    return targets.smooth_labels(labels, smoothing=smoothing)[0]


def cases(fn, name: str, classes: int, **claims) -> tuple[Case, ...]:
    """In the labels and in the share that is smoothed away."""
    return tuple(
        Case(
            name=f"{name} in {argument}",
            fn=fn,
            formula=lambda y, e: (1 - e) * y + e / classes,
            columns=(LABELS, SHARES),
            argument=position,
            # 1 - smoothing and 1/K - y cancel as the arguments allow.
            conditioned=(False, True, False),
            bounds=(2, 2, 0),
            halves=False,
            **claims,
        )
        for position, argument in enumerate(("labels", "smoothing"))
    )


# --- numbers as classes ------------------------------------------------------------

# Evenly and unevenly spaced, as rows: the derivatives in them are claimed too.
EDGES = np.array([[0.0, 1.0, 2.0, 3.0], [-1.5, -1.0, 0.25, 4.0]])


def _each(values: np.ndarray, *more: np.ndarray) -> tuple[np.ndarray, ...]:
    """Every value with every row of edges, each with one of the three bins."""
    value, row = pairs(values, np.arange(len(EDGES)))
    k = np.arange(len(value)) % 3
    return value, EDGES[row.astype(int)], *(x[: len(value)] for x in more), k


@jax.vmap
def share_of_number(y: jax.Array, support: jax.Array, k: jax.Array) -> jax.Array:
    """The share of one number of the support."""
    return targets.two_hot(y, support=support)[k]


def share_of_number_formula(y, support, k):
    k, last = int(k), len(support) - 1
    y = min(max(y, support[0]), support[-1])
    if k > 0 and support[k - 1] < y < support[k]:
        return (y - support[k - 1]) / (support[k] - support[k - 1])
    if k < last and support[k] <= y < support[k + 1]:
        return (support[k + 1] - y) / (support[k + 1] - support[k])
    return mp.mpf(1 if support[k] == y else 0)


def two_hot_cases() -> tuple[Case, ...]:
    # Not at the numbers of the support, where the derivatives are one-sided.
    columns = _each(np.array([-1e6, -1.2, 0.1, 1e-3, 1.7, 2.9, 1e6]))
    return tuple(
        Case(
            name=f"two_hot in {argument}",
            fn=share_of_number,
            formula=share_of_number_formula,
            columns=columns,
            fixed=(2,),
            argument=position,
            bounds=(1, 2, 2),
            halves=False,
        )
        for position, argument in enumerate(("values", "support"))
    )


@jax.vmap
def share_of_bin(
    y: jax.Array, edges: jax.Array, scale: jax.Array, k: jax.Array
) -> jax.Array:
    """The mass of one bin."""
    return targets.hl_gauss(y, edges=edges, scale=scale)[k]


def _normal_mass(low, high):
    """Times 2, from the tail on which both are."""
    if high < 0:
        low, high = -high, -low
    low, high = low / mp.sqrt(2), high / mp.sqrt(2)
    return mp.erfc(low) - mp.erfc(high) if low > 0 else mp.erf(high) - mp.erf(low)


def share_of_bin_formula(y, edges, scale, k):
    k, z = int(k), [(e - y) / scale for e in edges]
    return _normal_mass(z[k], z[k + 1]) / _normal_mass(z[0], z[-1])


def hl_gauss_cases() -> tuple[Case, ...]:
    # Means far beyond, near and between the edges; scales from a hundredth of a bin to
    # a thousand.  Far from the mean an exponential is as exact as its exponent.
    values = np.array([-400.0, -7.3, -0.9, 0.3, 0.9999, 1.1, 2.6, 5.5, 60.0])
    scales = np.tile(np.array([0.01, 1e3, 0.2, 1.0, 5.0, 0.75, 40.0]), 3)
    columns = _each(values, scales)
    return tuple(
        Case(
            name=f"hl_gauss in {argument}",
            fn=share_of_bin,
            formula=share_of_bin_formula,
            columns=columns,
            fixed=(3,),
            argument=position,
            conditioned=(True, True, True),
            bounds=(2, 3, 7),
            halves=False,
        )
        for position, argument in enumerate(("values", "edges", "scale"))
    )


# --- a batch -------------------------------------------------------------------------


@jax.vmap
def first_of_two(scores: jax.Array) -> jax.Array:
    """The share of the first prototype of the first of two examples."""
    return targets.sinkhorn_assign(scores.reshape(2, 2), temperature=0.5)[0, 0]


def first_of_two_formula(scores):
    p = [[mp.exp(2 * x) for x in scores[:2]], [mp.exp(2 * x) for x in scores[2:]]]
    for _ in range(3):
        sums = [p[0][j] + p[1][j] for j in range(2)]
        p = [[row[j] / sums[j] for j in range(2)] for row in p]
        p = [[x / mp.fsum(row) for x in row] for row in p]
    return p[0][0]


def sinkhorn_cases() -> tuple[Case, ...]:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(24, 4)) * np.geomspace(0.01, 30, 24)[:, None]
    none = lambda scores: [mp.mpf(0)] * 4
    return (
        Case(
            name="sinkhorn_assign in scores",
            fn=first_of_two,
            formula=first_of_two_formula,
            columns=(scores,),
            conditioned=(True, False, False),
            first=none,
            second=none,
            bounds=(2, 0, 0),
            halves=False,
        ),
    )


BINARY = targets.smooth_binary_labels
CLAIMS = [
    Claim(
        fn=BINARY,
        accuracy=cases(BINARY, "smooth_binary_labels", 2, names=("smoothing",)),
    ),
    Claim(fn=targets.smooth_labels, accuracy=cases(smoothed, "smooth_labels", 5)),
    Claim(fn=targets.two_hot, accuracy=two_hot_cases()),
    Claim(fn=targets.hl_gauss, accuracy=hl_gauss_cases()),
    Claim(fn=targets.sinkhorn_assign, accuracy=sinkhorn_cases()),
]
