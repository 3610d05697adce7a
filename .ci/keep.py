"""Copy what a finished study says from a store to `results/`.

Tables, specification, forecasts and the report as Markdown, without its figures: all of it small,
and enough to make the README's first table again. Runs stay in the store.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from cifake.errors import InputError, refuse
from cifake.files import write_aside
from cifake.store import usual_root
from sweeps import forecast, resolution
from sweeps.outcome import sweep_status
from sweeps.store import Store
from sweeps.sweep import read_spec

RESULTS = Path(__file__).resolve().parents[1] / "results"

NEEDED = ("spec.yaml", "report.md", "cells.parquet", "summary.parquet")
MORE = ("comparisons.parquet", "ranking.parquet", "effects.parquet", forecast.FILE, resolution.FILE)
"""Files that some sweeps lack."""


def keep(study: str, store: Store, results: Path) -> Path:
    """Copy one study; the folder of its copy.

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
    return folder


def without_figures(report: str) -> str:
    """A report in Markdown without its section of figures."""
    return re.sub(r"^## Figures\n.*?(?=^## |\Z)", "", report, flags=re.MULTILINE | re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("studies", nargs="+", metavar="STUDY")
    parser.add_argument("--store", metavar="PLACE")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER")
    given = parser.parse_args()
    try:
        store = Store.open(usual_root(given.store), create=False)
        for study in given.studies:
            print(f"wrote {keep(study, store, given.results)}")
    except InputError as error:
        sys.exit(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
