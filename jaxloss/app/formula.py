"""Formulas of docstrings in plain text: the LaTeX they use, in Unicode.

An unknown command is an error, so none is ever left over.
"""

import re

_GREEK = (
    "alpha beta gamma delta epsilon varepsilon lambda mu nu pi rho sigma tau theta"
    " varphi Gamma Delta Phi Omega"
)
_SIGNS = "ell varnothing partial sum prod in notin le ge ne to cdot times pm mp infty"
WORDS = {
    **dict(zip(_GREEK.split(), "αβγδεελμνπρστθφΓΔΦΩ", strict=True)),
    **dict(zip(_SIGNS.split(), "ℓ∅∂∑∏∈∉≤≥≠→·×±∓∞", strict=True)),
    **{"langle": "⟨", "rangle": "⟩", "|": "‖", "mid": "|", "{": "{", "}": "}"},
    **dict.fromkeys((",", ";", ":", " "), " "),
    **dict.fromkeys(("left", "right", "big", "Big", "Bigl", "Bigr", "!"), ""),
    **dict.fromkeys(("quad", "qquad"), "\n"),
}
"""What a command without arguments stands for; a wide space begins a line."""

FUNCTIONS = ("arctan", "arg", "cos", "cosh", "exp", "log", "max", "min", "sin", "tanh")
"""Commands that stand for their names."""

UPRIGHT = ("mathcal", "mathrm", "operatorname", "text")
"""Commands whose argument is letters."""

_RAISED = dict(
    zip(
        "0123456789+−abcdefghijklmnoprstuvwxyz",
        "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ",
        strict=True,
    )
)
_LOWERED = dict(
    zip(
        "0123456789+−=aehijklmnoprstuvx",
        "₀₁₂₃₄₅₆₇₈₉₊₋₌ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ",
        strict=True,
    )
)
_TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|\s+|[^\\]", re.DOTALL)
# What needs no brackets above and below the bar of a fraction.
_NAME = r"[^\W\d][^\s()|‖+−/·,]*(\([^()]*\))?|\|[^|]*\|"
_ABOVE, _BELOW = rf"\d*|\d*({_NAME})", rf"\d+|{_NAME}"


def plain(latex: str) -> str:
    """The formula in Unicode, one line for each part that a wide space sets apart.

    Raises:
      ValueError: If a command or an environment is not one of those above.
    """
    text = _group(_Tokens(latex), end="")
    lines = [re.sub(r"\s+", " ", line).strip() for line in text.split("\n")]
    lines = [re.sub(r" (?=[,)])|(?<=\() ", "", line) for line in lines]
    return "\n".join(line.rstrip(",") for line in lines if line)


class _Tokens:
    """Commands, runs of blanks, and characters, of which the next can be seen."""

    def __init__(self, latex: str) -> None:
        self._rest = _TOKEN.findall(latex)[::-1]

    def __iter__(self) -> "_Tokens":
        return self

    def __next__(self) -> str:
        if not self._rest:
            raise StopIteration
        token = self._rest.pop()
        return " " if token.isspace() else token

    def peek(self) -> str:
        """The next token that is not blank; nothing at the end."""
        return next((t for t in reversed(self._rest) if not t.isspace()), "")

    def skip(self) -> str:
        """Takes that token, and what is blank before it."""
        return next(token for token in self if token != " ")


def _group(tokens: _Tokens, end: str) -> str:
    """What stands before `end`, which is taken too."""
    parts = []
    for token in tokens:
        if token == end:
            break
        parts.append(_one(tokens, token))
    return "".join(parts)


def _argument(tokens: _Tokens) -> str:
    """A group in braces, or the next token alone."""
    token = tokens.skip()
    return _group(tokens, "}") if token == "{" else _one(tokens, token)


def _one(tokens: _Tokens, token: str) -> str:
    """What a token, with its arguments, stands for."""
    if token.startswith("\\"):
        return _command(tokens, token[1:])
    if token == "{":
        return _group(tokens, "}")
    if token in "^_":
        return _script(token, _argument(tokens).strip())
    return {"-": "−"}.get(token, token)


def _command(tokens: _Tokens, name: str) -> str:
    if name in UPRIGHT:
        return _letters(tokens)
    if name in ("frac", "tfrac"):
        return _fraction(_argument(tokens).strip(), _argument(tokens).strip())
    if name == "sqrt":
        radicand = _argument(tokens).strip()
        return f"√{radicand if len(radicand) == 1 else f'({radicand})'}"
    if name == "bar":
        return f"{_argument(tokens).strip()}\N{COMBINING MACRON}"
    if name == "begin":
        return _cases(tokens)
    if name in FUNCTIONS:
        following = tokens.peek().removeprefix("\\")
        if following == "frac":  # the function of it, not a multiple of the function
            tokens.skip()
            return f"{name}({_command(tokens, 'frac')})"
        return f"{name} " if following in FUNCTIONS else name
    if name in WORDS:
        return WORDS[name]
    raise ValueError(f"the formula has the unknown command \\{name}")


def _letters(tokens: _Tokens) -> str:
    """An argument as it stands: a hyphen is no minus."""
    token = tokens.skip()
    if token != "{":
        return token
    letters = []
    for token in tokens:
        if token == "}":
            break
        letters.append(token)
    return "".join(letters)


def _fraction(above: str, below: str) -> str:
    if (above, below) == ("1", "2"):
        return "½"
    if not re.fullmatch(_ABOVE, above):
        above = f"({above})"
    if not re.fullmatch(_BELOW, below):
        below = f"({below})"
    return f"{above}/{below}"


def _script(kind: str, text: str) -> str:
    """An exponent or an index, by raised or lowered letters if all of them exist."""
    letters = _RAISED if kind == "^" else _LOWERED
    if text == "*":
        return text
    if all(letter in letters for letter in text.replace(" ", "")):
        return "".join(letters[letter] for letter in text.replace(" ", ""))
    return f"{kind}{text}" if re.fullmatch(r"[a-zA-Zα-ω]+", text) else f"{kind}({text})"


def _cases(tokens: _Tokens) -> str:
    """`{ value if condition; value if condition }`."""
    name = _letters(tokens)
    if name != "cases":
        raise ValueError(f"the formula has the unknown environment {name}")
    cells = [""]
    for token in tokens:
        if token == "\\end":
            _letters(tokens)
            break
        if token in ("&", "\\\\"):
            cells.append("")
        else:
            cells[-1] += _one(tokens, token)
    pairs = zip(cells[::2], cells[1::2], strict=True)
    rows = "; ".join(f"{value.strip()} if {when.strip()}" for value, when in pairs)
    return f"{{ {rows} }}"
