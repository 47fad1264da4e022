"""Formulas of risk sets: what the papers sum over all subjects that are at risk."""

from typing import Any

from jaxloss.claims import common
from jaxloss.testing.exact import mp


def efron_of(h, tied, behind, i):
    """The mean over k of `log(A + (1 - k/d) T) - h_i`, and its slopes.

    Of the own slope 1 is taken term by term: 60 digits do not hold 1 - 1e-300.
    """
    odds = [mp.exp(v - h[i]) if j in tied + behind else 0 for j, v in enumerate(h)]
    others = [j for j in tied if j != i]
    d, loss, slopes = len(tied), mp.mpf(0), [mp.mpf(0)] * len(h)
    for k in range(d):
        left = 1 - mp.mpf(k) / d
        rivals = mp.fsum([odds[j] for j in behind] + [left * odds[j] for j in others])
        loss += (mp.log1p(rivals / left) + mp.log(left)) / d
        slopes[i] -= rivals / (rivals + left) / d
        for j in others + behind:
            share = left if j in tied else 1
            slopes[j] += share * odds[j] / (rivals + left) / d
    return loss, slopes


def breslow_of(h, tied, behind, i):
    """`log(A + T) - h_i`, and its slopes."""
    others = [j for j in tied + behind if j != i]
    odds = {j: mp.exp(h[j] - h[i]) for j in others}
    rivals, slopes = mp.fsum(odds.values()), [mp.mpf(0)] * len(h)
    for j, v in odds.items():
        slopes[j] += v / (1 + rivals)
    slopes[i] -= rivals / (1 + rivals)
    return mp.log1p(rivals), slopes


def of_subjects(of, h, times, events, strata=None, where=None):
    """For each subject its loss and its slopes."""
    n = len(h)
    strata, where = strata or [0] * n, where or [1] * n
    found = []
    for i in range(n):
        later = lambda j, i=i: where[j] and strata[j] == strata[i]
        same = [j for j in range(n) if later(j) and times[j] == times[i]]
        tied = [j for j in same if events[j]]
        behind = [j for j in same if not events[j]]
        behind += [j for j in range(n) if later(j) and times[j] > times[i]]
        counts = events[i] and where[i]
        nothing = mp.mpf(0), [mp.mpf(0)] * n
        found.append(of(h, tied, behind, i) if counts else nothing)
    return found


def of_study(of) -> dict[str, Any]:
    """Value, gradient, and what cancels in each, of the sum over the subjects with the
    weights 1, 2, ..."""
    lift = common.exact_rows(1, 1, 1, 1, 1)

    def summed(rows, size=lambda x: x):
        losses, slopes = zip(*rows, strict=True)
        weighed = lambda x: mp.fsum((i + 1) * size(v) for i, v in enumerate(x))
        return weighed(losses), [weighed(x) for x in zip(*slopes, strict=True)]

    value = lambda *args: summed(of_subjects(of, *args))
    sizes = lambda *args: summed(of_subjects(of, *args), abs)
    # A loss itself is the difference of two logarithms, of which one is at least -1.
    spare = lambda args: mp.fsum(
        (i + 1) * bool(e) for i, e in enumerate(args[2]) if of is efron_of
    )
    return {
        "reference": lift(lambda *args: value(*args)[0]),
        "cancels": lift(lambda *args: sizes(*args)[0] + spare(args)),
        "gradient": lift(lambda *args: value(*args)[1]),
        "gradient_cancels": lift(lambda *args: sizes(*args)[1]),
    }
