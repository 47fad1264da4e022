"""What the site derives of losses, examples and pages: all of them, and rightly."""

import inspect
import io
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

import jaxloss
from docs import _examples, _llms, _losses, _markup, _pictures, _reference, _signatures
from docs._losses import LOSSES
from jaxloss import catalogue, kernels, plot

ROOT = Path(__file__).parents[2]


# --- pictures ----------------------------------------------------------------------


def drawn(settings):
    """An SVG of one curve in the first colour, with a label on each axis."""
    with plt.rc_context(settings):
        figure = Figure(figsize=(2, 2))
        axes = figure.subplots()
        axes.plot([0, 1], **plot.style(0))
        axes.set_xlabel("x")
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue().lower()


def test_a_picture_has_no_background_and_no_black():
    """Its words and axes have the ink, so that all of it is recoloured."""
    light = drawn(_pictures.style(_pictures.INK["light"]))
    assert "#ffffff" not in light
    assert "#000000" not in light
    assert _pictures.INK["light"] in light
    assert "#ffffff" in drawn({})


def test_the_dark_variant_is_the_same_drawing_in_other_colours():
    """Neither ink nor palette of the light one is left, and nothing else changes."""
    light = drawn(_pictures.style(_pictures.INK["light"]))
    dark = _pictures.darkened(light)
    assert _pictures.INK["light"] not in dark
    assert plot.PALETTE[0].lower() not in dark
    assert _pictures.BRIGHTER[0] in dark
    colour = re.compile(r"#[0-9a-f]{6}")
    assert colour.sub("", light) == colour.sub("", dark)


def luminance(colour):
    """As WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts
    ]
    return np.dot([0.2126, 0.7152, 0.0722], linear)


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_seen_on_their_pages():
    """Words 7 : 1 and curves of dark pages 3 : 1, of WCAG; dark pages are #131416."""
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast(_pictures.INK["light"], "#ffffff") > 7
    assert contrast(_pictures.INK["dark"], "#131416") > 7
    assert all(contrast(colour, "#131416") > 3 for colour in _pictures.BRIGHTER)


def test_a_picture_is_described(tmp_path):
    """By its axes and its curves; both sizes are there in both variants."""
    words = _pictures.draw_loss("huber", tmp_path)
    assert words == (
        "huber: loss and slope, against prediction − target; "
        "curves for delta = 0.5, delta = 1, delta = 2."
    )
    assert {path.name for path in tmp_path.iterdir()} == {
        f"huber{size}.{variant}.svg"
        for size in ("", ".small")
        for variant in ("light", "dark")
    }


def test_only_the_robust_landscape_is_lowest_at_the_line_of_the_inliers():
    """What the home page says of its picture."""
    slopes, intercepts = _pictures.lines()
    distance = {}
    for name, loss in _pictures.LOSSES.items():
        losses = _pictures.surface(loss)
        i, j = np.unravel_index(np.argmin(losses), losses.shape)
        distance[name] = np.hypot(slopes[j] - 1, intercepts[i])
    of_squares, of_robust = distance.values()
    assert of_squares > 1
    assert of_robust < 0.2


# --- a loss ------------------------------------------------------------------------


def test_the_picture_follows_the_formula(subtests):
    """Of every loss: after `.. math::` and what belongs to it, before other words."""
    for entry in LOSSES.values():
        with subtests.test(entry.name):
            text = _markup.marked(inspect.getdoc(entry.function) or "")
            lines = text.split("\n")
            found = _losses.with_picture(lines, entry.name, "words")
            at = found.index(".. container:: picture")
            before = "\n".join(found[:at])
            assert ".. math::" in before
            assert "Args:" not in before
            assert entry.formula.split("\n")[-1] in before
            assert [x for x in found if x not in lines and "image::" in x]


def test_names_elsewhere_are_those_of_the_table():
    """Of torch, Keras and optax where they have the loss; else of other libraries."""
    found = _losses.same("squared_error")
    for library, name in (
        ("torch.nn", "MSELoss"),
        ("keras.losses", "MeanSquaredError"),
        ("optax.losses", "l2_loss"),
    ):
        assert f"   * - {library}\n     - ``{name}``\n" in found
    assert "monai" not in found
    assert "TRL" in _losses.same("dpo")
    assert "``jaxloss.dpo(" in _losses.same("dpo")


def test_neighbours_are_what_the_docstring_names_then_its_module(subtests):
    """Each is public, none is the loss itself; what to use instead comes first."""
    assert _losses.neighbours("huber")[0] == "jaxloss.general_robust"
    assert "jaxloss.kernels.clip" in _losses.neighbours("clip")
    assert "jaxloss.parallel.clip" in _losses.neighbours("clip")
    assert _losses.value("jaxloss.kernels.clip") is kernels.clip
    of_large = "jaxloss.kernels.linear_softmax_cross_entropy"
    assert of_large in _losses.neighbours("softmax_cross_entropy")
    assert of_large not in _losses.neighbours("entropy")
    assert "jaxloss.mean" not in _losses.neighbours("nt_xent")  # it is no loss
    for name, entry in LOSSES.items():
        with subtests.test(name):
            near = _losses.neighbours(name)
            assert 0 < len(near) <= _losses.MOST
            assert f"jaxloss.{name}" not in near
            assert all(callable(_losses.value(other)) for other in near)
            instead = re.findall(r"`(\w+)`", entry.not_when)
            known = [f"jaxloss.{word}" for word in instead if word in LOSSES]
            assert {*known} <= {*near}


def test_a_page_has_everything_that_is_derived():
    """In this order, after the docstring."""
    lines = _reference.complete("jaxloss.huber", ["A.", "", ".. math:: x", "", "Z."])
    text = "\n".join(lines)
    places = [
        text.index(part)
        for part in (
            *(".. math::", "huber.light.svg", "huber.dark.svg", "Z."),
            *("rubric:: At the edges", "rubric:: The same", "rubric:: See also"),
        )
    ]
    assert places == sorted(places)
    assert "See also" not in "\n".join(_reference.complete("jaxloss.mean", ["A."]))


def test_types_are_those_of_the_source():
    """Aliases stay aliases, and defaults stay defaults."""
    assert _signatures.signature(jaxloss.huber) == (
        "(predictions: ArrayLike, targets: ArrayLike, *, delta: float | jax.Array=1.0)",
        "jax.Array",
    )
    assert _signatures.signature(len) is None


def test_every_loss_has_a_signature_with_types():
    for entry in LOSSES.values():
        found = _signatures.signature(entry.function)
        assert found, entry.name
        assert found[1], entry.name
        assert found[0].count(":") >= len(entry.arguments), entry.name


def test_names_break_between_their_words():
    """After what opens or joins, before a capital; nothing is lost, and no number."""
    code = "nn.BCELoss(soft_labels, axis=-1) + 0.5"
    parts = _markup.breakable(code)
    assert parts == ["nn.", "BCELoss(", "soft_", "labels, axis=-1) + 0.5"]
    assert "".join(parts) == code


# --- pages of all losses -----------------------------------------------------------


def test_the_common_losses_come_first():
    """In the gallery, and within each task."""
    assert {*_losses.COMMON} <= {*LOSSES}
    gallery = _reference.gallery_page()
    first = re.findall(r"<jaxloss\.(\w+)>", gallery)[: len(_losses.COMMON)]
    assert tuple(first) == _losses.COMMON
    assert {*re.findall(r"<jaxloss\.(\w+)>", gallery)} == {*LOSSES}
    regression = [entry.name for entry in _losses.by_task()["regression"]]
    assert regression[:3] == ["squared_error", "absolute_error", "huber"]


def test_a_loss_stands_under_each_of_its_tasks():
    for task, entries in _losses.by_task().items():
        assert entries, task
        assert [e for e in LOSSES.values() if task in e.tasks] == sorted(
            entries, key=[*LOSSES.values()].index
        )


def test_the_index_begins_with_the_tasks_and_ends_with_every_name():
    found = _reference.modules()
    page = _reference.index_page(found)
    tasks, rest = page.split("Modules\n-------")
    modules, letters = rest.split("A to Z\n------")
    assert {*re.findall(r"<jaxloss\.(\w+)>`", tasks)} == {*LOSSES}
    for module in found:
        assert f"<{module.__name__}>`" in modules
        for name in _reference.public(module):
            assert f"<{_reference.address(module, name)}>`" in letters


def test_the_cheat_sheet_has_every_loss():
    """The call, the activation, the targets, and what a number belongs to."""
    sheet = _losses.cheat_sheet()
    assert {*re.findall(r"<jaxloss\.(\w+)>", sheet)} == {*LOSSES}
    assert ":py:obj:`huber(predictions, targets, delta=1.0) <jaxloss.huber>`" in sheet
    assert _losses.targets(LOSSES["exponential"]) == "`labels`: -1 or +1"
    assert _losses.targets(LOSSES["l1"]) == "none"
    units = {name: _losses.unit(LOSSES[name]) for name in LOSSES}
    expected = {
        "huber": "element",
        "softmax_cross_entropy": "example",
        "kl_divergence": "example",
        "triplet_margin": "triplet",
        "listwise_softmax": "list",
        "grpo": "token",
        "cosine_distance": "pair",
        "siglip": "pair",
        "l2": "tree",
    }
    assert {name: units[name] for name in expected} == expected


# --- examples and llms.txt ---------------------------------------------------------


def test_each_example_has_a_page():
    """With its docstring as words, and its source from the line after that."""
    folder = ROOT / "docs/examples"
    pages = _examples.pages(folder)
    index = pages.pop("index")
    assert {*pages} == {path.stem for path in folder.glob("*.py")}
    assert [*pages][:5] == [*_examples.FIRST]
    for name, text in pages.items():
        assert f"   {name}\n" in index
        first = int(re.findall(r":lines: (\d+)-", text)[0])
        lines = (folder / f"{name}.py").read_text().split("\n")
        assert lines[first - 1].startswith(("import", "from"))
        assert '"""' in lines[first - 3] or '"""' in lines[first - 2]
    assert pages["train_linen"].startswith("Flax Linen\n==========\n")


def test_llms_have_a_line_for_each_loss():
    """The call, the sentence, and the other names."""
    call = "[huber(predictions, targets, *, delta=1.0)]"
    link = f"{call}(generated/api/jaxloss.huber.html)"
    said = "Huber loss: quadratic near zero, linear in the tails."
    called = "Also called: Huber loss, HuberLoss, huber_loss."
    assert _llms._loss(LOSSES["huber"]) == f"- {link}: {said} {called}\n"
    assert len({_llms._loss(entry) for entry in catalogue.entries()}) == len(LOSSES)


def test_llms_have_a_line_for_each_page():
    """A loss once; of other pages the first sentence that is no introduction."""
    pages = {
        "generated/api/jaxloss.huber": ("jaxloss.huber", ["No matter."]),
        "generated/api/jaxloss.mean": ("jaxloss.mean", ["The mean. More."]),
        "quick-start": ("Quick start", ["From a clone:", "It takes\nfive minutes."]),
        "empty": ("Empty", []),
    }
    text = _llms.text(pages, "A library.")
    assert text.startswith("# jaxloss\n\n> A library.\n")
    assert text.count("jaxloss.huber.html") == 1
    assert "No matter" not in text
    assert "- [jaxloss.mean](generated/api/jaxloss.mean.html): The mean.\n" in text
    assert "- [Quick start](quick-start.html): It takes five minutes.\n" in text
    assert "- [Empty](empty.html)\n" in text
    assert len(re.findall(r"(?m)^- \[", text)) == len(LOSSES) + 3


@pytest.mark.parametrize(
    ("page", "section"),
    [
        ("which-loss", "Guides"),
        ("generated/gallery", "Guides"),
        ("generated/api/jaxloss.mean", "API"),
        ("generated/notebooks/01-first-loss", "Notebooks"),
        ("generated/examples/train_nnx", "Examples"),
    ],
)
def test_pages_stand_in_their_sections(page, section):
    assert _llms._section(page) == section
