"""Facts about `jaxloss.testing`: its tolerances, its specs, and `check`."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxloss import testing
from jaxloss.claims import common
from jaxloss.testing import LossSpec, check, programs

PAIR = np.array([0.25, -1.5, 3.0]), np.array([0.5, 2.0, -0.75])


def squared(predictions, targets):
    """A user's loss, right in every law that needs no error message."""
    p, t = (jnp.asarray(x) for x in (predictions, targets))
    wide = jnp.float64 if p.dtype == jnp.float64 else jnp.float32
    return jnp.square(p.astype(wide) - t.astype(wide))


SQUARED = LossSpec(
    name="squared",
    fn=squared,
    sample=common.pair,
    reference=common.exact(lambda p, t: (p - t) ** 2),
    gradient=lambda p, t: 2 * (p - t),
    curvature=lambda p, t: np.full_like(p, 2.0),
    extremes=lambda dtype: [(common.ladder(dtype, common.root(dtype)), np.zeros(23))],
    minimiser=lambda t: t,
    convex=True,
)


def outcomes(report):
    return {row.law: row.outcome for row in report.rows}


# --- tolerances --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_an_ulp_is_the_gap_to_the_next_number(dtype):
    """`ulp` is NumPy's `spacing` wherever there is one, subnormals and 0 included."""
    info = np.finfo(dtype)
    edges = [
        0,
        info.smallest_subnormal,
        info.tiny,
        1 - info.eps / 2,
        1,
        3,
        info.max / 2,
    ]
    x = np.array(edges, dtype)
    assert np.array_equal(testing.ulp(x, dtype), np.spacing(x).astype(float))
    assert np.array_equal(testing.ulp(-x, dtype), np.spacing(x).astype(float))


def test_an_ulp_of_bfloat16_is_the_difference_of_two_neighbours():
    """bfloat16 has 8 significant bits and the exponents of float32."""
    assert testing.ulp(1.0, jnp.bfloat16) == 2**-7
    assert testing.ulp(-3.0, jnp.bfloat16) == 2**-6
    assert testing.ulp(0.0, jnp.bfloat16) == 2.0**-133


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_assert_close_counts_units_in_the_last_place(dtype):
    """Eight units are accepted where eight are allowed, and nine are not."""
    for desired in (1.0, 1.75, -3e-20, 5e30):
        unit = testing.ulp(desired, dtype)
        testing.assert_close(desired + 8 * unit, desired, dtype)
        with pytest.raises(AssertionError):
            testing.assert_close(desired + 9 * unit, desired, dtype)


def test_assert_close_has_no_absolute_slack():
    """1e-300 is not 0, unless terms of size 1 were subtracted."""
    testing.assert_close(1e-16, 0.0, size=1.0)
    with pytest.raises(AssertionError, match=r"it is 1e-300; expected 0\.0"):
        testing.assert_close(1e-300, 0.0, what="it")


def test_assert_close_refuses_nan_and_other_shapes():
    """NaN is close to nothing, infinity to itself alone, and nothing broadcasts."""
    testing.assert_close(np.inf, np.inf)
    for actual, desired in ((np.nan, np.nan), (np.inf, 1e308), (-np.inf, np.inf)):
        with pytest.raises(AssertionError):
            testing.assert_close(actual, desired)
    with pytest.raises(AssertionError, match=r"shape \(1,\); expected \(\)"):
        testing.assert_close(np.ones(1), 1.0)


def test_assert_close_says_where():
    """The message has the index and both values."""
    with pytest.raises(
        AssertionError, match=r"the loss is 2\.0 at \[0, 1\]; expected 3"
    ):
        testing.assert_close(
            np.array([[1.0, 2.0]]), np.array([[1.0, 3.0]]), what="the loss"
        )


def test_tolerance_is_in_units_at_one():
    """The default is eight units, in any dtype."""
    assert testing.tolerance(np.float32) == 8 * 2.0**-23
    assert testing.tolerance(jnp.bfloat16, ulps=1) == 2.0**-7


# --- what a law allows -------------------------------------------------------------


def test_the_sound_loss_obeys_every_law_it_claims():
    """A loss passes the laws of all that it claims, which is not everything."""
    for law in testing.applicable(SQUARED):
        law(SQUARED)
    unclaimed = set(testing.LAWS) - set(testing.applicable(SQUARED))
    assert {law.__name__ for law in unclaimed} == {
        "parameters_may_be_traced",
        "one_dispatch",
        "bad_calls_raise",
        "is_least_at_functional",
        "is_proper",
        "is_symmetric",
    }


@pytest.mark.parametrize(
    ("top", "factor", "lawful"),
    [(5e4, 2.0, True), (2e4, 2.0, True), (2e4, 1e30, False)],
)
def test_a_gradient_overflows_only_where_the_true_one_does(top, factor, lawful):
    """Infinity stands for a true 1e5 in float16, but not for a true 4e4."""

    @jax.custom_jvp
    def loss(p, t):
        return squared(p, t)

    loss.defjvps(lambda dp, _, p, t: dp * factor * squared(p, t) / (p - t), None)
    edge = (np.array([top]), np.array([1.0]))
    spec = dataclasses.replace(
        SQUARED,
        fn=loss,
        gradient=lambda p, t: 2 * (p - t),
        extremes=lambda dtype: [edge],
    )
    if lawful:
        testing.finite_at_extremes(dataclasses.replace(spec, fn=squared))
        testing.gradient_matches_derivation(dataclasses.replace(spec, fn=squared))
    else:
        with pytest.raises(AssertionError):
            testing.gradient_matches_derivation(spec)


@pytest.mark.parametrize("edge", [1e-15, 1e30])
def test_a_wrong_zero_of_a_normal_number_is_refused(edge):
    """What underflows in float32 may be flushed to zero; 1e-30 may not."""
    power = 2 if edge < 1 else -1

    def flushed(p, t):
        loss = jnp.abs(p.astype(jnp.promote_types(p.dtype, jnp.float32))) ** power
        return loss if p.dtype == jnp.float64 else jnp.where(loss < 1e-29, 0, loss)

    spec = LossSpec(
        name="power",
        fn=flushed,
        sample=common.pair,
        reference=common.exact(lambda p, t: abs(p) ** power),
        extremes=lambda dtype: [(np.array([edge]), np.zeros(1))],
    )
    with pytest.raises(AssertionError, match=r"it is 0\.0; expected [19]\.\d*e-3[01]"):
        testing.matches_reference(spec)


@pytest.mark.parametrize(
    ("raised", "lawful"),
    [
        (ValueError("loss: `labels` has shape (4,)"), True),
        (ValueError("loss: `logits` has shape (4,)"), False),
        (TypeError("loss: `labels` has shape (4,)"), False),
        (UnicodeError("loss: `labels` has shape (4,)"), False),
    ],
)
def test_a_bad_call_raises_exactly_what_is_claimed(raised, lawful):
    """Another argument, another exception or one derived from it will not do."""

    def loss(logits, labels):
        raise raised

    call = common.refused("loss", "labels", np.ones(3), np.ones(4))
    spec = dataclasses.replace(SQUARED, fn=loss, bad_calls=(call,))
    if lawful:
        testing.bad_calls_raise(spec)
    else:
        with pytest.raises(AssertionError, match="expected ValueError matching"):
            testing.bad_calls_raise(spec)


def test_differences_skip_kinks_only_when_asked():
    """A sample on a kink is an error of the spec, unless it admits it."""
    kinked = LossSpec(
        name="absolute",
        fn=lambda p, t: jnp.abs(p),
        sample=lambda rng, shape: (rng.integers(0, 2, shape) * 1e-9, np.zeros(shape)),
        smooth=False,
    )
    testing.gradient_matches_differences(kinked)
    with pytest.raises(AssertionError):
        testing.gradient_matches_differences(dataclasses.replace(kinked, smooth=True))


# --- what a spec passes on ---------------------------------------------------------


def test_class_ids_and_masks_keep_their_dtype_and_may_go_by_keyword():
    """Only floating arguments are cast; trailing ones take the names in `keywords`."""
    seen = []

    def loss(values, ids, *, where, power):
        seen.append((values.dtype, ids.dtype, where.dtype, power))
        wide = values.astype(jnp.promote_types(values.dtype, jnp.float32))
        return jnp.sum(jnp.where(where, wide, 0), axis=-1) * (1 + ids)

    def sample(rng, shape):
        values = rng.normal(size=(*shape, 3))
        return values, rng.integers(0, 2, shape), rng.random((*shape, 3)) < 0.5

    spec = LossSpec(
        name="masked",
        fn=loss,
        sample=sample,
        event_ndim=1,
        keywords=("where",),
        static={"power": "linear"},
        reference=lambda v, ids, where: np.where(where, v, 0).sum(-1) * (1 + ids),
        cancels=lambda v, ids, where: np.abs(v).sum(-1) * 2,
    )
    testing.matches_reference(spec)
    testing.output_shape_and_dtype(spec)
    testing.transformations_agree(spec)
    assert {str(dtype) for dtype, *_ in seen} == {
        "float64",
        "float32",
        "bfloat16",
        "float16",
    }
    assert {rest for _, *rest in map(tuple, seen) for rest in [tuple(rest)]} == {
        (jnp.dtype("int64"), jnp.dtype(bool), "linear")
    }


def test_a_formula_sees_the_hyperparameter_that_the_loss_computes_with():
    """0.1 is rounded to float32 once, for both; arrays follow the loss's dtype."""
    spec = dataclasses.replace(
        SQUARED,
        params={"scale": 0.1, "many": [0.1, 0.2]},
        fn=lambda p, t, scale, many: many,
    )
    assert spec.params["scale"] == float(np.float32(0.1))
    assert spec(jnp.ones(2, jnp.bfloat16), jnp.ones(2)).dtype == jnp.float32
    assert np.array_equal(spec(jnp.ones(2), jnp.ones(2)), spec.params["many"])


# --- check -------------------------------------------------------------------------


def test_check_passes_a_good_loss(capsys):
    """Every law is named with its outcome, and what was not claimed says why."""
    report = check(squared, sample=PAIR, convex=True)
    assert report.passed
    assert outcomes(report)["is_convex"] == "passed"
    assert outcomes(report)["matches_reference"] == "not claimed"
    printed = capsys.readouterr().out
    assert printed == f"{report}\n"
    assert printed.startswith("squared: ")
    assert all(law.__name__ in printed for law in testing.LAWS)
    assert "needs `reference`" in printed


def test_check_names_the_law_and_shows_the_offending_example_alone(capsys):
    """A failure says what was wrong, with one example out of the batch."""

    def spoiled(predictions, targets):
        return jnp.where(predictions == 3.0, jnp.nan, squared(predictions, targets))

    spec = {field: getattr(SQUARED, field) for field in ("reference", "gradient")}
    report = check(spoiled, sample=PAIR, **spec)
    assert not report.passed
    assert outcomes(report)["matches_reference"] == "failed"
    assert outcomes(report)["strict_promotion"] == "passed"
    (row,) = (row for row in report.rows if row.law == "matches_reference")
    assert "is nan; expected 14.0625; at predictions=3.0, targets=-0.75" in row.detail
    assert "1.5" not in row.detail
    printed = " ".join(capsys.readouterr().out.split())
    assert f"failed matches_reference {row.detail}" in printed


def test_check_shortens_long_rows():
    """Of an example with a hundred entries a handful is shown."""
    rows = np.arange(500.0).reshape(5, 100)
    report = check(lambda rows: rows.sum(-1) * np.nan, sample=(rows,), event_ndim=1)
    details = [row.detail for row in report.rows if "expected" in row.detail]
    assert details
    assert all(len(detail) < 300 for detail in details)


def test_check_reports_an_exception_of_the_loss(capsys):
    """Whatever a loss raises is a row of the report, with the call that raised it."""

    def loss(predictions, targets):
        raise ZeroDivisionError("no batch\nsecond line")

    report = check(loss, sample=PAIR)
    assert not report.passed
    assert len(report.rows) == len(testing.LAWS)
    failed = [row for row in report.rows if row.outcome == "failed"]
    assert all("ZeroDivisionError: no batch" in row.detail for row in failed)
    printed = " ".join(capsys.readouterr().out.split())
    assert "no batch; loss was called with float64[32], float64[32]" in printed
    assert outcomes(report)["is_convex"] == "not claimed"


def test_check_takes_defaults_for_hyperparameters():
    """Floating-point defaults of keyword-only arguments are claimed as parameters."""

    def scaled(predictions, targets, *, scale=2.0, axis=-1):
        return scale * squared(predictions, targets)

    report = check(scaled, sample=PAIR)
    assert outcomes(report)["parameters_may_be_traced"] == "passed"
    assert report.passed


def test_check_accepts_what_has_no_name_and_no_signature():
    """A partial function is a loss as well."""
    report = check(functools.partial(squared), sample=PAIR)
    assert report.passed
    assert report.name.startswith("functools.partial")


def test_check_leaves_the_session_as_it_was():
    """64-bit types are on for the laws only."""
    with jax.enable_x64(False):
        report = check(squared, sample=common.pair)
        assert jnp.ones(()).dtype == jnp.float32
    assert report.passed


def test_check_refuses_an_unknown_claim():
    """A misspelt claim would otherwise be a law that is silently not held."""
    with pytest.raises(TypeError, match="referense"):
        check(squared, sample=PAIR, referense=squared)


@jax.custom_jvp
def log_or_zero(x):
    return jnp.where(x > 0, jnp.log(x), 0)


log_or_zero.defjvps(lambda dx, _, x: dx / x)


@pytest.mark.parametrize("around", [lambda f: f, jax.jit, jax.checkpoint])
def test_operations_are_taken_one_by_one(around):
    """Those of functions with a rule too, and in calls: the first that makes a NaN is
    named.  None is simplified: what 1e8 has no digits for is gone."""
    run = lambda x: {"far": (around(log_or_zero)(x) + 1e8) - 1e8}
    for x, made in (([3.0, -1.0], "nan, from `log`"), ([3.0, 2.0], "")):
        found, said = programs.in_steps(around, run, np.array(x, np.float32))
        assert said == made
        np.testing.assert_array_equal(found["far"], 0)
