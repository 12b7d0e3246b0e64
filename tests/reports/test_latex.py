import polars as pl
import pytest

from fomo_dagster.reports.content import Source, Table
from fomo_dagster.reports.latex import as_latex, escaped

NOWHERE = Source("", "", {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b & 100 % of $x^2$", r"a\_b \& 100 \% of \$x\textasciicircum{}2\$"),
        (r"\input{#1}~", r"\textbackslash{}input\{\#1\}\textasciitilde{}"),
        ("<b>", r"\textless{}b\textgreater{}"),
        ("28.7 ± 6.2, −3, θ₀, √2", r"28.7 $\pm$ 6.2, $-$3, $\theta_0$, $\surd$2"),
        ('the "a"', r"the \texttt{\char`\"}a\texttt{\char`\"}"),
        ("one\nline\x1b[0m", "one line[0m"),
        ("日本 é", "日本 é"),
    ],
)
def test_names_are_printed_as_they_are(text, expected):
    assert escaped(text) == expected


def test_a_table_has_the_rules_of_booktabs_and_its_best_in_bold():
    frame = pl.DataFrame({"method": ["a_1", "[b]"], "GM": [1.0, -2.345]})
    table = Table("t", "Of a & b.", frame, frame, NOWHERE, best={"GM": [0]})
    lines = as_latex(table).splitlines()
    assert lines[3:] == [
        r"\caption{Of a \& b.}", r"\label{tab:t}", r"\begin{tabular}{lr}", r"\toprule",
        r"method & GM \\", r"\midrule", r"a\_1 & \textbf{1.00} \\", r"{[b]} & $-$2.35 \\",
        r"\bottomrule", r"\end{tabular}", r"\end{table}",
    ]  # fmt: skip
