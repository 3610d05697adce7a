"""What `--until-resolved` decided, look by look: for the chart, and for the tables."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cifake.tables import score_unit
from sweeps.report.frames import MAX_COLUMNS
from sweeps.report.shown import Shown
from sweeps.resolution import Resolution
from sweeps.statistics.sequential import Look

COLUMNS = ("config", "place", "look", "state", "behind", "low", "high", "pairs", "seeds")


def lanes(shown: Shown) -> pd.DataFrame:
    """Every config at each look at which it was in the race.

    Returns:
        `config`, `place`, `look` (seeds of every config of the race), `state` (`leads`, `best`,
        `tied`, `undecided`, `out` or `no scores`), `behind` (mean of the leader's score less the
        config's, or the other way round where less is better), `low` and `high` (its repeated
        confidence interval), `pairs` (seeds that both have), `seeds` (given to the config in all).
        Who stayed longest comes first, and of those the nearest to the leader. Empty where seeds
        were not added so.
    """
    resolution = shown.content.resolution
    if resolution is None or not resolution.looks:
        return pd.DataFrame(columns=list(COLUMNS))
    rows = [
        {
            "label": label,
            "look": look.seeds,
            "state": state,
            "behind": look.behind[number],
            "low": look.low[number],
            "high": look.high[number],
            "pairs": look.pairs[number],
            "seeds": resolution.seeds[number],
        }
        for number, label in enumerate(resolution.terms.configs)
        for look, state in zip(resolution.looks, _states(resolution, number), strict=False)
    ]
    found = pd.DataFrame(rows).astype({"behind": "float64", "low": "float64", "high": "float64"})
    found["config"] = found["label"].map(shown.names)
    found["place"] = shown.place(found["config"])
    ends = found.groupby("config").tail(1).set_index("config")
    leads = ends["state"].isin(["best", "leads"])
    order = ends.assign(first=~leads, last=-ends["look"], left=ends["state"].isin(["out"]))
    order = order.sort_values(["last", "first", "left", "behind"], kind="stable")
    place = {config: number for number, config in enumerate(order.index)}
    found = found.assign(row=found["config"].map(place)).sort_values(["row", "look"])
    return found[list(COLUMNS)].reset_index(drop=True)


def _states(resolution: Resolution, number: int) -> list[str]:
    """The state of a config at each look up to its last."""
    found = []
    for look in resolution.looks:
        state = _state(look, number)
        found.append(state)
        if state in ("out", "no scores"):
            break
    return found


def _state(look: Look, number: int) -> str:
    if look.beaten_by[number] is not None:
        return "out"
    if look.without_values[number]:
        return "no scores"
    if look.verdict == "equivalent":
        return "tied"
    if look.leader == number:
        return "best" if look.verdict == "winner" else "leads"
    return "undecided"


@dataclass(frozen=True, kw_only=True)
class LookTable:
    """A row for each config and a column for each look, as text."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    unit: str
    """Of the distances to the leader."""

    dropped: int
    """Configs that there was no room for."""


def look_table(shown: Shown) -> LookTable | None:
    """How far each config was behind at each look, and when it left; null without a look."""
    found = lanes(shown)
    resolution = shown.content.resolution
    if found.empty or resolution is None:
        return None
    share = score_unit(resolution.terms.metric) == "share"
    looks = [look.seeds for look in resolution.looks]
    configs = list(dict.fromkeys(found["config"]))
    rows = []
    for config in configs[:MAX_COLUMNS]:
        own = {row["look"]: row for row in found[found["config"] == config].to_dict("records")}
        last = own[max(own)]
        cells = [_distance(own[n], share=share) if n in own else "" for n in looks]
        left = last["state"] in ("out", "no scores")
        state = f"{last['state']} at {last['look']}" if left else str(last["state"])
        rows.append((config, str(last["seeds"]), *cells, state))
    unit = "points" if share else score_unit(resolution.terms.metric)
    return LookTable(
        header=("config", "seeds", *(f"at {n} seeds" for n in looks), "state"),
        rows=tuple(rows),
        unit=unit,
        dropped=len(configs) - len(rows),
    )


def _distance(row: Mapping[Hashable, Any], *, share: bool) -> str:
    """How far behind the leader, with its interval."""
    behind, low, high = (row[name] for name in ("behind", "low", "high"))
    if pd.isna(behind):
        return "leads" if row["state"] in ("leads", "best", "tied") else "–"
    told = [_number(value, share=share) for value in (behind, low, high) if not pd.isna(value)]
    return told[0] if len(told) < 3 else f"{told[0]} ({told[1]} to {told[2]})"


def _number(value: float, *, share: bool) -> str:
    """A distance, of shares in points."""
    text = f"{100 * value:.2f}" if share else f"{value:.4f}"
    return text.replace("-", "−") if float(text) else text.removeprefix("-")
