"""Summary tables to something a person reads. It sees tables only, never models or images."""

from __future__ import annotations

import pyarrow as pa
from rich.console import Console

from sweeps.report.figures import learning_curves, save, threshold_curves
from sweeps.report.headline import headline, print_headline
from sweeps.report.markdown import grid_findings, render, search_findings
from sweeps.report.proposals import print_proposals, proposals
from sweeps.spec import Spec
from sweeps.store import Store


def write_report(
    spec: Spec, store: Store, cells: pa.Table, summary: pa.Table, console: Console
) -> str:
    """Write `report.md` and its figures, print the findings, and say where the report is."""
    run_ids = sorted(set(cells["run_id"].to_pylist()))
    evaluations = store.read_many(run_ids, "evaluations")
    figures = {
        "learning-curves.png": learning_curves(cells, evaluations),
        "thresholds.png": threshold_curves(cells, store.read_many(run_ids, "thresholds")),
    }
    drawn = {name: save(figure) for name, figure in figures.items() if figure is not None}
    for name, content in drawn.items():
        store.write_sweep(spec.name, f"figures/{name}", content)
    if spec.search is None:
        rows = headline(summary)
        print_headline(rows, console)
        findings = grid_findings(rows)
    else:
        tried = proposals(spec.search, cells, evaluations)
        print_proposals(spec.search, tried, console)
        findings = search_findings(spec.search, tried)
    text = render(spec, findings, store.read_many(run_ids, "runs"), list(drawn))
    path = store.write_sweep(spec.name, "report.md", text.encode())
    console.print(f"report: {path}", highlight=False, soft_wrap=True)
    return path
