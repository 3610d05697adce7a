"""Reports made by hand: probabilities are drawn, and every table is computed from them."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cifake import evaluation, tables
from cifake.tables import RunTable
from sweeps import aggregate, comparisons, effects, image_tests, rankings
from sweeps.report.content import Content, Explanations
from sweeps.spec import Compare, Spec

Label = Mapping[str, Any]
NONE: Label = {"attention": "none", "placement": "none"}
SRM: Label = {"attention": "srm", "placement": "after_pool1"}
BOTH: Label = {"attention": "srm", "placement": "both"}

_START = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
_UNCHOSEN = evaluation.FromValidation()
_NAMES = ("cat", "dog", "ship")


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A grid whose networks are better the longer they were trained, by draws of one generator."""

    labels: Sequence[Label] = (NONE, SRM, BOTH)
    seeds: int = 6
    lengths: Sequence[int] = (1, 3)
    longest: Mapping[int, int] = ()  # type: ignore[assignment]
    """Of labels that are asked for at fewer lengths than the others."""

    test_sets: Mapping[str, Sequence[int]] = (("demo", (0, 1)),)  # type: ignore[assignment]
    """Labels of the images, by test set."""

    images: int = 60
    missing: Sequence[tuple[int, int]] = ()
    """Label and seed of runs that never finished an epoch."""

    failed: Mapping[tuple[int, int], str] = ()  # type: ignore[assignment]
    """Errors, by label and seed."""

    edge: float = 0.0
    """By how much each config is better than the one before, in logits."""

    @property
    def runs(self) -> list[tuple[int, int]]:
        """Label and seed of every run that has rows."""
        every = ((n, seed) for n in range(len(self.labels)) for seed in range(self.seeds))
        return [run for run in every if run not in self.missing]

    @cached_property
    def cells(self) -> pa.Table:
        """Table `cells`."""
        rows = [
            {
                "label": json.dumps(dict(label)),
                "nuisance": "{}",
                "epochs": length,
                "seed": seed,
                "config_id": f"config-{n}",
                "run_id": run_id(n, seed),
                "stage": "grid",
                "role": "end" if length == max(lengths) else "milestone",
            }
            for n, label in enumerate(self.labels)
            for lengths in [self.lengths_of(n)]
            for length in lengths
            for seed in range(self.seeds)
        ]
        return tables.TABLES["cells"].from_rows(rows)

    def lengths_of(self, label: int) -> list[int]:
        """The lengths at which a config is asked for."""
        longest = dict(_pairs(self.longest)).get(label, max(self.lengths))
        return [length for length in self.lengths if length <= longest]

    def probabilities(
        self, run: tuple[int, int], epoch: int, where: int, labels: npt.NDArray[np.int8]
    ) -> npt.NDArray[np.float32]:
        """Of REAL, of some images."""
        rng = np.random.default_rng([*run, epoch, where])
        logits = rng.normal(0, 1.5, len(labels)) + (2 * labels - 1) * (
            0.4 * epoch + self.edge * run[0] + 0.1 * run[1]
        )
        return (1 / (1 + np.exp(-logits))).astype(np.float32)

    @cached_property
    def evaluated(self) -> list[tuple[dict[str, Any], npt.NDArray[np.int8], Any]]:
        """Keys, labels and probabilities of every evaluation."""
        sets = [
            ("demo", "validation", (0, 1)),
            *((n, "test", c) for n, c in _pairs(self.test_sets)),
        ]
        found = []
        for run in self.runs:
            for epoch in range(1, max(self.lengths) + 1):
                for where, (dataset, split, classes) in enumerate(sets):
                    if split == "test" and epoch not in self.lengths:
                        continue
                    labels = np.resize(np.asarray(classes, np.int8), self.images)
                    keys = {"run_id": run_id(*run), "epoch": epoch, "dataset": dataset}
                    probabilities = self.probabilities(run, epoch, where, labels)
                    found.append(({**keys, "split": split}, labels, probabilities))
        return found

    @cached_property
    def evaluations(self) -> pa.Table:
        """Table `evaluations`."""
        rows = [
            {
                **keys,
                "n_unreadable": 0,
                **evaluation.evaluation(p, labels, np.zeros(len(labels), np.bool_), _UNCHOSEN),
            }
            for keys, labels, p in self.evaluated
        ]
        return tables.TABLES["evaluations"].from_rows(rows)

    @cached_property
    def large(self) -> Mapping[RunTable, pa.Table]:
        """The tables that are read run by run."""
        at = np.asarray(tables.THRESHOLDS)
        thresholds, classes, epochs, batches = [], [], [], []
        for keys, labels, p in self.evaluated:
            counted = evaluation.counts(p, labels, at)
            curve = evaluation.threshold_scores(counted)
            columns = {"threshold": at, **counted._asdict(), **curve}
            thresholds.append(tables.TABLES["thresholds"].from_columns({**keys, **columns}))
            names = [_NAMES[n % len(_NAMES)] for n in range(len(labels))]
            classes += [
                {**keys, "kind": "content_class", **row}
                for row in evaluation.class_scores(p, labels, names)
            ]
        for run in self.runs:
            for epoch in range(1, max(self.lengths) + 1):
                keys = {"run_id": run_id(*run), "epoch": epoch}
                epochs.append({**keys, "loss": 1 / epoch, "accuracy": 0.5, "seconds": 1.0 + run[0]})
            batches += [
                {"run_id": run_id(*run), "epoch": 1, "batch": n, "images_seen": 16 * n}
                | {"loss": 0.7 - 0.01 * n - 0.001 * run[1], "accuracy": 0.5}
                for n in range(1, 9)
            ]
        whole = pa.concat_tables([tables.TABLES["thresholds"].empty(), *thresholds])
        return {
            "thresholds": whole.unify_dictionaries(),
            "classes": tables.TABLES["classes"].from_rows(classes),
            "epochs": tables.TABLES["epochs"].from_rows(epochs),
            "batches": tables.TABLES["batches"].from_rows(batches),
        }

    @cached_property
    def run_rows(self) -> pa.Table:
        """Table `runs`."""
        errors = dict(_pairs(self.failed))
        rows = []
        for number, (n, seed) in enumerate(self.runs):
            error = errors.get((n, seed))
            rows.append(
                {
                    "run_id": run_id(n, seed),
                    "config_id": f"config-{n}",
                    "seed": seed,
                    "status": "failed" if error else "complete",
                    "error": error,
                    "fallbacks": [],
                    "epochs_done": max(self.lengths),
                    "evaluated": [],
                    "parameters": 1000 * (n + 1),
                    "train_seconds": 3.0,
                    "stack": [seed],
                    "host": "here",
                    "device": "cpu x86_64",
                    "versions": '{"python": "3.11", "torch": "2.9"}',
                    "git_commit": "0123456789abcdef",
                    "started_at": _START + datetime.timedelta(seconds=10 * (number // 2)),
                    "updated_at": _START + datetime.timedelta(seconds=10 * (number // 2) + 9),
                    "trainer_version": 1,
                    "data.fingerprint": "feedfacefeedface",
                }
            )
        return tables.TABLES["runs"].from_rows(rows)

    @cached_property
    def predictions(self) -> pa.Table:
        """Table `predictions`, of test images."""
        rows = [
            {**keys, "image_id": image, "probability": float(p)}
            for keys, _, probabilities in self.evaluated
            if keys["split"] == "test"
            for image, p in enumerate(probabilities)
        ]
        return tables.TABLES["predictions"].from_rows(rows)

    @cached_property
    def known(self) -> pa.Table:
        """Table `labels`, of the test images."""
        rows = [
            {"dataset": name, "split": "test", "image_id": image, "label": int(label)}
            for name, classes in _pairs(self.test_sets)
            for image, label in enumerate(np.resize(np.asarray(classes, np.int8), self.images))
        ]
        return tables.TABLES["labels"].from_rows(rows)

    def read(self, table: RunTable, run_ids: Iterable[str]) -> pa.Table:
        """Rows of some runs."""
        rows = self.predictions if table == "predictions" else self.large[table]
        return rows.filter(pc.field("run_id").isin(sorted(set(run_ids))))

    def content(
        self, spec: Spec | None = None, *, labelled: bool = False, **changes: Any
    ) -> Content:
        """The report's content, with parts of it replaced.

        Args:
            spec: of the sweep.
            labelled: whether the images' labels are known, so that predictions are compared.
            changes: the parts.
        """
        compare = Compare() if spec is None else spec.compare
        found = comparisons.scores(self.cells, self.evaluations, compare.metrics)
        labels = self.known if labelled else tables.TABLES["labels"].empty()
        images = image_tests.image_test(found, self.evaluations, labels, self.read)
        compared = comparisons.comparisons("a", compare, found, images)
        parts: dict[str, Any] = {
            "name": "a",
            "question": "Why?",
            "spec": spec,
            "compare": compare,
            "cells": self.cells,
            "runs": self.run_rows,
            "evaluations": self.evaluations,
            "labels": labels,
            "summary": aggregate.summary("a", self.cells, self.evaluations),
            "comparisons": compared,
            "ranking": rankings.ranking("a", found, compared),
            "effects": effects.effects("a", self.cells, self.evaluations, compare.metrics),
            "proposals": [],
            "forecasts": [],
            "explanations": None,
            "notes": [],
            "commands": ["sweeps run spec.yaml"],
            "read": self.read,
        }
        return Content(**{**parts, **changes})


def run_id(label: int, seed: int) -> str:
    """The run of a label with a seed."""
    return f"run-{label:03}-{seed:03}"


def explanations(picture: bytes, run: str) -> Explanations:
    """A sheet and gates of one run."""
    rows = [
        {"run_id": run, "site": "after_pool1", "label": label, "channel": channel}
        | {"mean": 0.5 + 0.01 * channel, "std": 0.1, "n": 30}
        for label in ("REAL", "FAKE")
        for channel in range(6)
    ]
    return Explanations(sheets={run: picture}, gates=pa.Table.from_pylist(rows))


def _pairs(given: Any) -> list[tuple[Any, Any]]:
    return list(given.items() if isinstance(given, Mapping) else given)


Reader = Callable[[RunTable, Iterable[str]], pa.Table]
