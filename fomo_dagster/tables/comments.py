"""What views and their columns mean, as comments in SQL, and the queries that show them."""

from __future__ import annotations

from fomo_dagster.errors import InputError, nearest
from fomo_dagster.tables.selects import quoted
from fomo_dagster.tables.view_columns import DESCRIPTIONS, comments_of

ALL_VIEWS = """
SELECT
    view_name AS view, any_value(duckdb_views.comment) AS "a row is",
    string_agg(column_name, ', ' ORDER BY column_index) AS columns
FROM duckdb_views() JOIN duckdb_columns() ON view_name = table_name
WHERE NOT duckdb_views.internal GROUP BY view_name ORDER BY view_name
"""
_ONE_VIEW = """
SELECT column_name AS column, data_type AS type, comment AS meaning
FROM duckdb_columns() WHERE table_name = {} ORDER BY column_index
"""


def comments(view: str) -> list[str]:
    """The statements that set the comments of a view and its columns."""
    return [
        f"COMMENT ON VIEW {view} IS {quoted(DESCRIPTIONS[view])}",
        *(
            f"COMMENT ON COLUMN {view}.{column} IS {quoted(meaning)}"
            for column, meaning in comments_of(view).items()
        ),
    ]


def explaining(asked: str | None) -> str | None:
    """The query that says what is there: all views where nothing is asked, the columns of one where
    its name is. None for what is a query itself. Raises `InputError` for a name of no view."""
    if not asked:
        return ALL_VIEWS
    name = asked.strip().rstrip(";").strip()
    if not name.isidentifier():
        return None
    if name.lower() not in DESCRIPTIONS:
        raise InputError(f"there is no view {name!r}: {nearest(name.lower(), DESCRIPTIONS)}")
    return _ONE_VIEW.format(quoted(name.lower()))
