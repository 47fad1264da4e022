"""How far a predicted box is from a target box: overlap, and what is left beside it.

A box is its corners `x1 y1 x2 y2`.  All four losses are one minus the intersection over
union (IoU) plus a penalty that still has a slope where the boxes do not meet.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxloss import _checks, _jit, stable
from jaxloss.losses.vision import _corners
from jaxloss.stable import xla


@_jit.kernel()
def iou(boxes: ArrayLike, targets: ArrayLike) -> jax.Array:
    r"""IoU loss: one minus the intersection over union of two boxes.

    Also called: IoU loss, box IoU, intersection over union, Jaccard of boxes.

    .. math:: \ell = 1 - \frac{I}{U}, \qquad U = A_p + A_t - I

    with the areas A of the boxes and I of what both cover.

    Args:
      boxes: Floating array `(..., 4)` of corners x1, y1, x2, y2, in any unit.  A box
        with x2 < x1 counts as empty: x2 is taken as x1, and likewise in y.
      targets: Floating array of the same shape.

    Returns:
      One loss in [0, 1] for each pair of boxes: 0 for identical ones, also of no area;
      1 where they do not meet, and for others of no area; NaN where a coordinate is not
      finite.

    Raises:
      TypeError: If an argument is not floating.
      ValueError: If the shapes differ, or their last axis is not 4.

    Gradient:
      With h the height of the predicted box and e the part of its width outside the
      target, with respect to x2: `I h / U^2` where that side is outside of the target,
      `-h_I (A_t + e h) / U^2` where it is inside, with h_I the height of what both
      cover, and 0 where the boxes do not meet.  Where two sides agree or touch it is
      the mean of both slopes, so identical boxes have gradient 0.  With respect to x1,
      minus the slope of an x2 that is as far outside or inside; in y likewise, with
      widths for heights; in `targets` with the boxes exchanged.  Not convex.

    Use:
      task: detection
      activation: none (boxes)
      range: [0, 1]
      robust: yes
      convex: no
      when: Boxes overlap their targets already, and IoU is what is reported.
      not when: Many boxes miss their targets, where the gradient is 0: use `giou`.

    Reference:
      Yu et al., "UnitBox: An Advanced Object Detection Network", ACM MM 2016 (with
      -log IoU, which is `-jnp.log1p(-jaxloss.iou(boxes, targets))` of boxes that meet).

    Example:
      >>> boxes = jnp.array([[0.0, 0.0, 2.0, 2.0], [1000.0, 1000.0, 1050.001, 1050.0]])
      >>> targets = jnp.array([[1.0, 1.0, 3.0, 3.0], [1000.0, 1000.0, 1050.0, 1050.0]])
      >>> jaxloss.iou(boxes, targets)
      Array([8.571429e-01, 1.953087e-05], dtype=float32)
    """
    return _missed(*_boxes("iou", boxes, targets))


@_jit.kernel()
def giou(boxes: ArrayLike, targets: ArrayLike) -> jax.Array:
    r"""Generalised IoU loss: IoU, and the empty share of the enclosing box.

    Also called: GIoU, generalized IoU loss, generalized_box_iou_loss, GIoULoss.

    .. math:: \ell = 1 - \frac{I}{U} + \frac{C - U}{C}

    with C the area of the smallest box around both, and I and U as in `iou`.

    Args:
      boxes: Floating array `(..., 4)` of corners x1, y1, x2, y2, in any unit.  A box
        with x2 < x1 counts as empty: x2 is taken as x1, and likewise in y.
      targets: Floating array of the same shape.

    Returns:
      One loss in [0, 2] for each pair of boxes: 0 for identical ones, also of no area;
      2 for others whose enclosing box has none; NaN where a coordinate is not finite.

    Raises:
      TypeError: If an argument is not floating.
      ValueError: If the shapes differ, or their last axis is not 4.

    Gradient:
      That of `iou`, and `(U h_C / C - h) / C` with respect to x2 where that side is the
      outer one, h_C the height of the enclosing box, and `-(h - h_I) / C` where it is
      the inner one; the other corners as in `iou`.  Boxes that do not meet attract each
      other.  Not convex.

    Use:
      task: detection
      activation: none (boxes)
      range: [0, 2]
      robust: yes
      convex: no
      when: Boxes are regressed from anchors or queries that may miss their targets.
      not when: Training is slow because one box contains the other, where the penalty
        is 0: `diou`.

    Reference:
      Rezatofighi et al., "Generalized Intersection over Union: A Metric and a Loss for
      Bounding Box Regression", CVPR 2019.

    Example:
      >>> boxes = jnp.array([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 1.0, 1.0]])
      >>> targets = jnp.array([[1.0, 1.0, 3.0, 3.0], [3.0, 0.0, 4.0, 1.0]])
      >>> jaxloss.giou(boxes, targets)
      Array([1.0793651, 1.5      ], dtype=float32)
    """
    return _with_gap(*_boxes("giou", boxes, targets))


@_jit.kernel()
def diou(boxes: ArrayLike, targets: ArrayLike) -> jax.Array:
    r"""Distance IoU loss: the IoU loss, and the distance of the centres.

    Also called: DIoU, distance_box_iou_loss, DIoULoss.

    .. math:: \ell = 1 - \frac{I}{U} + \frac{\rho^2}{c^2}

    with the distance rho of the centres, the diagonal c of the smallest box around
    both, and I and U as in `iou`.

    Args:
      boxes: Floating array `(..., 4)` of corners x1, y1, x2, y2, in any unit.  A box
        with x2 < x1 counts as empty: x2 is taken as x1, and likewise in y.
      targets: Floating array of the same shape.

    Returns:
      One loss in [0, 2] for each pair of boxes: 0 for identical ones, also of no area;
      NaN where a coordinate is not finite.

    Raises:
      TypeError: If an argument is not floating.
      ValueError: If the shapes differ, or their last axis is not 4.

    Gradient:
      That of `iou`, and `(d - 2 w_C rho^2 / c^2) / c^2` with respect to x2 where that
      side is the outer one, `d / c^2` where it is the inner one, with d the signed
      distance of the centres along x, ours less theirs, and w_C the width of the
      enclosing box; the other corners as in `iou`.  Not convex.

    Use:
      task: detection
      activation: none (boxes)
      range: [0, 2]
      robust: yes
      convex: no
      when: Boxes should move to their targets directly, not grow over them first.
      not when: Aspect ratios matter more than centres: use `ciou`.

    Reference:
      Zheng et al., "Distance-IoU Loss: Faster and Better Learning for Bounding Box
      Regression", AAAI 2020.

    Example:
      >>> boxes = jnp.array([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 1.0, 1.0]])
      >>> targets = jnp.array([[1.0, 1.0, 3.0, 3.0], [3.0, 0.0, 4.0, 1.0]])
      >>> jaxloss.diou(boxes, targets)
      Array([0.96825397, 1.5294118 ], dtype=float32)
    """
    return _with_distance(*_boxes("diou", boxes, targets))


@_jit.kernel()
def ciou(boxes: ArrayLike, targets: ArrayLike) -> jax.Array:
    r"""Complete IoU loss: the distance IoU loss, and aspect ratios.

    Also called: CIoU, complete_box_iou_loss, CIoULoss.

    .. math::
       \ell = 1 - \frac{I}{U} + \frac{\rho^2}{c^2} + \alpha v, \qquad
       v = \frac{4}{\pi^2} \Big(\arctan \frac{w_t}{h_t} - \arctan \frac{w}{h}\Big)^2,
       \qquad \alpha = \frac{v}{1 - I / U + v}

    with widths w and heights h, and the rest as in `diou`.

    Args:
      boxes: Floating array `(..., 4)` of corners x1, y1, x2, y2, in any unit.  A box
        with x2 < x1 is empty, at x1, and likewise in y; one that is a point has the
        aspect ratio of its target.
      targets: Floating array of the same shape.

    Returns:
      One loss in [0, 5/2] for each pair of boxes: 0 for identical ones, also of no
      area; NaN where a coordinate is not finite.

    Raises:
      TypeError: If an argument is not floating.
      ValueError: If the shapes differ, or their last axis is not 4.

    Gradient:
      That of `diou`, and alpha times that of v, `8 a h / (pi^2 (w^2 + h^2))` with
      respect to w for the angle a, ours less theirs.  Alpha is a constant, as
      published: this is not the derivative of the value.  The slope of v grows without
      bound as a box shrinks.  Not convex.

    Use:
      task: detection
      activation: none (boxes)
      range: [0, 2.5]
      robust: no
      convex: no
      when: Boxes of very different aspect ratios are regressed, as YOLO does.
      not when: A line search or a second-order method needs the true gradient: use
        `diou`.

    Reference:
      Zheng et al., "Distance-IoU Loss: Faster and Better Learning for Bounding Box
      Regression", AAAI 2020 (eq. 8 to 11).  Their code also replaces 1 / (w^2 + h^2) by
      1 in the gradient; other versions set alpha to 0 below an IoU of 1/2.

    Example:
      >>> boxes, targets = jnp.array([0.0, 0.0, 4.0, 1.0]), jnp.array([0.0, 0.0, 1, 4])
      >>> jaxloss.ciou(boxes, targets)
      Array(1.1662354, dtype=float32)
    """
    return _with_aspect(*_boxes("ciou", boxes, targets))


def _boxes(loss: str, boxes: ArrayLike, targets: ArrayLike) -> tuple[jax.Array, ...]:
    boxes, targets = _checks.floating(loss, boxes=boxes, targets=targets)
    _checks.same_shape(loss, boxes=boxes, targets=targets)
    if boxes.ndim == 0 or boxes.shape[-1] != 4:
        _checks.fail(
            loss, "boxes", f"shape {boxes.shape}", "(..., 4), the corners x1 y1 x2 y2"
        )
    return boxes, targets


_of_corners = functools.partial(xla.by_columns, count=4)


# Each loss of the corners of both boxes, one array each.


@_of_corners
def _missed(*corners: jax.Array) -> jax.Array:
    return _iou(corners[:4], corners[4:])


@_of_corners
def _with_gap(*corners: jax.Array) -> jax.Array:
    box, target = corners[:4], corners[4:]
    both, around = _corners.parts(box, target)
    whole = around[0].whole * around[1].whole
    flat = whole == 0
    penalty = _corners.uncovered(*both, *around) / jnp.where(flat, 1, whole)
    apart = flat & _corners.differ(box, target)
    return _iou(box, target) + jnp.where(apart, 1, penalty)


@_of_corners
def _with_distance(*corners: jax.Array) -> jax.Array:
    box, target = corners[:4], corners[4:]
    return _iou(box, target) + _corners.centre_distance(box, target)


@_of_corners
def _with_aspect(*corners: jax.Array) -> jax.Array:
    box, target = corners[:4], corners[4:]
    share = _iou(box, target)
    aspect = jnp.square((2 / math.pi) * _between_angles(box, target))
    alpha = lax.stop_gradient(stable.safe_divide(aspect, share + aspect))
    return share + _corners.centre_distance(box, target) + alpha * aspect


def _iou(box: _corners.Box, target: _corners.Box) -> jax.Array:
    """`1 - IoU`; 1 for two boxes of no area that are not the same."""
    (x, y), _ = _corners.parts(box, target)
    area = jnp.maximum(x.size * y.size, x.their_size * y.their_size)
    apart = (area == 0) & _corners.differ(box, target)
    return jnp.where(apart, 1, _corners.missed_share(x, y))


def _between_angles(box: _corners.Box, target: _corners.Box) -> jax.Array:
    """The angle between the diagonals of two boxes; 0 where one is a point."""
    w, h = _corners.direction(box)
    their_w, their_h = _corners.direction(target)
    across = w * (their_h - h) + h * (w - their_w)
    along = w * their_w + h * their_h
    point = (along == 0) & (across == 0)
    return jnp.where(point, 0, jnp.arctan2(across, jnp.where(point, 1, along)))
