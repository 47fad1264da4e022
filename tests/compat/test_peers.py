"""Losses of vision code, against the formulas of their papers and against peers.

The formulas are written in float64 NumPy from the papers, as other libraries write
them: differences of areas, `arccos`, exponentials.  On random arguments they have many
correct digits, and all of ours are to agree with those.  A peer that is installed is
called as well, with its epsilon of 0 where it has one.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss

# The textbook loses digits to cancellation: here some four of sixteen.
DIGITS = {"rtol": 1e-12, "atol": 1e-13}


def same(ours, theirs):
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), **DIGITS)


def peer(package):
    """The module, or the reason why there is none."""
    return pytest.importorskip(package, reason=f"{package} is not installed")


# --- boxes ---------------------------------------------------------------------------


def random_boxes(count=1000):
    """Pairs that overlap, contain one another, and do not meet."""
    rng = np.random.default_rng(0)
    centre = rng.normal(size=(2, count, 2))
    half = np.exp(0.7 * rng.normal(size=(2, count, 2)))
    return np.concatenate([centre - half, centre + half], axis=-1)


def area(box):
    sides = np.maximum(box[..., 2:] - box[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def meet(p, t):
    """The box that both cover; empty where they do not meet."""
    first, last = np.maximum(p[:, :2], t[:, :2]), np.minimum(p[:, 2:], t[:, 2:])
    return np.concatenate([first, last], axis=-1)


def around(p, t):
    """The smallest box that has both in it."""
    first, last = np.minimum(p[:, :2], t[:, :2]), np.maximum(p[:, 2:], t[:, 2:])
    return np.concatenate([first, last], axis=-1)


def iou(p, t):
    """Yu et al. 2016, without their logarithm."""
    both = area(meet(p, t))
    return 1 - both / (area(p) + area(t) - both)


def giou(p, t):
    """Rezatofighi et al. 2019, algorithm 1."""
    both, whole = area(meet(p, t)), area(around(p, t))
    union = area(p) + area(t) - both
    return 1 - (both / union - (whole - union) / whole)


def diou(p, t):
    """Zheng et al. 2020, (7)."""
    centre = lambda box: (box[:, :2] + box[:, 2:]) / 2
    diagonal = around(p, t)[:, 2:] - around(p, t)[:, :2]
    distance = np.sum((centre(p) - centre(t)) ** 2, axis=-1)
    return iou(p, t) + distance / np.sum(diagonal**2, axis=-1)


def ciou(p, t):
    """Zheng et al. 2020, (8) to (11)."""
    angle = lambda box: np.arctan((box[:, 2] - box[:, 0]) / (box[:, 3] - box[:, 1]))
    v = 4 / np.pi**2 * (angle(t) - angle(p)) ** 2
    return diou(p, t) + v / (iou(p, t) + v) * v


BOXES = {"iou": iou, "giou": giou, "diou": diou, "ciou": ciou}
TORCHVISION = {
    "giou": "generalized_box_iou_loss",
    "diou": "distance_box_iou_loss",
    "ciou": "complete_box_iou_loss",
}


def test_random_boxes_are_of_all_kinds():
    p, t = random_boxes()
    kinds = (
        area(meet(p, t)) == 0,
        (meet(p, t) == p).all(axis=-1),
        (meet(p, t) == t).all(axis=-1),
    )
    assert all(kind.sum() > 30 for kind in kinds)
    assert sum(kinds).sum() < 500


@pytest.mark.parametrize("name", BOXES)
def test_boxes(name):
    p, t = random_boxes()
    same(getattr(jaxloss, name)(p, t), BOXES[name](p, t))


@pytest.mark.parametrize("name", TORCHVISION)
def test_boxes_of_torchvision(name):
    """Values and gradients, with the constant alpha."""
    torch, ops = peer("torch"), peer("torchvision.ops")
    # Its complete loss adds 1e-7 to the union, whatever it is told: little of 1e8.
    p, t = 1e4 * random_boxes()
    theirs_in = torch.tensor(p, requires_grad=True), torch.tensor(t, requires_grad=True)
    theirs = getattr(ops, TORCHVISION[name])(*theirs_in, eps=0.0)
    theirs.sum().backward()
    ours, pull = jax.vjp(getattr(jaxloss, name), p, t)
    same(ours, theirs.detach())
    for slope, one in zip(pull(jnp.ones_like(ours)), theirs_in, strict=True):
        same(slope, one.grad)
