"""CTC: counts of paths, long alignments, what cannot be aligned."""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from jax.typing import DTypeLike

import jaxloss
from jaxloss import reduce
from jaxloss.claims.language.sequence import (
    negative_log_likelihood,
    softmax_and_posterior,
)
from jaxloss.testing import programs, tolerance

FLOAT32 = tolerance(np.float32)
FLOAT64 = tolerance(np.float64)


def draw(
    *shape: int,
    labels: tuple[int, ...] = (),
    classes: int | None = None,
    scale: float = 1.0,
    dtype: DTypeLike = np.float64,
):
    """Logits of `shape`, and labels of the same leading axes."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(scale * rng.normal(size=shape), dtype)
    y = rng.integers(1, classes or shape[-1], size=(*shape[:-2], *labels))
    return x, jnp.asarray(y)


T, K = 3, 3
value_and_grad = jax.jit(jax.value_and_grad(jaxloss.ctc))


@jax.jit
def masked(x, y, where, real):
    """The losses, and the gradient of each: at one shape for most tests, as compiling
    is what they cost."""
    run = lambda x: jaxloss.ctc(x, y, where=where, label_where=real)
    losses, pull = jax.vjp(run, x)
    return losses, pull(jnp.ones_like(losses))[0]


def four():
    """Four sequences of five frames, four classes and two labels; nothing masked."""
    x, y = draw(4, 5, 4, labels=(2,))
    return x, y, jnp.ones((4, 5), bool), jnp.ones((4, 2), bool)


def flat_loss(x, y):
    return jaxloss.ctc(x.reshape(T, K), y)


HESSIANS = (
    jax.jit(jax.jacfwd(jax.grad(flat_loss))),
    jax.jit(jax.jacrev(jax.jacfwd(flat_loss))),
)


@pytest.mark.parametrize("labels", [(1, 2), (1, 1)])
def test_the_hessian_is_that_of_all_paths(labels):
    """Covariance of the softmax less that of the posterior, by enumeration, in both
    orders of modes, in float32 too; also where all paths tie."""
    every = np.array(list(itertools.product(range(K), repeat=T)))
    fit = [[c for c, _ in itertools.groupby(p) if c] == list(labels) for p in every]
    onehot = np.eye(K)[every].reshape(len(every), -1)
    some = draw(T, K)[0].ravel()
    for logits in (some, 0 * some):
        weights = np.exp(onehot @ np.asarray(logits))
        among = lambda w: np.cov(onehot, rowvar=False, ddof=0, aweights=w)
        want = among(weights) - among(np.where(fit, weights, 0))
        for hessian in HESSIANS:
            got = hessian(logits, jnp.array(labels))
            np.testing.assert_allclose(got, want, atol=FLOAT64)
        got = HESSIANS[0](logits.astype(np.float32), jnp.array(labels))
        np.testing.assert_allclose(got, want, atol=FLOAT32 / 4)


# --- counts of paths ---------------------------------------------------------------


def test_probabilities_of_all_labellings_sum_to_one():
    """Every path is of exactly one labelling of at most T labels."""
    x, _ = draw(3, K)
    every = [y for n in range(4) for y in itertools.product((1, 2), repeat=n)]
    labels = jnp.array([(*y, 0, 0, 0)[:3] for y in every])
    real = jnp.array([np.arange(3) < len(y) for y in every])
    each = jnp.broadcast_to(x, (len(every), *x.shape))
    losses = jaxloss.ctc(each, labels, label_where=real)
    np.testing.assert_allclose(jnp.sum(jnp.exp(-losses)), 1, rtol=FLOAT64)


def test_equal_logits_count_paths():
    """N labels with r repetitions have binomial(T + N - r, T - N - r) of K^T paths, to
    the last digits of float32 after 2000 frames."""
    y = jnp.array([1, 2, 2, 3, 1] * 160)
    n, r = len(y), int(jnp.sum(y[1:] == y[:-1]))
    count = math.comb(2000 + n - r, 2000 - n - r)
    want = 2000 * mpmath.log(4) - mpmath.log(count)
    got, slope = value_and_grad(jnp.zeros((2000, 4), jnp.float32), y)
    np.testing.assert_allclose(got, float(want), rtol=FLOAT32)
    # What one class of a frame gains, the others lose.
    np.testing.assert_allclose(jnp.sum(slope, axis=-1), 0, atol=FLOAT32)


def test_a_repeated_label_needs_a_blank_between():
    """[1, 1] in three frames is 1, blank, 1 and nothing else; in two, impossible."""
    x, _ = draw(3, K)
    y, log_probs = jnp.array([1, 1]), jax.nn.log_softmax(x)
    want = -(log_probs[0, 1] + log_probs[1, 0] + log_probs[2, 1])
    np.testing.assert_allclose(value_and_grad(x, y)[0], want, rtol=FLOAT64)
    assert value_and_grad(x[:2], y)[0] == jnp.inf


def test_as_many_labels_as_frames_have_one_path():
    """Without room for a blank the loss is the cross entropy of each frame."""
    x, y = jnp.array([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]]), jnp.array([2, 1])
    want = -jnp.sum(jnp.take_along_axis(jax.nn.log_softmax(x), y[:, None], axis=1))
    np.testing.assert_allclose(value_and_grad(x, y)[0], want, rtol=FLOAT64)


def test_no_labels_are_all_blanks():
    """Without labels, or with masked ones, one path is left; without frames too."""
    x, y, where, real = four()
    want = -jnp.sum(jax.nn.log_softmax(x)[..., 0], axis=-1)
    np.testing.assert_allclose(jaxloss.ctc(x, y[:, :0]), want, rtol=FLOAT64)
    none = real & False
    np.testing.assert_allclose(masked(x, y, where, none)[0], want, rtol=FLOAT64)
    np.testing.assert_array_equal(masked(x, y, where & False, none)[0], 0)
    np.testing.assert_array_equal(masked(x, y, where & False, real)[0], jnp.inf)
    some = none.at[0].set(True)
    losses = jaxloss.ctc(x[:, :0], y, label_where=some)
    np.testing.assert_array_equal(losses, [jnp.inf, 0, 0, 0])


# --- long alignments ---------------------------------------------------------------


def graves(x, y):
    """The loss and its gradient, as Graves et al. print them, in float64."""
    log_probs = x - np.logaddexp.reduce(x, axis=1, keepdims=True)
    states = np.zeros(2 * len(y) + 1, int)
    states[1::2] = y
    emitted = log_probs[:, states]
    alpha = alphas(emitted, states)
    beta = alphas(emitted[::-1, ::-1], states[::-1])[::-1, ::-1] - emitted
    total = np.logaddexp(alpha[-1, -1], alpha[-1, -2])
    slope = np.exp(log_probs)
    np.subtract.at(slope.T, states, np.exp(alpha + beta - total).T)
    return -total, slope


def alphas(emitted, states):
    """Their equations 6 and 7."""
    skips = np.append([False] * 2, (states[2:] != 0) & (states[2:] != states[:-2]))
    alpha = np.full(emitted.shape, -np.inf)
    alpha[0, :2] = emitted[0, :2]
    for before, now, e in zip(alpha[:-1], alpha[1:], emitted[1:], strict=True):
        one, two = (np.append([-np.inf] * n, before[:-n]) for n in (1, 2))
        reached = np.logaddexp(before, one)
        now[:] = np.where(skips, np.logaddexp(reached, two), reached) + e
    return alpha


@pytest.mark.parametrize(
    ("scale", "posteriors"), [(1.0, 1e-4), (10.0, 3e-4), (100.0, 3e-3)]
)
def test_long_alignments_keep_their_digits(scale, posteriors):
    """2000 frames in float32: the loss to 1e-6, also beyond 1e5, and posteriors to a
    tenth of what rounding does to alphas of -6000."""
    x, y = draw(2000, 20, labels=(50,), scale=scale, dtype=np.float32)
    want, slopes = graves(np.asarray(x, float), np.asarray(y))
    got, slope = value_and_grad(x, y)
    np.testing.assert_allclose(got, want, rtol=FLOAT32)
    np.testing.assert_allclose(slope, slopes, atol=posteriors)


def test_a_loss_above_1e5_is_no_ceiling():
    """Two of four frames to be got wrong by 1e5, in three ways."""
    x = jnp.zeros((4, 2), jnp.float32).at[:, 0].set(1e5)
    got = jaxloss.ctc(x, jnp.array([1, 1]))
    np.testing.assert_allclose(got, 2e5 - np.log(3), rtol=FLOAT32)


def test_confident_frames_have_small_losses():
    """The right path with odds of e^18 in 2000 frames: a loss of 1e-3 keeps the digits
    that are left beside the logarithms of alternatives."""
    x, y = draw(2000, 20, labels=(50,), dtype=np.float32)
    path = np.zeros(2000, int)
    path[20::40] = y
    x = x + 18 * jax.nn.one_hot(path, 20, dtype=jnp.float32)
    want, slopes = graves(np.asarray(x, float), np.asarray(y))
    got, slope = value_and_grad(x, y)
    np.testing.assert_allclose(got, want, atol=FLOAT32 / 8)
    np.testing.assert_allclose(slope, slopes, atol=FLOAT32 / 8)


# --- masks -------------------------------------------------------------------------


def test_invalid_frames_do_not_exist():
    """Dropping frames and masking them is the same, whatever they contain: NaN and
    infinity reach neither the value nor the gradient."""
    x, y, _, real = four()
    where = jnp.array(
        [[1, 1, 1, 1, 1], [0, 1, 1, 0, 1], [1, 1, 0, 1, 0], [0, 0, 0, 1, 1]]
    )
    where = where > 0
    y = y.at[3].set(jnp.array([3, 1]))
    junk = jnp.array([jnp.nan, jnp.inf, -jnp.inf, 0.0])
    dirty = jnp.where(where[..., None], x, junk)
    losses, slopes = masked(dirty, y, where, real)
    np.testing.assert_array_equal(slopes[~where], 0)
    for row, kept, label, got, slope in zip(x, where, y, losses, slopes, strict=True):
        want, derived = graves(np.asarray(row[kept]), np.asarray(label))
        np.testing.assert_allclose(got, want, rtol=FLOAT64)
        np.testing.assert_allclose(slope[kept], derived, atol=FLOAT64)


def test_invalid_labels_do_not_exist():
    """The valid labels count in their order, also behind a hole; an invalid one may be
    any integer."""
    x, _, where, _ = four()
    y = jnp.array([[1, 3], [2, -7], [99, 2], [0, 3]])
    real = jnp.array([[True, True], [True, False], [False, True], [False, True]])
    losses, _ = masked(x, y, where, real)
    for row, kept, label, got in zip(x, real, y, losses, strict=True):
        want, _ = graves(np.asarray(row), np.asarray(label[kept]))
        np.testing.assert_allclose(got, want, rtol=FLOAT64)


def test_a_label_that_is_no_class_gives_nan():
    """Out of range or the blank: NaN for its sequence, value and gradient, and no
    other; a mean that leaves such sequences out does not see them."""
    x, _, where, real = four()
    y = jnp.array([[2, 3], [2, -1], [0, 1], [4, 1]])
    wrong = np.array([False, True, True, True])
    losses, slopes = masked(x, y, where, real)
    np.testing.assert_array_equal(jnp.isnan(losses), wrong)
    np.testing.assert_array_equal(jnp.all(jnp.isnan(slopes), (1, 2)), wrong)
    mean = lambda x: reduce.mean(jaxloss.ctc(x, y), where=~wrong)
    assert jnp.all(jnp.isfinite(jax.jit(jax.grad(mean))(x)))


def test_narrow_ids_reach_every_class():
    """An int8 or uint8 label is compared with 300 classes without wrapping."""
    x, y = draw(4, 300, labels=(2,), classes=100)
    for dtype in (jnp.int8, jnp.uint8, jnp.uint32):
        assert jaxloss.ctc(x, y.astype(dtype)) == jaxloss.ctc(x, y)


# --- what is impossible ------------------------------------------------------------


def test_what_fits_no_path_is_infinite_without_a_gradient():
    """Too few frames: the loss is inf and the gradient 0; with `zero_infinity` the
    loss is 0.  No step makes a NaN, and another sequence is untouched."""
    x, _ = draw(2, 3, K, dtype=np.float32)
    y = jnp.array([[1, 1], [2, 2]])
    where = jnp.array([[True, True, False], [True, True, True]])
    run = lambda x, **kw: jaxloss.ctc(x, y, where=where, **kw)
    losses, made = programs.in_steps("ctc", run, np.asarray(x))
    assert not made
    assert losses[1] < losses[0] == jnp.inf
    total = lambda x: jnp.sum(run(x, zero_infinity=True))
    for fn in (total, lambda x: jnp.sum(run(x))):
        value, slope = jax.jit(jax.value_and_grad(fn))(x)
        np.testing.assert_array_equal(slope[0], 0)
        assert jnp.all(slope[1] != 0)
    assert value == jnp.inf
    np.testing.assert_allclose(total(x), losses[1], rtol=FLOAT32)


def test_the_hessian_of_what_is_impossible_is_zero():
    """A class of probability 0 that all paths need: no NaN in second derivatives."""
    x = jnp.zeros((T, K)).at[:, 1].set(-jnp.inf).ravel()
    for hessian in HESSIANS:
        np.testing.assert_array_equal(hessian(x, jnp.array([1, 2])), 0)


def test_a_nan_is_not_taken_for_infinity():
    """`zero_infinity` leaves the NaN of a NaN logit and of an unknown label."""
    x, y = draw(2, 3, K, labels=(2,))
    y = y.at[1, 0].set(9)
    losses = jaxloss.ctc(x.at[0, 1, 1].set(jnp.nan), y, zero_infinity=True)
    assert jnp.all(jnp.isnan(losses))


def test_impossible_classes_do_not_exist():
    """A class at -inf is as good as absent; one that all paths need makes the loss
    infinite, and so does a frame of nothing else.  Gradients are finite."""
    x, y, where, real = four()
    y = jnp.minimum(y, 2)
    never = x.at[..., 3].set(-jnp.inf)
    never = never.at[1, :, y[1, 0]].set(-jnp.inf).at[2, 3].set(-jnp.inf)
    losses, slopes = masked(never, y, where, real)
    np.testing.assert_array_equal(losses[1:3], jnp.inf)
    np.testing.assert_array_equal(slopes[1:3], 0)
    np.testing.assert_array_equal(slopes[..., 3], 0)
    for i in (0, 3):
        want, derived = graves(np.asarray(x[i, :, :3]), np.asarray(y[i]))
        np.testing.assert_allclose(losses[i], want, rtol=FLOAT64)
        np.testing.assert_allclose(slopes[i, :, :3], derived, atol=FLOAT64)


def test_impossible_paths_leave_the_others():
    """At -inf here and there the loss is that of the paths that remain, with the
    gradient of these and 0 for what is impossible."""
    x, _ = draw(T, K)
    x = x.at[0, 0].set(-jnp.inf).at[1, 2].set(-jnp.inf).at[2, 1].set(-jnp.inf)
    rows = [list(map(mpmath.mpf, row)) for row in np.asarray(x).tolist()]
    want = np.array(softmax_and_posterior(rows, [1, 2])).astype(float)
    got, slope = value_and_grad(x, jnp.array([1, 2]))
    np.testing.assert_allclose(
        got, float(negative_log_likelihood(rows, [1, 2])), rtol=FLOAT64
    )
    np.testing.assert_allclose(slope, want[0] - want[1], atol=FLOAT64)


# --- the forward variables ---------------------------------------------------------


def test_forward_variables_are_sums_over_beginnings():
    """Their definition: the probability of all beginnings of t frames that give the
    first n labels and end in the blank, or in label n."""
    x, _ = draw(T, K)
    probs, y = np.asarray(jax.nn.softmax(x)), (1, 1)
    blanks, labels = np.zeros((T, 3)), np.zeros((T, 2))
    for t in range(T):
        for path in itertools.product(range(K), repeat=t + 1):
            found = [c for c, _ in itertools.groupby(path) if c]
            n = len(found)
            if n <= 2 and found == list(y[:n]):
                kind, at = (labels, n - 1) if path[-1] else (blanks, n)
                kind[t, at] += np.prod(probs[range(t + 1), path])
    blanks[-1, 1:] += labels[-1]
    losses, log_blank, log_label = jaxloss.ctc_forward(x, jnp.array(y))
    np.testing.assert_allclose(jnp.exp(log_blank), blanks, rtol=FLOAT64)
    np.testing.assert_allclose(jnp.exp(log_label), labels, rtol=FLOAT64)
    assert losses == -log_blank[-1, -1] == jaxloss.ctc(x, jnp.array(y))


def test_forward_variables_of_padding():
    """Beyond the last label they are -inf; an invalid frame repeats the one before."""
    x, y = draw(2, 3, 5, K, labels=(2,))
    where = jnp.broadcast_to(jnp.arange(5) != 2, (2, 3, 5))
    real = jnp.broadcast_to(jnp.arange(2) < 1, (2, 3, 2))
    found = jaxloss.ctc_forward(x, y, where=where, label_where=real)
    losses, log_blank, log_label = found
    assert [a.shape for a in found] == [(2, 3), (2, 3, 5, 3), (2, 3, 5, 2)]
    np.testing.assert_array_equal(log_blank[..., 2], -jnp.inf)
    np.testing.assert_array_equal(log_label[..., 1], -jnp.inf)
    np.testing.assert_array_equal(log_blank[..., 2, :], log_blank[..., 1, :])
    np.testing.assert_array_equal(log_label[..., 2, :], log_label[..., 1, :])
    np.testing.assert_array_equal(log_blank[..., -1, 1], -losses)
    none = jax.eval_shape(jaxloss.ctc_forward, x[..., :0, :], y)
    assert [a.shape for a in none] == [(2, 3), (2, 3, 0, 3), (2, 3, 0, 2)]


def test_forward_variables_are_differentiable():
    """The log probability of the first label by frame 2, differentiated."""
    x, y = draw(T, K, labels=(2,))
    by_frame_two = lambda x: jaxloss.ctc_forward(x, y)[2][1, 0]
    blank, label = jax.nn.log_softmax(x)[:2, 0], jax.nn.log_softmax(x)[:2, y[0]]
    want = jnp.logaddexp(label[0], blank[0]) + label[1]
    np.testing.assert_allclose(by_frame_two(x), want, rtol=FLOAT64)
    direct = lambda x: (
        jnp.logaddexp(*jax.nn.log_softmax(x)[0, jnp.array([y[0], 0])])
        + jax.nn.log_softmax(x)[1, y[0]]
    )
    np.testing.assert_allclose(
        jax.jit(jax.grad(by_frame_two))(x), jax.jit(jax.grad(direct))(x), atol=FLOAT64
    )


# --- beside optax, and at scale ----------------------------------------------------


def test_optax_agrees_where_it_is_accurate():
    """On ordinary logits, right-padded: loss, gradient and forward variables."""
    import optax

    x, y = draw(3, 9, 5, labels=(4,))
    where = jnp.arange(9)[None] < jnp.array([[9], [8], [7]])
    real = jnp.arange(4)[None] < jnp.array([[4], [1], [3]])

    def theirs(x):
        paddings = (1.0 - where, y, 1.0 - real)
        losses, *rest = optax.ctc_loss_with_forward_probs(x, *paddings)
        return jnp.sum(losses), (losses, *(jnp.moveaxis(a, 0, 1) for a in rest))

    def ours(x):
        found = jaxloss.ctc_forward(x, y, where=where, label_where=real)
        return jnp.sum(found[0]), found

    (_, got), slope = jax.jit(jax.value_and_grad(ours, has_aux=True))(x)
    with jax.numpy_rank_promotion("allow"):
        (_, want), their_slope = jax.jit(jax.value_and_grad(theirs, has_aux=True))(x)
    np.testing.assert_allclose(slope, their_slope, atol=4 * FLOAT64)
    # What optax has for impossible is -1e5 and more, ours is -inf.
    for mine, other in zip(got, want, strict=True):
        possible = mine > -jnp.inf
        np.testing.assert_allclose(mine[possible], other[possible], rtol=2 * FLOAT64)
    beyond = ~jnp.pad(real, ((0, 0), (1, 0)), constant_values=True)
    np.testing.assert_array_equal(
        got[1] == -jnp.inf, (want[1] < -9e4) | beyond[:, None]
    )


def test_no_array_is_frames_by_labels_by_classes():
    """Value and gradient of 64 frames, 32 labels and 1024 classes need a few arrays of
    frames by classes, not one of T N K."""
    x, y = draw(64, 1024, labels=(32,), dtype=np.float32)
    memory = value_and_grad.lower(x, y).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 4 * x.nbytes


def test_shard_map_checks_the_scan():
    """Inside `shard_map`, sequences on the devices of a mesh, with its checks on."""
    x, y = draw(2, 5, K, labels=(2,))
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    spec = PartitionSpec("data")
    run = jax.vmap(jax.value_and_grad(jaxloss.ctc))
    sharded = jax.shard_map(run, mesh=mesh, in_specs=spec, out_specs=spec)
    for got, want in zip(jax.jit(sharded)(x, y), jax.jit(run)(x, y), strict=True):
        np.testing.assert_allclose(got, want, atol=FLOAT64)


def test_calls_that_are_not_compiled_share_a_program():
    """A second eager call of the same shapes traces nothing."""
    x, y = draw(3, K, labels=(1,))
    first = jaxloss.ctc(x, y)
    with jax.no_tracing():
        again = jaxloss.ctc(x, y)
    assert again == first


def test_errors_name_the_function_and_the_argument():
    """A wrong rank, shape, dtype or blank is refused with what was given."""
    x, y = jnp.ones((2, 4, K)), jnp.ones((2, 2), int)
    not_an_integer: Any = {"blank": 1.0}
    for fn in (jaxloss.ctc, jaxloss.ctc_forward):
        named = rf"^{fn.__name__}: "
        with pytest.raises(ValueError, match=named + "`logits` has shape .3,.; expec"):
            fn(x[0, 0], y)
        with pytest.raises(ValueError, match=named + "`labels` has shape .1, 2.; expe"):
            fn(x, y[:1])
        with pytest.raises(ValueError, match=named + "`where` has shape .2, 2.; expec"):
            fn(x, y, where=y > 0)
        with pytest.raises(ValueError, match=r"`label_where` has shape .2, 1. but `l"):
            fn(x, y, label_where=y[:, :1] > 0)
        with pytest.raises(
            ValueError, match=r"`blank` has value 3; expected a .*, 3\)"
        ):
            fn(x, y, blank=3)
        with pytest.raises(TypeError, match="`blank` has type float; expected a Pyth"):
            fn(x, y, **not_an_integer)
