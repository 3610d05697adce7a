"""Where a config's scores at its longest length stand, among those of configs of other lengths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sweeps.words import counted

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Ends:
    """The longest length of each config, by stage and label."""

    lengths: Mapping[tuple[str, str], int]

    def of(self, stage: str, label: str, epochs: int | None) -> int:
        """The length of a config at a place of `comparisons` or `ranking`."""
        return self.lengths[stage, label] if epochs is None else epochs

    def name(self, name: str, stage: str, label: str, epochs: int | None) -> str:
        """A config's name, with its length where not all have the same."""
        if epochs is not None:
            return name
        return f"{name} after {counted(self.lengths[stage, label], 'epoch')}"

    def once(self, rows: Sequence[Row]) -> list[Row]:
        """Rows of `comparisons`, without those of two ends that are told among all ends, too."""
        told = {_score(row) for row in rows if row["epochs"] is None}

        def are_ends(row: Row) -> bool:
            both = (row["label_a"], row["label_b"])
            return {self.lengths[row["stage"], label] for label in both} == {row["epochs"]}

        return [row for row in rows if _score(row) not in told or not are_ends(row)]

    def placed(self, rows: Sequence[Row]) -> Iterator[tuple[int, Row]]:
        """Rows of `ranking`, each with its length, by the rule of `filled`."""
        told = {_score(row) for row in rows if row["epochs"] is None}
        for row in rows:
            longest = self.lengths[row["stage"], row["label"]]
            if row["epochs"] != longest or _score(row) not in told:
                yield longest if row["epochs"] is None else row["epochs"], row

    def filled(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Rows with a length each, one for each config, length and set.

        Where configs are told at their longest, nothing else is told of the longest of each.

        Args:
            rows: of `comparisons` or `ranking`, of one metric, each about one `label` of a `stage`.
        """
        configs = zip(rows["stage"], rows["label"], strict=True)
        longest = rows.assign(longest=[self.lengths[each] for each in configs])["longest"]
        at_ends = rows["epochs"].isna()
        told = at_ends.groupby([rows["stage"], rows["dataset"], rows["split"]]).transform("any")
        kept = at_ends | ~told | (rows["epochs"] != longest)
        filled = rows.assign(epochs=rows["epochs"].fillna(longest).astype("int64"))[kept]
        return filled.drop_duplicates(["stage", "label", "epochs", "dataset", "split"])


def _score(row: Row) -> tuple[Any, ...]:
    """The score that a row of `comparisons` or `ranking` is about, whatever its length."""
    return tuple(row[name] for name in ("stage", "dataset", "split", "metric"))


def ends(cells: pa.Table) -> Ends:
    """The longest lengths that a table `cells` asks for."""
    found = cells.group_by(["stage", "label"]).aggregate([("epochs", "max")])
    stages, labels = found["stage"].to_pylist(), found["label"].to_pylist()
    configs = zip(stages, labels, strict=True)
    return Ends(dict(zip(configs, found["epochs_max"].to_pylist(), strict=True)))
