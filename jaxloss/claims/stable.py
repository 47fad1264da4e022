"""Claims of the primitives: value, first and second derivative, every edge.

The bounds here are the ones the docstrings state.
"""

import functools
from collections.abc import Callable

import jax
import numpy as np

from jaxloss import stable
from jaxloss.claims.classification.cross_entropy import dot, log_sum, sigmoid
from jaxloss.claims.embedding.cosine import hard_vectors, vectors
from jaxloss.claims.embedding.formulas import cosine
from jaxloss.testing.accuracy import EDGES, FLUSH, Case, decades, line, pairs, rows
from jaxloss.testing.claim import Claim
from jaxloss.testing.exact import mp

REALS = np.concatenate([line(), decades(), EDGES])
POSITIVE = REALS[REALS > 0]
NEAR_ONE = np.linspace(-0.999, 0.999, 101)
MAGNITUDES = np.array([1e-37, 1e-19, 1e-10, 0.3, 0.999999, 1.0001, 7, 1e10, 1e30])

# The losses widen half precision before they come here.
Primitive = functools.partial(Case, halves=False)


def first_of(fn: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """The first component of what a function makes of rows."""
    return lambda x: fn(x)[:, 0]


# --- one number --------------------------------------------------------------------


def scalar(fn, formula, x, bounds, **claims) -> Claim:
    case = Primitive(formula=formula, columns=(x,), bounds=bounds, **claims)
    return Claim(fn=fn, accuracy=(case,))


AROUND_ZERO = np.concatenate([REALS, 2 * NEAR_ONE])
SCALARS = [
    scalar(
        stable.log1p,
        lambda x: mp.log1p(x),
        np.concatenate([REALS[REALS > -1], NEAR_ONE]),
        (2, 2, 4),
    ),
    scalar(
        stable.expm1,
        lambda x: mp.expm1(x),
        np.concatenate([REALS, NEAR_ONE]),
        (2, 2, 2),
    ),
    scalar(
        stable.expm1_excess,
        lambda x: mp.expm1(x) - x,
        np.concatenate([REALS, NEAR_ONE, np.linspace(-4, 4, 57)]),
        (3, 2, 2),
        floor=FLUSH,
    ),
    scalar(stable.sigmoid, sigmoid, REALS, (3, 4, 7)),
    scalar(
        stable.sigmoid_slope,
        lambda x: sigmoid(x) * sigmoid(-x),
        REALS,
        (4, 7, 12),
        conditioned=(False, False, True),
    ),
    scalar(
        stable.sigmoid_less_half,
        lambda x: sigmoid(x) - mp.mpf(1) / 2,
        np.append(REALS[np.abs(REALS) <= 2], np.linspace(-2, 2, 101)),
        (3, 4, 7),
    ),
    scalar(stable.softplus, lambda x: mp.log1p(mp.exp(x)), REALS, (2, 3, 4)),
    scalar(stable.log_sigmoid, lambda x: -mp.log1p(mp.exp(-x)), REALS, (2, 3, 4)),
    scalar(stable.tanh, lambda x: mp.tanh(x), AROUND_ZERO, (4, 6, 8), floor=FLUSH),
    scalar(
        stable.sech2,
        lambda x: 1 / mp.cosh(x) ** 2,
        AROUND_ZERO,
        (6, 8, 12),
        conditioned=(False, False, True),
        floor=FLUSH,
    ),
    scalar(
        stable.log_cosh,
        lambda x: mp.log(mp.cosh(x)),
        AROUND_ZERO,
        (2, 4, 6),
        floor=FLUSH,
    ),
    scalar(
        stable.log1mexp,
        lambda x: mp.log1p(-mp.exp(-x)),
        np.concatenate([POSITIVE, 1 + NEAR_ONE, np.linspace(0.5, 4, 57)]),
        (3, 3, 4),
    ),
    scalar(stable.sqrt, lambda x: mp.sqrt(x), POSITIVE, (1, 2, 4)),
]

# --- two numbers -------------------------------------------------------------------


def power_cases():
    for gamma in (0.0, 0.3, 0.5, 1.0, 2.0, 5.0):
        bound = 3 + 2.5 * gamma
        common = {
            "formula": lambda x, g: sigmoid(x) ** g,
            "columns": (REALS, np.full_like(REALS, gamma)),
            # The second derivative crosses zero where gamma sigmoid(-x) = sigmoid(x).
            "conditioned": (False, False, True),
            "bounds": (bound, bound + 2, bound + 4),
        }
        yield Primitive(name=f"of {gamma}", floor=FLUSH, **common)
        # log(sigmoid)^2, up to 2^13, multiplies a power that may have been flushed.
        yield Primitive(
            name=f"of {gamma} in gamma", argument=1, floor=2.0**-112, **common
        )


def product(fn, formula, bounds) -> Claim:
    """A function of two numbers, of every magnitude."""
    columns = pairs(np.append(MAGNITUDES, 0), MAGNITUDES)
    cases = tuple(
        Primitive(
            name=f"in {name}",
            formula=formula,
            columns=columns,
            argument=argument,
            bounds=bounds,
            floor=FLUSH,
        )
        for argument, name in enumerate("xy")
    )
    return Claim(fn=fn, accuracy=cases)


def boxcox(z, q):
    return mp.expm1(q * z) / q if q else z


def by_q(order):
    """Derivatives in q: differences have no digits where it is 0."""

    def moment(z, q):
        """The integral of `s^order exp(q s)` from 0 to z, by its series."""
        terms = (
            q**k * z ** (k + order + 1) / (mp.factorial(k) * (k + order + 1))
            for k in range(120)
        )
        return mp.fsum(terms)

    return moment


def boxcox_cases():
    z = np.array([-18.0, -7, -2.5, -1, -0.3, -1e-3, -1e-30, 1e-6, 0.5, 3, 11])
    columns = pairs(z, np.array([0, 1e-30, 1e-4, 0.05, 0.3, 0.7, 1.0, 1.7]))
    grown = lambda z, q: mp.exp(q * z)
    slope_of_grown = lambda z, q: q * mp.exp(q * z)
    for argument, (first, second) in enumerate(
        ((grown, slope_of_grown), (by_q(1), by_q(2)))
    ):
        yield Primitive(
            name=f"in {'zq'[argument]}",
            formula=boxcox,
            columns=columns,
            argument=argument,
            bounds=(3, 4, 6),
            # The exponential of a product is as exact as that.
            conditioned=(True, True, True),
            first=first,
            second=second,
            floor=FLUSH,
        )


PRODUCTS = [
    Claim(fn=stable.boxcox, accuracy=(*boxcox_cases(),)),
    Claim(fn=stable.sigmoid_power, accuracy=(*power_cases(),)),
    product(stable.xlogy, lambda x, y: x * mp.log(y), (2, 1, 2)),
    product(stable.xlog1py, lambda x, y: x * mp.log1p(y), (3, 2, 3)),
    product(stable.safe_divide, lambda x, y: x / y, (1, 1, 2)),
]

# --- rows of logits ----------------------------------------------------------------


def spread(x):
    """p_0 p_j for the other classes j, p_0 (1 - p_0) for class 0: what d^2 p_0 sums."""
    p = [mp.exp(v - log_sum(x)) for v in x]
    return [p[0] * (1 - p[0]), *(p[0] * q for q in p[1:])]


def of_logits(fn, formula, bounds, *columns, run=None, **claims) -> Claim:
    """The claim of a function of rows; `run` makes one number of each, if `fn` does
    not."""
    cases = []
    for classes in (2, 5):
        x = rows(classes)
        case = Primitive(
            name=f"{fn.__name__} of {classes} classes",
            fn=run or fn,
            formula=formula,
            columns=(x, *(column(x) for column in columns)),
            bounds=bounds,
            floor=FLUSH,
            **claims,
        )
        cases.append(case)
    return Claim(fn=fn, accuracy=(*cases,))


SHARES = np.concatenate([np.geomspace(1e-37, 1, 40), 1 - np.geomspace(1e-6, 0.5, 20)])

ROWS = [
    scalar(stable.log_probabilities, lambda p: mp.log(p), SHARES, (2, 1, 2)),
    of_logits(stable.logsumexp, log_sum, (2, 4, 8), conditioned=(True, False, False)),
    of_logits(
        stable.softmax_nll,
        lambda x, i: log_sum(x) - x[int(i)],
        (4, 5, 8),
        lambda x: np.arange(len(x)) % x.shape[1],
        fixed=(1,),
    ),
    of_logits(
        stable.log_softmax,
        lambda x: x[0] - log_sum(x),
        (4, 6, 8),
        run=first_of(stable.log_softmax),
    ),
    of_logits(
        stable.softmax,
        lambda x: mp.exp(x[0] - log_sum(x)),
        (4, 6, 8),
        run=first_of(stable.softmax),
        terms=spread,
    ),
    of_logits(
        stable.softmax_complement,
        lambda x: 1 / (1 + mp.exp(x[0] - log_sum(x[1:]))),
        (4, 6, 8),
        run=first_of(stable.softmax_complement),
        terms=spread,
    ),
]

# --- rows of logits and distributions ----------------------------------------------


def weights(kind, shape):
    """Distributions: one class has all, shares of everything, or nearly one class."""
    rng = np.random.default_rng(1)
    if kind == "one-hot":
        return np.eye(shape[1])[np.arange(shape[0]) % shape[1]]
    w = rng.dirichlet(np.ones(shape[1]), shape[0])
    return w if kind == "shares" else np.where(w == w.max(1, keepdims=True), 1, 1e-9)


def distribution_cases():
    for kind in ("one-hot", "shares", "sure"):
        for classes in (2, 5):
            x = rows(classes)
            yield Primitive(
                name=f"of {kind} weights of {classes} classes",
                formula=lambda x, w: dot(w, [log_sum(x) - v for v in x]),
                columns=(x, weights(kind, x.shape).astype(np.float32)),
                fixed=(1,),
                bounds=(4, 5, 8),
                rowwise=kind == "shares",  # p sum(w) - w cancels for no other kind
                floor=FLUSH,
            )


DISTRIBUTIONS = [
    Claim(fn=stable.softmax_cross_entropy, accuracy=(*distribution_cases(),))
]

# --- vectors -----------------------------------------------------------------------


def p_norm(p):
    return lambda x: mp.fsum(abs(v) ** p for v in x) ** (1 / mp.mpf(p))


def scaled_rows(low, high, count=24, size=5):
    x = np.random.default_rng(0).normal(size=(count, size))
    return x * np.geomspace(low, high, count)[:, None]


def norm_case(name, formula, bounds, **static) -> Case:
    return Primitive(
        name=name,
        formula=formula,
        columns=(scaled_rows(1e-30, 1e30),),
        static=static,
        bounds=bounds,
    )


VECTORS = [
    Claim(
        fn=stable.norm,
        accuracy=(
            norm_case("", p_norm(2), (2, 3, 6)),
            norm_case("of order 1.5", p_norm(1.5), (3, 5, 16), ord=1.5),
            norm_case("of order 3", p_norm(3), (3, 5, 16), ord=3.0),
            norm_case("of order 1", p_norm(1), (2, 0, 0), ord=1),
            norm_case(
                "of order inf",
                lambda x: max(abs(v) for v in x),
                (0, 0, 0),
                ord=np.inf,
            ),
        ),
    ),
    Claim(
        fn=stable.unit,
        accuracy=(
            Primitive(
                name="unit",
                fn=first_of(stable.unit),
                formula=lambda x: x[0] / mp.sqrt(mp.fsum(v * v for v in x)),
                columns=(scaled_rows(1e-17, 1e17),),
                bounds=(3, 6, 12),
                conditioned=(False, False, True),
                rowwise=True,
            ),
        ),
    ),
]

# --- pairs of vectors --------------------------------------------------------------


def angle_case(name, columns, **claims) -> Case:
    return Primitive(
        name=f"angle {name}",
        fn=stable.angle,
        formula=lambda a, b: mp.acos(cosine(a, b)),
        columns=columns,
        rowwise=True,
        conditioned=(True, True, True),
        bounds=(1, 1.5, 1.5),
        **claims,
    )


PAIRS = [
    Claim(
        fn=stable.angle,
        accuracy=(
            angle_case("in the first", vectors()),
            angle_case("in the second", vectors(), argument=1),
            angle_case("of short vectors", vectors(1e-15)),
            angle_case("of long vectors", vectors(1e15), argument=1),
            angle_case("of hard pairs", hard_vectors()),
        ),
    ),
]

CLAIMS = SCALARS + PRODUCTS + ROWS + DISTRIBUTIONS + VECTORS + PAIRS
