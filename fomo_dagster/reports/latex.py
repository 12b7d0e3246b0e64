"""Tables as LaTeX, with the rules of the package booktabs."""

from __future__ import annotations

from fomo_dagster.reports.content import Table

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "_": r"\_", "%": r"\%", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\texttt{\char`\"}",
    "`": r"\textasciigrave{}", "±": r"$\pm$", "×": r"$\times$", "−": "$-$", "Δ": r"$\Delta$",
    "θ₀": r"$\theta_0$", "·": r"$\cdot$", "√": r"$\surd$", "–": "--", "…": r"\ldots{}",
    "≥": r"$\geq$", "†": r"$\dagger$", "→": r"$\to$",
}  # fmt: skip


def escaped(text: str) -> str:
    """A text as LaTeX prints it, on one line. What is beyond ASCII and no symbol of tables stays as
    it is, which takes a font that has it."""
    shown = " ".join(text.split())
    shown = "".join(character for character in shown if character.isprintable())
    pieces = shown.split("θ₀")
    return _SPECIAL["θ₀"].join("".join(_SPECIAL.get(c, c) for c in piece) for piece in pieces)


def as_latex(table: Table) -> str:
    """A `table` environment, for `\\input` where the package booktabs is loaded."""
    columns = "".join("r" if table.is_number(name) else "l" for name in table.headings)
    best = {(row, name) for name, rows in table.best.items() for row in rows}
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{escaped(table.caption)}}}",
        f"\\label{{tab:{table.name}}}",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        _row([escaped(name) for name in table.headings]),
        "\\midrule",
    ]
    for number, cells in enumerate(table.cells()):
        texts = [
            f"\\textbf{{{escaped(cell)}}}" if (number, name) in best else escaped(cell)
            for name, cell in zip(table.headings, cells, strict=True)
        ]
        lines.append(_row(texts))
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""])


def _row(cells: list[str]) -> str:
    # A row that begins with one of these would be taken for an option of the end of that above.
    first, *rest = cells
    return " & ".join([f"{{{first}}}" if first.startswith(("[", "*")) else first, *rest]) + r" \\"
