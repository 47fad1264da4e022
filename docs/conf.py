"""How the site is built: `python -m sphinx -W docs build/site`.

The API reference, the gallery, the cheat sheet and `llms.txt` are generated from
docstrings, specs and the catalogue (`_reference.py`); nothing about a loss is written
here.
"""

import inspect
import tomllib
from pathlib import Path

from docutils import nodes
from sphinx import addnodes

import jaxloss
from docs import _llms, _markup, _reference, _signatures

project = "jaxloss"
release = jaxloss.__version__
author = copyright = "the jaxloss developers"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",
]
exclude_patterns = ["changelog.d", "examples"]
with (Path(__file__).parents[1] / "pyproject.toml").open("rb") as file:
    about = tomllib.load(file)["project"]["description"]
suppress_warnings = ["config.cache"]

html_theme = "furo"
html_title = "jaxloss"
html_favicon = "_static/icon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_search_scorer = str(Path(__file__).parent / "_search.js")
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}

# A name in single backquotes is a link where there is such a name, else code.
default_role = "py:obj"
add_module_names = False
python_maximum_signature_line_length = 68
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Gradient", ("Use", "params_style"), "Reference"]
napoleon_use_rtype = False

myst_enable_extensions = ["amsmath", "dollarmath", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # they are committed as executed; the tests run them
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def setup(app):
    """Writes the generated pages before Sphinx reads any."""
    app.connect("builder-inited", lambda app: _reference.write(Path(app.srcdir)))
    app.connect("doctree-read", link)
    app.connect("doctree-resolved", let_names_break)
    app.connect("autodoc-skip-member", skip)
    # Before napoleon, whose priority is 500, looks for the sections; and after it, for
    # it takes what stands before a colon for the type of a field.
    app.connect("autodoc-process-docstring", mark, priority=400)
    app.connect("autodoc-process-docstring", restore, priority=600)
    app.connect("autodoc-process-signature", types)
    app.connect("build-finished", about_for_machines)


def link(app, doctree):
    """Makes links of the names of losses in guides and notebooks, as in docstrings."""
    if Path(app.env.doc2path(app.env.docname)).suffix not in (".md", ".ipynb"):
        return
    describe(doctree)
    lead_to_pages(app, doctree)
    for literal in [*doctree.findall(nodes.literal)]:
        name = literal.astext().removeprefix("jaxloss.")
        inside = isinstance(literal.parent, nodes.title | nodes.reference)
        if name in _reference.LOSSES and not inside:
            place = {"refdomain": "py", "reftype": "obj", "refdoc": app.env.docname}
            target = addnodes.pending_xref(reftarget=f"jaxloss.{name}", **place)
            literal.replace_self(target)
            target += literal


def describe(doctree):
    """Gives a picture that a cell of a notebook drew the words of its section."""
    for image in doctree.findall(nodes.image):
        if not image.get("alt"):
            section = image.parent
            while not isinstance(section, nodes.section):
                section = section.parent
            heading = section[0].astext()
            image["alt"] = f"The picture that this code draws, of: {heading}."


def lead_to_pages(app, doctree):
    """Makes links to the files of examples, as on GitHub, links to their pages."""
    for file in [*doctree.findall(addnodes.download_reference)]:
        path = Path(file["reftarget"])
        if path.parts[0] == "examples" and path.suffix == ".py":
            place = {"refdomain": "std", "reftype": "doc", "refexplicit": True}
            target = f"/generated/examples/{path.stem}"
            page = addnodes.pending_xref(
                reftarget=target, refdoc=app.env.docname, refwarn=True, **place
            )
            page += file.children
            file.replace_self(page)


def let_names_break(app, doctree, docname):
    """Says where long names may break: in cells of tables, and in titles of the API."""
    cells = doctree.findall(nodes.entry)
    codes = [code for cell in cells for code in cell.findall(nodes.literal)]
    titles = doctree.findall(nodes.title) if "generated/api/" in docname else ()
    for parent in (*codes, *titles):
        for text in [*parent.findall(nodes.Text)]:
            if not isinstance(text.parent, nodes.raw):
                first, *others = _markup.breakable(text)
                parts = [nodes.Text(first)]
                for part in others:
                    parts += [nodes.raw("", "<wbr>", format="html"), nodes.Text(part)]
                text.parent.replace(text, parts)


def skip(app, what, name, obj, skip, options):
    """Leaves out fields of tuples that have no documentation of their own."""
    return skip or (getattr(obj, "__doc__", "") or "").startswith("Alias for field")


fields: dict[str, list[str]] = {}


def mark(app, what, name, obj, options, lines):
    """Marks code and names as reStructuredText needs them."""
    own = inspect.signature(obj).parameters if inspect.isroutine(obj) else ()
    lines[:] = _markup.marked("\n".join(lines), own).split("\n")
    if what == "attribute":
        fields[name] = [*lines]


def restore(app, what, name, obj, options, lines):
    """Undoes what napoleon did to a field; adds what a function has on its page."""
    if what == "attribute":
        lines[:] = fields[name]
    if what == "function":
        lines[:] = _reference.complete(name, lines)


def types(app, what, name, obj, options, signature, result):
    """Shows the types of arguments as they are written."""
    return _signatures.signature(obj) if what in ("function", "method") else None


def about_for_machines(app, exception):
    """Writes `llms.txt` beside the pages."""
    if exception is None and app.builder.format == "html":
        pages = {name: page(app.env, name) for name in sorted(app.env.found_docs)}
        text = _llms.text(pages, about)
        (Path(app.outdir) / "llms.txt").write_text(text, encoding="utf-8")


def page(env, name):
    """The title of a page, and its paragraphs that are not in a table."""
    paragraphs = env.get_doctree(name).findall(nodes.paragraph)
    words = [p.astext() for p in paragraphs if not isinstance(p.parent, nodes.entry)]
    return env.titles[name].astext(), words
