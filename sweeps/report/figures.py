"""Figures, drawn with matplotlib from tables."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sweeps.aggregate import frame
from sweeps.report.headline import label_text, varying
from sweeps.statistics import mean_interval

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C00")
"""Okabe and Ito's palette: told apart by colour-blind readers."""

MAX_CURVES = len(COLOURS)
_SIZE = (6.4, 4.0)
_DRAWN = ("run_id", "epoch", "dataset", "split", "threshold", "accuracy")


def learning_curves(cells: pa.Table, evaluations: pa.Table) -> Figure | None:
    """Validation accuracy by epoch, mean and 95 % interval over seeds; null without validation."""
    runs = frame(cells)[["label", "run_id"]].drop_duplicates()
    drawn = evaluations.select(["run_id", "epoch", "split", "accuracy"])
    rows = frame(drawn).query("split == 'validation'").merge(runs, on="run_id")
    if rows.empty:
        return None
    figure, axes = _figure("epoch", "validation accuracy, %")
    for label, colour, group in _by_label(rows, "accuracy"):
        pivot = group.pivot_table(index="epoch", columns="run_id", values="accuracy")
        _band(axes, pivot.index.to_numpy(), 100 * pivot.to_numpy(), label, colour)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return figure


def threshold_runs(cells: pa.Table, evaluations: pa.Table) -> list[str]:
    """Runs of the labels whose curves are drawn: where there are too many, those that end best.

    One file a run is read for the curves, and of thousands few are drawn.
    """
    rows = _at_the_end(cells, evaluations)
    best = rows.groupby("label")["accuracy"].mean().nlargest(MAX_CURVES).index
    return sorted(set(rows[rows["label"].isin(best)]["run_id"]))


def threshold_curves(cells: pa.Table, thresholds: pa.Table) -> Figure | None:
    """Accuracy by decision threshold at the longest length, on test where there is one."""
    rows = _at_the_end(cells, thresholds)
    if rows.empty:
        return None
    split, dataset = rows["split"].iloc[0], rows["dataset"].iloc[0]
    figure, axes = _figure("decision threshold", f"{dataset} {split} accuracy, %")
    for label, colour, group in _by_label(rows, "accuracy"):
        pivot = group.pivot_table(index="threshold", columns="run_id", values="accuracy")
        _band(axes, pivot.index.to_numpy(), 100 * pivot.to_numpy(), label, colour)
    axes.axvline(0.5, color="0.6", linewidth=0.8, zorder=0)
    axes.legend(frameon=False)
    return figure


def _at_the_end(cells: pa.Table, rows: pa.Table) -> pd.DataFrame:
    """Rows of each label's longest length: of the first data set, on test where there is one."""
    asked = frame(cells)
    longest = asked.groupby("label")["epochs"].transform("max") == asked["epochs"]
    found = frame(rows.select([name for name in _DRAWN if name in rows.column_names])).merge(
        asked[longest][["label", "run_id", "epochs"]],
        left_on=["run_id", "epoch"],
        right_on=["run_id", "epochs"],
    )
    split = "test" if (found["split"] == "test").any() else "validation"
    found = found[found["split"] == split]
    return found[found["dataset"] == found["dataset"].iloc[0]] if len(found) else found


def save(figure: Figure) -> bytes:
    """A figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def _figure(x: str, y: str) -> tuple[Figure, Axes]:
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, alpha=0.25)
    return figure, axes


def _by_label(rows: pd.DataFrame, metric: str) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Labels in order; where there are too many to draw, those that end best."""
    names = sorted(rows["label"].unique())
    if len(names) > MAX_CURVES:
        last = rows[rows["epoch"] == rows.groupby("label")["epoch"].transform("max")]
        best = last.groupby("label")[metric].mean().nlargest(MAX_CURVES).index
        names = sorted(best)
    telling = varying([json.loads(name) for name in names])
    for name, colour in zip(names, COLOURS, strict=False):
        label = {key: value for key, value in json.loads(name).items() if key in telling}
        yield label_text(label), colour, rows[rows["label"] == name]


def _band(
    axes: Axes,
    x: npt.NDArray[np.float64],
    values: npt.NDArray[np.float64],
    label: str,
    colour: str,
) -> None:
    """A mean line with its interval; `values` has shape (points, runs), NaN where a run ended."""
    axes.plot(x, np.nanmean(values, axis=1), color=colour, label=label, marker=_marker(len(x)))
    bounds = [mean_interval(row[~np.isnan(row)]) for row in values]
    drawn = np.asarray([low is not None for low, _ in bounds])
    if drawn.any():
        low = np.asarray([b[0] for b, d in zip(bounds, drawn, strict=True) if d], np.float64)
        high = np.asarray([b[1] for b, d in zip(bounds, drawn, strict=True) if d], np.float64)
        low, high = np.clip(low, 0, 100), np.clip(high, 0, 100)
        axes.fill_between(x[drawn], low, high, color=colour, alpha=0.18, linewidth=0)


def _marker(points: int) -> str:
    return "o" if points <= 12 else ""
