"""The last stage of a search: the best are trained again with fresh seeds, and alone see the test.

The best of many was chosen for its figures, so that these are too good on average. Seeds that chose
nothing give figures that are not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from sweeps.aggregate import cells_table
from sweeps.objectives import RUN_TABLES
from sweeps.plan import Cell, make_cells
from sweeps.proposals import best, proposals
from sweeps.spec import Search, Spec
from sweeps.store import Store


def confirm_cells(spec: Spec, search: Search, store: Store, tried: Sequence[Cell]) -> list[Cell]:
    """The cells of the best proposals with fresh seeds.

    Args:
        spec: the specification.
        search: its search.
        store: that has the runs of the proposals.
        tried: the cells of every proposal.
    """
    confirming = spec.confirming
    if confirming is None or search.confirm is None:
        return []
    run_ids = sorted({cell.run_id for cell in tried})
    tables = {name: store.read_many(run_ids, name) for name in RUN_TABLES}
    ranked = proposals(search, cells_table(tried), tables)
    chosen = {
        json.dumps(dict(proposal.label), sort_keys=True): proposal.reached.epoch
        for proposal in best(ranked, spec.held, search.confirm.top)
    }
    variants = {
        (cell.variant.label_json, cell.variant.epochs): cell.variant
        for cell in tried
        if cell.variant.label_json in chosen
    }
    if search.reach is not None:
        # What took so many epochs to reach a score is asked for what it scores after as many.
        variants = {
            (label, chosen[label]): replace(variant, epochs=chosen[label])
            for (label, _), variant in variants.items()
        }
    return make_cells(variants.values(), confirming.seeds, "confirm")
