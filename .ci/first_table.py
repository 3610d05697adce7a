"""The README's first table: rows of the summaries in `results/` that `results/table.yaml` names.

That file is a list. Each entry names a study, which is a folder of `results/`, and its rows:

- `ends`: each config at its longest length;
- `lengths: [1, 10]`: each config at those lengths;
- `best: 3`: of the ends, those with the best accuracy on validation, since the test split chooses
  nothing.

`where: {batch_size: [32, 64]}` beside any of them leaves the configs that have one of these values
of each such setting.

Scores are those of the training set's test split: of what a search confirmed, else of the grid.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from cifake.config import Settings
from cifake.errors import InputError, Mistake
from cifake.parameters import explain
from cifake.safe_yaml import load_yaml
from sweeps.report.content import STAGES_SHOWN
from sweeps.report.headline import Row, headline, label_text, percent, varying
from sweeps.report.markdown import inline, markdown_table

CHOICE = "table.yaml"
"""File of `results/` that says what is shown."""

SCORES = {
    "accuracy, %": "accuracy",
    "deduplicated, %": "accuracy_deduplicated",
    "AUROC, %": "auroc",
}

_ABSENT = object()
"""Value of a setting that a row does not tell."""


class Part(Settings):
    """Rows of one study."""

    study: str
    """A folder of `results/`."""

    rows: Literal["ends"] | None = None
    """Each config at its longest length."""

    lengths: list[int] | None = Field(None, min_length=1)
    """Each config at these lengths."""

    best: int | None = Field(None, ge=1)
    """So many configs, by validation, at their longest length."""

    where: dict[str, list[bool | int | float | str | None]] = {}
    """Values of settings; only configs that have one of each are shown."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(each is not None for each in (self.rows, self.lengths, self.best)) != 1:
            raise ValueError("give exactly one of rows, lengths, best")
        return self


def first_table(results: Path) -> str:
    """The table in Markdown.

    Args:
        results: the folder of committed results.

    Raises:
        InputError: a choice that cannot be made, every one of them named.
    """
    mistakes: list[Mistake] = []
    body: list[list[str]] = []
    for number, part in enumerate(_parts(results / CHOICE)):
        summary = results / part.study / "summary.parquet"
        where = f"{results / CHOICE}, entry {number + 1}"
        if not summary.is_file():
            problem = "has no summary.parquet; run the study, then `.ci/keep.py`"
            mistakes.append(Mistake(where=where, field="study", value=part.study, problem=problem))
            continue
        found = _results(summary, part.study, results)
        rows = _chosen(part, [row for row in found if _is_meant(row, part)])
        if not rows:
            problem = "none of its rows is such"
            mistakes.append(Mistake(where=where, field=part.study, problem=problem))
        body += _body(part.study, rows, varying([row.label for row in found]))
    if mistakes:
        raise InputError(mistakes)
    return markdown_table(["study", "config", "epochs", *SCORES, "seeds"], body)


def _parts(path: Path) -> list[Part]:
    try:
        return TypeAdapter(list[Part]).validate_python(load_yaml(path.read_text()))
    except ValidationError as error:
        raise InputError(
            [
                Mistake(
                    where=str(path),
                    field=".".join(map(str, each["loc"])),
                    problem=explain(each),
                )
                for each in error.errors()
            ]
        ) from None


def _results(path: Path, study: str, results: Path) -> list[Row]:
    """What is a result on the training set, of the foremost stage."""
    summary = pq.read_table(path)
    stages = set(summary["stage"].to_pylist()) if "stage" in summary.column_names else set()
    stage = next((each for each in STAGES_SHOWN if each in stages), None)
    if stage is not None:
        summary = summary.filter(pc.field("stage") == stage)
    spec = load_yaml((results / study / "spec.yaml").read_text())
    train = (spec.get("data") or {}).get("train", "cifake")
    return [row for row in headline(summary) if row.dataset == train]


def _is_meant(row: Row, part: Part) -> bool:
    return all(dict(row.label).get(name, _ABSENT) in values for name, values in part.where.items())


def _chosen(part: Part, rows: Sequence[Row]) -> list[Row]:
    tested = [row for row in rows if row.split == "test"]
    if part.lengths is not None:
        return [row for row in tested if row.epochs in part.lengths]
    ends = {key: max(r.epochs for r in rows if _key(r) == key) for key in map(_key, rows)}
    last = [row for row in tested if row.epochs == ends[_key(row)]]
    if part.best is None:
        return last
    judged = {
        (_key(row), row.epochs): row.metrics["accuracy"]["mean"] or 0.0
        for row in rows
        if row.split == "validation"
    }
    whole = [row for row in last if (_key(row), row.epochs) in judged]
    return sorted(whole, key=lambda row: -judged[_key(row), row.epochs])[: part.best]


def _key(row: Row) -> str:
    return json.dumps(dict(row.label), sort_keys=True)


def _body(study: str, rows: Sequence[Row], telling: Sequence[str]) -> list[list[str]]:
    return [
        [
            f"[{study}](results/{study})",
            inline(label_text(row.label, telling)),
            str(row.epochs),
            *(percent(row.metrics[metric]) for metric in SCORES.values()),
            str(row.n),
        ]
        for row in rows
    ]
