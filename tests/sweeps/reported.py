"""Contents of reports made by hand, for the tests of everything that is made of one."""

from __future__ import annotations

import datetime
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cifake import tables
from cifake.tables import RunTable
from sweeps import aggregate
from sweeps.families import EVERY_PAIR
from sweeps.report.content import Content
from sweeps.resolution import Resolution, Terms
from sweeps.spec import Compare, Spec
from sweeps.statistics.sequential import Rule, follow, seeds_wanted

NONE: Mapping[str, Any] = {"attention": "none", "placement": "none"}
POOL: Mapping[str, Any] = {"attention": "srm", "placement": "after_pool1"}
BOTH: Mapping[str, Any] = {"attention": "srm", "placement": "both"}

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
"""When the first run began; that of each further config begins a minute later."""

MAX_PAIRED = 20
"""Configs of which every pair is compared."""


def run_id(label: Mapping[str, Any], seed: int) -> str:
    """Of one config with one seed: sixteen digits, as real ones have."""
    text = json.dumps(dict(label), sort_keys=True)
    return f"{sum(ord(c) * 31**n for n, c in enumerate(text)) % 16**14:014x}{seed:02x}"


def content(  # one parameter a part of the report
    labels: Sequence[Mapping[str, Any]] = (NONE, POOL, BOTH),
    lengths: Sequence[int] = (1, 3),
    seeds: int = 6,
    *,
    name: str = "placements",
    question: str = "Does it help?",
    spec: Spec | None = None,
    metrics: Sequence[str] = ("accuracy", "auroc"),
    datasets: Sequence[str] = ("demo",),
    missing: Iterable[tuple[int, int]] = (),
    read: Callable[[RunTable, Iterable[str]], pa.Table] | None = None,
    apart: bool = False,
    **settings: Any,
) -> Content:
    """A report on made-up runs of a grid.

    Args:
        labels: of the configs; later ones are better by a point.
        lengths: epochs asked for.
        seeds: runs of each config.
        name: of the sweep.
        question: that it answers.
        spec: its specification.
        metrics: that are compared.
        datasets: whose test split was evaluated; the first is trained on.
        missing: config and seed, both by number, of runs that never finished an epoch.
        read: large tables; by default there are none.
        apart: whether comparisons are significant.
        settings: columns of `runs`.
    """
    gone = set(missing)
    asked = [(c, label, s) for c, label in enumerate(labels) for s in range(seeds)]
    there = [(c, label, s) for c, label, s in asked if (c, s) not in gone]
    cells = [
        {
            "label": _json(label),
            "nuisance": "{}",
            "epochs": length,
            "seed": s,
            "config_id": run_id(label, 99),
            "run_id": run_id(label, s),
            "stage": "grid",
            "role": "end" if length == max(lengths) else "milestone",
        }
        for _, label, s in asked
        for length in lengths
    ]
    runs = [
        {
            "run_id": run_id(label, s),
            "config_id": run_id(label, 99),
            "seed": s,
            "status": "complete",
            "fallbacks": [],
            "epochs_done": max(lengths),
            "evaluated": [],
            "stack": list(range(seeds)),
            "stack_width": seeds,
            "trainer_version": 1,
            "parameters": 61241,
            "train_seconds": 10.0,
            "host": "here",
            "started_at": START + datetime.timedelta(seconds=60 * c),
            "updated_at": START + datetime.timedelta(seconds=60 * c + 90),
            "model": "base",
            "data.train": datasets[0],
            "label_smoothing": 0.0,
            **{key: value for key, value in label.items() if key in ("attention", "placement")},
            **{key.replace("__", "."): value for key, value in settings.items()},
        }
        for c, label, s in there
    ]
    cells_table = tables.TABLES["cells"].from_rows(cells)
    evaluations = _evaluations(there, lengths, datasets)
    tested = [label for label in labels if any(label is each for _, each, _ in there)]
    paired = tested if len(tested) <= MAX_PAIRED else tested[:2]
    compared = [*_comparisons(name, paired, lengths, metrics, datasets[0], seeds, apart=apart)]
    ranks = [*_ranking(name, tested, lengths, metrics, datasets[0], seeds, apart=apart)]
    return Content(
        name=name,
        question=question,
        spec=spec,
        compare=Compare(metrics=list(metrics)),
        cells=cells_table,
        runs=tables.TABLES["runs"].from_rows(sorted(runs, key=lambda row: str(row["run_id"]))),
        evaluations=evaluations,
        labels=tables.TABLES["labels"].empty(),
        summary=aggregate.summary(name, cells_table, evaluations),
        comparisons=tables.TABLES["comparisons"].from_rows(compared),
        ranking=tables.TABLES["ranking"].from_rows(ranks),
        effects=tables.TABLES["effects"].from_rows(
            _effects(name, tested, metrics, datasets[0]) if apart else []
        ),
        proposals=[],
        forecasts=[],
        explanations=None,
        notes=[],
        commands=["sweeps run spec.yaml"],
        read=read or (lambda table, _: tables.TABLES[table].empty()),
    )


def raced(
    configs: Sequence[str],
    values: Sequence[Sequence[float]],
    looks: Sequence[int],
    delta: float | None = None,
) -> Resolution:
    """What looks at made-up scores decide.

    Args:
        configs: labels, as JSON.
        values: scores by config and seed.
        looks: seeds at each.
        delta: smallest difference that matters.
    """
    rule = Rule(configs=len(configs), looks=tuple(looks), delta=delta)
    found = follow(np.asarray(values, np.float64), rule)
    terms = Terms(
        metric="accuracy",
        dataset="demo",
        configs=tuple(configs),
        looks=rule.looks,
        alpha=rule.alpha,
        delta=delta,
    )
    return Resolution(terms=terms, seeds=tuple(seeds_wanted(found, rule)), looks=tuple(found))


def whole(
    labels: Sequence[Mapping[str, Any]] = (NONE, POOL, BOTH),
    lengths: Sequence[int] = (1, 3),
    seeds: int = 3,
    *,
    noise: int = 0,
    **given: Any,
) -> Content:
    """A report with its large tables too.

    Args:
        labels: of the configs.
        lengths: epochs asked for.
        seeds: runs of each config.
        noise: seed of what is made up.
        given: as `content` takes it.
    """
    datasets = given.get("datasets", ("demo",))
    rng = np.random.default_rng(noise)
    rows: dict[RunTable, list[dict[str, Any]]] = {
        "thresholds": [],
        "classes": [],
        "batches": [],
        "epochs": [],
    }
    for label, seed in itertools.product(labels, range(seeds)):
        run = run_id(label, seed)
        for epoch in range(1, max(lengths) + 1):
            seconds = 2.0 + len(label.get("placement", "")) / 10
            rows["epochs"].append({"run_id": run, "epoch": epoch, "seconds": seconds})
        rows["batches"] += [
            {
                "run_id": run,
                "epoch": 1,
                "batch": 10 * step,
                "images_seen": 320 * step,
                "loss": 0.7 / step + 0.05 * rng.random(),
            }
            for step in range(1, 9)
        ]
        for dataset in datasets:
            at = {"run_id": run, "epoch": max(lengths), "dataset": dataset, "split": "test"}
            rows["thresholds"] += [*_thresholds(at, rng)]
            rows["classes"] += [
                {**at, "kind": kind, "name": name, "n": 100, "accuracy": 0.8 + 0.2 * rng.random()}
                for kind, names in (("content_class", "bird cat frog ship"), ("generator", "a b c"))
                for name in names.split()
            ]
    tabled = {name: tables.TABLES[name].from_rows(found) for name, found in rows.items()}
    return content(labels, lengths, seeds, read=large(tabled), **given)


def _thresholds(at: Mapping[str, Any], rng: np.random.Generator) -> Iterable[dict[str, Any]]:
    """Counts of 200 images of each label at every threshold."""
    real, fake = rng.beta(4, 2, 200), rng.beta(2, 4, 200)
    for threshold in tables.THRESHOLDS:
        tp, fp = int((real >= threshold).sum()), int((fake >= threshold).sum())
        counts = {"tp": tp, "fp": fp, "tn": 200 - fp, "fn": 200 - tp}
        precision, recall = tp / (tp + fp) if tp + fp else None, tp / 200
        f1 = 2 * tp / (2 * tp + fp + 200 - tp) if tp else None
        scores = {"accuracy": (tp + 200 - fp) / 400, "precision": precision, "recall": recall}
        yield {**at, "threshold": threshold, **counts, **scores, "f1": f1}


def large(rows: Mapping[RunTable, pa.Table]) -> Callable[[RunTable, Iterable[str]], pa.Table]:
    """What reads large tables from memory."""

    def read(table: RunTable, run_ids: Iterable[str]) -> pa.Table:
        whole = rows.get(table, tables.TABLES[table].empty())
        return whole.filter(pc.is_in(whole["run_id"].cast(pa.string()), pa.array([*run_ids])))

    return read


def _json(label: Mapping[str, Any]) -> str:
    return json.dumps(dict(label), sort_keys=True)


def _evaluations(
    there: Sequence[tuple[int, Mapping[str, Any], int]],
    lengths: Sequence[int],
    datasets: Sequence[str],
) -> pa.Table:
    rng = np.random.default_rng(0)
    counts = dict.fromkeys(("tp", "fp", "tn", "fn"), 5)
    rows = []
    for config, label, seed in there:
        for epoch in range(1, max(lengths) + 1):
            tested = [(name, "test") for name in datasets] if epoch in lengths else []
            for dataset, split in ((datasets[0], "validation"), *tested):
                score = 0.5 + 0.01 * config + 0.02 * epoch + 0.005 * rng.standard_normal()
                scores = {"accuracy": score, "auroc": score + 0.03, "loss": 1 - score, "f1": score}
                rows.append(
                    {
                        "run_id": run_id(label, seed),
                        "epoch": epoch,
                        "dataset": dataset,
                        "split": split,
                        "n": 20,
                        "n_unreadable": 0,
                        "n_deduplicated": 20,
                        "threshold": 0.5,
                        **counts,
                        **scores,
                    }
                )
    return tables.TABLES["evaluations"].from_rows(rows)


def _comparisons(
    name: str,
    labels: Sequence[Mapping[str, Any]],
    lengths: Sequence[int],
    metrics: Sequence[str],
    dataset: str,
    seeds: int,
    *,
    apart: bool,
) -> Iterable[dict[str, Any]]:
    pairs = [*itertools.combinations(labels, 2)]
    for metric, epochs in itertools.product(metrics, lengths):
        for number, (a, b) in enumerate(pairs):
            yield {
                **_about(name, epochs, dataset, metric),
                "label_a": _json(a),
                "label_b": _json(b),
                "family": f"{metric} on {dataset} test: {EVERY_PAIR}",
                "comparisons": len(pairs),
                "n": seeds,
                "n_missing": 0,
                "difference": -0.01 * (number + 1),
                "low": -0.02 * (number + 1),
                "high": 0.001,
                "p": 2.0 ** (1 - seeds) if apart else 0.5,
                "smallest_p": 2.0 ** (1 - seeds),
                "p_holm": 0.0004 if apart else 1.0,
                "significant": apart,
                "probability_of_improvement": 0.25,
                "cliffs_delta": -0.5,
                "cohens_d": -1.0,
            }


def _ranking(
    name: str,
    labels: Sequence[Mapping[str, Any]],
    lengths: Sequence[int],
    metrics: Sequence[str],
    dataset: str,
    seeds: int,
    *,
    apart: bool,
) -> Iterable[dict[str, Any]]:
    for metric, epochs in itertools.product(metrics, lengths):
        for number, label in enumerate(labels):
            yield {
                **_about(name, epochs, dataset, metric),
                "label": _json(label),
                "n": seeds,
                "mean": 0.8 + 0.01 * number,
                "rank": float(len(labels) - number),
                "p_best": 1 / len(labels),
                "group": chr(ord("a") + number) if apart else "a",
                "tau": 0.9,
            }


def _effects(
    name: str, labels: Sequence[Mapping[str, Any]], metrics: Sequence[str], dataset: str
) -> Iterable[dict[str, Any]]:
    """Of the first parameter, and what is left over."""
    term = next(iter(labels[0]))
    levels = list(dict.fromkeys(label[term] for label in labels))
    for metric in metrics:
        about = {
            key: v
            for key, v in _about(name, 0, dataset, metric).items()
            if key not in ("epochs", "compared_at")
        }
        whole_term = {**about, "kind": "main", "term": term, "n": len(labels)}
        yield {**whole_term, "level": "", "share": 0.7, "df": len(levels) - 1, "p": 0.01}
        for number, level in enumerate(levels):
            effect = 0.01 * number - 0.005
            interval = {"low": effect - 0.002, "high": effect + 0.002}
            yield {**whole_term, "level": json.dumps(level), "effect": effect, **interval}
        rest = {"kind": "residual", "term": "residual", "level": "", "share": 0.3, "n": 9}
        yield {**about, **rest}


def _about(name: str, epochs: int, dataset: str, metric: str) -> dict[str, Any]:
    where = {"dataset": dataset, "split": "test", "metric": metric, "unit": "share"}
    at = {"epochs": epochs, "compared_at": str(epochs)}
    return {"sweep": name, "stage": "grid", **at, **where}
