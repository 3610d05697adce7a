"""The figures of the page: frames to charts with captions, and words for who does not see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cifake.parameters import EPOCHS
from cifake.tables import higher_is_better, score_unit
from sweeps.aggregate import frame
from sweeps.report import frames, race_frames, search_frames
from sweeps.report.shown import Shown, in_words
from sweeps.report.vega_lite import (
    FEW_POINTS,
    SCROLLED_COLUMNS,
    Spec,
    bars,
    costs_spec,
    curves,
    differences_spec,
    effects_spec,
    epoch_axis,
    gates_spec,
    heat_map,
    heat_width,
    history_spec,
    parallel_spec,
    race_spec,
    reliability_spec,
    timeline_spec,
)
from sweeps.resolution import verdict
from sweeps.words import counted


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One chart of a figure."""

    title: str
    """What tells it from its neighbours; empty where it stands alone."""

    spec: Spec
    """Vega-Lite, without data."""

    data: pd.DataFrame
    """What is drawn, and what a reader who sees no chart is given as a table."""

    alt: str = ""
    """What is to be seen in it, in words; by default what the figure says."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Charts with one caption."""

    id: str
    title: str
    caption: str
    alt: str
    """What is to be seen, in words."""

    panels: tuple[Panel, ...]
    legend: bool = False
    """Whether the page's colours of configs are used."""

    scrolls: bool = False
    """Whether it can be wider than a narrow screen."""

    width: int = 46
    """Of one chart at most, in em of the text."""


Sections = Mapping[str, Sequence[Figure]]
"""Figures by the section that they stand in, in the order of the page."""


def by_section(shown: Shown) -> Sections:
    """Every figure that there is something to draw for."""
    explained = shown.content.explanations
    attended = None if explained is None or explained.gates is None else frame(explained.gates)
    return {
        "results": result_figures(shown),
        "race": _some(race(shown)),
        "learning": learning_figures(shown),
        "decisions": decision_figures(shown),
        "content": classes(shown),
        "search": search_figures(shown),
        "cost": cost_figures(shown),
        "explanations": [] if attended is None else _some(gates(attended)),
    }


def result_figures(shown: Shown) -> list[Figure]:
    """How configs differ."""
    return _some(differences(shown), placements(shown), main_effects(shown), variance(shown))


def learning_figures(shown: Shown) -> list[Figure]:
    """How scores came about."""
    return _some(learning(shown), difficulty(shown))


def decision_figures(shown: Shown) -> list[Figure]:
    """What probabilities are worth."""
    return _some(thresholds(shown), reliability(shown))


def search_figures(shown: Shown) -> list[Figure]:
    """What a search tried."""
    return _some(history(shown), importances(shown), parallel(shown))


def cost_figures(shown: Shown) -> list[Figure]:
    """What it took."""
    return _some(costs(shown), timeline(shown))


def differences(shown: Shown) -> Figure | None:
    """Each config's difference to the reference, paired by seed."""
    data = frames.differences(shown)
    if data.empty:
        return None
    ends = ("difference", "low", "high", "total_low", "total_high")
    scaled, name = _scaled(data, shown.metric, ends)
    title = f"difference in {name}"
    total = bool(data["total_low"].notna().any())
    thin = (
        " The thin line that ends in ticks is the interval for other images too." if total else ""
    )
    told = int(data["significant"].fillna(value=False).sum())
    of = int(data["of"].iloc[0])
    kept = "" if of == len(data) else f" The {len(data)} largest of {of}."
    each = ", each config at its longest length" if len(set(shown.lengths.values())) > 1 else ""
    found = list(dict.fromkeys(data["reference"]))
    reference = found[0] if len(found) == 1 else "the baseline"
    return Figure(
        id="differences",
        title=f"Differences to {reference}",
        caption=f"On {_at(shown.datasets[0])}{each}: mean of the differences paired by seed and "
        "its 95 % interval (Student’s t). Filled: significant at 5 % after Holm’s correction, by "
        f"the exact sign-flip test.{thin}{kept}",
        alt=f"{counted(len(data), 'config')} against {reference}; {told or 'none'} differ"
        f"{'s' if told == 1 else ''} significantly.",
        panels=(
            Panel(
                title="",
                spec=differences_spec(title, len(data)),
                data=scaled.drop(columns="of"),
            ),
        ),
    )


def race(shown: Shown) -> Figure | None:
    """Seeds of each config, and what was decided at each look."""
    data = race_frames.lanes(shown)
    resolution = shown.content.resolution
    if data.empty or resolution is None:
        return None
    terms = resolution.terms
    factor = 100 if score_unit(terms.metric) == "share" else 1
    of = data["config"].nunique()
    kept = list(dict.fromkeys(data["config"]))[: frames.MAX_COLUMNS]
    scaled = data[data["config"].isin(kept)]
    scaled = scaled.assign(**{name: factor * scaled[name] for name in ("behind", "low", "high")})
    told = f" The {len(kept)} that stayed longest of {of}." if of > len(kept) else ""
    return Figure(
        id="race",
        title="Where seeds were added",
        caption=f"Seeds of each config. A ring is a look at {in_words(terms.metric)} on "
        f"validation of {terms.dataset}: full where the config led, a cross where it fell out, "
        f"since another is better. The rule: {terms.rule}; at most {100 * terms.alpha:g} % of "
        f"sweeps have a false winner, however often is looked.{told}",
        alt=f"{counted(of, 'config')}, {counted(len(resolution.looks), 'look')}. "
        f"{verdict(resolution)}.",
        panels=(Panel(title="", spec=race_spec(scaled), data=scaled),),
        legend=True,
    )


def placements(shown: Shown) -> Figure | None:
    """Architecture by placement."""
    data = frames.placements(shown)
    if data.empty:
        return None
    scaled, name = _scaled(data, shown.metric)
    spec = heat_map(
        scaled, "placement", "architecture", name, worse=not higher_is_better(shown.metric)
    )
    best = _best(data, shown.metric)
    return Figure(
        id="placements",
        title="Architecture and placement",
        caption=f"On {_at(shown.datasets[0])}: mean {name} over runs, at the longest length.",
        alt=f"{counted(data['architecture'].nunique(), 'architecture')} by "
        f"{counted(data['placement'].nunique(), 'placement')}; best is {best['architecture']} at "
        f"{best['placement']}.",
        panels=(Panel(title="", spec=spec, data=scaled),),
        scrolls=data["placement"].nunique() > SCROLLED_COLUMNS,
        width=heat_width(data["placement"].nunique()),
    )


def main_effects(shown: Shown) -> Figure | None:
    """What each value of each parameter makes of the score."""
    data = frames.main_effects(shown)
    if data.empty:
        return None
    scaled, name = _scaled(data, shown.metric, ("effect", "low", "high"))
    scaled["name"] = scaled["term"] + " " + scaled["level"]
    flag = _border(data, "values that are compared: add some beyond it")
    largest = data.to_dict("records")[int(data["effect"].abs().argmax())]
    return Figure(
        id="effects",
        title="Effects of the parameters",
        caption=f"On {_at(shown.datasets[0])}: mean {in_words(shown.metric)} with a value minus "
        "that with all values of the parameter, and its 95 % interval; averaged over the others."
        f"{flag}",
        alt=f"{largest['term']} {largest['level']} moves the mean most, by "
        f"{_in_words(largest['effect'], shown.metric)}.",
        panels=(Panel(title="", spec=effects_spec(f"effect on {name}", len(data)), data=scaled),),
    )


def variance(shown: Shown) -> Figure | None:
    """Share of the variance that each parameter explains."""
    data = frames.variance(shown)
    if data.empty:
        return None
    first = data.iloc[0]
    return Figure(
        id="variance",
        title="What the differences come from",
        caption=f"On {_at(shown.datasets[0])}: share of the variance of {in_words(shown.metric)} "
        "between runs that goes with each parameter, with several together, with the seed, and "
        "with none of them.",
        alt=f"The largest share, {100 * first['share']:.0f} %, goes with {first['term']}.",
        panels=(
            Panel(
                title="",
                spec=bars("of the variance, %", len(data)),
                data=_percent(data, ("share",)),
            ),
        ),
    )


def learning(shown: Shown) -> Figure | None:
    """Score by epoch."""
    data = frames.learning_curves(shown)
    panels = []
    for where in shown.datasets:
        rows = _where(data, where)
        if rows["epoch"].nunique() > 1:
            scaled, name = _scaled(rows, shown.metric)
            spec = curves(
                scaled, epoch_axis(rows), name, marked=rows["epoch"].nunique() <= FEW_POINTS
            )
            alt = _leader(rows, shown.metric)
            panels.append(Panel(title=_at(where), spec=spec, data=scaled, alt=alt))
    if not panels:
        return None
    others = " Other configs are grey." if (data["place"] < 0).any() else ""
    return Figure(
        id="learning",
        title="Learning curves",
        caption=f"{_capital(in_words(shown.metric))} by epoch, mean over seeds with its 95 % "
        f"interval (Student’s t) as a band.{others}",
        alt=f"{counted(data['config'].nunique(), 'config')} over "
        f"{counted(int(data['epoch'].max()), 'epoch')}.",
        panels=tuple(panels),
        legend=True,
    )


def difficulty(shown: Shown) -> Figure | None:
    """Training loss within the first epoch."""
    data = frames.difficulty(shown)
    if data.groupby("config").size().max() < 2 if len(data) else True:
        return None
    x = {"field": "images_seen", "title": "images seen", "axis": {"format": "~s"}}
    spec = curves(
        data, x, "training loss, nats", marked=data["images_seen"].nunique() <= FEW_POINTS
    )
    first, last = (data[data["images_seen"] == f(data["images_seen"])] for f in (min, max))
    return Figure(
        id="difficulty",
        title="The first epoch",
        caption="Training loss of images that are seen for the first time, over those since the "
        "point before; mean over seeds with its 95 % interval.",
        alt=f"The loss goes from {first['mean'].mean():.2f} to {last['mean'].mean():.2f} nats on "
        "average within the first epoch.",
        panels=(Panel(title="", spec=spec, data=data),),
        legend=True,
    )


def thresholds(shown: Shown) -> Figure | None:
    """Scores by decision threshold."""
    data = frames.threshold_curves(shown)
    panels = []
    for number, where in enumerate(shown.datasets):
        for score in ("accuracy", "f1") if number == 0 else ("accuracy",):
            rows = _where(data, where)
            rows = rows[rows["score"] == score]
            if len(rows):
                scaled, name = _scaled(rows, score)
                x = {
                    "field": "threshold",
                    "title": "threshold of REAL",
                    "scale": {"domain": [0, 1]},
                }
                spec = curves(scaled, x, name, marked=False, rule=0.5)
                panels.append(
                    Panel(
                        title=f"{_at(where)}, {in_words(score)}",
                        spec=spec,
                        data=scaled.drop(columns="score"),
                        alt=_peak(rows, score),
                    )
                )
    if not panels:
        return None
    return Figure(
        id="thresholds",
        title="Score against threshold",
        caption="Images count as REAL at a probability of at least the threshold; mean over seeds "
        "with its 95 % interval, at the longest length. The dashed line is 0.5. A threshold that "
        "is read off a test set is an oracle’s: the table’s scores take 0.5. A curve of F1 ends "
        "where a run calls no image REAL.",
        alt=f"{counted(data['config'].nunique(), 'config')} at 99 thresholds.",
        panels=tuple(panels),
        legend=True,
    )


def reliability(shown: Shown) -> Figure | None:
    """Observed against predicted probability."""
    data = frames.reliability(shown)
    panels = []
    for where in shown.datasets:
        rows = _where(data, where)
        if len(rows):
            scaled = _percent(rows, ("predicted", "mean", "low", "high"))
            panels.append(Panel(title=_at(where), spec=reliability_spec(), data=scaled))
    if not panels:
        return None
    gap = (data["mean"] - data["predicted"]).abs()
    off = float(np.average(gap, weights=data["images"]))
    return Figure(
        id="reliability",
        title="Reliability",
        caption="Share of REAL among the images that are given some probability of REAL, in ten "
        "bins; on the diagonal a network is calibrated. Mean over seeds with its 95 % interval.",
        alt=f"On average a bin is {100 * off:.1f} points off the diagonal, by number of images.",
        panels=tuple(panels),
        legend=True,
    )


def classes(shown: Shown) -> list[Figure]:
    """Accuracy by class and by generator: a heat map for each set and kind."""
    data = frames.class_scores(shown)
    found: list[Figure] = []
    for (dataset, split, kind), group in data.groupby(["dataset", "split", "kind"], sort=False):
        order = list(dict.fromkeys(shown.names.values()))
        by_name = group.groupby("name")["mean"].mean().sort_values()
        rows = group.assign(
            rank=group["name"].map({name: n for n, name in enumerate(by_name.index)}),
            column=group["config"].map({name: n for n, name in enumerate(order)}),
        ).sort_values(["rank", "column"])
        rows = rows.drop(columns=["rank", "column", "dataset", "split", "kind", "place"])
        word = _KINDS.get(str(kind), str(kind))
        of = int(group["of"].iloc[0])
        kept = "" if of == len(by_name) else f" The {len(by_name)} hardest of {of}."
        scaled = _percent(rows.drop(columns="of"), ("mean", "low", "high"))
        found.append(
            Figure(
                id=f"classes-{len(found)}",
                title=f"Accuracy by {word}, {dataset}",
                caption=f"On {_at((str(dataset), str(split)))}: mean over runs at the longest "
                f"length, the hardest first.{kept}",
                alt=f"Hardest is {by_name.index[0]} with {100 * by_name.iloc[0]:.1f} %, easiest "
                f"{by_name.index[-1]} with {100 * by_name.iloc[-1]:.1f} %.",
                panels=(
                    Panel(
                        title="",
                        spec=heat_map(scaled, "config", "name", "accuracy, %"),
                        data=scaled,
                    ),
                ),
                scrolls=rows["config"].nunique() > SCROLLED_COLUMNS,
                width=heat_width(rows["config"].nunique()),
            )
        )
    return found


def history(shown: Shown) -> Figure | None:
    """Proposals in their order."""
    data = search_frames.history(shown.content)
    if data.empty:
        return None
    metric = str(data["metric"].iloc[0])
    words = _objective(metric)
    panels = tuple(
        Panel(
            title=str(study),
            spec=history_spec(words),
            data=group.drop(columns=["study", "metric"]),
        )
        for study, group in list(data.groupby("study"))[: frames.MAX_DATASETS]
    )
    hollow, stopped = _hollow(shown), int(data["stopped"].sum())
    return Figure(
        id="history",
        title="Proposals in their order",
        caption=f"{_capital(words)} of each proposal, mean over seeds; bars reach from the lowest "
        "to the highest seed. The line is the best so far. Hollow: {hollow}.",
        alt=f"{counted(len(data), 'proposal')}, {stopped} {hollow}; the best reaches "
        f"{shown.content.proposals[0].reached.scores[metric]:.4g}.",
        panels=panels,
    )


def _hollow(shown: Shown) -> str:
    """Which proposals are no candidates for the best."""
    search = None if shown.content.spec is None else shown.content.spec.search
    if search is None or search.reach is None:
        return "stopped early, at fewer epochs"
    return f"short of a {search.reach.metric} of {search.reach.value:g}"


def importances(shown: Shown) -> Figure | None:
    """Importance of each parameter of a search."""
    data = search_frames.importances(shown.content)
    if data.empty:
        return None
    first = data.iloc[0]
    flag = _border(data, "space: widen it")
    panels = tuple(
        Panel(
            title=in_words(str(metric)) if data["metric"].nunique() > 1 else "",
            spec=bars("of the importance, %", len(group)),
            data=_percent(group.drop(columns=["metric", "method"]), ("share",)),
        )
        for metric, group in data.groupby("metric", sort=False)
    )
    return Figure(
        id="importances",
        title="Which parameters matter",
        caption=f"Importance by {first['method']}, from {first['n']} proposals.{flag}",
        alt=f"Most important is {first['term']} with {100 * first['share']:.0f} %.",
        panels=panels,
    )


def parallel(shown: Shown) -> Figure | None:
    """Proposals across their parameters."""
    data = search_frames.parallel(shown.content)
    if data.empty:
        return None
    ticks = search_frames.parallel_ticks(shown.content)
    search = shown.content.spec.search if shown.content.spec else None
    worse = search is not None and search.mode[0] == "min"
    axes = list(dict.fromkeys(data["axis"]))
    return Figure(
        id="parallel",
        title="Proposals across their parameters",
        caption=f"A line is a proposal, the stronger the better by {_objective(axes[-1])}; dashed: "
        f"{_hollow(shown)}. “–”: the parameter does not exist there.",
        alt=f"{counted(data['proposal'].nunique(), 'proposal')} over {', '.join(axes[:-1])}. "
        + _best_values(data),
        panels=(
            Panel(
                title="",
                spec=parallel_spec(axes, ticks, worse=worse),
                data=data.drop(columns="order"),
            ),
        ),
        scrolls=len(axes) > 4,
    )


def costs(shown: Shown) -> Figure | None:
    """Cost against score."""
    data = frames.costs(shown)
    if len(data) < 2:
        return None
    scaled, name = _scaled(data, shown.metric)
    front = data[data["pareto"]]
    cheapest, dearest = front.iloc[0], front.iloc[-1]
    return Figure(
        id="costs",
        title="Cost against score",
        caption=f"On {_at(shown.datasets[0])}: {name} against the seconds that one run was "
        "trained; each config at each length. The line is the front: nothing is as cheap and "
        "better. Times are of the machines that trained, and of their company in a stack.",
        alt=f"{counted(len(front), 'point')} of {len(data)} on the front, from "
        f"{cheapest['config']} after {cheapest['seconds']:.3g} s to {dearest['config']} after "
        f"{dearest['seconds']:.3g} s.",
        panels=(Panel(title="", spec=costs_spec(name), data=scaled),),
        legend=True,
    )


def timeline(shown: Shown) -> Figure | None:
    """When what was trained."""
    data = frames.timeline(shown)
    if data.empty:
        return None
    hosts = list(data.groupby("host"))[: frames.MAX_DATASETS]
    panels = tuple(
        Panel(
            title=str(host) if len(hosts) > 1 else "",
            spec=timeline_spec(group["lane"].nunique()),
            data=group,
        )
        for host, group in hosts
    )
    spent = data["end"].max() - data["start"].min()
    idle = (data["end"] - data["start"]).dt.total_seconds() - data["trained"]
    rested = int((idle > data["trained"] + _PAUSE).sum())
    paused = (
        f" {counted(rested, 'bar')} {'holds' if rested == 1 else 'hold'} more pause than training: "
        "such a stack was continued later, or waited." * bool(rested)
    )
    return Figure(
        id="timeline",
        title="Who worked when",
        caption="A bar is a stack of runs, from its first start to its last write; a row is a "
        "place on a machine, shared by stacks that do not overlap, since runs do not note which "
        f"worker trained them. Outlined: failed.{paused}",
        alt=f"{counted(len(data), 'stack')} on {counted(data['host'].nunique(), 'machine')} and "
        f"{counted(int(data.groupby('host')['lane'].max().sum()), 'row')} within "
        f"{_lasting(spent)}.",
        panels=panels,
        legend=True,
    )


def gates(table: pd.DataFrame) -> Figure | None:
    """Gates of attention modules by channel, of REAL and of FAKE images."""
    if table.empty:
        return None
    panels = []
    for (run, site), group in list(table.groupby(["run_id", "site"], sort=False))[:12]:
        rows = group[["label", "channel", "mean", "std", "n"]]
        panels.append(Panel(title=f"{site}, run {str(run)[:8]}", spec=gates_spec(), data=rows))
    apart = table.pivot_table(index=["run_id", "site", "channel"], columns="label", values="mean")
    widest = (apart["REAL"] - apart["FAKE"]).abs().max() if {"REAL", "FAKE"} <= {*apart} else np.nan
    return Figure(
        id="gates",
        title="Gates of the attention modules",
        caption="Mean gate of each channel over REAL and over FAKE images, ± a standard deviation "
        "over images.",
        alt=""
        if np.isnan(widest)
        else f"REAL and FAKE differ by {widest:.2g} at most in a channel.",
        panels=tuple(panels),
    )


_PAUSE = 60.0
"""Seconds that a stack may take beside its training and as much again."""

_KINDS = {
    "content_class": "content class",
    "coarse_class": "coarse class",
    "generator": "generator",
}


def _scaled(
    rows: pd.DataFrame, metric: str, columns: Sequence[str] = ("mean", "low", "high")
) -> tuple[pd.DataFrame, str]:
    """Shares in percent, and the name of the score with its unit."""
    words = in_words(metric)
    unit = score_unit(metric)
    if unit != "share":
        return rows, f"{words}, {unit}" if unit else words
    return _percent(rows, columns), f"{words}, %"


def _percent(rows: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    return rows.assign(**{column: 100 * rows[column].astype("float64") for column in columns})


def _best(rows: pd.DataFrame, metric: str) -> dict[str, Any]:
    """The row with the best mean."""
    ordered = rows.sort_values("mean", ascending=not higher_is_better(metric), kind="stable")
    return {str(name): value for name, value in ordered.to_dict("records")[0].items()}


def _where(data: pd.DataFrame, where: tuple[str, str]) -> pd.DataFrame:
    rows = data[(data["dataset"] == where[0]) & (data["split"] == where[1])]
    return rows.drop(columns=["dataset", "split"])


def _leader(rows: pd.DataFrame, metric: str) -> str:
    """Who is best at the end of some curves."""
    best = _best(rows[rows["epoch"] == rows["epoch"].max()], metric)
    epochs = counted(int(best["epoch"]), "epoch")
    return f"After {epochs} {best['config']} is best, with {_in_words(best['mean'], metric)}."


def _in_words(value: float, metric: str) -> str:
    return f"{100 * value:.2f} %" if score_unit(metric) == "share" else f"{value:.4g}"


def _peak(rows: pd.DataFrame, score: str) -> str:
    """Where some curves are highest."""
    best = _best(rows, score)
    return (
        f"{_capital(in_words(score))} is highest, {100 * best['mean']:.2f} %, for "
        f"{best['config']} at a threshold of {best['threshold']:.2f}."
    )


def _best_values(data: pd.DataFrame) -> str:
    best = data[data["proposal"] == 1]
    told = ", ".join(
        f"{axis} {value}" for axis, value in zip(best["axis"], best["value"], strict=True)
    )
    return f"The best has {told}."


def _border(rows: pd.DataFrame, where: str) -> str:
    """A sentence on parameters whose best value may lie beyond those that were tried."""
    terms = rows[rows["at_border"].fillna(value=False).astype("bool")]["term"].unique()
    found = [term for term in terms if term != EPOCHS]  # longer is mostly better
    return f" The best value of {', '.join(found)} lies at the border of the {where}." * bool(found)


def _objective(metric: str) -> str:
    """What a search optimises, as a reader knows it."""
    return in_words(metric.replace(".", "_"))


def _lasting(spent: pd.Timedelta) -> str:
    seconds = spent.total_seconds()
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _at(where: tuple[str, str]) -> str:
    return " ".join(where)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _some(*found: Figure | None) -> list[Figure]:
    return [figure for figure in found if figure is not None]
