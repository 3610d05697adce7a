"""What each config is held against: its baseline where one is declared, else the best."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from sweeps.aggregate import frame
from sweeps.families import EVERY_PAIR
from sweeps.report.content import Content
from sweeps.resolution import race_leader

PLACE = ["epochs", "dataset", "split"]
NUMBERS = [
    *("n", "difference", "low", "high", "total_low", "total_high"),
    *("p", "p_holm", "significant", "seeds_needed", "mcnemar_runs", "mcnemar_different"),
]


def held_against(content: Content, metric: str) -> pd.DataFrame:
    """How each config differs from its reference on one score: its value minus the reference's.

    The reference is the second of a pair where a family has one, and where every pair was compared
    the best of its length, or in a race the leader. Where configs were compared at their longest
    lengths, that is what is told of each one's longest.

    Returns:
        `PLACE`, `label`, `reference` (a label), and `NUMBERS` of the table `comparisons`.
    """
    chosen = (pc.field("stage") == content.stage) & (pc.field("metric") == metric)
    rows = frame(content.comparisons.filter(chosen))
    ranked = frame(content.ranking.filter(chosen)).sort_values(["rank", "label"])
    first = ranked.drop_duplicates(PLACE)[[*PLACE, "label"]]
    ahead_of_all = race_leader(content.resolution)
    best = rows[PLACE].merge(first, on=PLACE, how="left")["label"].to_numpy()
    best = best if ahead_of_all is None else np.full(len(rows), ahead_of_all)
    every = rows["family"].str.contains(f": {EVERY_PAIR}", regex=False).to_numpy(dtype=bool)
    ahead = rows[~every | (rows["label_b"].to_numpy() == best)]
    behind = rows[every & (rows["label_a"].to_numpy() == best)]
    turned = {
        "difference": -behind["difference"],
        **{f"{kind}low": -behind[f"{kind}high"] for kind in ("", "total_")},
        **{f"{kind}high": -behind[f"{kind}low"] for kind in ("", "total_")},
    }
    parts = [
        ahead.rename(columns={"label_a": "label", "label_b": "reference"}),
        behind.assign(**turned).rename(columns={"label_b": "label", "label_a": "reference"}),
    ]
    # A config can have several nearest baselines: of those the first is told.
    whole = content.ends.filled(pd.concat(parts, ignore_index=True))
    return whole[[*PLACE, "label", "reference", *NUMBERS]]
