"""The tables that every run has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

import pyarrow as pa

from cifake.config import Config, leaves
from cifake.tables.columns import STRING, TIMESTAMP, WORD, Column, Table, key, required

THRESHOLDS = tuple(step / 100 for step in range(1, 100))
"""Decision thresholds of the `thresholds` table."""

_PYTHON_TYPES: dict[type, pa.DataType] = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: STRING,
}


def _config_columns() -> tuple[Column, ...]:
    columns = []
    for path, info in leaves(Config):
        options = getattr(info.annotation, "__args__", (info.annotation,))
        type_ = next((_PYTHON_TYPES[option] for option in options if option in _PYTHON_TYPES), None)
        columns.append(Column(path, type_ or STRING, "", str(info.description)))
    return tuple(columns)


_SCORES = {
    "loss": ("nats", "Mean binary cross-entropy, of probabilities clipped to float32's precision."),
    "accuracy": ("share", "Images classified as their label says."),
    "balanced_accuracy": ("share", "Mean of the recalls of REAL and FAKE; null for one class."),
    "precision": ("share", "Share of REAL among those called REAL; null for one class."),
    "recall": ("share", "Share of REAL called REAL; null without REAL images."),
    "f1": ("share", "Harmonic mean of precision and recall; null where either is."),
    "precision_fake": ("share", "Share of FAKE among those called FAKE; null for one class."),
    "recall_fake": ("share", "Share of FAKE called FAKE; null without FAKE images."),
    "f1_fake": ("share", "Harmonic mean of those two; null where either is."),
    "auroc": ("share", "Area under the ROC curve; null for one class."),
    "average_precision": ("share", "Area under the precision-recall steps; null for one class."),
    "tpr_at_5_fpr": (
        "share",
        "Largest recall of REAL with at most 5 % of FAKE called REAL; null for one class.",
    ),
    "brier": ("", "Mean squared error of the probability of REAL."),
    "ece": ("share", "Expected calibration error, 15 equal bins of confidence (Guo 2017)."),
}

SCORES = tuple(_SCORES)
"""Metrics of the `evaluations` table."""

LOSSES = ("loss", "brier", "ece")
"""Those of which less is better, in whatever form."""

DEDUPLICATED = "_deduplicated"
"""Suffix of a metric taken on the deduplicated images."""


def _scores() -> Iterable[Column]:
    for name, (unit, text) in _SCORES.items():
        yield Column(name, pa.float64(), unit, text)
    yield Column("n" + DEDUPLICATED, pa.int64(), "images", "Images without a copy before them.")
    for name, (unit, _) in _SCORES.items():
        text = f"`{name}` on images whose pixels occur neither in training nor earlier in the split"
        yield Column(name + DEDUPLICATED, pa.float64(), unit, text + ".")


SCORES_AT_VALIDATION_THRESHOLD = tuple(
    f"{name}_at_validation_threshold" for name in ("accuracy", "balanced_accuracy", "f1")
)
"""Metrics taken at the threshold that validation chose."""

SCORES_AT_TEMPERATURE = tuple(f"{name}_at_temperature" for name in ("loss", "brier", "ece"))
"""Metrics of the probabilities after the logit is divided by the temperature."""

COMPARABLE = (
    *SCORES,
    *(score + DEDUPLICATED for score in SCORES),
    *SCORES_AT_VALIDATION_THRESHOLD,
    *SCORES_AT_TEMPERATURE,
)
"""Metrics of the `evaluations` table of which one way is better."""


def _at_validation_threshold() -> Iterable[Column]:
    for name in SCORES_AT_VALIDATION_THRESHOLD:
        score = name.removesuffix("_at_validation_threshold")
        yield Column(name, pa.float64(), "share", f"`{score}` at that threshold.")


def _at_temperature() -> Iterable[Column]:
    for name in SCORES_AT_TEMPERATURE:
        score = name.removesuffix("_at_temperature")
        text = f"`{score}` after logits are divided by that temperature."
        yield Column(name, pa.float64(), _SCORES[score][0], text)


_COUNTS = (
    required("tp", pa.int64(), "images", "REAL called REAL."),
    required("fp", pa.int64(), "images", "FAKE called REAL."),
    required("tn", pa.int64(), "images", "FAKE called FAKE."),
    required("fn", pa.int64(), "images", "REAL called FAKE."),
)

STATUSES = ("complete", "pruned", "diverged", "failed", "running")

TABLES = (
    Table(
        "runs",
        "one run",
        ("run_id",),
        (
            *key("run_id"),
            required("config_id", WORD, "", "The config: everything but seed and length."),
            required("seed", pa.int64(), "", "Seed of initialisation and data order."),
            required("status", WORD, "", f"One of {', '.join(STATUSES)}."),
            Column("error", STRING, "", "Why it diverged or failed, with the traceback."),
            required(
                "fallbacks", pa.list_(STRING), "", "Every automatic fallback, with its reason."
            ),
            required("epochs_done", pa.int32(), "epochs", "Epochs finished and stored."),
            required(
                "evaluated",
                pa.list_(STRING),
                "",
                "Evaluations with predictions, as `epoch:dataset:split`.",
            ),
            Column("parameters", pa.int64(), "", "Trainable parameters."),
            Column("train_seconds", pa.float64(), "s", "Time spent training, all epochs."),
            Column("images_per_second", pa.float64(), "1/s", "Training speed of the whole stack."),
            Column("stack_width", pa.int32(), "runs", "Runs in the stack of the last epoch."),
            required(
                "stack",
                pa.list_(pa.int64()),
                "",
                "Seeds of the stack that its next epoch is trained in, in the order of channels.",
            ),
            Column("host", STRING, "", "Machine of the last epoch."),
            Column("device", STRING, "", "Processor or GPU of the last epoch."),
            Column("versions", STRING, "", "Python, torch, ray and this package, as JSON."),
            Column("git_commit", STRING, "", "Commit of the code; null outside a checkout."),
            Column("started_at", TIMESTAMP, "", "First start."),
            Column("updated_at", TIMESTAMP, "", "Last write."),
            required("trainer_version", pa.int32(), "", "Version of the trainer's numbers."),
            *_config_columns(),
        ),
    ),
    Table(
        "batches",
        "one logging step within the first epoch: the difficulty curve",
        ("run_id", "epoch", "batch"),
        (
            *key("run_id", "epoch"),
            required("batch", pa.int32(), "batches", "Batches trained, from 1."),
            required("images_seen", pa.int64(), "images", "Images trained on."),
            Column("loss", pa.float64(), "nats", "Mean over the images since the last step."),
            Column("accuracy", pa.float64(), "share", "Mean over the images since the last step."),
        ),
    ),
    Table(
        "epochs",
        "one epoch of training",
        ("run_id", "epoch"),
        (
            *key("run_id", "epoch"),
            Column("loss", pa.float64(), "nats", "Mean training loss while it trained."),
            Column("accuracy", pa.float64(), "share", "Training accuracy while it trained."),
            Column("learning_rate", pa.float64(), "", "Learning rate of the last batch."),
            Column("seconds", pa.float64(), "s", "Training time, evaluation left out."),
        ),
    ),
    Table(
        "evaluations",
        "one evaluation of one data set and split",
        ("run_id", "epoch", "dataset", "split"),
        (
            *key("run_id", "epoch", "dataset", "split"),
            required("n", pa.int64(), "images", "Images evaluated."),
            required(
                "n_unreadable", pa.int64(), "images", "Images of the split that could not be read."
            ),
            required("threshold", pa.float64(), "", "REAL is a probability of at least this."),
            *_COUNTS,
            *_scores(),
            Column(
                "validation_threshold",
                pa.float64(),
                "",
                "Threshold with the best accuracy on validation; null without validation.",
            ),
            *_at_validation_threshold(),
            Column(
                "temperature",
                pa.float64(),
                "",
                "Divisor of the logit with the least loss on validation (Guo 2017, section 4.2); "
                "null without validation.",
            ),
            *_at_temperature(),
        ),
    ),
    Table(
        "thresholds",
        "one decision threshold of an evaluation",
        ("run_id", "epoch", "dataset", "split", "threshold"),
        (
            *key("run_id", "epoch", "dataset", "split"),
            required("threshold", pa.float64(), "", "0.01 to 0.99."),
            *_COUNTS,
            Column("accuracy", pa.float64(), "share", "Accuracy at this threshold."),
            Column(
                "precision", pa.float64(), "share", "Precision of REAL; null if none is called."
            ),
            Column("recall", pa.float64(), "share", "Recall of REAL; null without REAL images."),
            Column("f1", pa.float64(), "share", "Null where precision or recall is."),
        ),
    ),
    Table(
        "classes",
        "one content class, coarse class or generator of an evaluation",
        ("run_id", "epoch", "dataset", "split", "kind", "name"),
        (
            *key("run_id", "epoch", "dataset", "split"),
            required("kind", WORD, "", "content_class, coarse_class or generator."),
            required("name", WORD, "", "Its name."),
            required("n", pa.int64(), "images", "Images of it."),
            Column(
                "recall_real", pa.float64(), "share", "REAL called REAL; null if there is none."
            ),
            Column(
                "recall_fake", pa.float64(), "share", "FAKE called FAKE; null if there is none."
            ),
            Column("accuracy", pa.float64(), "share", "Images classified as their label says."),
        ),
    ),
    Table(
        "predictions",
        "one image at a milestone",
        ("run_id", "epoch", "dataset", "split", "image_id"),
        (
            *key("run_id", "epoch", "dataset", "split"),
            required("image_id", pa.int32(), "", "Row of the image in its pack."),
            required("probability", pa.float32(), "share", "Probability of REAL."),
        ),
    ),
)

RunTable = Literal[
    "runs", "batches", "epochs", "evaluations", "thresholds", "classes", "predictions"
]

RUN_TABLES: tuple[RunTable, ...] = get_args(RunTable)
"""Tables that every run has."""


def score_unit(metric: str) -> str:
    """The unit of a score of the `evaluations` table."""
    evaluations = next(table for table in TABLES if table.name == "evaluations")
    return next(column.unit for column in evaluations.columns if column.name == metric)


def higher_is_better(metric: str) -> bool:
    """Which way a score of the `evaluations` table points."""
    return not metric.startswith(LOSSES)
