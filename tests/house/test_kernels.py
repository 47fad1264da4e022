"""Every function of arrays is one compiled call, as it is called from Python."""

import inspect
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxloss
from jaxloss import Mean, _jit, margins
from jaxloss.compat import keras as compat_keras, optax as compat
from jaxloss.testing.evidence import compile_events

X = jnp.linspace(-2.0, 2.0, 12, dtype=jnp.float32).reshape(4, 3)
P = jax.nn.softmax(X)
IDS = jnp.array([0, 2, 1, 1], jnp.int32)
GROUPS = jnp.array([0, 1, 0, 1], jnp.int32)
SIGNS = jnp.sign(X)
ROW, MASK = X[:, 0], jnp.array([True, True, False, True])
PRIORS, FRAMES, KEY = P[0], X[None], jax.random.key(0)
TOKENS = jnp.array([[1, 2]], jnp.int32)
IMAGE = jnp.ones((2, 3, 3, 2), jnp.float32) / 2

# What no spec calls as it is: losses of a batch, transforms, reductions, measures.
CALLS = {
    "adjust_logits": lambda f: f(X, PRIORS, strength=0.5),
    "angular_margin": lambda f: f(X, P, IDS, scale=16.0),
    "barlow_twins": lambda f: f(X, P, redundancy=0.1),
    "batch_hard_triplet": lambda f: f(X, GROUPS, margin=0.5),
    "circle": lambda f: f(X, GROUPS, gamma=8.0),
    "class_weights": lambda f: f(ROW, beta=0.9),
    "clip": lambda f: f(X, P, temperature=0.1),
    "covariance_penalty": lambda f: f(X),
    "cox_ph": lambda f: f(ROW, ROW, MASK),
    "cox_ph_breslow": lambda f: f(ROW, ROW, MASK),
    "ctc": lambda f: f(FRAMES, TOKENS),
    "ctc_forward": lambda f: f(FRAMES, TOKENS),
    "elastic_net": lambda f: f({"w": X, "b": ROW}, l1_ratio=0.3),
    "entropy": lambda f: f(X),
    "expected_calibration_error": lambda f: f(P, IDS, bins=5),
    "fill": lambda f: f(MASK, X, ROW),
    "fit_temperature": lambda f: f(X, IDS),
    "grpo": lambda f: f(X, X, ROW),
    "hl_gauss": lambda f: f(ROW, edges=np.arange(4.0), scale=0.5),
    "info_nce": lambda f: f(X, P, temperature=0.1),
    "koleo": lambda f: f(X),
    "l1": lambda f: f([X, ROW]),
    "l2": lambda f: f([X, ROW]),
    "mean": lambda f: f(ROW, weights=ROW, where=MASK),
    "mean_nonzero": lambda f: f(X),
    "mixup": lambda f: f(KEY, X, P, alpha=0.3),
    "multi_similarity": lambda f: f(X, GROUPS, beta=10.0),
    "ndcg_weights": lambda f: f(X, P, k=2),
    "nt_xent": lambda f: f(X, GROUPS, temperature=0.1),
    "ordinal_levels": lambda f: f(IDS, num_classes=3),
    "pair_masks": lambda f: f(GROUPS),
    "semi_hard_triplet": lambda f: f(X, GROUPS, margin=0.5),
    "siglip": lambda f: f(X, P, temperature=0.1, bias=-1.0),
    "sinkhorn_assign": lambda f: f(X, temperature=0.1),
    "smooth_binary_labels": lambda f: f(P, smoothing=0.2),
    "smooth_labels": lambda f: f(IDS, num_classes=3, smoothing=0.2),
    "sum": lambda f: f(X),
    "softmax_cross_entropy_with_z": lambda f: f(X, IDS),
    "supervised_contrastive": lambda f: f(X, GROUPS, temperature=0.1),
    "temperature": lambda f: f(X, temperature=2.0),
    "top_k_mean": lambda f: f(X, 2),
    "two_hot": lambda f: f(ROW, support=np.arange(4.0)),
    "variance_hinge": lambda f: f(X, target=2.0),
}
OPTAX = {
    "binary_dice_loss": lambda f: f(IMAGE[..., 0], IMAGE[..., 0]),
    "convex_kl_divergence": None,  # the old name of another
    "cosine_distance": lambda f: f(X, P),
    "cosine_similarity": lambda f: f(X, P),
    "ctc_loss": lambda f: f(FRAMES, jnp.zeros((1, 4)), TOKENS, SIGNS[:1, :2]),
    "ctc_loss_with_forward_probs": None,  # as `ctc_loss`
    "dice_loss": lambda f: f(IMAGE, IMAGE),
    "huber_loss": lambda f: f(X, P, delta=0.5),
    "make_fenchel_young_loss": None,  # makes a loss
    "multiclass_generalized_dice_loss": lambda f: f(IMAGE, IMAGE),
    "ntxent": lambda f: f(X, GROUPS),
    "poly_loss_cross_entropy": lambda f: f(X, P),
    "ranking_softmax_loss": lambda f: f(X, P),
    "sigmoid_focal_loss": lambda f: f(X, P, alpha=0.25),
    "smooth_labels": lambda f: f(P, 0.1),
    "triplet_margin_loss": lambda f: f(X, P, -X),
}
KERAS = {
    "categorical_generalized_cross_entropy": lambda f: f(IDS, P, q=0.5),
    "circle": lambda f: f(GROUPS, X, gamma=8.0),
    "ctc": lambda f: f(TOKENS, FRAMES),
    "huber": lambda f: f(P, X, delta=0.5),
    "sparse_categorical_crossentropy": lambda f: f(IDS, P, ignore_class=1),
}


def call_of_optax(name):
    if name in OPTAX:
        return OPTAX[name]
    ids = name.startswith("multiclass_") or name.endswith("integer_labels")
    return lambda f: f(X, IDS if ids else P)


def functions():
    for name in CALLS:
        yield f"jaxloss.{name}", getattr(jaxloss, name), CALLS[name]
    for name, fn in vars(margins).items():
        if inspect.isfunction(fn) and not name.startswith("_"):
            yield f"margins.{name}", fn, lambda f: f(X)
    for name in sorted(set(dir(optax.losses)) & set(vars(compat))):
        fn, call = getattr(compat, name), call_of_optax(name)
        if inspect.isfunction(fn) and call:
            yield f"compat.optax.{name}", fn, call
    for name, fn in vars(compat_keras).items():
        home = getattr(fn, "__module__", "")
        if home == compat_keras.__name__ and not name.startswith("_"):
            call = KERAS.get(name, lambda f: f(P, P))
            yield f"compat.keras.{name}", fn, call


FUNCTIONS = list(functions())


@pytest.mark.parametrize(
    ("fn", "call"), [f[1:] for f in FUNCTIONS], ids=[f[0] for f in FUNCTIONS]
)
def test_a_second_call_runs_programs_alone(fn, call):
    """It traces and compiles nothing, and each is the function of that name."""
    with jax.enable_x64(False), jax.numpy_rank_promotion("allow"):
        call(fn)
        with compile_events() as events:
            call(fn)
    assert events == []


@pytest.mark.parametrize("name", CALLS)
def test_a_call_runs_one_program(name):
    """What a trace of the call sees is one equation, with the name of the function."""
    fn = getattr(jaxloss, name)
    with jax.enable_x64(False):
        ran = jax.make_jaxpr(lambda: CALLS[name](fn))().eqns
    names = [e.params.get("name", e.primitive.name) for e in ran]
    assert names == [name]


def test_every_public_function_is_here_or_has_a_spec():
    """Nothing that takes arrays is left out."""
    from jaxloss.claims import SPECS

    specified = {spec.fn for spec in SPECS if spec.kernel}
    for name, fn in vars(jaxloss).items():
        if inspect.isfunction(fn) and not name.startswith("_"):
            assert fn in specified or name in CALLS, name


def test_means_are_programs_too():
    """Making, adding and dividing them runs one program each."""
    make = lambda: (Mean.of(X) + Mean.constant(2.0)).compute()
    make()
    with compile_events() as events:
        make()
    assert events == []
    assert len(jax.make_jaxpr(make)().eqns) == 4


# What a type checker would not let pass: it knows numbers and arrays.
of_any: Any = jaxloss


def test_numbers_of_any_kind_run_the_same_program():
    """Python's and NumPy's, integers too; an array of numbers is another program."""
    with jax.enable_x64(False):
        of_any.huber(X, P, delta=0.7)
        with compile_events() as events:
            for delta in (1, 2.5, np.float64(0.3), np.float32(0.4), np.int64(3)):
                of_any.huber(X, P, delta=delta)
            of_any.huber(X, P)
        assert events == []


def test_lists_and_numpy_work_as_in_jnp():
    """Nested lists, float64 arrays with 64-bit types off, NumPy's axes."""
    with jax.enable_x64(False):
        rows = np.asarray(X, np.float64)
        assert of_any.huber(rows.tolist(), rows, delta=1).dtype == jnp.float32
        assert of_any.squared_error(np.float64(2), 1.0) == 1
        assert of_any.mean([1.0, 2.0], axis=np.int64(0)) == 1.5
        assert of_any.mean([[1.0, 2.0]], axis=(np.int32(0), 1)) == 1.5
        chosen = of_any.top_k_mean([1.0, 5.0, 3.0], np.int64(2))
        assert chosen == 4
        of_list = of_any.pinball(rows, rows + 1, quantile=[0.25, 0.5, 0.75])
        np.testing.assert_array_equal(of_list[0], [0.25, 0.5, 0.75])
    with pytest.raises(ValueError, match=r"^pinball: `quantile` is \[0\.5 2\. "):
        of_any.pinball(X, X, quantile=[0.5, 2.0, 0.1])
    with pytest.raises(TypeError, match=r"^mean: `axis` has type list; expected"):
        of_any.mean(X, axis=[0])
    with pytest.raises(TypeError, match=r"^huber: `delta` has dtype bool"):
        of_any.huber(X, X, delta=True)


def test_the_name_stands_in_the_program():
    """In what is lowered, where it is called alone and inside of another `jit`."""
    assert "jit_huber" in jax.jit(jaxloss.huber).lower(X, X).as_text()
    step = jax.jit(lambda x: jaxloss.mean(jaxloss.log_cosh(x, x)))
    assert "@log_cosh" in step.lower(X).as_text()


def test_it_runs_without_jit_and_where_leaks_are_looked_for():
    """As under `disable_jit`, `checking_leaks`, `checkpoint` and `scan`."""
    loss = lambda x: jaxloss.mean(jaxloss.softmax_cross_entropy(x, IDS))
    want = loss(X)
    with jax.disable_jit():
        np.testing.assert_allclose(loss(X), want, rtol=1e-6)
    with jax.checking_leaks():
        np.testing.assert_allclose(jax.grad(loss)(X), jax.grad(loss)(X))
    np.testing.assert_array_equal(jax.grad(jax.checkpoint(loss))(X), jax.grad(loss)(X))
    total, _ = jax.lax.scan(lambda s, x: (s + loss(x), None), 0.0, jnp.stack([X, X]))
    np.testing.assert_allclose(total, 2 * want, rtol=1e-6)


def test_it_can_be_exported_and_pickled():
    """An exported program gives the same numbers; a pickle holds the name alone."""
    step = jax.jit(lambda x: jaxloss.mean(jaxloss.huber(x, 0 * x, delta=0.5)))
    shape = jax.ShapeDtypeStruct(X.shape, X.dtype)
    assert jax.export.export(step)(shape).call(X) == step(X)
    for fn in (jaxloss.huber, jaxloss.mean, jaxloss.nt_xent, margins.hinge):
        assert pickle.loads(pickle.dumps(fn)) is fn


@pytest.mark.parametrize(
    "loss",
    [
        jaxloss.softmax_cross_entropy,
        jaxloss.softmax_focal,
        jaxloss.poly1,
        jaxloss.nll,
        jaxloss.squared_emd,
        jaxloss.crammer_singer_hinge,
    ],
    ids=lambda fn: fn.__name__,
)
def test_rows_of_classes_of_a_symbolic_count(loss):
    """One exported program for any number of classes; but there must be one."""
    n, k = jax.export.symbolic_shape("n, k")
    step = jax.jit(jax.value_and_grad(lambda x, ids: jnp.sum(loss(x, ids))))
    like = jax.ShapeDtypeStruct((n, k), X.dtype), jax.ShapeDtypeStruct((n,), jnp.int32)
    exported = jax.export.export(step)(*like)
    x, ids = jnp.sin(jnp.arange(15, dtype=X.dtype)).reshape(3, 5), jnp.arange(3) + 1
    ids = ids.astype(jnp.int32)
    for found, own in zip(exported.call(x, ids), step(x, ids), strict=True):
        np.testing.assert_allclose(found, own, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="no class along axis 1"):
        loss(jnp.zeros((3, 0)), ids)


EMPTY, TWO_IDS = jnp.zeros((2, 0)), jnp.zeros(2, jnp.int32)
OF_NOTHING = {
    "class": [
        lambda: jaxloss.entropy(EMPTY),
        lambda: jaxloss.kl_divergence(EMPTY, EMPTY),
        lambda: jaxloss.kl_divergence_with_log_targets(EMPTY, EMPTY),
        lambda: jaxloss.jensen_shannon(EMPTY, EMPTY),
        lambda: jaxloss.fenchel_young(EMPTY, EMPTY, max_fun=jax.nn.logsumexp),
    ],
    "label": [lambda: jaxloss.zlpr(EMPTY, EMPTY)],
    "component": [
        lambda: jaxloss.cosine_distance(EMPTY, EMPTY),
        lambda: jaxloss.cosine_embedding(EMPTY, EMPTY, TWO_IDS),
        lambda: jaxloss.triplet_margin(EMPTY, EMPTY, EMPTY),
        lambda: jaxloss.gaussian_kl(EMPTY, EMPTY),
        lambda: jaxloss.batch_hard_triplet(EMPTY, TWO_IDS),
        lambda: jaxloss.multi_similarity(EMPTY, TWO_IDS),
        lambda: jaxloss.circle(EMPTY, TWO_IDS),
        lambda: jaxloss.semi_hard_triplet(EMPTY, TWO_IDS),
        lambda: jaxloss.nt_xent(EMPTY, TWO_IDS, temperature=1.0),
        lambda: jaxloss.clip(EMPTY, EMPTY, temperature=1.0),
        lambda: jaxloss.kernels.clip(EMPTY, EMPTY, temperature=1.0),
        lambda: jaxloss.koleo(EMPTY),
        lambda: jaxloss.energy_score(EMPTY, jnp.zeros(0)),
        lambda: jaxloss.uniformity(EMPTY),
    ],
    "member": [
        lambda: jaxloss.crps_ensemble(EMPTY, jnp.zeros(2)),
        lambda: jaxloss.crps_ensemble_fair(EMPTY, jnp.zeros(2)),
    ],
    "item": [
        lambda: jaxloss.pairwise_ranking(EMPTY, EMPTY),
        lambda: jaxloss.ndcg_weights(EMPTY, EMPTY),
        lambda: jaxloss.approx_ndcg(EMPTY, EMPTY, temperature=1.0),
    ],
}


@pytest.mark.parametrize("entry", OF_NOTHING)
def test_rows_of_nothing_are_refused(entry):
    """A row has at least one entry: not JAX's error about an empty maximum."""
    for call in OF_NOTHING[entry]:
        with pytest.raises(ValueError, match=f"no {entry} along axis 1; expected"):
            call()


def test_a_function_of_the_user_is_traced_once():
    """The same `max_fun` is the same program; arguments of its own make another."""
    loss = compat.make_fenchel_young_loss(jax.nn.logsumexp)
    loss(X, P)
    with compile_events() as events:
        loss(X, P)
    assert events == []
    scaled = compat.make_fenchel_young_loss(lambda v, t: t * jax.nn.logsumexp(v / t))
    np.testing.assert_allclose(scaled(X, P, 1.0), loss(X, P), rtol=1e-6)


HUBER: Any = jaxloss.huber  # so that a type checker lets wrong calls pass


@pytest.mark.parametrize("name", _jit._ELSEWHERE)
def test_an_argument_of_another_library_is_answered(name):
    """In the words of Python, and with what does the same here."""
    words = rf"unexpected keyword argument '{name}'; here (it is `|losses of classes)"
    with pytest.raises(TypeError, match=rf"^huber\(\) got an {words}"):
        HUBER(jnp.ones(3), jnp.ones(3), **{name: "mean"})


def test_a_call_that_does_not_fit_is_refused_as_by_python():
    """A name that is none anywhere, a number too many, and one too few."""
    x = jnp.ones(3)
    with pytest.raises(TypeError, match=r"^huber\(\) got an .* 'gamma'$"):
        HUBER(x, x, gamma=2.0)
    text = r"^huber\(\) takes 2 positional arguments but 3 were given; hyperparameters"
    with pytest.raises(TypeError, match=text):
        HUBER(x, x, 1.0)
    with pytest.raises(TypeError, match=r"missing 1 required .*: 'targets'$"):
        HUBER(x)
