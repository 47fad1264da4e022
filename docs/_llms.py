"""`llms.txt` at the root of the site: one line for each page, of what is there.

The form is that of llmstxt.org: a title, a summary, sections of links.
"""

import re

from docutils import nodes
from sphinx.environment import BuildEnvironment

from docs._losses import LOSSES
from docs._markup import summary
from jaxloss import catalogue

HEAD = """\
# jaxloss

> {summary}

A loss is a pure function from arrays to one number per example: predictions or logits
first, targets or labels second, hyperparameters by keyword. `jaxloss.mean(losses,
where=mask, weights=weights)` makes one number of them.
"""
SECTIONS = {
    "Guides": "",
    "Notebooks": "generated/notebooks/",
    "Examples": "generated/examples/",
    "API": "generated/api/",
}
PLACE = "generated/api/jaxloss."


def text(env: BuildEnvironment, summary: str) -> str:
    """The losses by task, then all other pages by what they are."""
    parts = [HEAD.format(summary=summary)]
    for task, words in catalogue.TASKS.items():
        entries = [e for e in LOSSES.values() if e.tasks[0] == task]
        if entries:
            parts.append(f"\n## Losses, {task}: {words}\n\n")
            parts += map(_loss, entries)
    others = [d for d in sorted(env.found_docs) if d.removeprefix(PLACE) not in LOSSES]
    for section in SECTIONS:
        parts.append(f"\n## {section}\n\n")
        parts += [_page(env, d) for d in others if _section(d) == section]
    return "".join(parts)


def _loss(entry: catalogue.Entry) -> str:
    """The call, the sentence about it, and its other names."""
    called = f" Also called: {', '.join(entry.also_called)}."
    link = f"[{entry.signature}]({PLACE}{entry.name}.html)"
    return f"- {link}: {summary(entry.function)}{called}\n"


def _section(docname: str) -> str:
    """The last one whose folder the page is in: the first has all pages."""
    return [name for name, folder in SECTIONS.items() if docname.startswith(folder)][-1]


def _page(env: BuildEnvironment, docname: str) -> str:
    link = f"[{env.titles[docname].astext()}]({docname}.html)"
    said = _first_sentence(env.get_doctree(docname))
    return f"- {link}: {said}\n" if said else f"- {link}\n"


def _first_sentence(doctree: nodes.document) -> str:
    """Of the first paragraph that is no introduction to code, and not in a table."""
    for paragraph in doctree.findall(nodes.paragraph):
        words = re.split(r"(?<=[.?])\s", " ".join(paragraph.astext().split()))[0]
        in_table = isinstance(paragraph.parent, nodes.entry)
        if words and not words.endswith(":") and not in_table:
            return words
    return ""
