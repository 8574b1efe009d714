"""A Table in LaTeX, for the packages booktabs and (only where a table is wide) graphicx.

The best mean of a group is bold, those that no test tells from it are underlined (table ``arms``); in the table of
differences, what is better than std after Holm's correction is bold.
"""

from __future__ import annotations

import re

from ftbench.reporting.words import DASH, Row, cell_text, one_line, people_columns
from ftbench.types import Table

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", DASH: "--", "\N{MULTIPLICATION SIGN}": r"$\times$", "\N{PLUS-MINUS SIGN}": r"$\pm$",
}  # fmt: skip
#: (style of a row, column) to the command that marks the cell
_MARKS = {
    ("best", "mean"): "textbf", ("best", "difference"): "textbf", ("near", "mean"): "underline",
    ("reference", "method"): "emph",
}  # fmt: skip
#: from so many columns on the table is shrunk to the page
_WIDE = 9


def to_latex(table: Table) -> str:
    """A ``table`` with caption and notes; compiles with ``\\usepackage{booktabs,graphicx}``."""
    columns = people_columns(table)
    wide = len(columns) >= _WIDE
    lines = [
        "% needs \\usepackage{booktabs,graphicx}",
        r"\begin{table}", r"\centering", rf"\caption{{{escape(table.title)}}}",
        *([r"\resizebox{\linewidth}{!}{%"] if wide else []),
        rf"\begin{{tabular}}{{@{{}}{''.join('r' if c.numeric else 'l' for c in columns)}@{{}}}}", r"\toprule",
        " & ".join(escape(column.label) for column in columns) + r" \\", r"\midrule",
    ]  # fmt: skip
    for i, row in enumerate(table.rows):
        if i and row.get("task") != table.rows[i - 1].get("task"):
            lines.append(r"\addlinespace")
        lines.append(" & ".join(_cell(row, column.key) for column in columns) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}" + ("}" if wide else "")]
    if table.notes:
        notes = " ".join(escape(one_line(note)) for note in table.notes)
        lines += [r"\par\smallskip", rf"\parbox{{\linewidth}}{{\footnotesize {notes}}}"]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _cell(row: Row, key: str) -> str:
    command = _MARKS.get((str(row.get("style")), key))
    text = re.sub(r"(?<!\w)-(?=\d)", "$-$", escape(cell_text(row, key)))
    return rf"\{command}{{{text}}}" if command else text


def escape(text: str) -> str:
    """Nothing in it is a command to LaTeX; what its basic fonts lack becomes a question mark."""
    out = "".join(_SPECIAL.get(letter, letter) for letter in one_line(text))
    return "".join(letter if letter.isascii() or letter.isalpha() else "?" for letter in out)
