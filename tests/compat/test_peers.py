"""Losses of vision code, against the formulas of their papers and against peers.

The formulas are written in float64 NumPy from the papers, as other libraries write
them: differences of areas, `arccos`, exponentials.  On random arguments they have many
correct digits, and all of ours are to agree with those.  A peer that is installed is
called as well, with its epsilon of 0 where it has one.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import jaxloss
from tests.compat.peers import peer, same

os.environ["KERAS_BACKEND"] = "jax"


def units(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


# --- boxes ---------------------------------------------------------------------------


def random_boxes(count=1000):
    """Pairs that overlap, contain one another, and do not meet."""
    rng = np.random.default_rng(0)
    centre = rng.normal(size=(2, count, 2))
    half = np.exp(0.7 * rng.normal(size=(2, count, 2)))
    return np.concatenate([centre - half, centre + half], axis=-1)


def area(box):
    sides = np.maximum(box[..., 2:] - box[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def meet(p, t):
    """The box that both cover; empty where they do not meet."""
    first, last = np.maximum(p[:, :2], t[:, :2]), np.minimum(p[:, 2:], t[:, 2:])
    return np.concatenate([first, last], axis=-1)


def around(p, t):
    """The smallest box that has both in it."""
    first, last = np.minimum(p[:, :2], t[:, :2]), np.maximum(p[:, 2:], t[:, 2:])
    return np.concatenate([first, last], axis=-1)


def iou(p, t):
    """Yu et al. 2016, without their logarithm."""
    both = area(meet(p, t))
    return 1 - both / (area(p) + area(t) - both)


def giou(p, t):
    """Rezatofighi et al. 2019, algorithm 1."""
    both, whole = area(meet(p, t)), area(around(p, t))
    union = area(p) + area(t) - both
    return 1 - (both / union - (whole - union) / whole)


def diou(p, t):
    """Zheng et al. 2020, (7)."""
    centre = lambda box: (box[:, :2] + box[:, 2:]) / 2
    diagonal = around(p, t)[:, 2:] - around(p, t)[:, :2]
    distance = np.sum((centre(p) - centre(t)) ** 2, axis=-1)
    return iou(p, t) + distance / np.sum(diagonal**2, axis=-1)


def ciou(p, t):
    """Zheng et al. 2020, (8) to (11)."""
    angle = lambda box: np.arctan((box[:, 2] - box[:, 0]) / (box[:, 3] - box[:, 1]))
    v = 4 / np.pi**2 * (angle(t) - angle(p)) ** 2
    return diou(p, t) + v / (iou(p, t) + v) * v


BOXES = {"iou": iou, "giou": giou, "diou": diou, "ciou": ciou}
TORCHVISION = {
    "giou": "generalized_box_iou_loss",
    "diou": "distance_box_iou_loss",
    "ciou": "complete_box_iou_loss",
}


def test_random_boxes_are_of_all_kinds():
    p, t = random_boxes()
    apart = area(meet(p, t)) == 0
    inside, outside = ((meet(p, t) == box).all(axis=-1) for box in (p, t))
    counts = [np.sum(kind) for kind in (apart, inside, outside)]
    assert min(counts) > 30
    assert sum(counts) < 500


@pytest.mark.parametrize("name", BOXES)
def test_boxes(name):
    p, t = random_boxes()
    same(getattr(jaxloss, name)(p, t), BOXES[name](p, t))


@pytest.mark.parametrize("name", TORCHVISION)
def test_boxes_of_torchvision(name):
    """Values and gradients, with the constant alpha."""
    torch, ops = peer("torch"), peer("torchvision.ops")
    # Its complete loss adds 1e-7 to the union, whatever it is told: little of 1e8.
    p, t = 1e4 * random_boxes()
    theirs_in = torch.tensor(p, requires_grad=True), torch.tensor(t, requires_grad=True)
    theirs = getattr(ops, TORCHVISION[name])(*theirs_in, eps=0.0)
    theirs.sum().backward()
    ours, pull = jax.vjp(getattr(jaxloss, name), p, t)
    same(ours, theirs.detach())
    for slope, one in zip(pull(jnp.ones_like(ours)), theirs_in, strict=True):
        same(slope, one.grad)


# --- numbers as classes --------------------------------------------------------------


def two_hot(values, support):
    """Schrittwieser et al. 2020, appendix F, for any support."""
    found = np.zeros((len(values), len(support)))
    for row, value in zip(found, np.clip(values, support[0], support[-1]), strict=True):
        k = min(np.searchsorted(support, value, "right"), len(support) - 1)
        width = support[k] - support[k - 1]
        row[k - 1] = (support[k] - value) / width
        row[k] = (value - support[k - 1]) / width
    return found


def hl_gauss(values, edges, scale):
    """Farebrother et al. 2024, (5) and the code below it."""
    below = special.ndtr((edges - values[:, None]) / scale)
    return np.diff(below) / (below[:, -1:] - below[:, :1])


def test_two_hot():
    rng = np.random.default_rng(0)
    support = np.cumsum(rng.uniform(0.1, 1, size=9))
    values = np.concatenate([rng.uniform(-1, 7, size=200), support])
    found = jaxloss.targets.two_hot(values, support=support)
    same(found, two_hot(values, support))


def test_hl_gauss():
    rng = np.random.default_rng(0)
    edges = np.cumsum(rng.uniform(0.2, 1, size=9))
    values = rng.uniform(edges[0], edges[-1], size=200)
    for scale in (0.3, 1.0):
        found = jaxloss.targets.hl_gauss(values, edges=edges, scale=scale)
        same(found, hl_gauss(values, edges, scale))


# --- angular margins -----------------------------------------------------------------


def arcface(angle):
    """Deng et al. 2019, (3)."""
    return np.cos(angle + 0.5)


def cosface(angle):
    """Wang et al. 2018, (4)."""
    return np.cos(angle) - 0.35


def sphereface(angle):
    """Liu et al. 2017, (7), with m = 4."""
    k = np.floor(4 * angle / np.pi)
    return (-1) ** k * np.cos(4 * angle) - 2 * k


MARGINS = {
    "arcface": (arcface, {}),
    "cosface": (cosface, {"margin": 0.0, "cosine_margin": 0.35}),
    "sphereface": (sphereface, {"margin": 0.0, "angle_factor": 4.0}),
}
# PML has degrees, and the lengths of the embeddings in SphereFace.
PML_MARGINS = {
    "arcface": ("ArcFaceLoss", {"margin": np.degrees(0.5), "scale": 30}),
    "cosface": ("CosFaceLoss", {"margin": 0.35, "scale": 30}),
    "sphereface": ("SphereFaceLoss", {"margin": 4, "scale": 30}),
}


def faces():
    """Embeddings, prototypes and labels; no angle of a label is beyond pi - 1/2."""
    rng = np.random.default_rng(0)
    embeddings, prototypes = rng.normal(size=(64, 16)), rng.normal(size=(10, 16))
    return embeddings, prototypes, rng.integers(10, size=64)


@pytest.mark.parametrize("name", MARGINS)
def test_angular_margins(name):
    moved, options = MARGINS[name]
    embeddings, prototypes, labels = faces()
    angles = np.arccos(units(embeddings) @ units(prototypes).T)
    here = np.eye(10)[labels] == 1
    assert angles[here].max() < np.pi - 0.5
    logits = 30 * np.where(here, moved(angles), np.cos(angles))
    found = jaxloss.logits.angular_margin(*faces(), scale=30.0, **options)
    same(found, logits)


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # theirs
@pytest.mark.parametrize("name", PML_MARGINS)
def test_angular_margins_of_pytorch_metric_learning(name):
    """The mean over the batch, and its gradient along the sphere of embeddings."""
    torch, theirs = peer("torch"), peer("pytorch_metric_learning.losses")
    embeddings, prototypes, labels = faces()
    embeddings = units(embeddings)
    kind, options = PML_MARGINS[name]
    loss = getattr(theirs, kind)(num_classes=10, embedding_size=16, **options)
    loss.W.data = torch.tensor(prototypes.T)
    theirs_in = torch.tensor(embeddings, requires_grad=True)
    value = loss(theirs_in, torch.tensor(labels))

    def ours(embeddings):
        logits = jaxloss.logits.angular_margin(
            embeddings, prototypes, labels, scale=30.0, **MARGINS[name][1]
        )
        return jnp.mean(jaxloss.softmax_cross_entropy(logits, labels))

    same(ours(embeddings), value.detach())
    value.backward()
    slope = theirs_in.grad.numpy()
    radial = np.sum(slope * embeddings, axis=-1, keepdims=True)
    same(jax.grad(ours)(embeddings), slope - radial * embeddings)


# --- embeddings with labels ----------------------------------------------------------


def people(count=24, groups=5):
    rng = np.random.default_rng(0)
    labels = np.arange(count) % groups
    return rng.normal(size=(count, 8)) + 0.5 * np.eye(8)[labels], labels


def groups(labels):
    """Who is a positive of whom, and who a negative."""
    alike = labels[:, None] == labels
    return alike & ~np.eye(len(labels), dtype=bool), ~alike


def multi_similarity(embeddings, labels, alpha=2, beta=50, base=0.5):
    """Wang et al. 2019, (15), of each anchor."""
    x = units(embeddings)
    s, (positive, negative) = x @ x.T, groups(labels)
    near = np.sum(positive * np.exp(-alpha * (s - base)), axis=1)
    far = np.sum(negative * np.exp(beta * (s - base)), axis=1)
    return np.log(1 + near) / alpha + np.log(1 + far) / beta


def circle(embeddings, labels, gamma=80, margin=0.4):
    """Sun et al. 2020, (6) to (8), of each anchor."""
    x = units(embeddings)
    s, (positive, negative) = x @ x.T, groups(labels)
    weight_p = np.maximum(1 + margin - s, 0)
    weight_n = np.maximum(s + margin, 0)
    near = np.sum(positive * np.exp(-gamma * weight_p * (s - 1 + margin)), axis=1)
    far = np.sum(negative * np.exp(gamma * weight_n * (s - margin)), axis=1)
    return np.log(1 + near * far)


def semi_hard(distances, labels, margin):
    """Schroff et al. 2015, section 3.2, of each anchor; one triplet at a time."""
    positive, negative = groups(labels)
    found = []
    for d, here, others in zip(distances, positive, negative, strict=True):
        each = []
        for nearest in d[here]:
            beyond = d[others & (d > nearest)]
            chosen = beyond.min() if beyond.size else d[others].max()
            each.append(max(nearest - chosen + margin, 0))
        found.append(np.mean(each))
    return found


def distances(x):
    return np.sqrt(np.sum((x[:, None] - x) ** 2, axis=-1))


def test_multi_similarity():
    same(jaxloss.multi_similarity(*people()), multi_similarity(*people()))


def test_circle():
    same(jaxloss.circle(*people()), circle(*people()))


def test_circle_of_keras():
    """Its values; it differentiates the weights, which the paper does not."""
    keras = peer("keras")
    embeddings, labels = people()
    same(
        jaxloss.circle(embeddings, labels),
        keras.losses.circle(labels, units(embeddings)),
    )


def test_semi_hard_triplet():
    embeddings, labels = people()
    apart = distances(embeddings)
    for margin in (0.2, 2.0):
        found = jaxloss.semi_hard_triplet(embeddings, labels, margin=margin)
        same(found, semi_hard(apart, labels, margin))
        found = jaxloss.semi_hard_triplet(
            embeddings, labels, margin=margin, squared=True
        )
        same(found, semi_hard(apart**2, labels, margin))


@pytest.mark.parametrize("name", ["MultiSimilarityLoss", "CircleLoss"])
def test_pairs_of_pytorch_metric_learning(name):
    """The mean over the anchors and its gradient, with constant weights of circle."""
    torch, losses = peer("torch"), peer("pytorch_metric_learning.losses")
    reducers = peer("pytorch_metric_learning.reducers")
    embeddings, labels = people()
    theirs_in = torch.tensor(embeddings, requires_grad=True)
    theirs = getattr(losses, name)(reducer=reducers.MeanReducer())
    value = theirs(theirs_in, torch.tensor(labels))
    value.backward()
    here = {
        "MultiSimilarityLoss": jaxloss.multi_similarity,
        "CircleLoss": jaxloss.circle,
    }[name]
    ours = lambda x: jnp.mean(here(x, labels))
    same(ours(embeddings), value.detach())
    same(jax.grad(ours)(embeddings), theirs_in.grad)


# --- two views, and the spread of one ------------------------------------------------


def views():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(32, 6)) @ rng.normal(size=(6, 6))
    return first, first + 0.5 * rng.normal(size=first.shape)


def barlow_twins(first, second, redundancy=0.005):
    """Zbontar et al. 2021, (1) and (2), with a row of the sum for each component."""
    scores = [(x - x.mean(axis=0)) / x.std(axis=0) for x in (first, second)]
    c = scores[0].T @ scores[1] / len(first)
    others = np.sum(c**2, axis=1) - np.diag(c) ** 2
    return (1 - np.diag(c)) ** 2 + redundancy * others


def variance(x):
    """Bardes et al. 2022, (1), without its epsilon: a term of each component."""
    return np.maximum(0, 1 - x.std(axis=0, ddof=1))


def covariance(x):
    """Bardes et al. 2022, (3) and (4), not over d: a row of the sum each."""
    c = np.cov(x.T)
    return np.sum(c**2, axis=1) - np.diag(c) ** 2


def others_of(x):
    """The distances of unit rows to the others."""
    apart = distances(units(x))
    return apart[~np.eye(len(x), dtype=bool)].reshape(len(x), -1)


def uniformity(x, t=2.0):
    """Wang and Isola 2020, of all pairs of a batch."""
    return np.log(np.mean(np.exp(-t * others_of(x) ** 2)))


def koleo(x):
    """Sablayrolles et al. 2019, (2), of each example, not over n."""
    return -np.log(others_of(x).min(axis=1))


def test_barlow_twins():
    same(jaxloss.barlow_twins(*views()), barlow_twins(*views()))


def test_variance_and_covariance():
    first, _ = views()
    x = first * [0.1, 0.2, 0.3, 0.4, 0.5, 1]
    assert 0 < np.count_nonzero(variance(x)) < 6
    same(jaxloss.variance_hinge(x), variance(x))
    same(jaxloss.covariance_penalty(x), covariance(x))


def test_vicreg_of_pytorch_metric_learning():
    """Three means, with its weights; its epsilon under the root is 0 here."""
    torch, losses = peer("torch"), peer("pytorch_metric_learning.losses")
    first, second = (x / 4 for x in views())
    theirs_in = torch.tensor(first, requires_grad=True), torch.tensor(second)
    theirs = losses.VICRegLoss(eps=0.0)(theirs_in[0], ref_emb=theirs_in[1])
    theirs.backward()

    def ours(first):
        spread = [
            25 * jnp.mean(jaxloss.variance_hinge(x)) / 2
            + jnp.mean(jaxloss.covariance_penalty(x))
            for x in (first, second)
        ]
        return 25 * jnp.mean((first - second) ** 2) + sum(spread)

    same(ours(first), theirs.detach())
    same(jax.grad(ours)(first), theirs_in[0].grad)


def test_uniformity():
    same(jaxloss.uniformity(views()[0]), uniformity(views()[0]))


def test_koleo():
    same(jaxloss.koleo(views()[0]), koleo(views()[0]))


def sinkhorn(scores, temperature, iterations):
    """Caron et al. 2020, the pseudo-code of their appendix."""
    q = np.exp(scores / temperature).T
    q /= np.sum(q)
    (k, b) = q.shape
    u, r, c = np.zeros(k), np.ones(k) / k, np.ones(b) / b
    for _ in range(iterations):
        u = np.sum(q, axis=1)
        q *= (r / u)[:, None]
        q *= (c / np.sum(q, axis=0))[None, :]
    return (q / np.sum(q, axis=0, keepdims=True)).T


@pytest.mark.parametrize("iterations", [1, 3])
def test_sinkhorn_assign(iterations):
    scores = np.random.default_rng(0).uniform(-1, 1, size=(32, 10))
    found = jaxloss.targets.sinkhorn_assign(
        scores, temperature=0.05, iterations=iterations
    )
    same(found, sinkhorn(scores, 0.05, iterations))
