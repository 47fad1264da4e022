"""The catalogue tells the truth: its claims against the specs of the losses.

Values and gradients are the formulas of the specs, in mpmath: that the losses have them
is what the laws say.  So nothing is compiled here.
"""

import dataclasses
import functools
import inspect
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxloss
from jaxloss import catalogue, testing
from jaxloss.claims import SPECS

ENTRIES = {entry.name: entry for entry in catalogue.entries()}
# Arguments that no network predicts ...
GIVEN = (
    "targets",
    "log_targets",
    "counts",
    "labels",
    "relevance",
    "similar",
    "rewards",
)
GIVEN += ("chosen_reference_log_probs", "rejected_reference_log_probs")
GIVEN += ("reference_log_probs", "old_log_probs")
# ... and those that have no far end: shares, signs and weights.
BOUNDED = ("labels", "log_targets", "relevance", "similar", "rewards")
SHARES = ("probabilities", "complements")
DISTRIBUTIONS = ("divergence", "fenchel", "segmentation")
NEAR, FAR = 1e3, 1e6
ROUNDING = testing.tolerance(np.float64)  # of arguments that should sum to 1


# Claims with a condition are seen on both sides of it.
BEYOND = [
    dataclasses.replace(spec, name=f"{spec.fn.__name__}({more})", params=more, convex=c)
    for fn, more, c in (
        (jaxloss.poly1, {"epsilon": 2.0}, False),
        (jaxloss.sigmoid_focal, {"gamma": 0.0}, True),
    )
    for spec in [next(s for s in SPECS if s.fn is fn)]
]
ALL = [s for s in (*SPECS, *BEYOND) if s.fn.__name__ in ENTRIES]


def specs_of(entry):
    """All settings of a loss."""
    return [spec for spec in ALL if spec.fn.__name__ == entry.name]


def holds(claim, entry, spec):
    """Whether a claim says yes at the setting of a spec."""
    if not claim.startswith("for "):
        return claim.startswith("yes")
    settings = {**entry.hyperparameters, **spec.params, **spec.static, "inf": np.inf}
    return bool(eval(claim.removeprefix("for "), {"__builtins__": {}}, settings))


def names(spec):
    """The names of the arguments of its sample."""
    given = inspect.signature(spec.fn).parameters.values()
    positional = [p.name for p in given if p.kind is p.POSITIONAL_OR_KEYWORD]
    return [*positional, *spec.keywords]


@functools.cache
def draw(spec, seed=0):
    """Some examples, in float64."""
    sample = spec.sample(np.random.default_rng(seed), (8,))
    return tuple(np.asarray(a) for a in sample)


def value(spec, args, **params):
    with np.errstate(all="ignore"):
        return np.asarray(spec.reference(*args, **{**spec.params, **params}))


def slopes(spec, args):
    """The largest slope of each example in what a network predicts."""
    with np.errstate(all="ignore"):
        found = spec.gradient(*args, **spec.params)
    found = (found,) if isinstance(spec.differentiable, int) else found
    at = dict(zip(spec.wrt, found, strict=True))
    own = [np.abs(at[i]) for i in spec.wrt if names(spec)[i] not in GIVEN]
    return np.max([a.reshape(len(a), -1).max(1) for a in own], axis=0)


def moves(entry, spec, scale):
    """The sample, one argument at a time `scale` times as far, or as near to 0."""
    args = draw(spec)
    for i, (name, a) in enumerate(zip(names(spec), args, strict=True)):
        file = entry.module.rpartition(".")[2]
        distribution = name == "targets" and file in DISTRIBUTIONS
        if name in BOUNDED or distribution or not np.issubdtype(a.dtype, np.floating):
            continue
        shares = (a / scale, 1 - (1 - a) / scale)
        for end in shares if name in SHARES else (a * scale, a / scale):
            yield (*args[:i], end, *args[i + 1 :])


def ordinary(spec):
    """Values at the sample, at the extremes, and at the minimiser if there is one."""
    examples = [draw(spec, seed) for seed in (0, 1)]
    if spec.minimiser:
        with np.errstate(divide="ignore"):
            best = [spec.minimiser(*rest, **spec.params) for _, *rest in examples]
        shape = examples[0][0].shape
        examples += [
            (np.broadcast_to(x, shape), *a[1:])
            for x, a in zip(best, examples, strict=True)
        ]
    if spec.extremes:
        examples += [tuple(map(np.asarray, a)) for a in spec.extremes(np.dtype(float))]
    return np.concatenate([value(spec, args).ravel() for args in examples])


OPEN = {"base", "epsilon_high", "redundancy", "smooth", "t", "target", "temperature"}
"""Hyperparameters that may be as large as one likes."""


def remote(entry, spec):
    """Values far out: of arguments, and of hyperparameters that are not shares."""
    settings = [{}] + [
        {name: spec.params[name] * end}
        for name in OPEN & {*spec.params}
        for end in (1 / FAR, FAR)
    ]
    examples = [draw(spec), *moves(entry, spec, FAR)]
    found = [value(spec, args, **more) for args in examples for more in settings]
    if entry.name == "jensen_shannon":  # two distributions with no class in common
        one = np.eye(4)
        with np.errstate(divide="ignore"):
            found.append(value(spec, (np.log(one), np.roll(one, 1, axis=0))))
    return np.concatenate([np.ravel(v) for v in found])


# --- range ---------------------------------------------------------------------------


def likeliest_of_ties(n=2**14):
    """Subjects, of which the one of the largest hazard has an event with all others."""
    log_hazards = jnp.where(jnp.arange(n) == 0, 40.0, 0.0)
    return jaxloss.cox_ph(log_hazards, jnp.zeros(n), jnp.ones(n, bool))


ONE = np.ones(1)

# Near the ends of a range that no sample comes near.
FARTHEST = {
    "cox_ph": likeliest_of_ties,
    # The only relevant item is the last of 2**1023.
    "approx_ndcg": lambda: 1 - 1 / np.log2(1 + 2.0**1023),
    # An exponential distribution of a mean of e^-100, near 0: its density is e^100.
    "gamma_nll": lambda: jaxloss.gamma_nll(-100.0 * ONE, 1e-60 * ONE, shape=1.0),
}


def values_lie_in_the_range(entry, spec):
    """Typical, extreme and least ones; infinity is what exceeds the largest number."""
    low, high, *_ = entry.interval(draw(spec)[0].shape[-1])
    values = ordinary(spec)
    assert (values >= low - ROUNDING).all(), values.min()
    assert (values <= high).all(), values.max()


def the_range_is_not_too_wide(entry):
    """A finite end is attained or approached; to an infinite one values are large."""
    specs = specs_of(entry)
    low, high, *_ = entry.interval(draw(specs[0])[0].shape[-1])
    found = [v for s in specs for v in (ordinary(s), remote(entry, s))]
    if entry.name in FARTHEST:
        found.append(np.ravel(FARTHEST[entry.name]()))
    # The Brier score of what does not sum to 1 is beyond its range.
    values = np.clip(np.concatenate(found), low, high)
    near = lambda end, got: abs(got - end) < 1e-3 if np.isfinite(end) else abs(got) > 50
    assert near(low, values.min()), values.min()
    assert near(high, values.max()), values.max()


def the_least_value_is_the_lower_end(entry, spec):
    """Where a spec names one minimum for all examples."""
    if spec.minimiser and not callable(spec.minimum):
        assert spec.minimum == entry.interval().low


def infinity_is_in_the_range_if_the_docstring_gives_it(entry):
    """`inf]` where `Returns` says what costs infinity, else `inf)`."""
    says = re.search(r"\binf\b|infinity|infinite where", entry.returns)
    assert bool(says) == entry.range.endswith("inf]")


# --- robust and convex ---------------------------------------------------------------


def grows(entry, spec):
    """Whether the slope of an example that gets ever worse has no bound."""
    base = value(spec, draw(spec))
    bound = slopes(spec, draw(spec)).max()
    for near, far in zip(
        moves(entry, spec, NEAR), moves(entry, spec, FAR), strict=True
    ):
        # The examples that it makes worse, by more than rounding.
        rise = value(spec, far) > value(spec, near)
        rise &= value(spec, far) > base + 1e-6 * (1 + np.abs(base))
        rise = rise.reshape(len(rise), -1).any(1)
        if rise.any():
            limit = max(bound, slopes(spec, near)[rise].max())
            if not (slopes(spec, far)[rise] <= 1.2 * limit).all():
                return True
    return False


def robust_where_the_slope_is_bounded(entry, spec):
    """Examples are driven far off, one argument at a time, in which they get worse."""
    if "(" not in entry.robust:  # which depends on a function
        assert grows(entry, spec) != holds(entry.robust, entry, spec)


def test_fenchel_young_is_robust_on_a_bounded_domain():
    """As its claim has it: of logsumexp, whose domain is the simplex, and not of half
    the square, whose domain is unbounded."""
    assert ENTRIES["fenchel_young"].robust == "yes (if the domain of Omega is bounded)"
    far, y = jnp.array([-1e6, 1e6, 0.0]), jnp.array([1.0, 0.0, 0.0])
    half_square = lambda s: 0.5 * jnp.sum(s * s)
    for max_fun, bounded in ((jax.nn.logsumexp, True), (half_square, False)):
        loss = functools.partial(jaxloss.fenchel_young, max_fun=max_fun)
        assert (jnp.abs(jax.grad(loss)(far, y)).max() <= 1) == bounded


def convex_where_the_spec_claims_it(entry, spec):
    """And the law `is_convex` holds the spec to it."""
    assert spec.convex == holds(entry.convex, entry, spec)


def conditions_are_seen_on_both_sides(entry):
    """Some spec of the loss meets a condition and another one does not."""
    claims = [c for c in (entry.robust, entry.convex) if c.startswith("for ")]
    sides = lambda claim: {holds(claim, entry, spec) for spec in specs_of(entry)}
    assert not [claim for claim in claims if len(sides(claim)) != 2]


def not_convex_where_a_chord_is_below_the_graph(entry, spec):
    """A claim of no is proved by two points and what lies between them."""
    if not spec.convex or spec in BEYOND:
        assert any(falls_short(spec, seed) for seed in range(20)) != spec.convex


def falls_short(spec, seed):
    """Whether a chord between two points of a sample lies below the graph."""
    x, *rest = draw(spec, seed)
    for y in (draw(spec, seed + 100)[0], 3 * x, x / 3):
        a, b, c = (value(spec, (z, *rest)) for z in (x, y, 0.5 * (x + y)))
        if (c > 0.5 * (a + b) + 1e-6 * (1 + np.abs(a) + np.abs(b))).any():
            return True
    return False


# --- words ---------------------------------------------------------------------------


def advice_names_what_exists(entry):
    """`not when` names another loss; what is in backquotes is a public function, or an
    argument of a loss that is named."""
    words = re.findall(r"`(\w+)`", f"{entry.when} {entry.not_when}")
    losses = [word for word in words if word in ENTRIES]
    assert {*losses} & {*re.findall(r"`(\w+)`", entry.not_when)} - {entry.name}
    arguments = [ENTRIES[n].arguments for n in (entry.name, *losses)]
    assert {*words} <= {*vars(jaxloss), *(a for group in arguments for a in group)}


def related_names_exist(entry):
    """Other public names, each once; those of the advice are among them."""
    missing = [n for n in entry.related if not callable(getattr(jaxloss, n, None))]
    assert not missing
    assert entry.name not in entry.related
    assert len({*entry.related}) == len(entry.related)
    advised = {*re.findall(r"`(\w+)`", entry.not_when)} & {*ENTRIES}
    assert advised <= {*entry.related}


def prose_is_that_of_the_docstring(entry):
    """Nothing is empty, and nothing is lost between docstring and entry."""
    doc = " ".join((inspect.getdoc(entry.function) or "").split())
    fields = ("returns", "gradient", "when", "reference")
    texts = {field: " ".join(getattr(entry, field).split()) for field in fields}
    assert not [f for f, text in texts.items() if not text or text not in doc]


def code_is_that_of_the_function(entry):
    """A formula, an example to run, and the arguments of the signature."""
    assert r"\ell" in entry.formula or "=" in entry.formula
    assert entry.example.startswith(">>> ")
    assert [*entry.arguments] == [*inspect.signature(entry.function).parameters]
    assert entry.signature.startswith(f"{entry.name}(")


def other_names_lead_to_the_loss(entry):
    """Each name in `Also called:`, once, suggests it."""
    names = [name.lower() for name in entry.also_called]
    assert len({*names}) == len(names) > 0
    missing = [n for n in entry.also_called if entry.name not in catalogue.hint(n)]
    assert not missing


# --- all that is said of a loss ------------------------------------------------------

OF_A_LOSS = (
    the_range_is_not_too_wide,
    infinity_is_in_the_range_if_the_docstring_gives_it,
    conditions_are_seen_on_both_sides,
    advice_names_what_exists,
    related_names_exist,
    prose_is_that_of_the_docstring,
    code_is_that_of_the_function,
    other_names_lead_to_the_loss,
)
OF_A_SPEC = (
    values_lie_in_the_range,
    the_least_value_is_the_lower_end,
    robust_where_the_slope_is_bounded,
    convex_where_the_spec_claims_it,
    not_convex_where_a_chord_is_below_the_graph,
)


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_entry(subtests, entry):
    """What the catalogue says of a loss is true; every complaint is listed."""
    for check in OF_A_LOSS:
        with subtests.test(check.__name__.replace("_", " ")):
            check(entry)
    for spec, check in itertools.product(specs_of(entry), OF_A_SPEC):
        with subtests.test(f"{check.__name__.replace('_', ' ')}: {spec.name}"):
            check(entry, spec)


# What people type, and the losses that they mean, the likeliest first.
MEANT = {
    "bce": ["sigmoid_cross_entropy"],
    "mse": ["squared_error"],
    "mae": ["absolute_error"],
    "RMSE": ["squared_error"],
    "ranknet": ["logistic", "pairwise_ranking"],
    "kld": ["kl_divergence"],
    "BCEWithLogitsLoss": ["sigmoid_cross_entropy"],
    "nn.MSELoss": ["squared_error"],
    "torch.nn.functional.smooth_l1_loss": ["smooth_l1"],
    "svm": ["hinge"],
    "simclr": ["nt_xent"],
    "InfoNCE": ["info_nce"],
    "focal_loss": ["sigmoid_focal", "softmax_focal"],
    "l1_loss": ["absolute_error", "l1"],
    "iou": ["iou", "jaccard"],
    "crossentropy": ["sigmoid_cross_entropy", "softmax_cross_entropy"],
    "log loss": ["sigmoid_cross_entropy", "logistic", "softmax_cross_entropy"],
    "quantile": ["pinball"],
    "L2 regularization": ["l2"],
    "CrossEntropyLos": ["softmax_cross_entropy"],
    "contrastiv": ["supervised_contrastive", "contrastive", "clip"],
    "app": ["approx_ndcg"],
    "dropout": [],
    "": [],
    "*": [],
}


@pytest.mark.parametrize("name", MEANT)
def test_a_name_of_habit_suggests_the_loss(name):
    """A message names all losses that are called so, and none that only sound so."""
    words = " or ".join(map(repr, MEANT[name]))
    assert catalogue.hint(name) == (f" (did you mean {words}?)" if words else "")


def test_search_has_what_is_called_so_first():
    """Then what has the words in a name or in its summary, and nothing else."""
    found = [e.name for e in catalogue.search("cross entropy")]
    assert found[:2] == ["sigmoid_cross_entropy", "softmax_cross_entropy"]
    assert {"poly1", "nt_xent"} <= {*found}
    outliers = [e.name for e in catalogue.search("OUTLIERS")]
    assert outliers == ["general_robust", "exponential"]
    assert not catalogue.search("kinks")
    assert not catalogue.search("(")


# --- of all together -----------------------------------------------------------------


def test_the_catalogue_has_every_loss_and_nothing_else():
    """Whatever has a spec; `ctc_forward` is `ctc` and more, cross entropy with z-loss
    is two of them, and `ndcg_weights` are weights of a loss."""
    more = {"ctc_forward", "softmax_cross_entropy_with_z", "ndcg_weights"}
    assert {*ENTRIES} == {spec.fn.__name__ for spec in SPECS} - more
    assert all(e.function is getattr(jaxloss, name) for name, e in ENTRIES.items())
    assert "mean" not in ENTRIES


def test_no_word_of_a_vocabulary_is_idle():
    """Every task and every activation is that of some loss."""
    assert {t for e in ENTRIES.values() for t in e.tasks} == {*catalogue.TASKS}
    assert {e.activation for e in ENTRIES.values()} == {*catalogue.ACTIVATIONS}


def test_entries_are_in_the_order_of_the_tasks():
    """Those of one task are together."""
    order = [[*catalogue.TASKS].index(e.tasks[0]) for e in ENTRIES.values()]
    assert order == sorted(order)


def test_hyperparameters_have_their_defaults():
    """Masks and axes are none; what has no default has no value."""
    assert ENTRIES["huber"].hyperparameters == {"delta": 1.0}
    assert [*ENTRIES["ctc"].hyperparameters] == ["blank", "zero_infinity"]
    needed = ENTRIES["simpo"].hyperparameters
    assert needed == dict.fromkeys(("beta", "gamma"), inspect.Parameter.empty)


def test_intervals_contain_what_they_say():
    """Ends that are members, ends that are not, and ends that depend on K."""
    half = catalogue.interval("[0, inf)")
    assert 0 in half
    assert np.inf not in half
    assert -1e-9 not in half
    assert np.inf in catalogue.interval("(-inf, inf]")
    assert "0" not in half
    assert catalogue.interval("[0, log K]", classes=4).high == np.log(4)
    assert catalogue.interval("[0, log 2]").high == np.log(2)
    assert catalogue.interval("[-log 2, inf]").low == -np.log(2)
    assert catalogue.interval("[0, K - 1]").high == np.inf
    for text in ("0 to 1", "[0, many]"):
        with pytest.raises(ValueError, match=r"interval|could not convert"):
            catalogue.interval(text)


# --- docstrings that say too little --------------------------------------------------

LACKS = "the docstring of `huber` has "
MISTAKES = [
    ("Also called: ", "Known as: ", "no line `Also called:`"),
    ("Gradient:\n", "Slope:\n", "no section `Gradient:`"),
    (".. math::", ".. code::", "no formula: no block `.. math::`"),
    (
        "robust: yes",
        "",
        "the lines task, activation, range, convex, when, not when",
    ),
    (
        "  task: regression",
        "  task: regresion",
        "the unknown task 'regresion' (did you",
    ),
    ("activation: none", "activation: linear", "the unknown activation 'linear'"),
    ("range: [0, inf)", "range: [0, big)", "a `range` that cannot be read"),
    (
        "range: [0, inf)",
        "range: positive",
        "'positive' is not an interval such as [0, inf)",
    ),
    ("convex: yes", "convex: mostly", "`convex: mostly`, neither yes, no, nor for a"),
    ("convex: yes", "convex: for gamma > 1", "no condition on its hyperparameters"),
    ("convex: yes", "convex: for large delta", "no condition on its hyperparameters"),
]


def test_a_field_that_is_missing_or_wrong_is_named(subtests, monkeypatch):
    """The error says which function, and what is wrong with which line."""
    doc = jaxloss.huber.__doc__ or ""
    for old, new, message in MISTAKES:
        with subtests.test(message), monkeypatch.context() as patch:
            assert old in doc
            patch.setattr(jaxloss.huber, "__doc__", doc.replace(old, new))
            refusal = pytest.raises(catalogue.CatalogueError, match=re.escape(LACKS))
            with refusal as raised:
                catalogue.entry("huber")
            assert message in str(raised.value)
            with pytest.raises(catalogue.CatalogueError):
                catalogue.entries()


def test_an_unknown_name_gets_the_nearest_one():
    """A function that is no loss is none of the catalogue's."""
    assert catalogue.entry("huber") == ENTRIES["huber"]
    with pytest.raises(ValueError, match=r"no loss 'hubr' \(did you mean 'huber'"):
        catalogue.entry("hubr")
    with pytest.raises(ValueError, match=r"'focal' \(did you mean 'sigmoid_focal' or"):
        catalogue.entry("focal")
    for almost in ("Huber", "jaxloss.huber"):
        with pytest.raises(ValueError, match=r"\(did you mean 'huber'\?\)"):
            catalogue.entry(almost)
    with pytest.raises(ValueError, match="no loss 'smooth_labels'"):
        catalogue.entry("smooth_labels")
