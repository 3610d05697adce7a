"""Summary tables to something a person reads. It sees tables only, never models or images."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from sweeps.objectives import RUN_TABLES
from sweeps.proposals import proposals
from sweeps.report.figures import learning_curves, save, threshold_curves, threshold_runs
from sweeps.report.headline import headline, print_headline
from sweeps.report.markdown import CONFIRMED, grid_findings, render, search_findings
from sweeps.report.tried import print_proposals
from sweeps.spec import Spec
from sweeps.store import Store


def write_report(
    spec: Spec,
    store: Store,
    cells: pa.Table,
    evaluations: pa.Table,
    summary: pa.Table,
    console: Console,
) -> str:
    """Write `report.md` and its figures, print the findings, and say where the report is."""
    confirmed = cells.filter(pc.field("stage") == "confirm")
    shown = confirmed if len(confirmed) else cells  # the stages of a search are never averaged
    thresholds = store.read_many(threshold_runs(shown, evaluations), "thresholds")
    figures = {
        "learning-curves.png": learning_curves(shown, evaluations),
        "thresholds.png": threshold_curves(shown, thresholds),
    }
    drawn = {name: save(figure) for name, figure in figures.items() if figure is not None}
    for name, content in drawn.items():
        store.write_sweep(spec.name, f"figures/{name}", content)
    findings = []
    if spec.search is not None:
        run_ids = sorted(set(cells["run_id"].to_pylist()))
        found = {name: store.read_many(run_ids, name) for name in RUN_TABLES}
        tried = proposals(spec.search, cells, found)
        print_proposals(spec.search, tried, console)
        findings += search_findings(spec.search, tried)
    rows = headline(summary.filter(pc.field("stage") != "search"))
    if spec.search is None or rows:
        print_headline(rows, console, confirmed=spec.search is not None)
        findings += [*([] if spec.search is None else [CONFIRMED]), *grid_findings(rows)]
    states = store.run_states(cells["run_id"].to_pylist()).values()
    text = render(spec, findings, [state.row for state in states], list(drawn))
    path = store.write_sweep(spec.name, "report.md", text.encode())
    console.print(f"report: {path}", highlight=False, soft_wrap=True)
    return path
