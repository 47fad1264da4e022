"""Losses of boxes: worked values, boxes of no area, what the losses do to boxes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss.testing import tolerance

FLOAT32 = tolerance(np.float32)
LOSSES = (jaxloss.iou, jaxloss.giou, jaxloss.diou, jaxloss.ciou)
NAMES = [loss.__name__ for loss in LOSSES]
losses = pytest.mark.parametrize("loss", LOSSES, ids=NAMES)

box = lambda *corners: jnp.array(corners, jnp.float32)


# --- worked values -------------------------------------------------------------------

# By hand.  Of the L, v is the square of (2 atan 4 - pi/2) 2 / pi.
V = 4 / math.pi**2 * (2 * math.atan(4) - math.pi / 2) ** 2
WORKED = {
    "overlapping corners": (
        (box(0, 0, 2, 2), box(1, 1, 3, 3)),
        (6 / 7, 68 / 63, 6 / 7 + 1 / 9, 6 / 7 + 1 / 9),
    ),
    "an L": (
        (box(0, 0, 4, 1), box(0, 0, 1, 4)),
        (6 / 7, 6 / 7 + 9 / 16, 6 / 7 + 9 / 64, 6 / 7 + 9 / 64 + V * V / (6 / 7 + V)),
    ),
    "apart": (
        (box(0, 0, 1, 1), box(3, 0, 4, 1)),
        (1, 3 / 2, 1 + 9 / 17, 1 + 9 / 17),
    ),
}


@pytest.mark.parametrize("name", WORKED)
def test_worked_values(name):
    pair, expected = WORKED[name]
    found = [loss(*pair) for loss in LOSSES]
    np.testing.assert_allclose(found, expected, rtol=4 * FLOAT32)


def test_published_digits_of_the_complete_loss():
    """v = .4734588734 and alpha = .3558231306 of the L."""
    np.testing.assert_allclose(V, 0.4734588734, rtol=1e-9)
    np.testing.assert_allclose(V / (6 / 7 + V), 0.3558231306, rtol=1e-9)
    with jax.enable_x64(True):
        pair = (jnp.array([0.0, 0, 4, 1]), jnp.array([0.0, 0, 1, 4]))
        np.testing.assert_allclose(jaxloss.ciou(*pair), 1.166235476, rtol=1e-9)


def test_a_box_that_is_wider_by_a_thousandth():
    """1 - 50/(50 + d), of d = 2^-10, far from the origin; the centres are d/2 apart."""
    p, t = box(1000, 1000, 1050, 1050), box(1000, 1000, 1050 + 2**-10, 1050)
    d = 2.0**-10
    share = d / (50 + d)
    np.testing.assert_allclose(jaxloss.iou(p, t), share, rtol=4 * FLOAT32)
    np.testing.assert_allclose(jaxloss.giou(p, t), share, rtol=4 * FLOAT32)
    distance = (d / 2) ** 2 / ((50 + d) ** 2 + 50**2)
    np.testing.assert_allclose(jaxloss.diou(p, t), share + distance, rtol=4 * FLOAT32)


# --- no area, no number --------------------------------------------------------------


@losses
@pytest.mark.parametrize("side", [0.0, 1e-20, 1e-3, 1.0, 1e20])
def test_perfect_boxes_are_at_rest(loss, side):
    """Loss 0 and gradient 0 in both, whatever their size; also where they are a point,
    a segment, or turned."""
    for p in (box(0, 0, side, side), box(1, 2, 1, 2 + side), box(side, 0, -side, 1)):
        value, slopes = jax.value_and_grad(loss, (0, 1))(p, p)
        assert value == 0
        assert all((slope == 0).all() for slope in slopes)


def test_boxes_of_no_area_that_differ():
    """The limits of shrinking boxes: two points, and a point and a box."""
    points = box(0, 0, 0, 0), box(3, 4, 3, 4)
    assert [float(loss(*points)) for loss in LOSSES] == [1, 2, 2, 2]
    across = box(0, 0, 2, 0), box(0, 0, 3, 0)  # segments of one line
    assert [float(loss(*across)) for loss in LOSSES[:2]] == [1, 2]


@losses
def test_a_turned_box_is_empty_where_it_starts(loss):
    """x2 < x1, as detectors give it early: as x2 = x1, and nothing is NaN."""
    t = box(0, 0, 3, 2)
    turned, flat = box(1, 0, -4, 2), box(1, 0, 1, 2)
    assert loss(turned, t) == loss(flat, t)
    slope = jax.grad(loss)(turned, t)
    assert jnp.isfinite(slope).all()
    assert slope[2] == 0


@losses
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("corner", range(4))
def test_a_coordinate_that_is_no_number(loss, wrong, corner):
    """In either box: NaN, and not the 1 of boxes that do not meet."""
    p, t = box(0, 0, 1, 1).at[corner].set(wrong), box(5, 5, 6, 6)
    assert jnp.isnan(loss(p, t))
    assert jnp.isnan(loss(t, p))


def test_second_derivatives_of_ciou_are_finite():
    """Which is exempt from the law that says so of the others."""
    from jaxloss.claims.vision.boxes import EDGES

    hessian = jax.jit(jax.vmap(jax.hessian(jaxloss.ciou, (0, 1))))
    p, t = (jnp.array(side, jnp.float32) for side in zip(*EDGES, strict=True))
    for part in jax.tree.leaves(hessian(p, t)):
        assert jnp.isfinite(part).all()


# --- what they do --------------------------------------------------------------------


def random_boxes(seed, count=500):
    rng = np.random.default_rng(seed)
    centre, half = rng.normal(size=(count, 2)), np.exp(rng.normal(size=(count, 2)))
    return jnp.array(np.concatenate([centre - half, centre + half], -1), jnp.float32)


def test_ranges():
    """IoU in [0, 1], GIoU and DIoU in [0, 2]; each penalty adds to the former."""
    p, t = 3 * random_boxes(0), random_boxes(1)
    iou, giou, diou, ciou = (loss(p, t) for loss in LOSSES)
    assert ((iou >= 0) & (iou <= 1)).all()
    assert ((giou >= iou) & (giou <= 2)).all()
    assert ((diou >= iou) & (diou < 2)).all()
    assert ((ciou >= diou) & (ciou <= 2.5)).all()


@pytest.mark.parametrize("loss", LOSSES[1:], ids=NAMES[1:])
def test_a_step_brings_boxes_that_do_not_meet_nearer(loss):
    """Against the gradient, which that of IoU alone does not have."""
    p, t = box(0, 0, 1, 1), box(5, 3, 7, 4)
    nearer = p - 0.1 * jax.grad(loss)(p, t)
    gap = lambda b: jnp.sum(jnp.square(t[:2] - b[2:]))
    assert gap(nearer) < gap(p)
    assert (jax.grad(jaxloss.iou)(p, t) == 0).all()


def test_a_step_of_giou_brings_any_boxes_nearer():
    """Boxes beside each other and boxes apart along both axes, of many shapes."""
    p, t = random_boxes(0), random_boxes(1) + jnp.array([[40.0, 5.0, 40.0, 5.0]])

    def gap(p):
        between = jnp.maximum(t[:, :2] - p[:, 2:], p[:, :2] - t[:, 2:])
        return jnp.sum(jnp.square(jnp.maximum(between, 0)), axis=-1)

    slope = jax.grad(lambda p: jaxloss.giou(p, t).sum())(p)
    assert (gap(p) > 0).all()
    assert (gap(p - slope) < gap(p)).all()


def test_half_precision_is_widened():
    p, t = random_boxes(0, 8).astype(jnp.bfloat16), random_boxes(1, 8)
    for loss in LOSSES:
        value = loss(p, t.astype(jnp.bfloat16))
        assert value.dtype == jnp.float32
        wide = loss(p.astype(jnp.float32), t.astype(jnp.bfloat16).astype(jnp.float32))
        np.testing.assert_array_equal(value, wide)
