"""Ids of 64 bits, where JAX has 32: hashes and database keys are compared as they are.

JAX keeps the lower half without a word, and 2^32 + 1 is the class 1, or the key 1.
"""

import ast
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec as P

import jaxloss
from jaxloss import _jit, kernels, parallel, train
from jaxloss.compat import optax as ours

untyped: Any = jaxloss  # the type checker would refuse lists
BEYOND = 2**32
ROWS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
P_ROWS = np.exp(ROWS) / np.exp(ROWS).sum(1, keepdims=True)
CLASSES = np.array([0, 1, 3, 2, 1, 0])
GROUPS = np.array([1, 2, 1, 2, 3, 1])
COLD: Any = {"temperature": 0.5}


@_jit.kernel(ids="labels")
def read(labels):
    return labels


def shared(fn, *args, **params):
    """A loss of `parallel` on a mesh of one device, of ids that are closed over."""
    *arrays, ids = args
    loss = lambda *arrays: fn(*arrays, ids, axis_name="a", **params)
    mesh, specs = Mesh(jax.devices()[:1], ("a",)), (P(),) * len(arrays)
    loss = jax.shard_map(loss, mesh=mesh, in_specs=specs, out_specs=P("a"))
    return loss(*map(jnp.asarray, arrays))


OF_CLASSES = {
    "softmax_cross_entropy": lambda y: jaxloss.softmax_cross_entropy(ROWS, y),
    "smoothed": lambda y: jaxloss.softmax_cross_entropy(ROWS, y, label_smoothing=0.1),
    "nll": lambda y: jaxloss.nll(ROWS, y),
    "brier": lambda y: jaxloss.brier(P_ROWS, y),
    "sparsemax": lambda y: jaxloss.sparsemax(ROWS, y),
    "entmax15": lambda y: jaxloss.entmax15(ROWS, y),
    "softmax_focal": lambda y: jaxloss.softmax_focal(ROWS, y),
    "poly1": lambda y: jaxloss.poly1(ROWS, y),
    "crammer_singer_hinge": lambda y: jaxloss.crammer_singer_hinge(ROWS, y),
    "weston_watkins_hinge": lambda y: jaxloss.weston_watkins_hinge(ROWS, y),
    "coral": lambda y: jaxloss.coral(ROWS, y),
    "squared_emd": lambda y: jaxloss.squared_emd(ROWS, y),
    "ctc": lambda y: jaxloss.ctc(ROWS[:, None], y[:, None], blank=3),
    "smooth_labels": lambda y: jaxloss.smooth_labels(y, num_classes=4)[:, 0],
    "ordinal_levels": lambda y: jaxloss.ordinal_levels(y, num_classes=4)[:, 0],
    "linear_token_log_probs": lambda y: kernels.linear_token_log_probs(
        ROWS, jnp.eye(4), y
    ),
    "parallel": lambda y: shared(parallel.softmax_cross_entropy, ROWS, y),
    "optax_ids": lambda y: ours.softmax_cross_entropy_with_integer_labels(ROWS, y),
    "optax_hinge": lambda y: ours.multiclass_hinge_loss(ROWS, y),
    "optax_perceptron": lambda y: ours.multiclass_perceptron_loss(ROWS, y),
    "optax_sparsemax": lambda y: ours.multiclass_sparsemax_loss(ROWS, y),
}
OF_GROUPS = {
    "pair_masks": jaxloss.pair_masks,
    "nt_xent": lambda y: jaxloss.nt_xent(ROWS, y, **COLD),
    "supervised_contrastive": lambda y: jaxloss.supervised_contrastive(ROWS, y, **COLD),
    "batch_hard_triplet": lambda y: jaxloss.batch_hard_triplet(ROWS, y, margin=9.0),
    "multi_similarity": lambda y: jaxloss.multi_similarity(ROWS, y),
    "circle": lambda y: jaxloss.circle(ROWS, y, gamma=9.0),
    "semi_hard_triplet": lambda y: jaxloss.semi_hard_triplet(ROWS, y, margin=9.0),
    "kernels.nt_xent": lambda y: kernels.nt_xent(ROWS, y, **COLD),
    "kernels.supervised": lambda y: kernels.supervised_contrastive(ROWS, y, **COLD),
    "parallel.nt_xent": lambda y: shared(parallel.nt_xent, ROWS, y, **COLD),
    "parallel.supervised": lambda y: shared(
        parallel.supervised_contrastive, ROWS, y, **COLD
    ),
    "ntxent": lambda y: ours.ntxent(jnp.asarray(ROWS), y),
}


@pytest.fixture(autouse=True)
def narrow():
    """As users have it: without 64 bits."""
    with jax.enable_x64(False):
        yield


@pytest.mark.parametrize("name", OF_CLASSES)
def test_an_id_beyond_32_bits_is_no_class(name):
    """NaN, as any id that is no class; and the other examples are what they were."""
    loss = OF_CLASSES[name]
    known = np.asarray(loss(CLASSES))
    assert np.isfinite(known[CLASSES != 3]).all()
    for dtype, step in ((np.int64, BEYOND), (np.uint64, BEYOND), (np.int64, -BEYOND)):
        ids = CLASSES.astype(dtype)
        ids[[1, 4]] += np.array(step).astype(dtype)
        found = np.array(loss(ids))
        assert np.isnan(found[[1, 4]]).all()
        found[[1, 4]] = known[[1, 4]]
        np.testing.assert_array_equal(found, known)


def test_the_head_of_a_language_model():
    """Its one number is NaN because of one such id, unless that is masked."""
    ids = CLASSES.astype(np.int64)
    ids[2] += BEYOND
    loss = lambda **mask: kernels.linear_softmax_cross_entropy(
        ROWS, jnp.eye(4), ids, **mask
    ).compute()
    assert jnp.isnan(loss())
    kept = np.arange(6) != 2
    mean = np.mean(OF_CLASSES["softmax_cross_entropy"](CLASSES)[kept])
    np.testing.assert_allclose(loss(where=kept), mean, rtol=1e-6)


@pytest.mark.parametrize("name", OF_GROUPS)
def test_strangers_stay_strangers(name):
    """The same losses as of small numbers for the same groups, which the lower 32 bits
    would make one group."""
    loss = OF_GROUPS[name]
    expected = jax.tree.leaves(loss(GROUPS))
    for dtype in (np.int64, np.uint64):
        hashed = 5 + GROUPS.astype(dtype) * dtype(BEYOND)
        found = jax.tree.leaves(loss(hashed))
        for x, y in zip(found, expected, strict=True):
            np.testing.assert_array_equal(x, y)
    listed = jax.tree.leaves(loss((GROUPS * BEYOND + 5).tolist()))
    np.testing.assert_array_equal(listed[0], expected[0])


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
@pytest.mark.parametrize("seed", range(4))
def test_equal_where_they_were(dtype, seed):
    """Ids of every size, the largest of 32 bits among them: those in range are kept,
    and no two others, nor one of each, become equal."""
    rng, bits = np.random.default_rng(seed), np.iinfo(dtype)
    narrow = np.iinfo(np.int32 if dtype == np.int64 else np.uint32)
    near = np.array([narrow.max, narrow.max - 1, narrow.max - 3, narrow.min], dtype)
    wide = rng.integers(bits.min, bits.max, 40, dtype, endpoint=True)
    beyond = np.array([narrow.max], dtype) + np.arange(1, 9, dtype=dtype)
    pool = np.concatenate([near, wide, beyond, rng.integers(0, 9, 9).astype(dtype)])
    ids = rng.choice(pool, (8, 16))
    short = np.asarray(read(ids))
    assert short.dtype == narrow.dtype
    assert short.shape == ids.shape
    same = ids.ravel()[:, None] == ids.ravel()
    np.testing.assert_array_equal(short.ravel()[:, None] == short.ravel(), same)
    inside = (ids >= narrow.min) & (ids <= narrow.max)
    np.testing.assert_array_equal(short[inside], ids[inside])
    assert (short[~inside] > narrow.max - 200).all()  # no class


def test_arrays_of_another_time():
    """An array made while 64 bits were on, and NumPy's and Python's numbers."""
    with jax.enable_x64(True):
        ids = jnp.asarray([1, 1 + BEYOND, 1])
    positives, _ = jaxloss.pair_masks(ids)
    np.testing.assert_array_equal(positives.sum(1), [1, 0, 1])
    for one in (1 + BEYOND, np.int64(1 + BEYOND), np.array(1 + BEYOND)):
        assert jnp.isnan(jaxloss.softmax_cross_entropy(ROWS[0], one))


def test_with_64_bits_on():
    """Nothing is renumbered where JAX can hold the ids."""
    with jax.enable_x64(True):
        ids = np.array([1, 1 + BEYOND])
        np.testing.assert_array_equal(read(ids), ids)
        assert jnp.isnan(jaxloss.nll(ROWS[:2], ids)[1])


WIDE = np.array([5_000_000_000, 1])


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: jaxloss.adjust_logits(np.zeros(2), WIDE), "priors"),
        (lambda: jaxloss.poisson_nll(np.zeros(2), WIDE), "counts"),
        (lambda: jaxloss.sigmoid_cross_entropy(np.zeros(2), WIDE), "labels"),
        (lambda: jaxloss.mean(WIDE), "losses"),
        (lambda: untyped.mean(WIDE.tolist()), "losses"),
        (lambda: jaxloss.Mean.constant(5_000_000_000), "value"),
        (lambda: jaxloss.mean(np.zeros(2), weights=WIDE.astype(np.uint64)), "weights"),
        (lambda: untyped.huber(np.zeros(2), np.zeros(2), delta=WIDE), "delta"),
        (lambda: jaxloss.fill(np.array([True, False]), WIDE), "arrays"),
        (lambda: untyped.pair_masks([2**70, 1]), "labels"),
        (lambda: train.grid(gamma=WIDE), "gamma"),
    ],
)
def test_numbers_are_refused(call, argument):
    """Counts and weights beyond 32 bits have no other integers that mean the same."""
    with pytest.raises(ValueError, match=rf"`{argument}` has .*expected smaller"):
        call()


def test_batches_that_a_program_would_cut():
    """`evaluate`, micro-batches and `sweep` compile what they are given."""
    fn = lambda p, b: {"fit": jaxloss.Mean.of(jaxloss.nll(p, b["ids"]))}
    fit = train.objective(fn)
    batch = {"ids": np.array([1, 1 + BEYOND])}
    params = jnp.zeros((2, 4))
    message = r"`{}\['ids'\]` has the int64 number 4294967297"
    with pytest.raises(ValueError, match=message.format("batches")):
        train.evaluate(fit, params, fit.init(), [batch])
    evaluate = train.value_and_grad(fit, microbatches=2)
    with pytest.raises(ValueError, match=message.format("batch")):
        evaluate(params, fit.init(), batch)
    assert jnp.isnan(train.value_and_grad(fit)(params, fit.init(), batch).loss)
    run = lambda hyperparameters, key, data: train.Run(
        key, lambda s, i: s, lambda s: {}
    )
    with pytest.raises(ValueError, match=message.format("data")):
        train.sweep(run, train.grid(lr=[1.0]), [0], steps=1, data=batch)


def of_ids():
    """Every compiled function whose docstring speaks of class ids or group ids."""
    for path in pathlib.Path(jaxloss.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                compiled = [d for d in node.decorator_list if "_jit" in ast.unparse(d)]
                doc = ast.get_docstring(node) or ""
                if compiled and ("class ids" in doc or "group ids" in doc):
                    yield f"{path.stem}.{node.name}", ast.unparse(compiled[0])


# They take real labels as well, of which there are no others; and refuse.
EITHER = {"calibration.expected_calibration_error", "calibration.fit_temperature"}


def test_every_function_of_ids_says_so():
    """A new one cannot be forgotten."""
    found = dict(of_ids())
    assert len(found) > 20
    assert {name for name, by in found.items() if "ids='labels'" not in by} == EITHER
    for loss in (jaxloss.expected_calibration_error, jaxloss.fit_temperature):
        with pytest.raises(ValueError, match="`labels` has the int64 number"):
            loss(P_ROWS[:2], WIDE)
