"""Every table by its name, and the schema reference."""

from __future__ import annotations

from cifake.tables import of_benchmarks, of_packs, of_runs, of_sweeps
from cifake.tables.columns import RESULTS_VERSION, SCHEMA_VERSION, SWEEPS_VERSION, WORD, Table

_TABLES = (*of_runs.TABLES, *of_packs.TABLES, *of_sweeps.TABLES, *of_benchmarks.TABLES)

TABLES: dict[str, Table] = {table.name: table for table in _TABLES}


def documentation() -> str:
    """The schema reference, as Markdown."""
    lines = [
        "# Tables",
        "",
        "Generated from `cifake/tables` by `make docs`; do not edit by hand.",
        "",
        (
            f"Schema version {SCHEMA_VERSION}, of `cells` and `labels` {SWEEPS_VERSION}, of what "
            f"is made of them {RESULTS_VERSION}. A missing value is null, never 0. A store holds "
            "the tables of a run at `runs/<run_id>/<table>.parquet`, and those of a sweep at "
            "`sweeps/<name>/<table>.parquet`; `images` and `unreadable` lie in a pack, and "
            "`benchmarks` in `results/benchmarks`."
        ),
    ]
    for table in _TABLES:
        keys = ", ".join(f"`{key}`" for key in table.keys)
        lines += ["", f"## `{table.name}`", "", f"A row is {table.row}. Key: {keys}.", ""]
        lines += ["| column | type | unit | null | description |", "|---|---|---|---|---|"]
        for column in table.columns:
            null = "yes" if column.nullable else "no"
            kind = "string" if column.type == WORD else str(column.type).replace("element: ", "")
            text = column.description.replace("|", "\\|")
            lines.append(f"| `{column.name}` | {kind} | {column.unit} | {null} | {text} |")
    return "\n".join(lines) + "\n"
