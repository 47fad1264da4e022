"""On a mesh with explicit axes, every function gives what it gives on one device.

Eight devices need a process of their own: each has a part of the `check_` functions
below, and of the specs and the law.
"""

import contextlib
import dataclasses
import functools
import sys
import traceback
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec as P

import jaxloss
from jaxloss import kernels, stable, testing
from jaxloss.claims import CLAIMS, SPECS
from jaxloss.stable import sharding
from jaxloss.testing import evidence, programs
from tests.house import test_kernels as calls
from tests.kernels.test_parallel import draw, integers, run

PARTS = 6  # of one to two minutes on one core
# Some of the modules imported make arrays, which settles how many devices there are.
START = (
    "import jax; jax.config.update('jax_platforms', 'cpu'); "
    "jax.config.update('jax_num_cpu_devices', 8); "
    "from tests.laws import test_explicit_meshes as t"
)


# --- what is compared ----------------------------------------------------------------


def mesh(**axes):
    kinds, count = (AxisType.Explicit,) * len(axes), np.prod([*axes.values()])
    devices = jax.devices()[: int(count)]
    return jax.make_mesh((*axes.values(),), (*axes,), axis_types=kinds, devices=devices)


def is_floating(x):
    return jnp.issubdtype(x.dtype, jnp.floating)


def with_gradient(fn):
    """A function, and the gradient of a sum of what it returns."""

    def run(*args):
        where = [i for i, x in enumerate(args) if is_floating(x)]

        def total(*chosen):
            given = dict(enumerate(args)) | dict(zip(where, chosen, strict=True))
            found = fn(*given.values())
            # Not tanh, whose slope at a loss of 17 is the rounding error of 1.
            parts = [jnp.sum(jnp.arctan(x)) for x in jax.tree.leaves(found)]
            return sum(parts, jnp.zeros(())), found

        if not where:
            return fn(*args)
        by = range(len(where))
        return jax.grad(total, by, has_aux=True)(*(args[i] for i in where))

    return run


def compiled(fn, args):
    return jax.jit(fn).lower(*args).compile(compiler_options=programs.quickly())(*args)


def assert_same(found, expected):
    for got, want in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        got, want = (np.asarray(x, np.float64) for x in (got, want))
        size = 1 + np.abs(want[np.isfinite(want)]).max(initial=0)
        np.testing.assert_allclose(got, want, rtol=0, atol=4e-6 * size)


def on_mesh(fn, args, specs, m):
    """What a function gives of sharded arguments."""
    pairs = zip(args, specs, strict=True)
    given = [jax.device_put(x, NamedSharding(m, part)) for x, part in pairs]
    with jax.set_mesh(m):
        return compiled(fn, given)


def along(args, axis):
    """The arguments that have an axis of the length of the first that has it, sharded
    along it; and that length."""
    count = next(x.shape[axis] for x in args if x.ndim > axis)
    part = P(*[None] * axis, "devices")
    return count, [part if x.shape[axis : axis + 1] == (count,) else P() for x in args]


@contextlib.contextmanager
def naming(name):
    try:
        yield
    except Exception as error:
        error.add_note(name)
        raise


def same_along_each_axis(fn, *args, name=None):
    """Value and gradient are those of one device, whichever axis is sharded."""
    run, whole = with_gradient(fn), None
    for axis in range(max(x.ndim for x in args)):
        count, specs = along(args, axis)
        if 1 < count <= 8:
            with naming(f"{name or fn}, axis {axis}"):
                whole = compiled(run, args) if whole is None else whole
                assert_same(on_mesh(run, args, specs, mesh(devices=count)), whole)


# --- every function of the package ---------------------------------------------------


def of_arrays(fn, call):
    """A call in the list of `test_kernels`, as a function of the arrays it names."""
    known = vars(calls)
    names = [n for n in call.__code__.co_names if isinstance(known.get(n), jax.Array)]

    def run(*arrays):
        given = known | dict(zip(names, arrays, strict=True))
        code, closure = call.__code__, call.__closure__
        return types.FunctionType(code, given, closure=closure)(fn)

    return run, [known[n] for n in names]


def check_functions_without_a_spec():
    """Losses of a batch, transforms of labels and logits, reductions, `margins`."""
    for name, fn, call in calls.FUNCTIONS:
        if not name.startswith("compat"):
            run, args = of_arrays(fn, call)
            same_along_each_axis(run, *args, name=name)


def check_types_of_compat():
    """Those of optax's names, which are the same programs, are traced alone."""
    for name, fn, call in calls.FUNCTIONS:
        run, args = of_arrays(fn, call)
        # The call of `binary_dice_loss` takes a slice of an image, of one channel.
        axes = range(max(x.ndim for x in args) - name.endswith("binary_dice_loss"))
        for axis in axes if name.startswith("compat") else ():
            count, specs = along(args, axis)
            m = AbstractMesh((count,), ("devices",), (AxisType.Explicit,))
            given = [
                jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(m, part))
                for x, part in zip(args, specs, strict=True)
            ]
            with jax.sharding.use_abstract_mesh(m), naming(name):
                jax.eval_shape(with_gradient(run), *given)


def check_stable():
    """The primitives that compare rows, or look a label up."""
    x, y, ids = draw(8, 4), draw(8, 4, seed=1), integers(4, 8)
    for fn in (stable.distances, stable.squared_distances, stable.cosine_distance):
        same_along_each_axis(fn, x, y)
    for fn in (stable.softmax_nll, stable.softmax_spread):
        same_along_each_axis(lambda x, fn=fn: fn(x, ids), x)
    for fn in (stable.unit, stable.norm, stable.log_softmax, stable.logsumexp):
        same_along_each_axis(fn, x)


def check_kernels_of_a_batch():
    """In blocks of anchors, some of which a device does not have."""
    x, y, ids, valid = draw(8, 4), draw(8, 4, seed=1), integers(3, 8), np.arange(8) < 7
    options = {"temperature": 0.2, "block": 3}
    siglip = functools.partial(kernels.siglip, bias=-1.0)
    for fn in (kernels.nt_xent, kernels.supervised_contrastive):
        same_along_each_axis(
            lambda x, ids, v, fn=fn: fn(x, ids, where=v, **options), x, ids, valid
        )
    for fn in (kernels.clip, kernels.info_nce, siglip):
        same_along_each_axis(
            lambda x, y, v, fn=fn: fn(x, y, where=v, **options), x, y, valid
        )


def check_kernels_of_a_head():
    """Tokens sharded along either axis, features or classes; in blocks and not."""
    x, w, ids = draw(4, 8, 6), draw(6, 16, seed=1), integers(16, (4, 8))
    m = mesh(devices=2)
    specs = (
        *((part, P(), part) for part in (P("devices"), P(None, "devices"))),
        (P(None, None, "devices"), P("devices"), P()),
        (P(), P(None, "devices"), P()),
    )
    ways: tuple[dict[str, Any], ...] = (
        {},
        {"block": (8, 5)},
        {"implementation": "dense"},
    )
    for options in ways:

        def both(x, w, ids, options=options):
            mean = kernels.linear_softmax_cross_entropy(x, w, ids, **options)
            return mean.compute(), kernels.linear_token_log_probs(x, w, ids, **options)

        whole = compiled(with_gradient(both), (x, w, ids))
        for parts in specs:
            found = on_mesh(with_gradient(both), (x, w, ids), parts, m)
            assert_same(found, whole)


# --- in other ways -------------------------------------------------------------------


def check_two_axes_of_a_mesh():
    """Examples over one, classes or components over the other."""
    m = mesh(data=2, model=4)
    x, y, ids = draw(8, 4), draw(8, 4, seed=1), integers(4, 8)
    for fn in (jaxloss.softmax_cross_entropy, jaxloss.sparsemax, jaxloss.softmax_focal):
        check = with_gradient(lambda x, fn=fn: fn(x, ids))
        found = on_mesh(check, (x,), (P("data", "model"),), m)
        assert_same(found, compiled(check, (x,)))
    clip = with_gradient(functools.partial(jaxloss.clip, temperature=0.2))
    for parts in ((P("data", "model"),) * 2, (P(("data", "model")), P())):
        assert_same(on_mesh(clip, (x, y), parts, m), compiled(clip, (x, y)))


def check_classes_on_another_axis():
    """Of images: classes, which have weights, or rows of pixels are sharded."""
    x, ids, alpha = draw(2, 4, 6), integers(4, (2, 6)), 1 + draw(4, seed=1) ** 2

    def loss(x, ids, alpha):
        return jaxloss.softmax_focal(x, ids, axis=1, alpha=alpha)

    fn = with_gradient(loss)
    for parts in (
        (P(None, "data"), P(), P("data")),
        (P(None, None, "data"), P(None, "data"), P()),
        (P("data"), P("data"), P()),
    ):
        found = on_mesh(fn, (x, ids, alpha), parts, mesh(data=2))
        assert_same(found, compiled(fn, (x, ids, alpha)))


def check_labels_that_are_whole():
    """Logits of `ctc` are sharded and its labels are not; or the other way round."""
    fn = with_gradient(jaxloss.ctc)
    args = draw(4, 5, 3), jnp.array([[1, 2], [2, 2], [1, 1], [2, 1]], jnp.int32)
    for parts in ((P("data"), P()), (P(), P("data"))):
        assert_same(on_mesh(fn, args, parts, mesh(data=4)), compiled(fn, args))


def check_losses_are_sharded_like_the_examples():
    """Nothing has gathered the batch."""
    m, x, ids = mesh(data=8), draw(8, 4), integers(4, 8)
    x, ids = (jax.device_put(a, NamedSharding(m, P("data"))) for a in (x, ids))
    with jax.set_mesh(m):
        nt_xent = functools.partial(jaxloss.nt_xent, temperature=0.2)
        of_groups = (
            jaxloss.batch_hard_triplet,
            jaxloss.circle,
            jaxloss.semi_hard_triplet,
        )
        for fn in (nt_xent, jaxloss.softmax_cross_entropy, *of_groups):
            assert sharding.spec(fn(x, ids)) == P("data"), fn
            gradient = jax.grad(lambda x, fn=fn: fn(x, ids).sum())(x)
            assert sharding.spec(gradient) == P("data", None), fn
        positive, _ = jaxloss.pair_masks(ids)
        assert sharding.spec(positive) == P("data", None)
        step = jax.jit(jax.grad(lambda x: jaxloss.softmax_cross_entropy(x, ids).sum()))
        assert "all-gather" not in str(step.lower(x).compile().as_text())


def check_under_vmap_and_partial_shard_map():
    """Where one axis is mapped over, and another one is explicit."""
    x, y = draw(4, 8, 3), draw(4, 8, 3, seed=1)
    clip = functools.partial(jaxloss.clip, temperature=0.2)
    every = with_gradient(jax.vmap(clip))
    for parts in (P("data"), P(None, "data")):
        found = on_mesh(every, (x, y), (parts, parts), mesh(data=4))
        assert_same(found, compiled(every, (x, y)))

    def local(x, y):
        return jax.vmap(clip)(x, y)

    mapped = jax.shard_map(
        local,
        in_specs=(P("batches"),) * 2,
        out_specs=P("batches"),
        axis_names={"batches"},
    )
    m, part = mesh(batches=2, data=2), P("batches", "data")
    found = on_mesh(with_gradient(mapped), (x, y), (part, part), m)
    assert_same(found, compiled(every, (x, y)))


def check_without_a_mesh_around():
    """The arrays say enough, in `jit` and out of it."""
    m, x, y = mesh(data=8), draw(8, 3), draw(8, 3, seed=1)
    clip = functools.partial(jaxloss.clip, temperature=0.2)
    given = [jax.device_put(a, NamedSharding(m, P("data"))) for a in (x, y)]
    for fn in (clip, jax.jit(clip), jax.jit(jax.grad(lambda x, y: clip(x, y).sum()))):
        assert_same(fn(*given), fn(x, y))
    assert_same(stable.distances(*given), stable.distances(x, y))


def twice_where_sharded(predictions, targets):
    """A loss that has another value on many devices, of the same type."""
    sharded = any(jax.typeof(predictions).sharding.spec)
    return (2 if sharded else 1) * jaxloss.squared_error(predictions, targets)


def check_the_law_refuses_other_numbers():
    """What types do not tell, the law sees where there are several devices."""
    spec = next(s for s in SPECS if s.fn is jaxloss.squared_error)
    testing.shardings_agree(spec)
    with pytest.raises(AssertionError, match=r"axis 0 .* expected"):
        testing.shardings_agree(dataclasses.replace(spec, fn=twice_where_sharded))


# --- in processes of their own -------------------------------------------------------


def first_of_each_kind():
    """The first setting of each function and kind of arguments."""
    found = {}
    for claim in CLAIMS:
        for spec in claim.settings:
            args = evidence.Trial.draw(spec, (1,)).args
            kinds = tuple((x.dtype.kind, x.ndim) for x in args)
            found.setdefault((claim.fn, kinds), spec)
    return [*found.values()]


def eight_devices(part):
    """Runs a part of the checks, and of the specs and the law; prints what failed."""
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jobs = [check for name, check in globals().items() if name.startswith("check_")]
    law = testing.shardings_agree
    jobs += [functools.partial(law, spec) for spec in first_of_each_kind()]
    for job in jobs[part::PARTS]:
        try:
            job()
        except Exception:
            traceback.print_exc(file=sys.stdout)
    print("done")


@pytest.mark.parametrize("part", range(PARTS))
def test_on_eight_devices(part):
    """A part of the `check_` of this file, and of the specs."""
    done = run("-c", f"{START}; t.eight_devices({part})")
    assert done.stdout == "done\n", done.stdout + done.stderr
