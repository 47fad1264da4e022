"""Losses of a student that learns from the outputs of a teacher."""

import functools
import operator

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from jaxloss import _checks, _jit, stable
from jaxloss.stable import excess, xla

_Tops = tuple[jax.Array, jax.Array]
"""The largest logit of each row, of the student and of the teacher."""


@_jit.kernel("axis", temperature="(0, inf)")
def knowledge_distillation(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    *,
    temperature: float | jax.Array,
    axis: int = -1,
) -> jax.Array:
    r"""Divergence of a student from its teacher, both at one temperature.

    Also called: KD, knowledge distillation, distillation loss, soft targets, DistillKL,
    KDLoss.

    .. math::
       \ell = T^2\, \mathrm{KL}(p_t \,\|\, p_s), \qquad
       p_t = \text{softmax}(t / T), \quad p_s = \text{softmax}(s / T)

    The factor keeps the size of the gradient when T changes, so that the weight against
    another loss need not.  Where T is large the loss is half the squared distance of
    the centred logits, divided by the number of classes.

    Args:
      student_logits: Floating array of logits s, with the classes along `axis`; -inf
        excludes a class.
      teacher_logits: Floating array of logits t, of the same shape.  They are
        differentiated like any argument, if asked for.
      temperature: Temperature T > 0, one for all examples or one each; 2 to 20 in the
        paper.
      axis: The axis of the classes.

    Returns:
      Losses >= 0 of the shape of `student_logits` without `axis`, in nats: 0 if the
      logits differ by a constant, or no class is left; inf if the student excludes a
      class that the teacher does not.  Accurate for any temperature, and near
      agreement.

    Raises:
      TypeError: If the logits are not floating, or `temperature` not a number.
      ValueError: If the shapes differ or have no `axis`, or `temperature` is a Python
        number <= 0.

    Gradient:
      `T (p_s - p_t)` with respect to the student's logits, and `T p_t (log p_t - log
      p_s - KL)` with respect to the teacher's.  Convex in the student's, smooth.

    Use:
      task: distribution
      activation: none (logits)
      range: [0, inf]
      robust: yes (in the student's logits)
      convex: yes
      when: A smaller network should learn from the logits of a larger one.
      not when: The teacher gives probabilities: use `kl_divergence`.

    Reference:
      Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.

    Example:
      >>> student, teacher = jnp.array([0.0, 0.0]), jnp.log(jnp.array([9.0, 1.0]))
      >>> jaxloss.knowledge_distillation(student, teacher, temperature=2.0)
      Array(0.5232482, dtype=float32)
    """
    name = "knowledge_distillation"
    given = {"student_logits": student_logits, "teacher_logits": teacher_logits}
    s, t = _checks.floating(name, **given)
    _checks.same_shape(name, student_logits=s, teacher_logits=t)
    axis = _checks.row_axis(name, axis, "class", student_logits=s)
    s, t = (jnp.moveaxis(x, axis, -1) for x in (s, t))
    heat = _checks.parameter(name, s[..., 0], temperature=temperature)
    heat = jnp.broadcast_to(heat, s.shape[:-1])
    top_s, top_t = (lax.stop_gradient(jnp.max(x, -1, keepdims=True)) for x in (s, t))
    nothing = (top_s == -jnp.inf) | (top_t == -jnp.inf)
    s, t, top_s, top_t = (jnp.where(nothing, 0, x) for x in (s, t, top_s, top_t))
    return _divergence(s, t, (top_s, top_t), heat)


# --- two softmaxes at one temperature ------------------------------------------------
#
# Of temperature 1e4 all probabilities are nearly equal, and so is the loss of 1e-8 a
# difference of numbers near 1.  So log p_s - log p_t comes from the differences of the
# logits, and the loss from terms `p_s - p_t - p_t (log p_s - log p_t)`, which are never
# negative: the first two sum to 0.


def _compared(
    s: jax.Array, t: jax.Array, tops: _Tops, heat: jax.Array, variant: int = 1
) -> tuple[jax.Array, ...]:
    """`log p_s - log p_t`, p_s, p_t.

    For each sum, and of each variant, an accelerator computes the entries again.  So it
    reads both arrays three times: for the largest logits, the sums, and the result.
    """

    def again(variant: int) -> tuple[jax.Array, ...]:
        hide = functools.partial(xla.hidden, variant=variant)
        return _entries(hide(s), hide(t), tops, heat)

    total = functools.partial(jnp.sum, axis=-1, keepdims=True)
    sum_s, sum_t, gained = total(again(3)[1]), total(again(4)[2]), total(again(5)[3])
    growth = gained / sum_t
    small = jnp.abs(growth) < 0.5
    log_growth = jnp.where(
        small, stable.log1p(jnp.where(small, growth, 0)), jnp.log(sum_s / sum_t)
    )
    step, e_s, e_t, _ = again(variant)
    return step - log_growth, e_s / sum_s, e_t / sum_t


def _entries(
    s: jax.Array, t: jax.Array, tops: _Tops, heat: jax.Array
) -> tuple[jax.Array, ...]:
    """`(s - t) / T` up to a constant, both softmaxes but for their sums, and what the
    student's is larger by."""
    e_s, e_t = (
        jnp.exp((x - top) / heat[..., None])
        for x, top in zip((s, t), tops, strict=True)
    )
    # However rare, what the student excludes costs infinity, and not 0 * inf.
    excluded = (s == -jnp.inf) & (t != -jnp.inf)
    tiny = float(jnp.finfo(s.dtype).tiny)
    e_t = jnp.where(excluded, jnp.maximum(e_t, tiny), e_t)
    step = _difference(s, t, tops, heat)
    near = (jnp.abs(step) < 1) & (t != -jnp.inf)
    grown = e_t * stable.expm1(jnp.where(near, step, 0))
    return step, e_s, e_t, jnp.where(near, grown, e_s - e_t)


def _difference(s: jax.Array, t: jax.Array, tops: _Tops, heat: jax.Array) -> jax.Array:
    """`(s - t) / T`, shifted so that it does not grow with either; s / T without t."""
    apart = s - jnp.where(t == -jnp.inf, 0, t)
    return (apart - (tops[0] - tops[1])) / heat[..., None]


@jax.custom_jvp
def _divergence(s: jax.Array, t: jax.Array, tops: _Tops, heat: jax.Array) -> jax.Array:
    """`T^2 KL(p_t || p_s)` along the last axis."""
    d, p_s, p_t = _compared(s, t, tops, heat)
    near = (d > -1) & (d < 2) & (p_t != 0)
    close = p_t * excess.series(jnp.where(near, d, 0))
    far = p_s - jnp.where(p_t == 0, 0, p_t * (1 + jnp.where(p_t == 0, 0, d)))
    return jnp.square(heat) * jnp.sum(jnp.where(near, close, far), axis=-1)


@functools.partial(_divergence.defjvp, symbolic_zeros=True)
def _(primals, tangents):
    s, t, _, heat = primals
    by_s, by_t, _, warmer = tangents
    in_s, in_t, in_heat = (
        not isinstance(x, SymbolicZero) for x in (by_s, by_t, warmer)
    )
    value, moving = _divergence(*primals), []
    for slope, x, tangent, moves in (
        (_in_student, s, by_s, in_s),
        (_in_teacher, t, by_t, in_t),
    ):
        if moves or in_heat:
            step = jnp.zeros_like(x) if not moves else tangent
            step = _over_heat(x, step, heat, warmer) if in_heat else step
            moving.append(jnp.sum(slope(*primals) * step, axis=-1))
    if in_heat:
        moving.append(2 * value * (warmer / heat))
    return value, functools.reduce(operator.add, moving, jnp.zeros_like(value))


@jax.custom_jvp
def _in_student(s: jax.Array, t: jax.Array, tops: _Tops, heat: jax.Array) -> jax.Array:
    """`T (p_s - p_t)`."""
    d, p_s, p_t = _compared(s, t, tops, heat, variant=2)
    near = jnp.abs(d) < 1
    close = p_t * stable.expm1(jnp.where(near, d, 0))
    return heat[..., None] * jnp.where(near, close, p_s - p_t)


@_in_student.defjvp
def _(primals, tangents):
    s, t, _, heat = primals
    by_s, by_t, _, warmer = tangents
    slope = _in_student(*primals)
    step_s = _over_heat(s, by_s, heat, warmer)
    step_t = _over_heat(t, by_t, heat, warmer)
    moved = _moved(s, step_s, heat) - _moved(t, step_t, heat)
    return slope, moved + slope * (warmer / heat)[..., None]


@jax.custom_jvp
def _in_teacher(s: jax.Array, t: jax.Array, tops: _Tops, heat: jax.Array) -> jax.Array:
    """`T p_t (log p_t - log p_s - KL)`."""
    p_t = stable.softmax(t / heat[..., None])
    return heat[..., None] * p_t * _surplus(s, t, tops, heat)


@_in_teacher.defjvp
def _(primals, tangents):
    s, t, tops, heat = primals
    by_s, by_t, _, warmer = tangents
    slope = _in_teacher(*primals)
    step_s = _over_heat(s, by_s, heat, warmer)
    step_t = _over_heat(t, by_t, heat, warmer)
    surplus, p_t = _surplus(s, t, tops, heat), stable.softmax(t / heat[..., None])
    kl = jnp.sum(slope * step_t, axis=-1, keepdims=True) / heat[..., None]
    moved = _moved(t, step_t, heat) * (1 + surplus) - p_t * kl
    # What the student moves p_s by cancels against what it moves the divergence by.
    moved = moved - _moved(t, step_s, heat)
    return slope, moved + slope * (warmer / heat)[..., None]


def _surplus(s: jax.Array, t: jax.Array, tops: _Tops, heat: jax.Array) -> jax.Array:
    """`log p_t - log p_s - KL`, and 0 where p_t is.

    KL is the mean of the former two.  Against the likeliest class, whose probability
    may be nearly 1, both are made of what the other classes differ from it.
    """
    top = jnp.argmax(t, axis=-1, keepdims=True)
    is_top = lax.broadcasted_iota(top.dtype, t.shape, t.ndim - 1) == top
    p_t, step = stable.softmax(t / heat[..., None]), _difference(s, t, tops, heat)
    base = jnp.sum(jnp.where(is_top, step, 0), axis=-1, keepdims=True)
    counts = (p_t != 0) & ~is_top
    more = jnp.where(counts, jnp.where(counts, step, base) - base, 0)
    mean = jnp.sum(p_t * more, axis=-1, keepdims=True)
    return jnp.where(p_t == 0, 0, mean - more)


def _over_heat(
    x: jax.Array, step: jax.Array, heat: jax.Array, warmer: jax.Array
) -> jax.Array:
    """The step of logits at a fixed temperature that both steps together are.

    The loss is a function of s / T and t / T, times T^2.  A constant does not matter.
    """
    lower = jnp.where(x == -jnp.inf, 0, x - jnp.max(x, axis=-1, keepdims=True))
    return step - lower * (warmer / heat)[..., None]


def _moved(x: jax.Array, step: jax.Array, heat: jax.Array) -> jax.Array:
    """What a step of the logits moves their probabilities by, times T."""
    moved = jax.jvp(lambda x: stable.softmax(x / heat[..., None]), (x,), (step,))[1]
    return heat[..., None] * moved
