"""The laws: how every loss must behave, each a function of one `LossSpec`.

A law raises an error that shows the offending example, or passes silently.  Laws run
with 64-bit types on, so that a stray constant shows as a wrong dtype.
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxloss import reduce
from jaxloss.testing import evidence, programs, sharded, ulps
from jaxloss.testing.evidence import Trial, trials
from jaxloss.testing.programs import CHUNK
from jaxloss.testing.spec import LossSpec
from jaxloss.testing.ulps import DOUBLE, DTYPES, SINGLE, assert_close, tolerance

LAWS: dict[Callable[[LossSpec], None], tuple[str, ...]] = {}


def law(*needs: str) -> Callable:
    """Registers a law, and the spec fields without which it does not apply."""

    def register(fn: Callable[[LossSpec], None]) -> Callable[[LossSpec], None]:
        @functools.wraps(fn)
        def held(spec: LossSpec) -> None:
            with jax.enable_x64(True), np.errstate(all="ignore"):
                fn(spec)

        LAWS[held] = needs
        return held

    return register


def applicable(spec: LossSpec) -> list[Callable[[LossSpec], None]]:
    """The laws whose claims the spec makes, without those it is exempt from."""
    unknown = {*spec.exempt} - {fn.__name__ for fn in LAWS}
    assert not unknown, f"{spec.name} is exempt from {unknown}, which are no laws"
    return [
        fn
        for fn, needs in LAWS.items()
        if all(getattr(spec, n) for n in needs) and fn.__name__ not in spec.exempt
    ]


# --- what the loss is --------------------------------------------------------------


@law("reference")
def matches_reference(spec: LossSpec) -> None:
    """The value is that of the formula, in every dtype, at typical and extreme
    arguments, compiled or not."""
    for trial in trials(spec, *DTYPES):
        truth, spread = trial.formula("reference"), trial.spread()
        trial.within_ulps("the value under jit", trial.value(), truth, spread)
        if trial.dtype == SINGLE:
            trial.within_ulps("the value", trial.eager()[0], truth, spread)


@law("gradient")
def gradient_matches_derivation(spec: LossSpec) -> None:
    """The gradient is the one derived by hand, in every dtype, at typical and extreme
    arguments, compiled or not."""
    for trial in trials(spec, *DTYPES):
        truths, spreads = trial.formulas("gradient"), trial.gradient_spreads()
        runs = {"the gradient under jit": trial.gradients()}
        if trial.dtype == SINGLE:
            runs["the gradient"] = trial.eager()[1]
        for what, gradients in runs.items():
            found = zip(gradients, truths, spreads, strict=True)
            for got, truth, spread in found:
                trial.within_ulps(what, got, truth, spread)


@law()
def gradient_matches_differences(spec: LossSpec) -> None:
    """Forward mode, reverse mode and central differences agree along directions."""
    trial = Trial.draw(spec)
    gradient = evidence.flat(trial.gradients())
    for seed in range(3):
        steps = trial.direction(seed)
        terms = gradient * evidence.flat([*steps.values()])
        _, forward = trial.jvp(steps)
        reverse, size = terms.sum(axis=1), np.abs(terms).sum(axis=1)
        trial.fail_at("the slope", ~np.isfinite(reverse), reverse, "a finite number")
        trial.within_ulps("the slope in reverse mode", reverse, forward, size)
        moved = lambda h, steps=steps: trial.shifted(steps, h).value()
        trial.matches_differences("the slope", reverse, moved, size)


@law("minimiser")
def minimiser_is_a_minimum(spec: LossSpec) -> None:
    """At the claimed minimiser: the claimed value, and no lower one on the way to
    other examples."""
    x, *rest = Trial.draw(spec).args
    others = Trial(spec, tuple(rest))  # for formulas of the other arguments
    best = np.broadcast_to(others.formula("minimiser"), x.shape)
    least = others.formula("minimum") if callable(spec.minimum) else spec.minimum
    least = np.broadcast_to(least, x.shape[:1])
    trial = Trial(spec, (best, *rest))
    value = trial.value()
    trial.within_ulps("the minimum", value, least, trial.spread())
    for part in (1e-3, 1e-1, 1.0):
        near = Trial(spec, (best + part * (x - best), *rest))
        low = ~(near.value() >= value - tolerance(DOUBLE) * (1 + np.abs(value)))
        near.fail_at(
            "the loss beside its minimum", low, near.value(), "no less than it"
        )


@law("convex")
def is_convex(spec: LossSpec) -> None:
    """Every chord lies on or above the graph."""
    for seed in range(5):
        x, *rest = Trial.draw(spec, seed=seed).args
        y, *_ = Trial.draw(spec, seed=seed + 100).args
        a, b = (Trial(spec, (z, *rest)).value() for z in (x, y))
        middle = Trial(spec, (0.5 * (x + y), *rest))
        chord, slack = 0.5 * (a + b), tolerance(DOUBLE) * (np.abs(a) + np.abs(b) + 1)
        above = ~(middle.value() <= chord + slack)
        middle.fail_at("the loss between two points", above, middle.value(), chord)


# --- how it behaves under JAX ------------------------------------------------------


@law()
def output_shape_and_dtype(spec: LossSpec) -> None:
    """One value per example, at least float32; the gradient in the caller's dtype."""
    run = functools.partial(evidence.slopes, spec)
    for dtype in DTYPES:
        trial = Trial.draw(spec, (2, 3), dtype=dtype)
        value, slopes = jax.eval_shape(run, *trial.args)
        got, want = (value.shape, value.dtype), ((2, 3), ulps.wide(dtype))
        if got != want:
            raise AssertionError(f"the loss of {dtype} is {got}; expected {want}")
        for slope in slopes:
            if slope.dtype != dtype:
                raise AssertionError(f"the gradient of {dtype} is {slope.dtype}")


@law()
def transformations_agree(spec: LossSpec) -> None:
    """jit and vmap change nothing, and the loss needs no batch axis."""
    trial = Trial.draw(spec)
    value, batch = trial.value(), trial.batch(*_halves())
    near = functools.partial(assert_close, ulps=64, size=np.abs(value).max())
    near(batch.singly, value, what="the loss of one example at a time")
    eights = value.reshape(-1, 8)
    near(batch.plain, eights, what="the loss of a batch of two axes")
    near(batch.twice, eights, what="the loss under vmap of vmap")


@law()
def shardings_agree(spec: LossSpec) -> None:
    """On a mesh with explicit axes: the value and the gradients of one device, sharded
    like the arguments, of which any axis may be sharded if that is claimed.

    Where there is one device, nothing is run: only types are looked at.
    """
    args, whole = Trial.draw(spec, (8,), dtype=SINGLE).args, None
    for axis in range(args[0].ndim if spec.shardable else 1):
        what = f"with axis {axis} of the arguments sharded on an explicit mesh, it"
        given = sharded.layouts(args, axis)
        want = sharded.EXAMPLES if axis == 0 else sharded.WHOLE
        want = want, [given[i] for i in evidence.floating(args)]
        try:
            got = sharded.types(spec, args, axis)
        except Exception as error:
            name = type(error).__name__
            raise AssertionError(f"{what} raises {name}: {error}") from error
        if got != want:
            found = f"{what} and its gradients are sharded as {got}"
            raise AssertionError(f"{found}; expected {want}")
        parts = sharded.parts(spec, args, axis)
        if parts is None:
            continue
        whole = sharded.whole(spec, args) if whole is None else whole
        for part, all_of_it in zip(*map(jax.tree.leaves, (parts, whole)), strict=True):
            near = functools.partial(assert_close, dtype=SINGLE, ulps=64, what=what)
            near(part, all_of_it, size=np.abs(all_of_it).max(initial=0))


@law()
def value_survives_differentiation(spec: LossSpec) -> None:
    """`value_and_grad(f)(x)[0] == f(x)`: a custom rule must not change the value."""
    for trial in trials(spec, DOUBLE, SINGLE):
        plain, spread = trial.value(), trial.spread()
        trial.fail_at("the value", np.isnan(plain), plain, "a number")
        ones = {i: np.ones_like(trial.args[i]) for i in spec.wrt}
        trial.within_ulps(
            "the value under grad", trial.value_under_grad(), plain, spread
        )
        trial.within_ulps("the value under jvp", trial.jvp(ones)[0], plain, spread)


@law("params")
def parameters_may_be_traced(spec: LossSpec) -> None:
    """Hyperparameters can be jitted over and differentiated, hence swept, scheduled
    and learnt: finite derivatives in both modes, equal to central differences."""
    trial = Trial.draw(spec)
    for name in spec.params:
        what = f"the derivative in `{name}`"
        slope, reverse = trial.slope_in(name)
        trial.fail_at(what, ~np.isfinite(slope), slope, "a finite number")
        size = np.abs(slope).sum()
        assert_close(reverse.sum(), slope.sum(), ulps=64, size=size, what=what)
        moved = lambda h, name=name: trial.tuned(name, h).value()
        trial.matches_differences(what, slope, moved, np.abs(slope))
        for edges in trials(spec, DOUBLE):
            # Not by forward mode, where the infinite slope in another hyperparameter,
            # at an edge, times its step of 0 is NaN.
            _, slope = edges.slope_in(name)
            edges.fail_at(what, np.isnan(slope), slope, "a number")


@law()
def second_order_is_finite(spec: LossSpec) -> None:
    """Second derivatives are finite, symmetric, the same by forward over reverse and
    reverse over forward mode, in float32 as in float64; the slopes of the gradient;
    and the ones derived by hand."""
    what = "the second derivative"
    for trial in trials(spec, DOUBLE, SINGLE):
        info, exact = jnp.finfo(trial.dtype), trial.exact.hessian()
        forward = trial.hessian()
        wrong = ~(np.isfinite(forward) | (np.abs(exact) > float(info.max)))
        trial.fail_at(what, wrong, forward, "a finite number")
        # Two programs for one formula: 1024 units of an example's largest entry, and
        # of what is flushed to zero in between.
        size = np.abs(exact).max((1, 2), keepdims=True) + float(info.tiny / info.eps)
        near = functools.partial(trial.within_ulps, truth=exact, spread=size, ulps=1024)
        near(what, forward)
        near(f"{what} in the other order", exact.swapaxes(1, 2))
        for seed in range(3 if trial.dtype == SINGLE else 0):
            _reverse_over_forward(trial, exact, size, seed)
        if spec.curvature:
            got, truth = forward, trial.formula("curvature")
            d = trial.args[spec.wrt[0]].size // len(got)
            got = got[:, :d, :d].reshape(truth.shape)
            truth = np.where(np.isnan(truth), got, truth)
            trial.within_ulps(what, got, truth, ulps=spec.second_ulps)
    trial = Trial.draw(spec)
    steps = trial.direction(seed=0)
    terms = trial.hessian() * evidence.flat([*steps.values()])[:, None]
    moved = lambda h: evidence.flat(trial.shifted(steps, h).gradients())
    what = "the slope of the gradient"
    trial.matches_differences(what, terms.sum(axis=2), moved, np.abs(terms).sum(axis=2))


def _reverse_over_forward(
    trial: Trial, exact: np.ndarray, size: np.ndarray, seed: int
) -> None:
    """The Hessian's product with a vector of signs, by the other pair of modes."""
    rng = np.random.default_rng(seed)
    signs = {
        i: rng.choice([-1.0, 1.0], trial.args[i].shape).astype(trial.dtype)
        for i in trial.spec.wrt
    }
    turned = evidence.flat(trial.gradients_of_slope(signs))
    vector = evidence.flat([*signs.values()]).astype(DOUBLE)
    truth = (exact * vector[:, None]).sum(axis=2)
    size, what = size[:, 0] * exact.shape[2], "the Hessian's product with a vector"
    within = np.abs(exact).max(axis=2) <= float(jnp.finfo(trial.dtype).max)
    got, truth = (np.where(within, a, 0) for a in (turned, truth))
    trial.within_ulps(f"{what} by reverse over forward mode", got, truth, size, 1024)


@law()
def compiles_once(spec: LossSpec) -> None:
    """Other values of the data and of the hyperparameters run the same program."""
    first = Trial.draw(spec)
    first.insist("hyperparameters")
    with evidence.compile_events() as events:
        for seed, share in enumerate((1.0, 0.9)):
            args = Trial.draw(spec, seed=seed).args
            settings = {
                k: share * v + 0.05 * (1 - share) for k, v in spec.params.items()
            }
            value = Trial(spec, args, settings).value()
            first.fail_at("the loss", np.isnan(value), value, "a number")
    if events:
        raise AssertionError(f"a second call has {', '.join(events)}; expected neither")


def _other(params: Mapping[str, Any], share: float) -> dict[str, Any]:
    """Hyperparameters beside those claimed; the same for a share of 1."""
    return {k: share * v + 0.05 * (1 - share) for k, v in params.items()}


@law("kernel")
def one_dispatch(spec: LossSpec) -> None:
    """Outside of `jit` a call runs one program, its mean one more; a second call
    traces nothing, and another Python number as a hyperparameter neither."""
    args = [jnp.asarray(a) for a in Trial.draw(spec, dtype=SINGLE).args]
    numbers = {k: v for k, v in spec.params.items() if isinstance(v, float)}
    # Out of `jit`, each equation that a trace would see is a program that runs.
    mean = jax.make_jaxpr(lambda *args: reduce.mean(spec(*args)))(*args)
    programs = [e.params.get("name", e.primitive.name) for e in mean.eqns]
    if len(programs) > 2:
        ran = ", ".join(programs)
        raise AssertionError(f"the mean of the loss runs {ran}; expected two programs")
    sample = Trial.draw(spec, dtype=SINGLE)
    what, truth = "the value of a call", sample.exact.value()
    sample.within_ulps(what, spec(*args), truth, sample.spread(), 2 * spec.ulps)
    for what, share in (("a second call", 1.0), ("a call with other numbers", 0.9)):
        given = _other(numbers, share)
        with evidence.compile_events() as events:
            spec(*args, **given)
        if events:
            raise AssertionError(f"{what} has {', '.join(events)}; expected neither")


@law()
def strict_promotion(spec: LossSpec) -> None:
    """No dtype is promoted and no rank broadcast in silence, in any dtype, nor for
    half-precision predictions beside single-precision targets."""
    cases = [Trial.draw(spec, (2, 3), dtype=dtype).args for dtype in DTYPES]
    mixed = (cases[-1][0], *cases[1][1:])
    run = functools.partial(evidence.slopes, spec)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for args in (*cases, mixed):
            jax.eval_shape(run, *args)


# --- how it behaves at the edges ---------------------------------------------------


@law("extremes")
def finite_at_extremes(spec: LossSpec) -> None:
    """Finite arguments give finite losses and gradients, in every dtype, unless
    float64 says that the true one is more than the dtype can hold."""
    for trial in trials(spec, *DTYPES):
        exact = trial.exact
        found = zip(
            ("the value", *["the gradient"] * len(spec.wrt)),
            (trial.value(), *trial.gradients()),
            (exact.value(), *exact.gradients()),
            strict=True,
        )
        for what, got, truth in found:
            last = float(jnp.finfo(got.dtype).max)
            beyond = (np.abs(truth) > last) & (got.dtype != DOUBLE)
            wrong = ~(np.isfinite(got.astype(DOUBLE)) | beyond)
            trial.fail_at(what, wrong, got, "a finite number")


@law()
def debug_nans_stays_quiet(spec: LossSpec) -> None:
    """No intermediate result is NaN, even if a later `where` hides it: it would stop a
    user who looks for another NaN with `jax.debug_nans`."""
    for trial in trials(spec, SINGLE):
        if trial.hidden_nan():
            for one in (*trial.singles(), trial):
                found = one.hidden_nan()
                one.fail_at("an intermediate result", bool(found), found, "a number")


@law()
def debug_infs_stays_quiet(spec: LossSpec) -> None:
    """Nor does an infinity, in the value of a compiled call, in what the call keeps for
    its gradient, or in that: a user who hunts another infinity with `jax.debug_infs`
    would be stopped here.  Unless an argument or the result is infinite."""
    for trial in trials(spec, SINGLE):
        if trial.seen_infinity():
            for one in (*trial.singles(), trial):
                found = one.seen_infinity()
                one.fail_at("a result of a call", bool(found), found, "finite numbers")


@law()
def nan_has_no_sign(spec: LossSpec) -> None:
    """A NaN gives NaN in value and gradient, whichever sign it has: that of `inf - inf`
    is negative on x86, and a sort puts it below -inf."""
    trial = Trial.draw(spec, dtype=SINGLE)
    for i in programs.floating(trial.args):
        plus, minus = (_with_nan(trial, i, sign) for sign in (1, -1))
        found = zip(
            ("the value", *["the gradient"] * len(spec.wrt)),
            (minus.value(), *minus.gradients()),
            (plus.value(), *plus.gradients()),
            strict=True,
        )
        for what, got, want in found:
            other = np.isnan(got) != np.isnan(want)
            minus.fail_at(f"with a negative NaN, {what}", other, got, want)


def _with_nan(trial: Trial, place: int, sign: int) -> Trial:
    """The examples, with one entry of an argument a NaN of this sign."""
    x = trial.args[place]
    rows = x.reshape(len(x), -1).copy()
    each = np.arange(len(x))
    rows[each, each % rows.shape[1]] = np.copysign(SINGLE.type(np.nan), sign)
    args = dict(enumerate(trial.args)) | {place: rows.reshape(x.shape)}
    return trial.of(*args.values())


@law()
def masked_entries_do_not_exist(spec: LossSpec) -> None:
    """A masked NaN reaches neither the mean nor its gradient, and the masked mean is
    the mean over the kept examples."""
    trial, (where, counts) = Trial.draw(spec), _halves()
    batch, kept = trial.batch(where, counts), trial.value()[where]
    size = np.abs(kept).max()
    near = functools.partial(assert_close, ulps=64, size=size)
    near(batch.masked, kept.mean(), what="the masked mean")
    gone = trial.of(*(a[~where] for a in trial.args))
    for slope in batch.slopes:
        behind = slope[~where]
        gone.fail_at("the gradient at a masked entry", behind != 0, behind, "0")


@law()
def weights_count_repetitions(spec: LossSpec) -> None:
    """Weight k means "k copies of this example"; scaling all weights does nothing."""
    trial, (where, counts) = Trial.draw(spec), _halves()
    copies = np.repeat(trial.value(), counts.astype(int))
    near = functools.partial(assert_close, ulps=64, size=np.abs(copies).max())
    mean, scaled = trial.batch(where, counts).weighted
    near(mean, copies.mean(), what="the weighted mean")
    near(scaled, copies.mean(), what="the mean of scaled weights")


def _halves() -> tuple[np.ndarray, np.ndarray]:
    """Which examples of a chunk are kept, and how often each counts."""
    places = np.arange(CHUNK)
    return places % 3 != 1, (places % 4).astype(DOUBLE)


@law("bad_calls")
def bad_calls_raise(spec: LossSpec) -> None:
    """Misuse is refused while tracing, by an error that names the argument."""
    for args, params, error, pattern in spec.bad_calls:
        named = {**spec.params, **spec.static, **params}
        traced = [i for i, a in enumerate(args) if isinstance(a, np.ndarray)]

        def call(*arrays, args=args, named=named, traced=traced):
            given = dict(enumerate(args)) | dict(zip(traced, arrays, strict=True))
            return spec.fn(*given.values(), **named)

        try:
            jax.eval_shape(call, *(args[i] for i in traced))
        except Exception as raised:
            if type(raised) is not error or not re.search(pattern, str(raised)):
                wanted = f"{error.__name__} matching {pattern!r}"
                raise AssertionError(f"{raised!r}; expected {wanted}") from raised
        else:
            raise AssertionError(f"{args} with {params} was accepted")
