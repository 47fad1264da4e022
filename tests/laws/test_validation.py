"""`testing.validate`: it accepts what a loss is for, and refuses everything else."""

import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxloss
from jaxloss import catalogue, stable
from jaxloss.claims import CLAIMS, SPECS, domains
from jaxloss.testing import Claim, validate, validation

OF_LOSSES = [claim for claim in CLAIMS if claim.settings]
LOGITS = np.array([[2.0, -1.0, 0.5], [0.3, 0.1, -4.0]])
IDS = np.array([0, 2])


def drawn(spec, dtype, args):
    """The arguments of a setting as a call has them: by position and by keyword."""
    cast = lambda x: (
        jnp.asarray(x, dtype) if np.asarray(x).dtype.kind == "f" else jnp.asarray(x)
    )
    args = [jax.tree.map(cast, x) for x in args]
    split = len(args) - len(spec.keywords)
    named = dict(zip(spec.keywords, args[split:], strict=True))
    return args[:split], {**named, **spec.params, **spec.static}


# --- what is accepted --------------------------------------------------------------

CLAIM_OF = {id(spec): claim for claim in OF_LOSSES for spec in claim.settings}


def look(claim, by_position, by_name):
    """What `validate` does, without a call of the loss, which would compile it."""
    bound = inspect.signature(claim.fn).bind(*by_position, **by_name)
    bound.apply_defaults()
    validation.look(claim, bound.arguments)


def other_than_zero(predictions, targets):
    """The edges of a relative error without the targets that it is infinite for."""
    predictions, targets = np.broadcast_arrays(predictions, targets)
    return predictions[targets != 0], targets[targets != 0]


# Losses that are claimed at edges of which `validate` warns.
INSIDE = {"absolute_percentage_error": other_than_zero}


@pytest.mark.parametrize("spec", SPECS, ids=[spec.name for spec in SPECS])
def test_samples_and_extremes_are_in_their_domains(spec):
    """All that the laws are shown of a loss, in three dtypes, edges included."""
    inside = INSIDE.get(spec.name, lambda *args: args)
    for dtype in (np.float64, np.float32, jnp.bfloat16):
        shown = [spec.sample(np.random.default_rng(0), (3,))]
        shown += spec.extremes(dtype) if spec.extremes else []
        for args in shown:
            look(CLAIM_OF[id(spec)], *drawn(spec, dtype, inside(*args)))


def test_every_loss_has_the_domains_of_its_arguments(subtests):
    """Of its data, from the claim; of its numbers, from the intervals it checks."""
    claims = {claim.fn: claim for claim in OF_LOSSES}
    without = ("where", "label_where", "desirable", "events", "max_fun")  # no number
    for entry in catalogue.entries():
        with subtests.test(entry.name):
            known = claims[entry.function].domains
            given = inspect.signature(entry.function).parameters.values()
            data = {p.name for p in given if p.kind is not p.KEYWORD_ONLY}
            numbers = {p.name for p in given if isinstance(p.default, float)}
            assert data - {*without} <= known.keys() <= {p.name for p in given}
            assert numbers <= entry.function.__dict__["intervals"].keys()


def test_the_loss_is_returned():
    """As the loss itself returns it, for any kind of array."""
    losses = validate(jaxloss.softmax_cross_entropy, LOGITS.tolist(), IDS)
    assert (losses == jaxloss.softmax_cross_entropy(LOGITS.tolist(), IDS)).all()


def test_what_a_mask_leaves_out_is_not_looked_at():
    """Of entries, of whole rows of components, and of rows without a class."""
    holes = np.array([[1.0, np.nan, 0.0], [0.5, 0.5, 1.0]])
    where = np.isfinite(holes)
    validate(jaxloss.dice, holes, np.ones((2, 3)), axis=-1, where=where)
    validate(jaxloss.nt_xent, holes, IDS, temperature=0.1, where=where.all(-1))
    validate(jaxloss.clip, holes, holes, temperature=0.1, where=where.all(-1))
    only = np.array([[True] * 3, [False] * 3])
    validate(jaxloss.softmax_cross_entropy, LOGITS, np.array([0, -100]), where=only)
    masks = {"where": where[:, 1:], "label_where": np.array([[True], [False]])}
    frames = np.zeros((2, 2, 3))
    validate(jaxloss.ctc, frames, np.array([[2], [7]]), **masks)


# --- what is refused ---------------------------------------------------------------


def spoilt(array, domain):
    """The same argument with one entry that no loss takes; None of arbitrary ids."""
    array = np.array(array)
    no_id = -1 if domain is domains.NOT_NEGATIVE else np.iinfo(np.int32).max
    array.flat[-1] = np.nan if array.dtype.kind == "f" else no_id
    return array


@pytest.mark.parametrize("claim", OF_LOSSES, ids=[c.name for c in OF_LOSSES])
def test_a_spoilt_entry_of_each_argument_is_refused(subtests, claim):
    """NaN in a floating argument, a number that is no class in ids, -1 in counts."""
    spec = claim.settings[0]
    sample = spec.sample(np.random.default_rng(1), (3,))
    names = [*inspect.signature(claim.fn).parameters]
    names = [*names[: len(sample) - len(spec.keywords)], *spec.keywords]
    for at, name in enumerate(names):
        if name not in claim.domains or claim.domains[name] is domains.ANY_IDS:
            continue
        leaves, tree = jax.tree.flatten(sample[at])
        leaves[-1] = spoilt(leaves[-1], claim.domains[name])
        args = [*sample]
        args[at] = jax.tree.unflatten(tree, leaves)
        masked = [i for i, n in enumerate(names) if n in ("where", "label_where")]
        for i in masked:
            args[i] = np.ones_like(args[i])
        message = rf"^{claim.name}: `{name}.*` has (the value|a row).*; expected .*\.$"
        with subtests.test(name), pytest.raises(ValueError, match=message):
            look(claim, *drawn(spec, np.float32, args))


TWO = np.array([0.2, 2.0])
ONES = np.ones(2)
P = np.array([[0.7, 0.2, 0.1]])
OUTSIDE = {
    "dice of logits": (
        functools.partial(validate, jaxloss.dice, axis=-1),
        (LOGITS, LOGITS > 0),
        "`probabilities` has the value 2 at [0, 0], the first of 3 such among 6; "
        "expected probabilities in [0, 1], such as `jax.nn.sigmoid(logits)` or",
    ),
    "nll of logits": (
        functools.partial(validate, jaxloss.nll),
        (LOGITS, IDS),
        "`log_probs` has the value 2 at [0, 0], the first of 4 such among 6; expected "
        "log-probabilities, at most 0, such as `stable.log_softmax(logits)`.",
    ),
    "nll of logits that are all negative": (
        functools.partial(validate, jaxloss.nll),
        (LOGITS - 3, IDS),
        "`log_probs` has a row whose exponentials sum to 0.46828 at [0], the first of "
        "2 such among 2; expected log-probabilities whose exponentials sum to 1",
    ),
    "kl_divergence of probabilities": (
        functools.partial(validate, jaxloss.kl_divergence),
        (P, P),
        "`log_predictions` has the value 0.7 at [0, 0]",
    ),
    "kl_divergence to logits": (
        functools.partial(validate, jaxloss.kl_divergence),
        (np.log(P), np.log(P)),
        "`targets` has the value -0.356675 at [0, 0]",
    ),
    "kl_divergence to several labels": (
        functools.partial(validate, jaxloss.kl_divergence),
        (np.log(P), np.array([[1, 1, 0]])),
        "`targets` has a row that sums to 2 at [0]; expected probabilities that sum",
    ),
    "label 2": (
        functools.partial(validate, jaxloss.sigmoid_cross_entropy),
        (TWO, np.array([1, 2])),
        "`labels` has the value 2 at [1]; expected labels in [0, 1], which are",
    ),
    "labels -1": (
        functools.partial(validate, jaxloss.sigmoid_focal),
        (TWO, np.array([1.0, -1.0])),
        "which are `(y + 1) / 2` of labels y = -1 and +1.",
    ),
    "hinge of 0": (
        functools.partial(validate, jaxloss.hinge),
        (TWO, np.array([1, 0])),
        "`labels` has the value 0 at [1]; expected labels -1 and +1, which are "
        "`2 * y - 1` of labels y = 0 and 1.",
    ),
    "ids from one": (
        functools.partial(validate, jaxloss.softmax_cross_entropy),
        (LOGITS, np.array([1, 3])),
        "`labels` has the value 3 at [1]; expected class ids in [0, 3); ids that count "
        "from 1 are `labels - 1`.",
    ),
    "padding": (
        functools.partial(validate, jaxloss.softmax_focal),
        (LOGITS, np.array([1, -100])),
        "expected class ids in [0, 3); select the examples that count, as "
        "`labels[labels >= 0]`.",
    ),
    "negative weights": (
        functools.partial(validate, jaxloss.softmax_cross_entropy),
        (LOGITS, LOGITS),
        "expected class ids as integers, or a distribution >= 0.",
    ),
    "a class without a score": (
        functools.partial(validate, jaxloss.crammer_singer_hinge),
        (LOGITS, np.array([3, 0])),
        "`labels` has the value 3 at [0]; expected class ids in [0, 3).",
    ),
    "a class beyond the thresholds": (
        functools.partial(validate, jaxloss.coral),
        (LOGITS, np.array([3, 4])),
        "`labels` has the value 4 at [1]; expected class ids in [0, 4).",
    ),
    "the blank": (
        functools.partial(validate, jaxloss.ctc),
        (np.zeros((1, 4, 3)), np.array([[1, 0]])),
        "`labels` has the value 0 at [0, 1]; expected class ids other than the blank",
    ),
    "zlpr of a soft label": (
        functools.partial(validate, jaxloss.zlpr),
        (TWO, np.array([0.5, 1.0])),
        "`labels` has the value 0.5 at [0]; expected labels 0 and 1, which are `labels",
    ),
    "gamma_nll of nothing": (
        functools.partial(validate, jaxloss.gamma_nll, shape=1.0),
        (TWO, np.array([0.0, 2.0])),
        "`targets` has the value 0 at [0]; expected finite numbers > 0.",
    ),
    "negative_binomial_nll of a dispersion": (
        functools.partial(validate, jaxloss.negative_binomial_nll),
        (TWO, ONES, np.array([0.0, 1e3])),
        "`log_dispersions` has the value 1000 at [1]; expected logarithms of "
        "dispersions, at most 80, or -inf for none.",
    ),
    "a negative count": (
        functools.partial(validate, jaxloss.poisson_nll),
        (TWO, -ONES),
        "`counts` has the value -1 at [0], the first of 2",
    ),
    "a negative distance": (
        functools.partial(validate, jaxloss.triplet),
        (ONES, -ONES),
        "expected distances >= 0, such as `stable.norm(first - second)`.",
    ),
    "an amount below -1": (
        functools.partial(validate, jaxloss.squared_log_error),
        (ONES, -2 * ONES),
        "`targets` has the value -2 at [0], the first of 2 such among 2; expected",
    ),
    "a target of 0": (
        functools.partial(validate, jaxloss.absolute_percentage_error),
        (ONES, np.array([1.0, 0.0])),
        "`targets` has the value 0 at [1]; expected finite targets other than 0; leave",
    ),
    "probabilities as log-probabilities": (
        functools.partial(validate, jaxloss.simpo, beta=2.0, gamma=0.5),
        (-ONES, np.array([0.5, -1.0])),
        "`rejected_log_probs` has the value 0.5 at [0]; expected log-probabilities, at",
    ),
    "cutpoints that fall": (
        functools.partial(validate, jaxloss.cumulative_logit),
        (TWO, IDS, np.array([1.0, -1.0])),
        "`cutpoints` has a step of -2 from one to the next; expected cutpoints that",
    ),
    "a hyperparameter that is an array": (
        functools.partial(validate, jaxloss.huber, delta=jnp.array(-1.0)),
        (ONES, ONES),
        "`delta` has the value -1; expected a number in (0, inf).",
    ),
    "a leaf of a tree": (
        functools.partial(validate, jaxloss.l2),
        ({"w": np.array([1.0, np.inf])},),
        "`params['w']` has the value inf at [1]; expected finite numbers.",
    ),
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_the_error_says_what_and_where_and_what_to_do(case):
    """The first value outside, its index, how many, what was expected, the remedy."""
    call, args, message = OUTSIDE[case]
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        call(*args)
    assert str(raised.value).startswith(f"{call.args[0].__name__}: `")
    assert str(raised.value).endswith(".")


def test_every_domain_of_a_claim_has_its_case():
    """No kind of domain is without an example of what it refuses."""
    refused = set()
    for call, args, message in OUTSIDE.values():
        found = re.match(r"`(\w+)", message)
        claim = next(c for c in OF_LOSSES if c.fn is call.args[0])
        names = [found[1]] if found else [*claim.domains][: len(args)]
        refused |= {claim.domains[n] for n in names if n in claim.domains}
    refused |= {domains.ANY_IDS}  # which refuses nothing
    numbers = {"REAL", "LOGITS", "LOG_ODDS", "LOGARITHMS"}  # NaN: above, of each loss
    refused |= {getattr(domains, name) for name in numbers}
    named = {n: d for n, d in vars(domains).items() if n.isupper() and callable(d)}
    assert not {n for n, d in named.items() if d not in refused} - {"WEIGHTS"}


def test_what_the_loss_refuses_is_its_own_error():
    """Shapes and dtypes first, in the words of the loss."""
    with pytest.raises(ValueError, match="nothing is broadcast"):
        validate(jaxloss.huber, np.ones(3), np.full((3, 1), np.nan))
    with pytest.raises(TypeError, match="missing a required argument: 'targets'"):
        validate(jaxloss.huber, np.ones(3))


@pytest.mark.parametrize("loss", [stable.softplus, optax.losses.huber_loss, abs])
def test_a_loss_without_a_claim_is_refused(loss):
    """The error says what may be passed."""
    message = rf"validate: `loss` has no claim .*'{loss.__name__}'; expected a loss of"
    with pytest.raises(ValueError, match=message):
        validate(loss, ONES)


def test_a_claim_of_your_own_is_enough():
    """Its domains say what the function takes."""
    mine = Claim(fn=lambda x: -jnp.log(x), domains={"x": domains.PROBABILITIES})
    assert (validate(mine, ONES) == 0).all()
    with pytest.raises(ValueError, match=r"<lambda>: `x` has the value 2 at \[1\]"):
        validate(mine, TWO)


def test_values_have_to_be_known():
    """Inside of `jit` there are none."""
    with pytest.raises(TypeError, match="outside of jit, vmap and grad"):
        jax.jit(functools.partial(validate, jaxloss.huber))(ONES, ONES)


def test_half_precision_is_looked_at_as_it_is():
    """A softmax rounded to bfloat16 still sums to 1."""
    logits = 5 * np.random.default_rng(0).normal(size=(50, 40))
    rows = jax.nn.log_softmax(jnp.asarray(logits, jnp.bfloat16))
    validate(jaxloss.nll, rows, jnp.zeros(50, int))
