"""What a store has of the points of a search's space before anyone proposed them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cifake.runs import RunState
from sweeps.objectives import RUN_TABLES, Reached, means_by_epoch, values_by_epoch
from sweeps.spec import Search, point_of
from sweeps.store import Store
from sweeps.sweep import Sweep


@dataclass(frozen=True)
class Known:
    """A point of which every seed was trained."""

    params: Mapping[str, Any]
    run_ids: tuple[str, ...]


def known_points(
    study: Sweep, search: Search, context: Mapping[str, Any], states: Iterable[RunState]
) -> Iterator[Known]:
    """The points of a study of which the store has every seed at full length.

    Args:
        study: one combination of scientific values.
        search: whose space.
        context: parameters with one value.
        states: of the store's runs.
    """
    by_config: dict[str, dict[int, RunState]] = defaultdict(dict)
    for state in states:
        if state.row["data.fingerprint"] == study.fingerprint:
            by_config[state.config_id][state.seed] = state
    seeds = study.spec.seeds
    for config_id, runs in by_config.items():
        if not set(seeds) <= runs.keys():
            continue
        params = point_of(search, context, runs[seeds[0]].row)
        if params is None:
            continue
        longest = max(study.spec.variants(study.fingerprint, params), key=lambda v: v.epochs)
        # The parameters of the space are a part of a config; its identity has all of it.
        same = longest.config.config_id == config_id
        if same and all(runs[seed].epochs_done >= longest.epochs for seed in seeds):
            yield Known(params, tuple(runs[seed].run_id for seed in seeds))


def history(
    known: Known, store: Store, train: str, metrics: Sequence[str], epochs: int
) -> list[Reached]:
    """What is known of a point, epoch by epoch, to a length.

    Args:
        known: the point.
        store: that has its runs.
        train: the training set, of which validation is a part.
        metrics: what is asked for.
        epochs: the length.
    """
    tables = {name: store.read_many(known.run_ids, name) for name in RUN_TABLES}
    values = values_by_epoch(tables, metrics, dataset=train)
    return list(means_by_epoch(values[values["epoch"] <= epochs], known.run_ids, metrics))
