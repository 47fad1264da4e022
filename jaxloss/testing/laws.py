"""The laws: how every loss must behave, each a function of one `LossSpec`.

A law raises an error that shows the offending example, or passes silently.  Laws run
with 64-bit types on, so that a stray constant shows as a wrong dtype.
"""

import functools
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxloss import reduce
from jaxloss.testing import evidence, ulps
from jaxloss.testing.evidence import Trial, trials
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
    """The laws whose claims the spec makes."""
    return [fn for fn, needs in LAWS.items() if all(getattr(spec, n) for n in needs)]


# --- what the loss is --------------------------------------------------------------


@law("reference")
def matches_reference(spec: LossSpec) -> None:
    """The value is the formula's, in every dtype, at typical and extreme arguments,
    compiled and not."""
    for trial in trials(spec, *DTYPES):
        truth, spread = trial.formula("reference"), trial.spread()
        trial.within_ulps("the value under jit", trial.value(), truth, spread)
        if trial.dtype == SINGLE:
            trial.within_ulps("the value", trial.eager(), truth, spread)


@law("gradient")
def gradient_matches_derivation(spec: LossSpec) -> None:
    """The gradient is the one derived by hand, in every dtype, at typical and extreme
    arguments, compiled and not."""
    for trial in trials(spec, *DTYPES):
        truths, spreads = trial.formulas("gradient"), trial.gradient_spreads()
        runs: dict[str, Callable] = {"the gradient under jit": evidence.slopes}
        if trial.dtype == SINGLE:
            runs["the gradient"] = evidence.eager_slopes
        for what, run in runs.items():
            found = zip(trial.gradients(run), truths, spreads, strict=True)
            for got, truth, spread in found:
                trial.within_ulps(what, got, truth, spread)


@law()
def gradient_matches_differences(spec: LossSpec) -> None:
    """Forward mode, reverse mode and central differences agree along directions."""
    trial = Trial.draw(spec)
    gradient = evidence.flat(trial.gradients())
    for seed in range(3):
        steps = trial.direction(seed)
        terms = gradient * evidence.flat(steps)
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
    others = Trial(spec, tuple(rest))
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
    """jit and vmap change nothing, and the loss takes no batch for granted."""
    trial = Trial.draw(spec, (4, 8))
    eager = trial.eager()
    near = functools.partial(assert_close, ulps=64, size=np.abs(eager).max())
    once, twice = jax.vmap(spec), jax.vmap(jax.vmap(spec))
    near(trial.value(), eager, what="the loss under jit")
    near(jax.jit(once)(*trial.args), eager, what="the loss under vmap")
    near(jax.jit(twice)(*trial.args), eager, what="the loss under vmap of vmap")
    one = jax.jit(spec)
    singly = np.stack([one(*(a[0, i] for a in trial.args)) for i in range(8)])
    near(singly, eager[0], what="the loss of one example at a time")


@law()
def value_survives_differentiation(spec: LossSpec) -> None:
    """`value_and_grad(f)(x)[0] == f(x)`: a custom rule must not change the value."""
    for trial in trials(spec, DOUBLE, SINGLE):
        plain, spread = trial.value(), trial.spread()
        trial.fail_at("the value", np.isnan(plain), plain, "a number")
        ones = [np.ones_like(trial.args[i]) for i in spec.wrt]
        trial.within_ulps(
            "the value under grad", trial.value_under_grad(), plain, spread
        )
        trial.within_ulps("the value under jvp", trial.jvp(ones)[0], plain, spread)


@law("params")
def parameters_may_be_traced(spec: LossSpec) -> None:
    """Hyperparameters can be jitted over and differentiated, hence swept, scheduled
    and learnt: finite derivatives in both modes, equal to central differences."""
    trial = Trial.draw(spec)
    for name, setting in spec.params.items():
        run, what = evidence.swept(spec, name), f"the derivative in `{name}`"
        value, slope, total = map(np.asarray, run(setting, *trial.args))
        trial.within_ulps(
            f"the value, `{name}` traced,", value, trial.value(), trial.spread()
        )
        trial.fail_at(what, ~np.isfinite(slope), slope, "a finite number")
        size = np.abs(slope).sum()
        assert_close(total.sum(), slope.sum(), ulps=64, size=size, what=what)
        moved = lambda h, run=run, at=setting: run(at + h, *trial.args)[0]
        trial.matches_differences(what, slope, moved, np.abs(slope))
        for edges in trials(spec, DOUBLE):
            slope = np.asarray(run(setting, *edges.args)[1])
            edges.fail_at(what, np.isnan(slope), slope, "a number")


@law()
def second_order_is_finite(spec: LossSpec) -> None:
    """Second derivatives are finite, symmetric, the same by forward over reverse and
    reverse over forward mode, in float32 as in float64; the slopes of the gradient;
    and the ones derived by hand."""
    what = "the second derivative"
    for trial in trials(spec, DOUBLE, SINGLE):
        info, exact = jnp.finfo(trial.dtype), trial.cast(DOUBLE).hessian()
        forward = trial.hessian()
        wrong = ~(np.isfinite(forward) | (np.abs(exact) > float(info.max)))
        trial.fail_at(what, wrong, forward, "a finite number")
        # Two programs for one formula: 1024 units of an example's largest entry, and
        # of what is flushed to zero in between.
        size = np.abs(exact).max((1, 2), keepdims=True) + float(info.tiny / info.eps)
        near = functools.partial(trial.within_ulps, truth=exact, spread=size, ulps=1024)
        near(what, forward)
        near(f"{what} in the other order", exact.swapaxes(1, 2))
        if trial.dtype == SINGLE:
            backward = trial.hessian(forward_last=False)
            near(f"{what} by reverse over forward mode", backward)
        if spec.curvature:
            got, truth = forward, trial.formula("curvature")
            d = trial.args[spec.wrt[0]].size // len(got)
            got = got[:, :d, :d].reshape(truth.shape)
            truth = np.where(np.isnan(truth), got, truth)
            trial.within_ulps(what, got, truth, ulps=spec.second_ulps)
    trial = Trial.draw(spec)
    steps = trial.direction(seed=0)
    terms = trial.hessian() * evidence.flat(steps)[:, None]
    moved = lambda h: evidence.flat(trial.shifted(steps, h).gradients())
    what = "the slope of the gradient"
    trial.matches_differences(what, terms.sum(axis=2), moved, np.abs(terms).sum(axis=2))


@law()
def compiles_once(spec: LossSpec) -> None:
    """Other values of the data and of the hyperparameters run the same program."""
    traces = []

    @jax.jit
    def step(params: dict, *args: jax.Array) -> jax.Array:
        traces.append(args)
        return spec(*args, **params)

    for seed, share in enumerate((1.0, 0.9)):
        args = [jnp.asarray(a) for a in Trial.draw(spec, (4, 8), seed=seed).args]
        params = {k: share * v + 0.05 * (1 - share) for k, v in spec.params.items()}
        want = spec(*args, **params)
        size = np.abs(want).max()
        assert_close(step(params, *args), want, ulps=64, size=size, what="the loss")
    if len(traces) > 1:
        raise AssertionError(f"{len(traces)} programs for two calls; expected one")


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
    spec(*args)
    for what, share in (("a second call", 1.0), ("a call with other numbers", 0.9)):
        given = {k: share * v + 0.05 * (1 - share) for k, v in numbers.items()}
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
        exact = trial.cast(DOUBLE)
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
    """No NaN arises even in between, where a later `where` would hide it: a user who
    hunts another NaN with `jax.debug_nans` would be stopped here."""
    for trial in trials(spec, SINGLE):
        if trial.hidden_nan():
            for one in (*trial.singles(), trial):
                found = one.hidden_nan()
                one.fail_at("an intermediate result", bool(found), found, "a number")


@law()
def masked_entries_do_not_exist(spec: LossSpec) -> None:
    """NaN behind a mask reaches neither the mean nor its gradient; and the mean over
    the mask is the mean over the kept examples."""
    args = Trial.draw(spec, (6,)).args
    where = np.array([True, False, True, True, False, True])
    dirty = [a.copy() for a in args]
    for i in evidence.floating(args):
        dirty[i][~where] = np.nan

    def loss(*args: jax.Array) -> jax.Array:
        filled = reduce.fill(where, *args, value=spec.fill)
        return reduce.mean(spec(*filled), where=where)

    value, slopes = jax.jit(jax.value_and_grad(loss, spec.wrt))(*dirty)
    kept = Trial(spec, tuple(a[where] for a in args)).value()
    size = np.abs(kept).max()
    assert_close(value, kept.mean(), ulps=64, size=size, what="the masked mean")
    gone = Trial(spec, tuple(a[~where] for a in args))
    for slope in slopes:
        behind = np.asarray(slope)[~where]
        gone.fail_at("the gradient behind the mask", behind != 0, behind, "0")


@law()
def weights_count_repetitions(spec: LossSpec) -> None:
    """Weight k means "k copies of this example"; scaling all weights does nothing."""
    counts = np.array([0, 1, 2, 3])
    args = Trial.draw(spec, (4,)).args

    mean = jax.jit(lambda w, *args: reduce.mean(spec(*args), weights=w))
    copies = Trial(spec, tuple(np.repeat(a, counts, axis=0) for a in args)).value()
    near = functools.partial(assert_close, ulps=64, size=np.abs(copies).max())
    near(mean(1.0 * counts, *args), copies.mean(), what="the weighted mean")
    near(mean(7.0 * counts, *args), copies.mean(), what="the mean of scaled weights")


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
