"""What each chart draws, as one tidy frame: the page and the printed figures share them.

Every function takes what is shown and returns a pandas frame, empty where there is nothing to draw.
Scores are shares from 0 to 1. Where values are means over runs, `n` counts the runs, and `low` and
`high` are the 95 % interval of the mean (Student's t) cut to what a score can be, NaN for one run.
`config` is a short name, and `place` its place among the coloured configs, -1 for the others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.compute as pc
from scipy.special import stdtrit

from cifake.parameters import EPOCHS
from cifake.tables import RunTable, higher_is_better, score_unit
from sweeps.aggregate import frame
from sweeps.objectives import fronts
from sweeps.report.headline import cell_text
from sweeps.report.reference import NUMBERS, held_against
from sweeps.report.shown import Shown
from sweeps.statistics import CONFIDENCE

MAX_LINES = 200
"""Configs with a learning curve."""

MAX_POINTS = 60
"""Points along a curve; of more, so many evenly spaced."""

MAX_DATASETS = 6
"""Data sets with a panel of their own."""

MAX_ROWS = 24
"""Configs with a row in a heat map."""

MAX_COLUMNS = 40
"""Classes with a column in a heat map; of more, the hardest."""

MAX_COSTED = 100
"""Configs with points of cost against score."""

MAX_BARS = 600
"""Stacks on the timeline; of more, the last."""

BINS = 10
"""Bins of a reliability diagram."""

MIN_IMAGES = 10
"""Images of all runs that a bin needs."""

SCORES_BY_THRESHOLD = ("accuracy", "f1", "precision", "recall")
"""Columns of `thresholds` that are drawn."""

_KEYS = ["dataset", "split"]


def learning_curves(shown: Shown, metric: str | None = None) -> pd.DataFrame:
    """A score by epoch, up to the longest length that a config is asked for.

    Returns:
        `dataset`, `split`, `config`, `place`, `epoch`, `n`, `mean`, `low`, `high`. Where some runs
        ended early `n` falls, and what follows is the mean of those that are left.
    """
    metric = metric or shown.metric
    columns = ["run_id", "epoch", *_KEYS, metric]
    rows = _of_configs(shown, frame(shown.content.evaluations.select(columns)), MAX_LINES)
    rows = rows[rows["epoch"] <= _looked_up(rows["label"], shown.lengths)]
    rows = rows[_in(rows, shown.datasets[:MAX_DATASETS])]
    epochs = _spread(np.unique(rows["epoch"].to_numpy()), MAX_POINTS)
    rows = rows[rows["epoch"].isin(epochs)]
    top = 1 if score_unit(metric) == "share" else np.inf
    return _averaged(shown, rows, [*_KEYS, "config", "epoch"], metric, top=top)


def threshold_curves(shown: Shown) -> pd.DataFrame:
    """Four scores by decision threshold, of the coloured configs at their longest length.

    Returns:
        `dataset`, `split`, `score`, `config`, `place`, `threshold`, `n`, `mean`, `low`, `high`;
        points where a score is undefined for one of the runs are left out.
    """
    rows = _thresholds(shown)
    parts = [
        _averaged(shown, rows, [*_KEYS, "config", "threshold"], score).assign(score=score)
        for score in SCORES_BY_THRESHOLD
    ]
    found = pd.concat(parts, ignore_index=True)
    # Where a run calls no image REAL its precision is undefined, and the others' mean would jump.
    whole = found.groupby([*_KEYS, "score", "config"])["n"].transform("max")
    return found[found["n"] == whole].reset_index(drop=True)


def reliability(shown: Shown) -> pd.DataFrame:
    """How often images are REAL among those that are given some probability of it.

    Made of the counts at 99 thresholds, so that the mean probability of a bin is known to ±0.005.
    Sets of one class are left out, and bins with fewer than 10 images over all runs.

    Returns:
        `dataset`, `split`, `config`, `place`, `bin` (from 0), `predicted` (mean probability of REAL
        in the bin), `images` (of a run, mean), `n`, and the share of REAL as `mean`, `low`, `high`.
    """
    rows = _thresholds(shown)
    rows = rows[(rows["tp"] + rows["fn"] > 0) & (rows["fp"] + rows["tn"] > 0)]
    parts = [_bins(group) for _, group in rows.groupby([*_KEYS, "config", "run_id"])]
    if not parts:
        return pd.DataFrame(columns=[*_KEYS, "config", "place", "bin", "predicted", "images"])
    binned = pd.concat(parts, ignore_index=True)
    keys = [*_KEYS, "config", "bin"]
    means = binned.groupby(keys)[["predicted", "images"]].mean().reset_index()
    found = _averaged(shown, binned, keys, "observed").merge(means, on=keys)
    return found[found["images"] * found["n"] >= MIN_IMAGES].reset_index(drop=True)


def class_scores(shown: Shown) -> pd.DataFrame:
    """Accuracy by content class, coarse class and generator, at the longest length.

    A kind with one name alone is left out.

    Returns:
        `dataset`, `split`, `kind`, `name`, `of` (names of that kind, drawn or not), `images`,
        `config`, `place`, `n`, `mean`, `low`, `high`.
    """
    rows = _at_the_end(shown, "classes", shown.best(MAX_ROWS))
    by = [*_KEYS, "kind"]
    rows["of"] = rows.groupby(by)["name"].transform("nunique")
    rows = rows[rows["of"] > 1]
    means = rows.groupby([*by, "name"])["accuracy"].mean().reset_index()
    hardest = means.sort_values("accuracy").groupby(by).head(MAX_COLUMNS)
    rows = rows.rename(columns={"n": "images"}).merge(hardest[[*by, "name"]], on=[*by, "name"])
    return _averaged(shown, rows, [*by, "name", "of", "images", "config"], "accuracy")


def difficulty(shown: Shown) -> pd.DataFrame:
    """Training loss within the first epoch, of the coloured configs.

    Returns:
        `config`, `place`, `images_seen`, `n`, `mean`, `low`, `high`; losses in nats.
    """
    labels = _coloured(shown)
    rows = _of_configs(shown, _read(shown, "batches", shown.runs_of(labels)), len(shown.names))
    rows = rows[rows["epoch"] == 1].sort_values(["run_id", "batch"])
    steps = rows.groupby("run_id").cumcount()
    # Neighbouring steps are averaged, so that a long epoch is not drawn point by point.
    size = max(1, -(-int(steps.max() + 1) // MAX_POINTS)) if len(rows) else 1
    rows["step"] = steps // size
    by_run = (
        rows.groupby(["config", "step", "run_id"])
        .agg(images_seen=("images_seen", "max"), loss=("loss", "mean"))
        .reset_index()
    )
    by_run["images_seen"] = by_run.groupby(["config", "step"])["images_seen"].transform("max")
    return _averaged(shown, by_run, ["config", "images_seen"], "loss", top=np.inf)


def transfer(shown: Shown) -> pd.DataFrame:
    """The foremost score on every test set at the longest length, where there are several.

    Returns:
        `config`, `place`, `dataset`, `n`, `mean`, `low`, `high` (neither is cut), `behind` (mean
        minus that on the training set; NaN where that was not tested), `one_class` (whether AUROC
        is undefined).
    """
    rows = _summary(shown)
    rows = rows[(rows["split"] == "test") & rows["label"].isin(shown.best(MAX_ROWS))]
    rows = rows[rows["epochs"] == _looked_up(rows["label"], shown.lengths)]
    wanted = rows[rows["metric"] == shown.metric].copy()
    if wanted["dataset"].nunique() < 2:
        wanted = wanted.iloc[:0]
    ranked = rows[(rows["metric"] == "auroc") & rows["mean"].notna()]
    wanted["one_class"] = ~wanted["dataset"].isin(ranked["dataset"])
    spec = shown.content.spec
    own = wanted[wanted["dataset"] == ("" if spec is None else spec.data.train)]
    reached = dict(zip(own["label"], own["mean"], strict=True))
    wanted["behind"] = wanted["mean"] - _looked_up(wanted["label"], reached)
    columns = ["config", "place", "dataset", "n", "mean", "low", "high", "behind", "one_class"]
    tested = [dataset for dataset, split in shown.datasets if split == "test"]
    sets = {dataset: number for number, dataset in enumerate(tested)}
    configs = {name: number for number, name in enumerate(shown.names.values())}
    wanted["row"], wanted["column"] = wanted["config"].map(configs), wanted["dataset"].map(sets)
    return wanted.sort_values(["row", "column"])[columns].reset_index(drop=True)


def differences(shown: Shown) -> pd.DataFrame:
    """Each config against its reference, on the first data set at its longest length.

    Returns:
        `config`, `place`, `reference` (the other config), `of` (configs with a difference, drawn or
        not), and the numbers of `comparisons` that `reference.NUMBERS` names; the best first.
    """
    rows = held_against(shown.content, shown.metric).dropna(subset=["difference"])
    rows = rows[_in(rows, shown.datasets[:1])]
    rows = rows[rows["epochs"] == _looked_up(rows["label"], shown.lengths)]
    rows = rows.assign(
        config=rows["label"].map(shown.names), reference=rows["reference"].map(shown.names)
    )
    rows["place"] = shown.place(rows["config"])
    rows = rows.sort_values("difference", ascending=not higher_is_better(shown.metric))
    rows["of"] = len(rows)
    columns = ["config", "place", "reference", "of", *NUMBERS]
    found: pd.DataFrame = rows[columns].head(MAX_COLUMNS).reset_index(drop=True)
    return found


def main_effects(shown: Shown) -> pd.DataFrame:
    """What each value of each parameter makes of the foremost score on the first data set.

    Returns:
        `term`, `level` (a value, as text), `n`, `effect` (mean at the level minus that of all),
        `low`, `high`, `at_border` (of the term: whether the best of its numbers is an outer one).
    """
    rows = _effects(shown, ["main"])
    at_border = rows[rows["level"] == ""].set_index("term")["at_border"].to_dict()
    rows["at_border"] = [at_border.get(term) is True for term in rows["term"]]
    rows = rows[rows["level"] != ""].dropna(subset=["effect"])
    levels = [json.loads(level) for level in rows["level"]]
    rows["level"] = [_value(level) for level in levels]
    columns = ["term", "level", "n", "effect", "low", "high", "at_border"]
    return rows[columns].head(MAX_COLUMNS).reset_index(drop=True)


def variance(shown: Shown) -> pd.DataFrame:
    """Shares of the variance between runs of the foremost score on the first data set.

    Returns:
        `kind` (`main`, `interaction`, `seed` or `residual`), `term`, `share`, `df`, `p`, `n`; the
        largest share first, what is left over last.
    """
    rows = _effects(shown, ["main", "interaction", "seed", "residual"])
    rows = rows[rows["level"] == ""].dropna(subset=["share"])
    left = rows["kind"] == "residual"
    rows = rows.assign(left=left).sort_values(["left", "share"], ascending=[True, False])
    return rows[["kind", "term", "share", "df", "p", "n"]].head(MAX_COLUMNS).reset_index(drop=True)


def placements(shown: Shown) -> pd.DataFrame:
    """The foremost score by placement and by all other scientific values, at the longest length.

    Returns:
        `architecture`, `placement`, `n`, `mean`, `low`, `high`, in the order of the specification;
        empty below two placements.
    """
    rows = _foremost(shown)
    rows = rows[rows["epochs"] == _looked_up(rows["label"], shown.lengths)]
    labels = [json.loads(label) for label in rows["label"]]
    rows["placement"] = [label.get("placement") for label in labels]
    rows = rows.dropna(subset=["placement", "mean"])
    if rows["placement"].nunique() < 2 or len(rows) > MAX_ROWS * MAX_COLUMNS:
        return pd.DataFrame(columns=["architecture", "placement", "n", "mean", "low", "high"])
    rows["architecture"] = [_architecture(json.loads(label), labels) for label in rows["label"]]
    rows["asked"] = rows["label"].map({label: n for n, label in enumerate(shown.asked["label"])})
    rows = rows.sort_values("asked")
    return rows[["architecture", "placement", "n", "mean", "low", "high"]].reset_index(drop=True)


def costs(shown: Shown) -> pd.DataFrame:
    """Seconds of training against the foremost score, a point for each config and length.

    Returns:
        `config`, `place`, `epochs`, `seconds` (of one run, mean over runs), `parameters`, `n`,
        `mean`, `low`, `high`, `pareto` (whether no other is as cheap and better, or cheaper and as
        good).
    """
    labels = shown.best(MAX_COSTED)
    asked = shown.asked[shown.asked["label"].isin(labels)]
    epochs = _read(shown, "epochs", shown.runs_of(labels)).sort_values(["run_id", "epoch"])
    epochs["total"] = epochs.groupby("run_id")["seconds"].cumsum()
    parameters = frame(shown.content.runs.select(["run_id", "parameters"]))
    spent = asked.merge(epochs, left_on=["run_id", "epochs"], right_on=["run_id", "epoch"])
    spent = spent.merge(parameters, on="run_id", how="left")
    means = (
        spent.groupby(["label", "epochs"])
        .agg(seconds=("total", "mean"), parameters=("parameters", "mean"))
        .reset_index()
    )
    rows = _foremost(shown).merge(means, on=["label", "epochs"]).dropna(subset=["mean", "seconds"])
    better = "max" if higher_is_better(shown.metric) else "min"
    points = rows[["seconds", "mean"]].to_numpy(np.float64)
    rows["pareto"] = fronts(points, ["min", better]) == 0
    columns = ["config", "place", "epochs", "seconds", "parameters", "n", "mean", "low", "high"]
    return rows[[*columns, "pareto"]].sort_values("seconds").reset_index(drop=True)


def timeline(shown: Shown) -> pd.DataFrame:
    """When each stack of runs was worked on, from its first start to its last write.

    Rows of `runs` do not say which worker trained them: stacks of one machine that do not overlap
    share a lane. A stack that was continued later spans the time between.

    Returns:
        `host`, `lane` (from 1 on each host), `config`, `place`, `seeds`, `runs`, `status` (the
        worst), `start`, `end` (UTC), `trained` (seconds of training between them).
    """
    columns = ["run_id", "config_id", "seed", "stack", "host", "status", "train_seconds"]
    columns += ["started_at", "updated_at"]
    rows = frame(shown.content.runs.select(columns)).dropna(subset=["started_at", "updated_at"])
    rows["stack"] = [" ".join(map(str, stack)) for stack in rows["stack"]]
    rows["host"] = rows["host"].fillna("unknown")
    rows["failed"] = rows["status"].isin(["failed", "diverged"])
    every = frame(shown.content.cells.select(["config_id", "label"])).drop_duplicates("config_id")
    label = rows["config_id"].map(every.set_index("config_id")["label"])
    rows["config"] = label.map(shown.names).fillna("of the search")
    stacks = (
        rows.sort_values("failed")
        .groupby(["host", "config", "config_id", "stack"])
        .agg(
            seeds=("seed", lambda seeds: ", ".join(map(str, sorted(seeds)))),
            runs=("run_id", "size"),
            status=("status", "last"),
            start=("started_at", "min"),
            end=("updated_at", "max"),
            trained=("train_seconds", "max"),
        )
        .reset_index()
        .sort_values("start")
        .tail(MAX_BARS)
    )
    stacks["lane"] = 0
    for _, group in stacks.groupby("host"):
        stacks.loc[group.index, "lane"] = _lanes(group)
    stacks["place"] = shown.place(stacks["config"])
    return stacks[
        ["host", "lane", "config", "place", "seeds", "runs", "status", "start", "end", "trained"]
    ].reset_index(drop=True)


def _thresholds(shown: Shown) -> pd.DataFrame:
    rows = _at_the_end(shown, "thresholds", _coloured(shown))
    return rows[_in(rows, shown.datasets[:MAX_DATASETS])]


def _coloured(shown: Shown) -> list[str]:
    return [label for label, name in shown.names.items() if name in shown.coloured]


def _read(shown: Shown, table: RunTable, run_ids: Sequence[str]) -> pd.DataFrame:
    return frame(shown.content.read(table, run_ids))


def _at_the_end(shown: Shown, table: RunTable, labels: Sequence[str]) -> pd.DataFrame:
    """Rows of some configs at their longest length; the test split of a set where there is one."""
    rows = _read(shown, table, shown.runs_of(labels, ends=True))
    ends = shown.ends[["label", "run_id", "epochs"]]
    rows = rows.merge(ends, left_on=["run_id", "epoch"], right_on=["run_id", "epochs"])
    tested = {dataset for dataset, split in shown.datasets if split == "test"}
    rows = rows[(rows["split"] == "test") | ~rows["dataset"].isin(tested)]
    return rows.assign(config=rows["label"].map(shown.names))


def _of_configs(shown: Shown, rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """Rows of runs with `label` and `config`, of the best configs alone."""
    asked = shown.asked[["label", "run_id"]].drop_duplicates()
    asked = asked[asked["label"].isin(shown.best(count))]
    joined = rows.merge(asked, on="run_id")
    return joined.assign(config=joined["label"].map(shown.names))


def _in(rows: pd.DataFrame, where: Sequence[tuple[str, str]]) -> npt.NDArray[np.bool_]:
    pairs = zip(rows["dataset"], rows["split"], strict=True)
    return np.fromiter((pair in where for pair in pairs), np.bool_, len(rows))


def _spread(values: npt.NDArray[np.int32], count: int) -> npt.NDArray[np.int32]:
    """So many of ascending values, evenly spaced, both ends among them."""
    if len(values) <= count:
        return values
    return values[np.unique(np.linspace(0, len(values) - 1, count).round().astype(np.int64))]


def _looked_up(labels: pd.Series[str], values: Mapping[str, float]) -> npt.NDArray[np.float64]:
    found = (values.get(label, np.nan) for label in labels)
    return np.fromiter(found, np.float64, len(labels))


def _averaged(
    shown: Shown, rows: pd.DataFrame, keys: list[str], value: str, *, top: float = 1
) -> pd.DataFrame:
    """Mean over seeds with its t interval, cut to what a score can be, from 0 to `top`.

    A seed has the mean over nuisance values. Groups without a value are left out.
    """
    seeds = dict(zip(shown.asked["run_id"], shown.asked["seed"], strict=True))
    rows = rows.dropna(subset=[value]).assign(seed=rows["run_id"].map(seeds))
    if rows.duplicated([*keys, "seed"]).any():
        rows = rows.groupby([*keys, "seed"])[value].mean().reset_index()
    grouped = rows.groupby(keys)[value]
    means = grouped.agg(["size", "mean", "std"]).reset_index().rename(columns={"size": "n"})
    n = means["n"].to_numpy(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        quantile = stdtrit(np.where(n > 1, n - 1, np.nan), (1 + CONFIDENCE) / 2)
        half = quantile * means["std"].to_numpy(np.float64) / np.sqrt(n)
    means["low"] = (means["mean"] - half).clip(0)
    means["high"] = (means["mean"] + half).clip(upper=top)
    means["place"] = shown.place(means["config"])
    return means[[*keys, "place", "n", "mean", "low", "high"]]


def _summary(shown: Shown) -> pd.DataFrame:
    """Rows of `summary` of the foremost score and of AUROC."""
    content = shown.content
    # Of thirty-eight scores two are drawn.
    drawn = pc.field("metric").isin([shown.metric, "auroc"])
    rows = frame(content.summary.filter((pc.field("stage") == content.stage) & drawn))
    rows["config"] = rows["label"].map(shown.names)
    rows["place"] = shown.place(rows["config"])
    return rows


def _foremost(shown: Shown) -> pd.DataFrame:
    """Rows of `summary` of the foremost score on the first data set."""
    rows = _summary(shown)
    rows = rows[(rows["metric"] == shown.metric) & _in(rows, shown.datasets[:1])].copy()
    if score_unit(shown.metric) == "share":
        rows["low"], rows["high"] = rows["low"].clip(0), rows["high"].clip(upper=1)
    return rows


def _effects(shown: Shown, kinds: Sequence[str]) -> pd.DataFrame:
    """Rows of `effects` of the foremost score on the first data set."""
    effects = shown.content.effects
    chosen = (pc.field("stage") == shown.content.stage) & (pc.field("metric") == shown.metric)
    rows = frame(effects.filter(chosen & pc.field("kind").isin(list(kinds))))
    return rows[_in(rows, shown.datasets[:1])].copy()


def _value(level: object) -> str:
    """A level as text: where it is an object, its values."""
    values = list(level.values()) if isinstance(level, dict) else [level]
    return " · ".join(cell_text(value) for value in values)


def _bins(counts: pd.DataFrame) -> pd.DataFrame:
    """Reliability of one run, from its counts at each threshold."""
    counts = counts.sort_values("threshold")
    edges = np.asarray([0.0, *counts["threshold"], 1.0])
    real = _between(counts["tp"].to_numpy(), counts["tp"].iloc[0] + counts["fn"].iloc[0])
    fake = _between(counts["fp"].to_numpy(), counts["fp"].iloc[0] + counts["tn"].iloc[0])
    middle = (edges[1:] + edges[:-1]) / 2
    number = np.minimum((middle * BINS).astype(np.int64), BINS - 1)
    images = np.bincount(number, real + fake, BINS)
    with np.errstate(invalid="ignore"):
        predicted = np.bincount(number, (real + fake) * middle, BINS) / images
        observed = np.bincount(number, real, BINS) / images
    columns = {"predicted": predicted, "observed": observed, "images": images}
    same = counts[[*_KEYS, "config", "run_id"]].iloc[:1]
    return same.merge(pd.DataFrame({"bin": range(BINS)}), "cross").assign(**columns)


def _between(above: npt.NDArray[np.int64], all_: int) -> npt.NDArray[np.int64]:
    """Images between neighbouring thresholds, of those at or above each; 0 and 1 are the ends."""
    return -np.diff(np.concatenate([[all_], above, [0]]))


def _architecture(label: dict[str, object], labels: Sequence[dict[str, object]]) -> str:
    others = {key: value for key, value in label.items() if key not in ("placement", EPOCHS)}
    telling = [key for key in others if len({json.dumps(each.get(key)) for each in labels}) > 1]
    return " · ".join(str(others[key]) for key in telling if others[key] is not None) or "all"


def _lanes(stacks: pd.DataFrame) -> list[int]:
    """The first lane that is free when each starts, from 1; stacks come in the order of start."""
    free: list[pd.Timestamp] = []
    taken = []
    for start, end in zip(stacks["start"], stacks["end"], strict=True):
        lane = next((lane for lane, since in enumerate(free) if since <= start), len(free))
        free[lane : lane + 1] = [end]
        taken.append(lane + 1)
    return taken
