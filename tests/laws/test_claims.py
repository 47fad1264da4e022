"""Every claim against every law that applies to it, and how exact it is."""

import collections
import os

import numpy as np
import pytest

from jaxloss.claims import CLAIMS, SPECS
from jaxloss.testing import applicable, evidence, laws, programs, ulps

BRIEF = os.environ.get("JAXLOSS_CHECKS") == "brief"
FIRST = [claim.settings[0] for claim in CLAIMS if claim.settings]
CHECKED = FIRST[5::8] if BRIEF else SPECS  # of each kind, and none that is slow
LAWS = [(spec, law) for spec in CHECKED for law in applicable(spec)]
EXEMPT = [(s, law) for s in SPECS for law in laws.LAWS if law.__name__ in s.exempt]
ACCURACY = [case for claim in CLAIMS for case in claim.accuracy]
MOST = 4
COUNTED = CLAIMS[5::16] if BRIEF else CLAIMS  # counting compiles all of it


def _told(claim):
    """Primitives and losses may share a name."""
    return f"{claim.name}-{claim.fn.__module__.removeprefix('jaxloss.')}"


@pytest.mark.parametrize(
    ("spec", "law"), LAWS, ids=[f"{spec.name}-{law.__name__}" for spec, law in LAWS]
)
def test_law(spec, law):
    """The loss obeys the law."""
    law(spec)


@pytest.mark.parametrize(
    ("spec", "law"), EXEMPT, ids=[f"{spec.name}-{law.__name__}" for spec, law in EXEMPT]
)
def test_exemption_is_needed(spec, law):
    """A law that a loss is exempt from does not hold for it."""
    with pytest.raises(AssertionError):
        law(spec)


@pytest.mark.parametrize("case", ACCURACY, ids=[case.name for case in ACCURACY])
def test_accuracy(case):
    """Value and two derivatives are within their bounds, in both modes."""
    case.check()


@pytest.mark.parametrize("claim", COUNTED, ids=_told)
def test_suite_cost(claim):
    """All that is checked of a function runs at most four programs for each kind of
    arguments: ids and distributions are two kinds."""
    for spec in claim.settings:
        for trial in evidence.trials(spec, *ulps.DTYPES):
            trial.value()
    for case in claim.accuracy:
        case.derivatives(np.float32)
    functions = {case.fn for case in claim.accuracy} | {s.fn for s in claim.settings}
    costs = {k: n for k, n in programs.COMPILED.items() if k[1] in functions}
    assert costs
    assert not {key: n for key, n in costs.items() if n > MOST}


ABOUT_CALLS = ("compiles_once", "one_dispatch")


@pytest.mark.parametrize("name", ["huber", "kl_divergence"])
def test_laws_are_arithmetic(name):
    """A law reads what the programs of the loss returned: once it has that, it compiles
    nothing, unless it is about calls."""
    spec = next(spec for spec in FIRST if spec.fn.__name__ == name)
    applying = applicable(spec)
    for law in applying:
        law(spec)
    for law in applying:
        with evidence.compile_events() as events:
            law(spec)
        compiled = [event for event in events if event.startswith("backend_compile")]
        assert not compiled or law.__name__ in ABOUT_CALLS, law.__name__


def test_no_two_settings_share_a_name():
    """A failure names one loss at one setting."""
    names = collections.Counter(spec.name for spec in SPECS)
    assert [name for name, count in names.items() if count > 1] == []


def test_no_two_cases_share_a_name():
    """Nor do two cases of a claim; a loss may have the name of a primitive."""
    for claim in CLAIMS:
        names = [case.name for case in claim.accuracy]
        assert len(names) == len({*names})


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_cases_are_measured_in_float64_too(mode):
    """As `python -m jaxloss verify` does, with all derivatives."""
    (case, *_) = next(claim for claim in CLAIMS if claim.name == "huber").accuracy
    found = case.measure(np.float64, mode)
    assert len(found) == 3
    for worst, bound in zip(found, case.allowed(np.dtype(float), mode), strict=True):
        assert worst.error <= bound
