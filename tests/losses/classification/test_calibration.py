"""Calibration: the Brier score, the calibration error, the temperature that fits."""

import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import optax
import pytest
import sklearn.datasets

import jaxloss
from jaxloss import logits, stable
from jaxloss.claims.classification.calibration import ROWS
from jaxloss.testing import tolerance

# --- Brier score -----------------------------------------------------------------


def test_brier_by_hand():
    """0 for a right certainty, 2 for a wrong one, 1 - 1/K for knowing nothing."""
    p = jnp.array([[1.0, 0, 0, 0], [1.0, 0, 0, 0], [0.25] * 4])
    np.testing.assert_array_equal(jaxloss.brier(p, jnp.array([0, 3, 2])), [0, 2, 0.75])


def test_brier_of_an_event_is_twice_the_squared_error():
    """One probability is two classes, each with the squared error of the event's."""
    p, happened = jnp.array([0.1, 0.5, 0.9]), jnp.array([0, 1, 1])
    two = jaxloss.brier(jnp.stack([1 - p, p], axis=-1), happened)
    expected = 2 * jaxloss.squared_error(p, happened.astype(p.dtype))
    np.testing.assert_allclose(two, expected, rtol=1e-15)


def test_brier_is_proper():
    """In the mean over outcomes it exceeds that of the truth by their distance."""
    truth = jnp.array([0.5, 0.3, 0.2])
    mean = lambda p: truth @ jaxloss.brier(jnp.broadcast_to(p, (3, 3)), jnp.arange(3))
    rng = np.random.default_rng(0)
    for other in jnp.asarray(rng.dirichlet(np.ones(3), size=20)):
        assert mean(other) - mean(truth) == pytest.approx(
            float(jnp.sum((other - truth) ** 2)), rel=1e-12
        )


def test_brier_takes_ids_and_distributions():
    """Ids and their one-hot rows agree; the class axis may be any."""
    p = jnp.asarray(ROWS)
    ids = jnp.arange(len(p)) % 4
    expected = jaxloss.brier(p, ids)
    np.testing.assert_array_equal(jaxloss.brier(p, jnp.eye(4)[ids]), expected)
    np.testing.assert_array_equal(jaxloss.brier(p.T, ids, axis=0), expected)
    unknown = jaxloss.brier(p[:2], jnp.array([4, 0]))
    np.testing.assert_array_equal(jnp.isnan(unknown), [True, False])


# --- expected calibration error --------------------------------------------------


def calibration_error_by_loop(confidence, correct, weights, bins):
    """The definition of Guo et al., bin by bin."""
    total = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if b == 0:
            inside |= confidence == 0
        w = weights[inside]
        if w.sum() > 0:
            gap = np.average(confidence[inside], weights=w)
            gap -= np.average(correct[inside], weights=w)
            total += w.sum() / weights.sum() * abs(gap)
    return total


@pytest.mark.parametrize("bins", [1, 2, 10, 15])
def test_calibration_error_by_loop(bins):
    """The loop over bins, for one event and for many classes, weighted and not."""
    rng = np.random.default_rng(bins)
    p = rng.dirichlet(np.full(5, 0.4), size=300)
    p[:10] = np.round(p[:10], 1)  # on the edges of ten bins
    ids, ones = rng.integers(0, 5, size=300), np.ones(300)
    weights = rng.integers(0, 3, size=300).astype(float)
    happened = (ids == 0).astype(float)
    for w in (ones, weights):
        np.testing.assert_allclose(
            jaxloss.expected_calibration_error(p[:, 0], ids == 0, bins=bins, weights=w),
            calibration_error_by_loop(p[:, 0], happened, w, bins),
            rtol=1e-12,
        )
        np.testing.assert_allclose(
            jaxloss.expected_calibration_error(p, ids, bins=bins, weights=w),
            calibration_error_by_loop(p.max(1), 1.0 * (p.argmax(1) == ids), w, bins),
            rtol=1e-12,
        )


def test_calibration_error_by_hand():
    """Certain and right: 0; certain and wrong: 1; 3/4 of 4, of which 2: 1/4."""
    error = jaxloss.expected_calibration_error
    p = jnp.array([0.0, 1.0, 1.0])
    assert error(p, jnp.array([0, 1, 1])) == 0
    assert error(p, jnp.array([1, 0, 0])) == 1
    assert error(jnp.full(4, 0.75), jnp.array([1, 1, 0, 0])) == 0.25
    # Within a bin gaps cancel, between bins they do not.
    p, y = jnp.array([0.5, 0.5, 1.0]), jnp.array([0, 1, 0])
    np.testing.assert_allclose(error(p, y), 1 / 3, rtol=1e-15)
    np.testing.assert_allclose(error(p, y, bins=1), 1 / 3, rtol=1e-15)
    np.testing.assert_allclose(error(p, 1 - y, bins=1), 0, atol=1e-15)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_bins_are_closed_on_the_right(dtype):
    """A confidence on an edge belongs below it: 2/10 with 0.15, not with 0.25."""
    p = jnp.array([0.2, 0.15, 0.25], dtype)
    y = jnp.array([0.0, 0.35, 0.25], dtype)  # the first two cancel in one bin
    error = jaxloss.expected_calibration_error(p, y, bins=10)
    np.testing.assert_allclose(error, 0, atol=tolerance(dtype, 4))


def test_calibration_error_of_the_calibrated():
    """Labels drawn with the stated probabilities leave the noise of drawing them."""
    rng = np.random.default_rng(0)
    p = rng.uniform(size=20000)
    drawn = rng.uniform(size=20000) < p
    assert jaxloss.expected_calibration_error(p, drawn) < 0.02
    assert jaxloss.expected_calibration_error(p**2, drawn) > 0.1


def test_what_is_masked_does_not_count():
    """A mask or weight 0 hides NaN and unknown labels; nothing left is 0."""
    p = jnp.array([[0.9, 0.1], [jnp.nan, 0.5], [0.3, 0.7]])
    labels, where = jnp.array([0, 7, 0]), jnp.array([True, False, True])
    error = functools.partial(jaxloss.expected_calibration_error, p, labels)
    expected = jaxloss.expected_calibration_error(p[where], labels[where])
    assert error(where=where) == expected
    assert error(weights=where.astype(p.dtype)) == expected
    assert error(where=jnp.zeros(3, bool)) == 0
    assert jnp.isnan(error())
    unknown = jaxloss.expected_calibration_error(p[:1], jnp.array([2]))
    assert jnp.isnan(unknown)


def test_gradient_is_the_sign_of_the_gap():
    """Within its bin a confidence moves the error by 1/n, towards the frequency."""
    p, y = jnp.array([0.72, 0.74, 0.3]), jnp.array([1, 1, 0])
    slope = jax.grad(jaxloss.expected_calibration_error)(p, y)
    np.testing.assert_allclose(slope, [-1 / 3, -1 / 3, 1 / 3], rtol=1e-15)


def test_calibration_error_transforms():
    """Compiled and batched it is the same number; half precision gives float32."""
    p = jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(3), size=(4, 20)))
    ids = jnp.argmax(p[:, ::-1], axis=-1)
    batched = jax.jit(jax.vmap(jaxloss.expected_calibration_error))(p, ids)
    single = [jaxloss.expected_calibration_error(*x) for x in zip(p, ids, strict=True)]
    np.testing.assert_allclose(batched, single, rtol=1e-14)
    half = jaxloss.expected_calibration_error(p[0].astype(jnp.bfloat16), ids[0])
    assert half.dtype == jnp.float32


@pytest.mark.parametrize(
    ("p", "labels", "params", "error", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 3)), {}, TypeError, "`labels` has dtype float"),
        (np.ones(3), np.ones((3, 1)), {}, ValueError, r"`labels` has shape \(3, 1\)"),
        (
            np.ones((2, 3, 4)),
            np.ones(2, int),
            {},
            ValueError,
            "`probabilities` has shape",
        ),
        (np.ones(3, int), np.ones(3), {}, TypeError, "`probabilities` has dtype int"),
        (np.ones(3), np.ones(3), {"bins": 0}, ValueError, "`bins` is 0"),
        (np.ones(3), np.ones(3), {"bins": 2.0}, TypeError, "`bins` is float"),
        (np.ones(3), np.ones(3), {"weights": np.ones(2)}, ValueError, "`weights` has"),
        (np.ones(3), np.ones(3), {"where": np.ones(3)}, TypeError, "`where` has dtype"),
    ],
)
def test_calibration_error_refuses(p, labels, params, error, message):
    """What is neither one event per example nor ids over rows is refused."""
    with pytest.raises(error, match=f"^expected_calibration_error: {message}"):
        jaxloss.expected_calibration_error(p, labels, **params)


# --- temperature -----------------------------------------------------------------


def noisy(n=400, classes=4, scale=3.0, seed=0):
    """Logits that are right about the odds, but `scale` times too sure of them."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, classes))
    gumbel = rng.gumbel(size=(n, classes))
    return scale * z, np.argmax(z + gumbel, axis=1)


def slope_in_log_temperature(z, labels, t):
    """T d/dT of the summed cross entropy, in mpmath, and the sum of its magnitudes."""
    total = size = mp.mpf(0)
    for row, y in zip(np.asarray(z, float), labels, strict=True):
        w = [mp.exp(mp.mpf(v) / t) for v in row]
        lead = mp.fsum(a * (v - row[y]) for a, v in zip(w, row, strict=True)) / sum(w)
        total, size = total - lead / t, size + abs(lead) / t
    return total, size


@pytest.mark.parametrize("scale", [1e-3, 1.0, 3.0, 1e3])
def test_slope_is_zero_at_the_optimum(scale):
    """By mpmath the loss is stationary, and changes direction within 1e-6 of T."""
    z, labels = noisy(60, scale=scale)
    t = float(jaxloss.fit_temperature(z, labels))
    total, size = slope_in_log_temperature(z, labels, mp.mpf(t))
    assert abs(total) < 1e-12 * size
    below, _ = slope_in_log_temperature(z, labels, mp.mpf(t) * (1 - mp.mpf(10) ** -6))
    above, _ = slope_in_log_temperature(z, labels, mp.mpf(t) * (1 + mp.mpf(10) ** -6))
    assert below < 0 < above
    single = jaxloss.fit_temperature(z.astype(np.float32), labels)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, t, rtol=1e-5)


def test_temperature_by_hand():
    """Constant logits must come to predict the frequency: T = z / log odds."""
    right = np.arange(8) >= 2  # 6 of 8
    t = jaxloss.fit_temperature(np.full(8, 4.0), right)
    np.testing.assert_allclose(t, 4 / np.log(6 / 2), rtol=1e-12)
    # Three classes: exp(4 / T) / (exp(4 / T) + 2) = 3/4.
    z, ids = np.tile([4.0, 0, 0], (8, 1)), np.where(right, 0, 1)
    np.testing.assert_allclose(
        jaxloss.fit_temperature(z, ids), 4 / np.log(2 * 6 / 2), rtol=1e-12
    )


def test_temperature_scales_with_the_logits():
    """Logits c times as large need a temperature c times as high."""
    z, labels = noisy()
    t = jaxloss.fit_temperature(z, labels)
    assert 2 < t < 4  # noisy() is 3 times too sure
    for c in (1e-4, 0.5, 37.0, 1e5):
        np.testing.assert_allclose(
            jaxloss.fit_temperature(c * z, labels), c * t, rtol=1e-9
        )


def test_one_event_is_two_classes():
    """Log-odds z are the logits [0, z]; soft labels mix the two."""
    z = 4 * np.random.default_rng(0).normal(size=200)
    y = np.random.default_rng(1).uniform(size=200) < 1 / (1 + np.exp(-z / 2))
    t = jaxloss.fit_temperature(z, y)
    pair = np.stack([np.zeros(200), z], axis=1)
    np.testing.assert_allclose(
        jaxloss.fit_temperature(pair, y.astype(int)), t, rtol=1e-9
    )
    both = jaxloss.fit_temperature(
        np.tile(z, 2), np.repeat([1.0, 0.0], 200), weights=np.append(y, ~y)
    )
    soft = jaxloss.fit_temperature(z, y.astype(float))
    np.testing.assert_allclose([both, soft], t, rtol=1e-9)
    np.testing.assert_allclose(
        jaxloss.fit_temperature(np.full(4, 2.0), np.full(4, 0.75)),
        2 / np.log(3),
        rtol=1e-9,
    )


def test_ends_of_the_range():
    """Every label on top: 1e-6.  No better than chance: 1e6.  No difference: 1."""
    z = np.array([[3.0, 1.0, 0.0], [0.5, 2.0, 0.0]])
    fit = jaxloss.fit_temperature
    for dtype in (np.float32, np.float64):
        np.testing.assert_allclose(
            fit(z.astype(dtype), np.array([0, 1])), 1e-6, rtol=1e-7
        )
        np.testing.assert_allclose(
            fit(z.astype(dtype), np.array([2, 2])), 1e6, rtol=1e-7
        )
        assert fit(np.ones((2, 3), dtype), np.array([0, 1])) == 1
    assert fit(z, np.array([0, 1]), where=np.zeros(2, bool)) == 1
    np.testing.assert_allclose(fit(np.array([1.0, -2.0]), np.array([1, 0])), 1e-6)
    np.testing.assert_allclose(fit(np.array([1.0, -2.0]), np.array([0, 1])), 1e6)


def test_weights_are_repetitions():
    """A weight of 2 is two copies, of 0 none; so is a mask; NaN behind it is hidden."""
    z, labels = noisy(50)
    counts = np.arange(50) % 3
    copies = np.repeat(np.arange(50), counts)
    t = jaxloss.fit_temperature(z, labels, weights=counts)
    np.testing.assert_allclose(
        t, jaxloss.fit_temperature(z[copies], labels[copies]), rtol=1e-9
    )
    where = counts > 0
    dirty = np.where(where[:, None], z, np.nan)
    masked = jaxloss.fit_temperature(dirty, np.where(where, labels, -1), where=where)
    np.testing.assert_allclose(
        masked, jaxloss.fit_temperature(z[where], labels[where]), rtol=1e-9
    )


def test_excluded_classes_do_not_exist():
    """A logit of -inf changes nothing; a label there, or none, gives NaN."""
    z, labels = noisy(50)
    wide = np.insert(z, 0, -np.inf, axis=1)
    t = jaxloss.fit_temperature(z, labels)
    np.testing.assert_allclose(jaxloss.fit_temperature(wide, labels + 1), t, rtol=1e-12)
    assert jnp.isnan(jaxloss.fit_temperature(wide, labels))
    assert jnp.isnan(jaxloss.fit_temperature(z, labels - 1))


def test_infinite_logits():
    """Certainty that is right at any temperature changes nothing, without a NaN on
    the way; certainty that is wrong at any temperature gives NaN."""
    z, labels = noisy(50)
    certain = np.append(z, [[np.inf, 0, 0, 0]], axis=0)
    odds, events = z[:, 0] - z[:, 1], labels == 0
    sure = np.append(odds, [np.inf, -np.inf])
    with jax.debug_nans(True):
        np.testing.assert_allclose(
            jaxloss.fit_temperature(certain, np.append(labels, 0)),
            jaxloss.fit_temperature(z, labels),
            rtol=1e-12,
        )
        np.testing.assert_allclose(
            jaxloss.fit_temperature(sure, np.append(events, [True, False])),
            jaxloss.fit_temperature(odds, events),
            rtol=1e-12,
        )
    assert jnp.isnan(jaxloss.fit_temperature(sure, np.append(events, [True, True])))


def test_temperature_transforms():
    """Compiled and batched it is the same number, and a constant to autodiff."""
    z, labels = map(np.stack, zip(*(noisy(40, seed=s) for s in range(3)), strict=True))
    z[2], labels[2] = z[2] / 1e3, 0  # takes another number of steps
    batched = jax.jit(jax.vmap(jaxloss.fit_temperature))(z, labels)
    single = [jaxloss.fit_temperature(*x) for x in zip(z, labels, strict=True)]
    np.testing.assert_allclose(batched, single, rtol=1e-9)
    slope = jax.grad(jaxloss.fit_temperature)(jnp.asarray(z[0]), labels[0])
    np.testing.assert_array_equal(slope, 0)


@pytest.mark.parametrize(
    ("z", "labels", "params", "error", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 3)), {}, TypeError, "`labels` has dtype float"),
        (
            np.ones((2, 3)),
            np.ones(3, int),
            {},
            ValueError,
            r"`labels` has shape \(3,\)",
        ),
        (np.ones(()), np.ones(()), {}, ValueError, r"`logits` has shape \(\)"),
        (np.ones(3, int), np.ones(3), {}, TypeError, "`logits` has dtype int"),
        (np.ones(3), np.ones(3), {"weights": np.ones(2)}, ValueError, "`weights` has"),
        (np.ones(3), np.ones(3), {"where": np.ones(3)}, TypeError, "`where` has dtype"),
    ],
)
def test_fit_temperature_refuses(z, labels, params, error, message):
    """What is neither log-odds nor rows with ids is refused."""
    with pytest.raises(error, match=f"^fit_temperature: {message}"):
        jaxloss.fit_temperature(z, labels, **params)


def test_products_are_rounded_before_they_are_subtracted():
    """Logits that are products are what they are rounded to, also where the compiler
    could fuse product and subtraction: the largest of them is at distance 0."""
    z = jnp.asarray(noisy(20)[0], jnp.float32)
    fused = jax.jit(lambda beta: stable.softmax(beta * z))
    for beta in (1.1, 1e3, 1e9):
        expected = stable.softmax(jnp.float32(beta) * z)
        got = fused(jnp.float32(beta))
        np.testing.assert_allclose(got, expected, rtol=tolerance(z.dtype, 4))


@functools.cache
def overconfident():
    """Logits and labels of digits a network has not seen, after it was trained to
    the noise in its labels: a fifth of them drawn at random."""
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(y))
    x, y = jnp.asarray(x[order] / 16, jnp.float32), jnp.asarray(y[order])
    random = rng.integers(0, 10, size=500)
    noisy = jnp.where(rng.uniform(size=500) < 0.2, random, y[:500])
    first = jnp.asarray(rng.normal(size=(64, 64)) / 8, jnp.float32)
    network = lambda w, x: jnp.tanh(x @ w[0]) @ w[1]
    loss = lambda w: jnp.mean(stable.softmax_nll(network(w, x[:500]), noisy))
    adam = optax.adam(0.03)

    def step(_, state):
        w, moments = state
        updates, moments = adam.update(jax.grad(loss)(w), moments)
        return optax.apply_updates(w, updates), moments

    w = [first, jnp.zeros((64, 10), jnp.float32)]
    train = lambda w: jax.lax.fori_loop(0, 200, step, (w, adam.init(w)))[0]
    return network(jax.jit(train)(w), x[500:]), y[500:]


def test_temperature_repairs_an_overconfident_classifier():
    """Fitted on 600 held-out digits, T is well above 1; on the others the loss falls,
    the calibration error by more than half, and no decision changes."""
    z, y = overconfident()
    t = jaxloss.fit_temperature(z[:600], y[:600])
    assert t > 1.5
    before, after = z[600:], logits.temperature(z[600:], temperature=t)
    y = y[600:]
    nll = lambda z: jaxloss.mean(stable.softmax_nll(z, y))
    error = lambda z: jaxloss.expected_calibration_error(jax.nn.softmax(z), y)
    brier = lambda z: jaxloss.mean(jaxloss.brier(jax.nn.softmax(z), y))
    assert nll(after) < nll(before)
    assert error(after) < 0.5 * error(before)
    assert brier(after) < brier(before)
    np.testing.assert_array_equal(jnp.argmax(after, 1), jnp.argmax(before, 1))


def test_temperature_never_raises_the_loss_it_was_fitted_on():
    """T minimises that loss: no other temperature nearby is better, T = 1 included."""
    z, y = overconfident()
    nll = lambda t: jaxloss.mean(
        stable.softmax_nll(logits.temperature(z.astype(jnp.float64), temperature=t), y)
    )
    t = jaxloss.fit_temperature(z.astype(jnp.float64), y)
    for other in (1.0, 0.99 * t, 1.01 * t, 0.5 * t, 2 * t):
        assert nll(t) < nll(other)
    np.testing.assert_allclose(jax.grad(nll)(t), 0, atol=1e-13)


def test_strict_promotion():
    """Ids, labels and weights of any dtype meet float32 without promotion."""
    p = jnp.full((4, 3), 1 / 3, jnp.bfloat16)
    ids, weights = np.array([0, 1, 2, 0], np.int8), np.arange(4)
    with jax.numpy_dtype_promotion("strict"):
        for fn in (jaxloss.expected_calibration_error, jaxloss.fit_temperature):
            assert fn(p, ids, weights=weights).dtype == jnp.float32
            assert fn(p[:, 0], ids > 0, where=ids > 0).dtype == jnp.float32
        assert jaxloss.brier(p, ids).dtype == jnp.float32
