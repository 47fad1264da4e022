"""How the site is built: `python -m sphinx -W docs build/site`.

The API reference and the gallery are generated from docstrings, specs and the catalogue
(`_reference.py`); nothing about a loss is written here.
"""

import inspect
from pathlib import Path

from docutils import nodes
from sphinx import addnodes

import jaxloss
from docs import _reference

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
suppress_warnings = ["config.cache"]

html_theme = "furo"
html_title = "jaxloss"
html_favicon = "_static/icon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}

# A name in single backquotes is a link where there is such a name, else code.
default_role = "py:obj"
add_module_names = False
autodoc_typehints = "none"
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
    app.connect("autodoc-skip-member", skip)
    # Before napoleon, whose priority is 500, looks for the sections; and after it, for
    # it takes what stands before a colon for the type of a field.
    app.connect("autodoc-process-docstring", mark, priority=400)
    app.connect("autodoc-process-docstring", restore, priority=600)


def link(app, doctree):
    """Makes links of the names of losses in guides and notebooks, as in docstrings."""
    if Path(app.env.doc2path(app.env.docname)).suffix not in (".md", ".ipynb"):
        return
    for literal in [*doctree.findall(nodes.literal)]:
        name = literal.astext().removeprefix("jaxloss.")
        inside = isinstance(literal.parent, nodes.title | nodes.reference)
        if name in _reference.LOSSES and not inside:
            place = {"refdomain": "py", "reftype": "obj", "refdoc": app.env.docname}
            target = addnodes.pending_xref(reftarget=f"jaxloss.{name}", **place)
            literal.replace_self(target)
            target += literal


def skip(app, what, name, obj, skip, options):
    """Leaves out fields of tuples that have no documentation of their own."""
    return skip or (getattr(obj, "__doc__", "") or "").startswith("Alias for field")


fields: dict[str, list[str]] = {}


def mark(app, what, name, obj, options, lines):
    """Marks code and names as reStructuredText needs them."""
    own = inspect.signature(obj).parameters if inspect.isroutine(obj) else ()
    lines[:] = _reference.marked("\n".join(lines), own).split("\n")
    if what == "attribute":
        fields[name] = [*lines]


def restore(app, what, name, obj, options, lines):
    """Undoes what napoleon did to the documentation of a field."""
    if what == "attribute":
        lines[:] = fields[name]
