"""Claims of the losses of boxes: the textbook of areas, in 60 digits."""

import numpy as np

import jaxloss
from jaxloss.claims import common, domains
from jaxloss.testing import LossSpec, Symmetry
from jaxloss.testing.accuracy import Case, derivative
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import mp

# --- formulas ------------------------------------------------------------------------


def intervals(p, t):
    """Along x and y: start and end of both boxes; no box ends before it starts."""
    return [(p[k], max(p[k], p[k + 2]), t[k], max(t[k], t[k + 2])) for k in (0, 1)]


def measures(p, t):
    """Per axis: our length, theirs, that of what both cover, that around both."""
    return [
        (e - s, E - S, max(0, min(e, E) - max(s, S)), max(e, E) - min(s, S))
        for s, e, S, E in intervals(p, t)
    ]


def areas(p, t):
    """Of what both cover, of what one of them does, and around both."""
    ours, theirs, both, whole = (a * b for a, b in zip(*measures(p, t), strict=True))
    return both, ours + theirs - both, whole


def iou(p, t):
    both, either, _ = areas(p, t)
    return 1 - both / either if either else mp.mpf(p != t)


def giou(p, t):
    _, either, whole = areas(p, t)
    return iou(p, t) + ((whole - either) / whole if whole else mp.mpf(p != t))


def centres(p, t):
    """The squared distance of the centres, and the squared diagonal around both."""
    steps = [(s + e - S - E) / 2 for s, e, S, E in intervals(p, t)]
    return sum(d**2 for d in steps), sum(row[3] ** 2 for row in measures(p, t))


def diou(p, t):
    distance, diagonal = centres(p, t)
    return iou(p, t) + (distance / diagonal if diagonal else 0)


def angle(p, t):
    """Between the diagonals: the difference of the arcus tangents of w / h."""
    (w, their_w, *_), (h, their_h, *_) = measures(p, t)
    if not ((w or h) and (their_w or their_h)):
        return mp.mpf(0)
    return mp.atan2(their_w, their_h) - mp.atan2(w, h)


def aspect(p, t):
    v = 4 / mp.pi**2 * angle(p, t) ** 2
    return v, v / (iou(p, t) + v) if v else mp.mpf(0)


def ciou(p, t):
    v, alpha = aspect(p, t)
    return diou(p, t) + alpha * v


# --- gradients -----------------------------------------------------------------------
#
# Along an axis a corner moves one end of our box.  At a side of the other box the
# slopes are the mean of those on both sides.


def step(x):
    """1 above 0, 1/2 at 0."""
    return (mp.sign(x) + 1) / 2


def ends_moved(p, t):
    """By corner: the axis, and the slopes of our length, of what both cover, of what
    is around both, and of twice the centre."""
    found = {}
    for k, (s, e, S, E) in enumerate(intervals(p, t)):
        meets = step(min(e, E) - max(s, S))
        found[k] = (k, -1, -meets * step(s - S), -step(S - s), 1)
        found[k + 2] = (k, 1, meets * step(E - e), step(e - E), 1)
        if p[k + 2] < p[k]:  # the end goes with the start
            both = [sum(pair) for pair in zip(found[k], found[k + 2], strict=True)]
            found[k], found[k + 2] = (k, *both[1:]), (k, 0, 0, 0, 0)
    return [found[i] for i in range(4)]


def gradients(p, t):
    """By each of our corners, the slopes of the four losses, each as its terms."""
    rows, (both, either, whole) = measures(p, t), areas(p, t)
    distance, diagonal = centres(p, t)
    _, alpha = aspect(p, t)
    between, size = angle(p, t), sum(row[0] ** 2 for row in rows)
    result = []
    for k, length, covered, around, centre in ends_moved(p, t):
        h, _, their_both, their_whole = rows[1 - k]
        d_both = covered * their_both
        d_either = length * h - d_both
        d_whole = around * their_whole
        main = [(both * d_either - either * d_both) / (either or mp.inf) ** 2]
        empty = [-d_either / (whole or mp.inf), either * d_whole / (whole or 1) ** 2]
        s, e, S, E = intervals(p, t)[k]
        far = [
            centre * (s + e - S - E) / 2 / (diagonal or mp.inf),
            -distance * 2 * rows[k][3] * around / (diagonal or mp.inf) ** 2,
        ]
        # The angle is that of the other box less atan2(w, h).
        turn = (-h if k == 0 else h) * length / (size or mp.inf)
        shape = [alpha * 8 / mp.pi**2 * between * turn]
        result.append((main, main + empty, main + far, main + far + shape))
    return result


def gradient(which, size=lambda x: x):
    """In both boxes: every loss is the same of exchanged boxes."""

    def by(p, t):
        return [sum(map(size, corner[which])) for corner in gradients(p, t)]

    return common.exact_rows(1, 1)(lambda p, t: (by(p, t), by(t, p)))


# --- laws ----------------------------------------------------------------------------


def boxes(rng, shape):
    """Pairs that overlap, contain one another, and do not meet."""
    centre = rng.normal(size=(2, *shape, 2))
    half = np.exp(0.7 * rng.normal(size=(2, *shape, 2)))
    return tuple(np.concatenate([centre - half, centre + half], axis=-1))


# One edge case a row: identical, shared sides, touching, apart, contained, no area.
EDGES = (
    ((0, 0, 2, 2), (0, 0, 2, 2)),
    ((0, 0, 2, 2), (0, 0, 3, 2)),
    ((0, 0, 4, 1), (0, 0, 1, 4)),
    ((0, 0, 2, 2), (2, 0, 3, 2)),
    ((0, 0, 1, 1), (3, 0, 4, 1)),
    ((0, 0, 1, 1), (3, 5, 4, 6)),
    ((-1, -1, 5, 5), (0, 1, 2, 3)),
    ((1, 1, 1, 1), (1, 1, 1, 1)),
    ((1, 1, 1, 1), (0, 0, 2, 2)),
    ((1, 1, 1, 1), (3, 4, 3, 4)),
    ((0, 0, 2, 0), (0, 0, 3, 0)),
    ((0, 1, 2, 1), (0, 0, 3, 2)),
    ((3, 3, 1, 1), (0, 0, 2, 2)),
    ((3, 0, 1, 2), (0, 0, 4, 2)),
)


def edges(dtype):
    p, t = (np.array(side, float) for side in zip(*EDGES, strict=True))
    # Slopes are of size 1 over a side, and curvatures of its square.
    scales = 1.0, common.big(dtype) / 16, 64 * np.sqrt(common.tiny(dtype))
    return [(scale * p, scale * t) for scale in scales]


def edges_and_worst(dtype):
    """Also segments, one flat and one upright, that are far apart for their size."""
    side = 2.0**-9
    worst = np.array([[0, 0, side, 0]]), np.array([[3, 4, 3, 4 + side]])
    return [*edges(dtype), worst]


def moved(rng, p, t):
    step = 2.0 ** rng.integers(-2, 4, size=(len(p), 1))
    return p + step, t + step


def reflected(rng, p, t):
    return tuple(-np.roll(box, 2, axis=-1) for box in (p, t))


def transposed(rng, p, t):
    return tuple(box[..., [1, 0, 3, 2]] for box in (p, t))


def refused(name):
    x = np.ones((3, 4))
    call = lambda *args, **kw: common.refused(name, *args, **kw)
    return (
        call("targets", x, np.ones((1, 4))),
        call("targets", x, np.ones(4)),
        call("boxes", np.ones((3, 5)), np.ones((3, 5))),
        call("boxes", np.float64(1), np.float64(1)),
        call("boxes", x.astype(int), x, error=TypeError),
        call("targets", x, x.astype(int), error=TypeError),
    )


def of_boxes(fn, formula, which, *, extremes=edges, **claims):
    return LossSpec(
        name=fn.__name__,
        fn=fn,
        sample=boxes,
        event_ndim=1,
        differentiable=(0, 1),
        reference=common.exact_rows(1, 1)(formula),
        gradient=gradient(which),
        gradient_cancels=gradient(which, abs),
        # Forward and reverse mode add up the terms of the penalties differently.
        ulps=16,
        minimiser=lambda t: t,
        symmetries=(
            Symmetry("a shift of both", moved),
            common.scale(0, 0, 1),
            common.swap(),
            Symmetry("a reflection of both", reflected),
            Symmetry("x and y exchanged", transposed),
        ),
        extremes=extremes,
        bad_calls=refused(fn.__name__),
        **claims,
    )


# --- accuracy ------------------------------------------------------------------------


def near_and_far(scale=1.0):
    """Nearly identical, hardly overlapping, contained, apart; none with equal sides."""
    rng = np.random.default_rng(0)
    p, t = boxes(rng, (16,))
    t[:8] = p[:8] + 4.0 ** -np.arange(8)[:, None] * rng.normal(size=(8, 4))
    t[8] = p[8] + 0.999 * (p[8] - np.roll(p[8], 2))
    return scale * p, scale * t


def second_terms(p, t):
    """The size of what is subtracted in the second derivative of each corner."""
    rows, (both, either, whole) = measures(p, t), areas(p, t)
    _, diagonal = centres(p, t)
    result = []
    for k, length, covered, around, _ in ends_moved(p, t):
        h, _, their_both, their_whole = rows[1 - k]
        d_both, d_whole = abs(covered * their_both), abs(around * their_whole)
        d_either = abs(length * h) + d_both
        a, w = d_either / either, d_whole / whole
        far = abs(2 * rows[k][3] * around) / diagonal
        result.append(
            2 * (d_both / either * a + both / either * a**2)
            + 2 * (a * w + w**2) * either / whole
            + 2 / diagonal
            + 2 * far / mp.sqrt(diagonal)
            + 2 * far**2
        )
    return result


def frozen(order):
    """Derivatives of the complete loss, whose alpha is a constant."""

    def by(p, t):
        _, alpha = aspect(p, t)
        fixed = lambda p, t: diou(p, t) + alpha * aspect(p, t)[0]
        return [derivative(fixed, *[(0, j)] * order)(p, t) for j in range(4)]

    return by


def cases(bounds, **claims):
    for scale in (1.0, 1e-15, 1e15):
        yield Case(
            name=f"at scale {scale:g}",
            columns=near_and_far(scale),
            rowwise=True,
            bounds=bounds,
            terms=second_terms,
            halves=scale == 1,
            **claims,
        )


def at(x, _):
    target = np.array([0.0, 0.0, 2.0, 2.0])
    return np.array([1.0, 0.5, 1.0, 0.5]) * x[..., None] + target, target


LINE = Line("shift of a box over its target", (-4.0, 4.0), at)

CORNERS = {"boxes": domains.REAL, "targets": domains.REAL}

NOT_ITS_GRADIENT = "alpha is a constant in the gradient, as published"

CLAIMS = [
    Claim(
        fn=jaxloss.iou,
        settings=(of_boxes(jaxloss.iou, iou, 0),),
        accuracy=tuple(cases((3, 4, 2))),
        line=LINE,
        domains=CORNERS,
    ),
    Claim(
        fn=jaxloss.giou,
        settings=(of_boxes(jaxloss.giou, giou, 1),),
        accuracy=tuple(cases((3, 4, 2))),
        line=LINE,
        domains=CORNERS,
    ),
    Claim(
        fn=jaxloss.diou,
        settings=(of_boxes(jaxloss.diou, diou, 2),),
        accuracy=tuple(cases((3, 4, 2))),
        line=LINE,
        domains=CORNERS,
    ),
    Claim(
        fn=jaxloss.ciou,
        settings=(
            of_boxes(
                jaxloss.ciou,
                ciou,
                3,
                extremes=edges_and_worst,
                exempt=dict.fromkeys(common.OF_DERIVATIVES, NOT_ITS_GRADIENT),
            ),
        ),
        accuracy=tuple(cases((3, 4, 2), first=frozen(1), second=frozen(2))),
        line=LINE,
        domains=CORNERS,
    ),
]
