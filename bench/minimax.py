"""The polynomials of `jaxloss`, derived: `python -m bench.minimax`.

Each is the best of its degree: among all polynomials its largest error is the least
(minimax), where an error counts relative to the function that the polynomial serves.
The best one is known by its error, which is equally large at degree + 2 points, with
alternating signs (Chebyshev); the algorithm of Remez moves such points to where the
error is largest, until it is.  Prints the coefficients, and the error of those and of
the ones in the source, in ulps of float32.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import mpmath as mp

from jaxloss.losses.classification import _normal
from jaxloss.losses.distributions import scores
from jaxloss.stable import scalars

DIGITS = 40
GRID = 2000
ULP = mp.mpf(2) ** -24  # of float32, at least: relative to the number


@dataclasses.dataclass(frozen=True)
class Fit:
    """A polynomial in `q` on [0, end], constant first."""

    of: Callable[[Any], Any]
    """What it stands for."""
    share: Callable[[Any], Any]
    """How much its error is of the function it serves, relative to that."""
    end: Any
    home: Any = scalars
    """The module that has the coefficients."""


def _tanh_ratio(q):
    """`tanh(x) / x` of q = x^2."""
    return mp.tanh(mp.sqrt(q)) / mp.sqrt(q)


def _atanh_ratio(q):
    """`atanh(s) / s` of q = s^2."""
    return mp.atanh(mp.sqrt(q)) / mp.sqrt(q)


def _log_cosh_ratio(q):
    """`log(cosh(x)) / x^2` of q = x^2."""
    return mp.log(mp.cosh(mp.sqrt(q))) / q


def _half_tanh_ratio(q):
    """`(sigmoid(x) - 1/2) / x` of q = x^2."""
    return _tanh_ratio(q / 4) / 4


def _crps(q):
    """The ranked probability score of N(0, 1) at x, of q = x^2."""
    x = mp.sqrt(q)
    return x * mp.erf(x / mp.sqrt(2)) + 2 * mp.npdf(x) - 1 / mp.sqrt(mp.pi)


_LOG1P = Fit(
    of=lambda q: 2 * (_atanh_ratio(q) - 1) / q,
    share=lambda q: q / (2 * _atanh_ratio(q)),
    end=mp.mpf(1) / 9,
)
FITS = {
    "_SIGMOID": Fit(_half_tanh_ratio, lambda q: 1 / _half_tanh_ratio(q), 4),
    "_ATANH_4": _LOG1P,
    "_ATANH_5": _LOG1P,
    "_TANH": Fit(
        of=lambda q: (_tanh_ratio(q) - 1) / q,
        share=lambda q: q / _tanh_ratio(q),
        end=mp.mpf(scalars._TANH_END) ** 2,
    ),
    "_LOG_COSH": Fit(
        _log_cosh_ratio, lambda q: 1 / _log_cosh_ratio(q), mp.mpf(scalars._BEND) ** 2
    ),
    "_CRPS": Fit(
        of=lambda q: (_crps(q) - _crps(mp.mpf(0))) / q,
        share=lambda q: q / _crps(q),
        end=mp.mpf(scores._NEAR) ** 2,
        home=scores,
    ),
}


def source(name: str) -> list[float]:
    """The coefficients of a fit, as the package has them."""
    return getattr(FITS[name].home, name)


@functools.cache
def samples(fit: Fit) -> list[tuple[Any, Any, Any]]:
    """Each `q` that is looked at, what the polynomial stands for there, and the share.

    They are dense at both ends, which are left out.
    """
    with mp.workdps(DIGITS):
        steps = (mp.mpf(2 * k + 1) / (2 * GRID) for k in range(GRID))
        points = [fit.end * (1 - mp.cos(mp.pi * step)) / 2 for step in steps]
        return [(q, fit.of(q), fit.share(q)) for q in points]


def errors(fit: Fit, coefficients: Sequence[Any]) -> list[Any]:
    """That of the function which the polynomial serves, at each of the samples."""
    with mp.workdps(DIGITS):
        return [
            share * (_polynomial(q, coefficients) - of) for q, of, share in samples(fit)
        ]


def _polynomial(q: Any, coefficients: Sequence[Any]) -> Any:
    return functools.reduce(lambda total, c: total * q + c, reversed(coefficients))


def largest(fit: Fit, coefficients: Sequence[Any]) -> Any:
    return max(map(abs, errors(fit, coefficients)))


@functools.cache
def best(fit: Fit, count: int) -> list[Any]:
    """The minimax polynomial of so many coefficients, by the algorithm of Remez."""
    with mp.workdps(DIGITS):
        chosen = [round((k + 0.5) * GRID / (count + 1)) for k in range(count + 1)]
        while True:
            *coefficients, level = _levelled([samples(fit)[i] for i in chosen])
            found = errors(fit, coefficients)
            if max(map(abs, found)) < 1.001 * abs(level):
                return coefficients
            chosen = _extremes(found)


def _levelled(at: Sequence[tuple[Any, Any, Any]]) -> list[Any]:
    """The coefficients whose errors are +e, -e, +e, ... at these samples; and e."""
    rows = [
        [*(q**k for k in range(len(at) - 1)), -((-1) ** i) / share]
        for i, (q, _, share) in enumerate(at)
    ]
    return list(mp.lu_solve(mp.matrix(rows), mp.matrix([of for _, of, _ in at])))


def _extremes(found: Sequence[Any]) -> list[int]:
    """Where the error is largest between two of its zeros."""
    extremes = [0]
    for i, error in enumerate(found):
        if error * found[extremes[-1]] < 0:
            extremes.append(i)
        elif abs(error) > abs(found[extremes[-1]]):
            extremes[-1] = i
    return extremes


# --- Chebyshev series ----------------------------------------------------------------
#
# Of two functions whose best polynomials would not do in float64: a series serves any
# precision, with so many of its terms.


def _mills(x):
    """The upper tail of the normal distribution over its density."""
    return mp.sqrt(mp.pi / 2) * mp.erfc(x / mp.sqrt(2)) * mp.exp(x * x / 2)


SERIES = {
    "_RATIO": lambda x: (1 + x) * _mills(x),
    "_REST": lambda x: (1 + x) ** 2 * (1 - x * _mills(x)),
}
NODES = 60


def series(of: Callable[[Any], Any], count: int) -> list[Any]:
    """The first coefficients in (x - 4) / (x + 4), from values at Chebyshev's nodes."""
    with mp.workdps(2 * DIGITS):
        angles = [mp.pi * (2 * k + 1) / (2 * NODES) for k in range(NODES)]
        values = [of(4 * (1 + mp.cos(a)) / (1 - mp.cos(a))) for a in angles]
        terms = (
            mp.fsum(v * mp.cos(n * a) for v, a in zip(values, angles, strict=True))
            for n in range(count)
        )
        return [term * (2 if n else 1) / NODES for n, term in enumerate(terms)]


def main() -> None:
    for name, fit in FITS.items():
        coefficients = best(fit, len(source(name)))
        least, found = (largest(fit, c) / ULP for c in (coefficients, source(name)))
        print(f"{name}: {mp.nstr(least, 3)} ulp, in the source {mp.nstr(found, 3)}")
        print(*(f"    {float(c)!r}," for c in coefficients), sep="\n")
    for name, of in SERIES.items():
        coefficients = series(of, len(getattr(_normal, name)))
        print(f"{name}:", *(f"    {float(c)!r}," for c in coefficients), sep="\n")


if __name__ == "__main__":
    main()
