"""What the tests against other libraries share."""

import numpy as np
import pytest

# The textbook loses digits to cancellation: here some four of sixteen.
RTOL, ATOL = 1e-12, 1e-13


def same(ours, theirs):
    np.testing.assert_allclose(ours, np.asarray(theirs), rtol=RTOL, atol=ATOL)


def peer(module):
    """The module, or the reason why there is none."""
    reason = f"{module}, or what it imports, is not installed"
    return pytest.importorskip(module, reason=reason)
