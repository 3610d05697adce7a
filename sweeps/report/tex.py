"""Text and tables as LaTeX: what is said is escaped, and every byte is ASCII."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

LONG = 40
"""Rows from which a table goes over several pages, and stands in one column."""

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\ensuremath{<}",
    ">": r"\ensuremath{>}",
    "|": r"\ensuremath{|}",
    '"': r"\textquotedblright{}",
    "`": r"\textasciigrave{}",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "‘": r"\textquoteleft{}",
    "’": r"\textquoteright{}",
    "“": r"\textquotedblleft{}",
    "”": r"\textquotedblright{}",
    "…": r"\ldots{}",
    "−": r"\ensuremath{-}",
    "×": r"\ensuremath{\times}",
    "·": r"\ensuremath{\cdot}",
    "±": r"\ensuremath{\pm}",
    "≤": r"\ensuremath{\le}",
    "≥": r"\ensuremath{\ge}",
    "→": r"\ensuremath{\to}",
    "↑": r"\ensuremath{\uparrow}",
    "↓": r"\ensuremath{\downarrow}",
    "²": r"\ensuremath{^2}",
    "³": r"\ensuremath{^3}",
    "½": r"\ensuremath{\frac{1}{2}}",
    "°": r"\ensuremath{^\circ}",
    "§": r"\S{}",
    "ß": r"\ss{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "ı": r"\i{}",
}
_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
}
_GREEK_NAMES = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau "
    "upsilon phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega mu"
)
_GREEK = dict(zip("αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΥΦΨΩµ", _GREEK_NAMES.split(), strict=True))
_LIGATURE = re.compile(r"([-',])(?=\1)")


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table."""

    title: str
    """LaTeX."""

    align: str = "l"
    """As `tabular` takes it; two columns side by side are one with `@{…}` between them."""

    span: int = 1
    """How many columns of `tabular` it is."""


@dataclass(frozen=True, kw_only=True)
class TexTable:
    """A table, everything in it LaTeX already."""

    caption: str
    label: str
    columns: Sequence[Column]
    groups: Sequence[Sequence[Sequence[str]]]
    """Rows of cells, as many as `tabular` has columns, in groups with a rule between them."""

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return sum(map(len, self.groups))


def escape(text: object) -> str:
    """Text as LaTeX that shows it, on one line, in ASCII.

    Letters with accents and Greek letters are composed. What plain LaTeX cannot show stands there
    by its number, as in U+4E2D.
    """
    plain = " ".join(str(text).split())
    shown = "".join(map(_shown, unicodedata.normalize("NFC", plain)))
    return _LIGATURE.sub(r"\1{}", shown)


def _shown(character: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character.isascii() and character.isprintable():
        return character
    parts = unicodedata.normalize("NFD", character)
    base, marks = parts[0], parts[1:]
    if marks in _ACCENTS and base.isascii() and base.isalpha():
        letter = {"i": r"\i{}", "j": r"\j{}"}.get(base, base)
        return rf"\{_ACCENTS[marks]}{{{letter}}}"
    if character in _GREEK:
        return rf"\ensuremath{{\{_GREEK[character]}}}"
    return f"U+{ord(character):04X}"


def identifier(*words: str) -> str:
    """A name for a `label`, of small letters, digits and hyphens."""
    text = "-".join(words).lower()
    return "tab:" + "".join(c if c.isascii() and c.isalnum() else "-" for c in text)


def draw(table: TexTable) -> str:
    """A table that floats, or where it is long one that goes over several pages."""
    align = "".join(column.align for column in table.columns)
    head = " & ".join(map(_title, table.columns))
    body = "\n\\addlinespace\n".join(
        "\n".join(" & ".join(row) + r" \\" for row in group) for group in table.groups if group
    )
    caption = rf"\caption{{{table.caption}}}"
    label = rf"\label{{{table.label}}}"
    if table.rows < LONG:
        return (
            f"\\begin{{table}}[htbp]\n\\centering\\small\n{caption}\n{label}\n"
            f"\\begin{{tabular}}{{@{{}}{align}@{{}}}}\n\\toprule\n{head} \\\\\n\\midrule\n{body}\n"
            "\\bottomrule\n\\end{tabular}\n\\end{table}\n"
        )
    return (
        f"\\begingroup\\small\n\\begin{{longtable}}{{@{{}}{align}@{{}}}}\n{caption}{label}\\\\\n"
        f"\\toprule\n{head} \\\\\n\\midrule\n\\endfirsthead\n"
        f"\\toprule\n{head} \\\\\n\\midrule\n\\endhead\n"
        "\\bottomrule\n\\endfoot\n"
        f"{body}\n\\end{{longtable}}\n\\endgroup\n"
    )


def _title(column: Column) -> str:
    if column.span == 1:
        return column.title
    return rf"\multicolumn{{{column.span}}}{{c}}{{{column.title}}}"
