"""Claims of the losses of a student and a teacher."""

import functools

import numpy as np

import jaxloss
from jaxloss.claims import common, domains
from jaxloss.claims.classification.cross_entropy import log_probs
from jaxloss.testing import LossSpec, accuracy
from jaxloss.testing.accuracy import FLUSH, Case
from jaxloss.testing.claim import Claim, Line
from jaxloss.testing.exact import digits, mp

# The square of the smallest difference of logits.
ALL_DIGITS = 200


def logs(s, t, temperature):
    """Log-probabilities of the student and the teacher."""
    return (log_probs([v / temperature for v in x]) for x in (s, t))


def exp(x):
    """Of a logarithm down to -1e30, of which mpmath would find all digits for long."""
    return mp.exp(x) if x > -1e5 else mp.mpf(0)


def divergence(s, t, temperature):
    pairs = zip(*logs(s, t, temperature), strict=True)
    return temperature**2 * mp.fsum(exp(b) * (b - a) for a, b in pairs)


@common.exact_rows(1, 1)
@digits(ALL_DIGITS)
def gradient(s, t, temperature):
    pairs = [*zip(*logs(s, t, temperature), strict=True)]
    kl = mp.fsum(exp(b) * (b - a) for a, b in pairs)
    student = [temperature * (exp(a) - exp(b)) for a, b in pairs]
    teacher = [temperature * exp(b) * (b - a - kl) for a, b in pairs]
    return student, teacher


@common.exact_rows(1, 1)
@digits(ALL_DIGITS)
def gradient_cancels(s, t, temperature):
    """In the student: where some classes gain what others lose, the sum of the gains,
    which all share; in the teacher the differences of classes."""
    pairs = [*zip(*logs(s, t, temperature), strict=True)]
    moved = mp.fsum(abs(exp(a) - exp(b)) for a, b in pairs)
    student = [abs(exp(a) - exp(b)) + exp(b) * moved for a, b in pairs]
    apart = lambda d: mp.fsum(exp(b) * abs(b - a - d) for a, b in pairs)
    teacher = [exp(b) * apart(b - a) for a, b in pairs]
    return [temperature * x for x in student], [temperature * x for x in teacher]


@common.exact_rows(1, 1)
def curvature(s, t, temperature):
    p = [mp.exp(a) for a in log_probs([v / temperature for v in s])]
    return [[p[i] * ((i == j) - p[j]) for j in range(len(p))] for i in range(len(p))]


def edges(dtype):
    """Every magnitude of logit, against none, the same, the opposite and its like."""
    x = common.ladder(dtype)
    rows = np.stack([x, -x, np.roll(x, 3), np.zeros_like(x)], axis=-1)
    near = rows * (1 + 4 * float(np.finfo(np.float32).eps))
    others = (np.zeros_like(rows), rows, rows[..., ::-1], near)
    return [(rows, other) for other in others] + [(others[0], rows)]


def students(rng, shape):
    """Logits of a student and of a teacher."""
    return tuple(3 * rng.normal(size=(*shape, 4)) for _ in range(2))


def setting(temperature):
    name, x = "knowledge_distillation", np.ones((3, 4))
    refused = functools.partial(common.refused, name, temperature=2.0)
    hot = functools.partial(common.refused, name, "temperature", x, x)
    return LossSpec(
        name=f"{name}(temperature={temperature})",
        fn=jaxloss.knowledge_distillation,
        params={"temperature": temperature},
        sample=students,
        event_ndim=1,
        differentiable=(0, 1),
        reference=common.exact_rows(1, 1)(digits(ALL_DIGITS)(divergence)),
        gradient=gradient,
        gradient_cancels=gradient_cancels,
        curvature=curvature,
        convex=True,
        minimiser=lambda t, temperature: t,
        symmetries=(common.shift(0), common.shift(1), common.permutation(0, 1)),
        extremes=edges,
        bad_calls=(
            refused("teacher_logits", x, x[:2]),
            refused("teacher_logits", x, x.astype(int), error=TypeError),
            refused("student_logits", x.astype(int), x, error=TypeError),
            refused("student_logits", x[:, :0], x[:, :0]),
            refused("axis", x, x, axis=2),
            hot(temperature=0.0),
            hot(temperature=np.ones(2)),
            hot(temperature="warm", error=TypeError),
        ),
    )


S, T = accuracy.rows(4, count=8), accuracy.rows(4, count=8, seed=1)[::-1]
HEAT = np.array([0.5, 1, 2, 4, 20, 1e4, 2, 1])


def cases():
    sides = (0, "in the student", 3), (1, "in the teacher", 4)
    for argument, name, second in sides:
        yield Case(
            name=name,
            formula=divergence,
            columns=(S, T, HEAT),
            names=("temperature",),
            argument=argument,
            conditioned=(True, True, True),
            bounds=(1, 2, second),
            floor=FLUSH,
            halves=False,
        )


CLAIMS = [
    Claim(
        fn=jaxloss.knowledge_distillation,
        domains={"student_logits": domains.LOGITS, "teacher_logits": domains.LOGITS},
        settings=(setting(2.0),),
        accuracy=(*cases(),),
        line=Line(
            "student's logit of class 0, teacher's is 2",
            (-6, 6),
            lambda x, _: (common.vector(x, 0, 0), common.vector(2, 0, 0)),
        ),
        drawn=tuple({"temperature": t} for t in (1.0, 2.0, 4.0)),
    ),
]
