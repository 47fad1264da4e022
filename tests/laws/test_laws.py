"""Every loss against every law that applies to it."""

import collections
import os

import pytest

from jaxloss.claims import SPECS
from jaxloss.testing import applicable

BRIEF = os.environ.get("JAXLOSS_CHECKS") == "brief"
FIRST = list({spec.fn: spec for spec in reversed(SPECS)}.values())
CASES = [
    (spec, law) for spec in (FIRST if BRIEF else SPECS) for law in applicable(spec)
]
# Briefly: one setting of each loss, and every other law, in turn.
CASES = CASES[::2] if BRIEF else CASES


@pytest.mark.parametrize(
    ("spec", "law"), CASES, ids=[f"{spec.name}-{law.__name__}" for spec, law in CASES]
)
def test_law(spec, law):
    """The loss obeys the law."""
    law(spec)


def test_no_two_specs_share_a_name():
    """A failure names one loss at one setting."""
    names = collections.Counter(spec.name for spec in SPECS)
    assert [name for name, count in names.items() if count > 1] == []
