"""The polynomials of the primitives: the best there are, to the digit."""

import itertools

import mpmath as mp
import pytest

from bench import minimax
from jaxloss.losses.classification import _normal


def signs(errors, level):
    """Those of the errors that are as large as `level`, to a part in a hundred."""
    return [mp.sign(error) for error in errors if abs(error) > 0.99 * level]


def changes(values):
    return sum(a != b for a, b in itertools.pairwise(values))


@pytest.mark.parametrize("name", minimax.FITS)
class TestFit:
    def test_alternates(self, name):
        """The best polynomial of n coefficients: its error is largest n + 1 times."""
        fit, count = minimax.FITS[name], len(minimax.source(name))
        errors = minimax.errors(fit, minimax.best(fit, count))
        assert changes(signs(errors, max(map(abs, errors)))) == count

    def test_is_that_of_the_source(self, name):
        """Whose error is larger by less than a part in a hundred, and below 0.1 ulp."""
        fit, source = minimax.FITS[name], minimax.source(name)
        least = minimax.largest(fit, minimax.best(fit, len(source)))
        assert minimax.largest(fit, source) < min(1.01 * least, minimax.ULP / 10)

    def test_sees_a_digit(self, name):
        """A part in a million of the first coefficient."""
        fit, (first, *others) = minimax.FITS[name], minimax.source(name)
        bent = [first * (1 + 1e-6), *others]
        assert minimax.largest(fit, bent) > 1.5 * minimax.largest(fit, [first, *others])


def test_log1p_needs_four():
    """With three coefficients, two ulps would be lost."""
    fit = minimax.FITS["_ATANH_4"]
    assert minimax.largest(fit, minimax.best(fit, 3)) > 2 * minimax.ULP


@pytest.mark.parametrize("name", minimax.SERIES)
def test_series_are_those_of_the_source(name):
    """To the last digit of float64, and the next term would not be seen."""
    source = getattr(_normal, name)
    *derived, more = minimax.series(minimax.SERIES[name], len(source) + 1)
    assert [float(c) for c in derived] == source
    assert abs(more) < 2.0**-54
