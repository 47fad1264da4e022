"""`llms.txt` at the root of the site: one line for each page, of what is there.

The form is that of llmstxt.org: a title, a summary, sections of links.
"""

import re
from collections.abc import Mapping, Sequence

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


def text(pages: Mapping[str, tuple[str, Sequence[str]]], about: str) -> str:
    """The losses by task, then all other pages by what they are.

    Args:
      pages: The title and the paragraphs of each page.
      about: The project in one sentence.
    """
    parts = [HEAD.format(summary=about)]
    for task, words in catalogue.TASKS.items():
        entries = [e for e in LOSSES.values() if e.tasks[0] == task]
        if entries:
            parts.append(f"\n## Losses, {task}: {words}\n\n")
            parts += map(_loss, entries)
    others = [name for name in pages if name.removeprefix(PLACE) not in LOSSES]
    for section in SECTIONS:
        parts.append(f"\n## {section}\n\n")
        parts += [_page(n, *pages[n]) for n in others if _section(n) == section]
    return "".join(parts)


def _loss(entry: catalogue.Entry) -> str:
    """The call, the sentence about it, and its other names."""
    called = f" Also called: {', '.join(entry.also_called)}."
    link = f"[{entry.signature}]({PLACE}{entry.name}.html)"
    return f"- {link}: {summary(entry.function)}{called}\n"


def _section(docname: str) -> str:
    """The last one whose folder the page is in: the first has all pages."""
    return [name for name, folder in SECTIONS.items() if docname.startswith(folder)][-1]


def _page(name: str, title: str, paragraphs: Sequence[str]) -> str:
    said = _first_sentence(paragraphs)
    return f"- [{title}]({name}.html){': ' if said else ''}{said}\n"


def _first_sentence(paragraphs: Sequence[str]) -> str:
    """Of the first paragraph that is no introduction to code."""
    flat = (" ".join(words.split()) for words in paragraphs)
    sentences = [re.split(r"(?<=[.?])\s", words)[0] for words in flat]
    return next((s for s in sentences if s and not s.endswith(":")), "")
