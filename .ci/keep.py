"""Copy what a finished study says from a store to `results/`.

Tables, specification, forecasts, the report as Markdown without its figures, and the scores of
classes at the lengths asked for: all of it small, and enough to make the README's first table again
and to check what LOG.md says. Runs stay in the store, and with them their curves over thresholds
and what each epoch took, unless these are asked for.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from cifake import tables
from cifake.errors import InputError, refuse
from cifake.files import write_aside
from cifake.store import usual_root
from cifake.tables import RunTable
from sweeps import forecast, resolution
from sweeps.outcome import stored_cells, sweep_status
from sweeps.store import Store
from sweeps.sweep import read_spec

RESULTS = Path(__file__).resolve().parents[1] / "results"

NEEDED = ("spec.yaml", "report.md", "cells.parquet", "summary.parquet")
MORE = ("comparisons.parquet", "ranking.parquet", "effects.parquet", forecast.FILE, resolution.FILE)
"""Files that some sweeps lack."""


def keep(study: str, store: Store, results: Path, details: Sequence[RunTable]) -> Path:
    """Copy one study; the folder of its copy.

    Args:
        study: a specification.
        store: that has its runs.
        results: folder of all copies.
        details: tables of runs, of which the rows of the cells are kept.

    Raises:
        InputError: the store has nothing of it, or cells of it are not done.
    """
    spec = read_spec(study, [])
    status = sweep_status(spec, store)
    if spec.search is None and status.cells_done < status.cells:
        problem = f"{status.cells_done} of {status.cells} cells are done; run it to its end first"
        refuse(f"sweep {spec.name}", problem)
    place = store.sweep(spec.name)
    contents = {name: place.read(name) for name in NEEDED}
    for name in MORE:
        try:
            contents[name] = place.read(name)
        except FileNotFoundError:
            continue
    contents["report.md"] = without_figures(contents["report.md"].decode()).encode()
    folder = results / spec.name
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_aside(folder / name, content)
    cells = stored_cells(spec, store)
    runs = sorted(set(cells["run_id"].to_pylist()))
    told = tables.decode("summary", contents["summary.parquet"])["dataset"].unique()
    for detail in details:
        rows = store.read_many(runs, detail)
        if detail != "epochs":  # a cell hangs on all that came before it
            rows = rows_of_cells(cells, rows.filter(pc.field("dataset").isin(told.to_pylist())))
        write_aside(folder / f"{detail}.parquet", tables.encode(detail, rows))
    return folder


def rows_of_cells(cells: pa.Table, rows: pa.Table) -> pa.Table:
    """Of a table of runs the rows on test, at the lengths that cells ask for."""
    asked = set(zip(cells["run_id"].to_pylist(), cells["epochs"].to_pylist(), strict=True))
    tested = rows.filter(pc.field("split") == "test")
    keys = zip(tested["run_id"].to_pylist(), tested["epoch"].to_pylist(), strict=True)
    return tables.canonical(tested.filter(pa.array([key in asked for key in keys], pa.bool_())))


def without_figures(report: str) -> str:
    """A report in Markdown without its section of figures."""
    return re.sub(r"^## Figures\n.*?(?=^## |\Z)", "", report, flags=re.MULTILINE | re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("studies", nargs="+", metavar="STUDY")
    parser.add_argument("--store", metavar="PLACE")
    parser.add_argument(
        "--with",
        dest="more",
        action="append",
        default=[],
        choices=["epochs", "thresholds"],
        help="keep that table, too: what each epoch took, or the curves over thresholds",
    )
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER")
    given = parser.parse_args()
    try:
        store = Store.open(usual_root(given.store), create=False)
        details: list[RunTable] = ["classes", *given.more]
        for study in given.studies:
            print(f"wrote {keep(study, store, given.results, details)}")
    except InputError as error:
        sys.exit(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
