"""The schema of every table, the one reader and the one writer.

`results/README.md` is generated from the declarations below.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cifake.config import Config, leaves

SCHEMA_VERSION = 3
"""Version of the tables of runs, written into every file.

Raised when a column comes, goes or changes its meaning.
"""

SWEEPS_VERSION = 4
"""Version of `cells` and `labels`, from which the other tables of a sweep are made again."""

RESULTS_VERSION = 5
"""Version of the tables that are made of cells and runs."""

PACK_VERSION = 1
"""Version of the tables of packs, which are kept when those of runs change."""

BENCHMARKS_VERSION = 1
"""Version of the table of benchmarks, which is kept when those of runs change."""

THRESHOLDS = tuple(step / 100 for step in range(1, 100))
"""Decision thresholds of the `thresholds` table."""

_VERSION_KEY = b"cifake.schema_version"
_TABLE_KEY = b"cifake.table"

_FEW_ROWS = 64
"""Rows up to which a file is neither compressed nor indexed."""


@dataclass(frozen=True)
class Column:
    """One column: its type, its unit and what it says."""

    name: str
    type: pa.DataType
    unit: str
    description: str
    nullable: bool = True


@dataclass(frozen=True)
class Table:
    """One table: what a row is, which columns identify it, and the columns."""

    name: str
    row: str
    keys: tuple[str, ...]
    columns: tuple[Column, ...]
    version: int = SCHEMA_VERSION

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema that every file of this table has."""
        fields = [
            pa.field(column.name, column.type, nullable=column.nullable) for column in self.columns
        ]
        metadata = {_TABLE_KEY: self.name.encode(), _VERSION_KEY: str(self.version).encode()}
        return pa.schema(fields, metadata=metadata)

    def from_rows(self, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
        """Rows as mappings to a table; a column left out is null.

        Raises:
            ValueError: an unknown column, or a null where none is allowed.
        """
        rows = list(rows)
        names = {column.name for column in self.columns}
        unknown = {name for row in rows for name in row} - names
        if unknown:
            raise ValueError(f"table {self.name} has no column {', '.join(sorted(unknown))}")
        return self.check(pa.Table.from_pylist(rows, schema=self.schema))

    def from_columns(self, columns: Mapping[str, Any]) -> pa.Table:
        """Arrays, or scalars that are repeated, to a table; a column left out is null.

        Raises:
            ValueError: an unknown column, unequal lengths, or a null where none is allowed.
        """
        unknown = set(columns) - {column.name for column in self.columns}
        if unknown:
            raise ValueError(f"table {self.name} has no column {', '.join(sorted(unknown))}")
        length = next(len(v) for v in columns.values() if not isinstance(v, str | int | float))
        arrays = []
        for column in self.columns:
            value = columns.get(column.name)
            if value is None or isinstance(value, str | int | float):
                plain = _plain(column.type)
                array = pa.repeat(pa.scalar(value, plain), length).cast(column.type)
            else:
                array = pa.array(value).cast(column.type)
            arrays.append(array)
        return self.check(pa.Table.from_arrays(arrays, schema=self.schema))

    def check(self, table: pa.Table) -> pa.Table:
        """The same table, once it is known to have this schema.

        Raises:
            ValueError: another schema, or a null where none is allowed.
        """
        if not table.schema.equals(self.schema):
            raise ValueError(f"not a table of {self.name}: {table.schema}")
        for column in self.columns:
            if not column.nullable and table[column.name].null_count:
                raise ValueError(f"table {self.name}: column {column.name} holds a null")
        return table

    def empty(self) -> pa.Table:
        """The table without rows."""
        return self.schema.empty_table()


def encode(name: str, table: pa.Table) -> bytes:
    """The parquet file of a table, as bytes.

    Raises:
        ValueError: the table does not have the schema of that name.
    """
    return parquet(TABLES[name].check(table))


def parquet(
    table: pa.Table, *, group: int | None = None, metadata: Mapping[bytes, str] | None = None
) -> bytes:
    """The parquet file of a table that was made of declared columns, as bytes.

    Args:
        table: what it holds.
        group: rows of a group, the least that can be decoded; by default Arrow's choice.
        metadata: what it says beside its schema.
    """
    sink = pa.BufferOutputStream()
    # Dictionaries, statistics and frames of compression would outweigh few rows, and a reader of
    # many such files would spend most of its time on them.
    few = len(table) <= _FEW_ROWS
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="none" if few else "zstd",
        use_dictionary=not few,
        write_statistics=not few,
    ) as writer:
        writer.write_table(table, row_group_size=group)
        if metadata is not None:
            writer.add_key_value_metadata(metadata)
    return bytes(sink.getvalue())


def metadata(content: bytes) -> Mapping[bytes, bytes]:
    """What a parquet file says beside its rows.

    Raises:
        ValueError: not parquet.
    """
    with _readable():
        return dict(pq.ParquetFile(pa.BufferReader(content)).metadata.metadata or {})


def decode(name: str, content: bytes) -> pa.Table:
    """The table in a parquet file.

    Raises:
        ValueError: not parquet, another table, or a schema of another version.
    """
    with _readable():
        # No threads: one of Arrow's that still lives when Python ends aborts the process.
        table = pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
    return _declared(name, table)


def decode_rows(name: str, content: bytes, start: int, end: int) -> tuple[int, pa.Table]:
    """The groups of rows of a parquet file that hold some of them.

    Args:
        name: of the table.
        content: the file.
        start: the first row wanted.
        end: the row after the last.

    Returns:
        The number of the first row that was read, at most `start`, and the rows.

    Raises:
        ValueError: not parquet, another table, a schema of another version, or too few rows.
    """
    with _readable():
        file = pq.ParquetFile(pa.BufferReader(content))
        sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
        ends = np.cumsum(sizes)
        wanted = [n for n, size in enumerate(sizes) if ends[n] > start and ends[n] - size < end]
        table = file.read_row_groups(wanted, use_threads=False)
    if file.metadata.num_rows < end:
        raise ValueError(f"has {file.metadata.num_rows} rows, and {end} are wanted")
    first = int(ends[wanted[0]] - sizes[wanted[0]]) if wanted else start
    return first, _declared(name, table).replace_schema_metadata(TABLES[name].schema.metadata)


def decode_ranges(
    name: str,
    content: bytes,
    ranges: Sequence[tuple[int, int]],
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Ranges of rows of a parquet file, one after another; groups that hold none are not decoded.

    Args:
        name: of the table.
        content: the file.
        ranges: a first row and a number each.
        columns: the only ones that are decoded, in this order; by default all.

    Raises:
        ValueError: not parquet, another table, a schema of another version, or too few rows.
    """
    with _readable():
        file = pq.ParquetFile(pa.BufferReader(content))
        sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
        starts = np.asarray([start for start, rows in ranges if rows], np.int64)
        ends = np.asarray([start + rows for start, rows in ranges if rows], np.int64)
        groups = np.cumsum([0, *sizes])
        if len(ends) and ends.max() > groups[-1]:
            raise ValueError(f"has {groups[-1]} rows, and {ends.max()} are wanted")
        wanted = [
            n
            for n, (first, last) in enumerate(pairwise(groups.tolist()))
            if np.any((starts < last) & (ends > first))
        ]
        _declared(name, file.schema_arrow.empty_table())
        read = file.read_row_groups(wanted, columns=columns, use_threads=False)
    # Where each group that was decoded begins in what was decoded, and where in the file.
    decoded = np.cumsum([0, *(sizes[n] for n in wanted)])
    shifts = np.zeros(len(sizes) + 1, np.int64)
    shifts[wanted] = groups[wanted] - decoded[:-1]
    group_of = np.searchsorted(groups, [start for start, _ in ranges], side="right") - 1
    return arranged(
        read.select(columns or TABLES[name].schema.names),
        [
            (start - int(shifts[group]), rows) if rows else (0, 0)
            for (start, rows), group in zip(ranges, group_of, strict=True)
        ],
    ).replace_schema_metadata(TABLES[name].schema.metadata)


def canonical(table: pa.Table) -> pa.Table:
    """The same table in one piece, the words of each dictionary in the order they first occur.

    Tables of equal rows are then equal to the bit, whatever files they came from.
    """
    whole = table.unify_dictionaries().combine_chunks()
    arrays = [
        _in_order(column) if pa.types.is_dictionary(column.type) else column
        for column in whole.columns
    ]
    return pa.Table.from_arrays(arrays, schema=table.schema)


def arranged(table: pa.Table, ranges: Sequence[tuple[int, int]]) -> pa.Table:
    """Ranges of rows, each a first row and a number, one after another; in canonical form."""
    wanted = [np.arange(start, start + rows) for start, rows in ranges]
    order = np.concatenate([np.zeros(0, np.int64), *wanted])
    if np.array_equal(order, np.arange(len(table))):
        return canonical(table)
    return canonical(canonical(table).take(pa.array(order)))


def _in_order(column: pa.ChunkedArray) -> pa.Array:
    words = column.combine_chunks()
    used = words.indices.drop_null().unique().to_numpy(zero_copy_only=False)
    if np.array_equal(used, np.arange(len(words.dictionary))):
        return words
    ranks = np.zeros(len(words.dictionary), np.int32)
    ranks[used] = np.arange(len(used))
    indices = pa.array(ranks).take(words.indices)
    return pa.DictionaryArray.from_arrays(indices, words.dictionary.take(pa.array(used)))


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"not a readable parquet file: {error}") from None


def _declared(name: str, table: pa.Table) -> pa.Table:
    version = (table.schema.metadata or {}).get(_VERSION_KEY, b"none").decode()
    if version != str(TABLES[name].version):
        raise ValueError(f"schema version {version}, this release reads {TABLES[name].version}")
    return TABLES[name].check(table)


def _required(name: str, type_: pa.DataType, unit: str, description: str) -> Column:
    return Column(name, type_, unit, description, nullable=False)


def _plain(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if pa.types.is_dictionary(type_) else type_


STRING = pa.string()
WORD = pa.dictionary(pa.int32(), pa.string())
"""A string with few distinct values."""

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


def _key(*names: str) -> tuple[Column, ...]:
    keys = {
        "run_id": _required("run_id", WORD, "", "The run: one config with one seed."),
        "epoch": _required("epoch", pa.int32(), "epochs", "Epochs trained, from 1."),
        "dataset": _required("dataset", WORD, "", "The data set evaluated."),
        "split": _required("split", WORD, "", "train, validation or test."),
    }
    return tuple(keys[name] for name in names)


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

_LOSSES = ("loss", "brier", "ece")
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
    _required("tp", pa.int64(), "images", "REAL called REAL."),
    _required("fp", pa.int64(), "images", "FAKE called REAL."),
    _required("tn", pa.int64(), "images", "FAKE called FAKE."),
    _required("fn", pa.int64(), "images", "REAL called FAKE."),
)

_TIMESTAMP = pa.timestamp("us", tz="UTC")

STATUSES = ("complete", "pruned", "diverged", "failed", "running")


def _summarised(*labels: str) -> tuple[Column, ...]:
    """The columns that tell what a sweep's table of results is about."""
    return (
        _required("sweep", WORD, "", "Name of the sweep."),
        _required("stage", WORD, "", "What asks for it: `grid`, `search` or `confirm`."),
        *(_required(label, STRING, "", "Scientific parameters, as JSON.") for label in labels),
        _required("epochs", pa.int32(), "epochs", "Length asked for."),
        *_key("dataset", "split"),
        _required("metric", WORD, "", "A score of the `evaluations` table."),
        _required("unit", WORD, "", "Its unit."),
    )


_TABLES = (
    Table(
        "runs",
        "one run",
        ("run_id",),
        (
            *_key("run_id"),
            _required("config_id", WORD, "", "The config: everything but seed and length."),
            _required("seed", pa.int64(), "", "Seed of initialisation and data order."),
            _required("status", WORD, "", f"One of {', '.join(STATUSES)}."),
            Column("error", STRING, "", "Why it diverged or failed, with the traceback."),
            _required(
                "fallbacks", pa.list_(STRING), "", "Every automatic fallback, with its reason."
            ),
            _required("epochs_done", pa.int32(), "epochs", "Epochs finished and stored."),
            _required(
                "evaluated",
                pa.list_(STRING),
                "",
                "Evaluations with predictions, as `epoch:dataset:split`.",
            ),
            Column("parameters", pa.int64(), "", "Trainable parameters."),
            Column("train_seconds", pa.float64(), "s", "Time spent training, all epochs."),
            Column("images_per_second", pa.float64(), "1/s", "Training speed of the whole stack."),
            Column("stack_width", pa.int32(), "runs", "Runs in the stack of the last epoch."),
            _required(
                "stack",
                pa.list_(pa.int64()),
                "",
                "Seeds of the stack that its next epoch is trained in, in the order of channels.",
            ),
            Column("host", STRING, "", "Machine of the last epoch."),
            Column("device", STRING, "", "Processor or GPU of the last epoch."),
            Column("versions", STRING, "", "Python, torch, ray and this package, as JSON."),
            Column("git_commit", STRING, "", "Commit of the code; null outside a checkout."),
            Column("started_at", _TIMESTAMP, "", "First start."),
            Column("updated_at", _TIMESTAMP, "", "Last write."),
            _required("trainer_version", pa.int32(), "", "Version of the trainer's numbers."),
            *_config_columns(),
        ),
    ),
    Table(
        "batches",
        "one logging step within the first epoch: the difficulty curve",
        ("run_id", "epoch", "batch"),
        (
            *_key("run_id", "epoch"),
            _required("batch", pa.int32(), "batches", "Batches trained, from 1."),
            _required("images_seen", pa.int64(), "images", "Images trained on."),
            Column("loss", pa.float64(), "nats", "Mean over the images since the last step."),
            Column("accuracy", pa.float64(), "share", "Mean over the images since the last step."),
        ),
    ),
    Table(
        "epochs",
        "one epoch of training",
        ("run_id", "epoch"),
        (
            *_key("run_id", "epoch"),
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
            *_key("run_id", "epoch", "dataset", "split"),
            _required("n", pa.int64(), "images", "Images evaluated."),
            _required(
                "n_unreadable", pa.int64(), "images", "Images of the split that could not be read."
            ),
            _required("threshold", pa.float64(), "", "REAL is a probability of at least this."),
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
            *_key("run_id", "epoch", "dataset", "split"),
            _required("threshold", pa.float64(), "", "0.01 to 0.99."),
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
            *_key("run_id", "epoch", "dataset", "split"),
            _required("kind", WORD, "", "content_class, coarse_class or generator."),
            _required("name", WORD, "", "Its name."),
            _required("n", pa.int64(), "images", "Images of it."),
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
            *_key("run_id", "epoch", "dataset", "split"),
            _required("image_id", pa.int32(), "", "Row of the image in its pack."),
            _required("probability", pa.float32(), "share", "Probability of REAL."),
        ),
    ),
    Table(
        "images",
        "one image of a pack",
        ("image_id",),
        (
            _required("image_id", pa.int32(), "", "Row of its pixels."),
            _required("split", WORD, "", "As published: train, validation or test."),
            _required("label", pa.int8(), "", "0 FAKE, 1 REAL."),
            Column("content_class", WORD, "", "What it shows."),
            Column("coarse_class", WORD, "", "Group of the content class."),
            Column("generator", WORD, "", "What made a fake."),
            Column("file_name", STRING, "", "File name in the source."),
            Column("duplicate_of", pa.int32(), "", "First image with the same pixels."),
        ),
        PACK_VERSION,
    ),
    Table(
        "unreadable",
        "one file of a source of which no pixels could be read",
        ("file",),
        (
            _required("file", STRING, "", "Name inside the source."),
            _required("split", WORD, "", "As published: train, validation or test."),
            _required("label", pa.int8(), "", "0 FAKE, 1 REAL."),
            _required("problem", STRING, "", "Why it could not be read."),
        ),
        PACK_VERSION,
    ),
    Table(
        "cells",
        "one cell that a sweep asks for",
        ("label", "nuisance", "epochs", "seed"),
        (
            _required("label", STRING, "", "Scientific parameters, as JSON."),
            _required("nuisance", STRING, "", "Nuisance parameters but the seed, as JSON."),
            _required("epochs", pa.int32(), "epochs", "Length asked for."),
            _required("seed", pa.int64(), "", "Seed."),
            _required("config_id", WORD, "", "Its config."),
            _required("run_id", WORD, "", "Its run."),
            _required("stage", WORD, "", "What asks for it: `grid`, `search` or `confirm`."),
            _required("role", WORD, "", "Its run's `end`, or a `milestone` of a longer one."),
        ),
        SWEEPS_VERSION,
    ),
    Table(
        "labels",
        "one image that a sweep was evaluated on",
        ("dataset", "split", "image_id"),
        (
            *_key("dataset", "split"),
            _required("image_id", pa.int32(), "", "Row of the image in its pack."),
            _required("label", pa.int8(), "", "0 FAKE, 1 REAL."),
        ),
        SWEEPS_VERSION,
    ),
    Table(
        "summary",
        "one metric of one config at one length, over seeds",
        ("stage", "label", "epochs", "dataset", "split", "metric"),
        (
            _required("sweep", WORD, "", "Name of the sweep."),
            _required("stage", WORD, "", "What asks for it: `grid`, `search` or `confirm`."),
            _required("label", STRING, "", "Scientific parameters, as JSON."),
            Column("config_id", WORD, "", "The config; null where nuisance values are averaged."),
            _required("epochs", pa.int32(), "epochs", "Length asked for."),
            Column("role", WORD, "", "As in `cells`; null where its runs differ."),
            *_key("dataset", "split"),
            _required("metric", WORD, "", "A score of the `evaluations` table."),
            _required("unit", WORD, "", "Its unit."),
            _required("n", pa.int32(), "runs", "Runs with a value."),
            _required("n_missing", pa.int32(), "runs", "Runs asked for without a value."),
            Column("mean", pa.float64(), "", "Mean over runs."),
            Column("std", pa.float64(), "", "Sample standard deviation; null for one run."),
            Column("low", pa.float64(), "", "Lower end of the 95 % interval of the mean."),
            Column("high", pa.float64(), "", "Upper end of the 95 % interval of the mean."),
            _required("interval", WORD, "", "How the interval is made: Student's t."),
            Column("bca_low", pa.float64(), "", "BCa bootstrap; too short below 30, null below 3."),
            Column("bca_high", pa.float64(), "", "Upper end of that."),
            Column("iqm", pa.float64(), "", "Interquartile mean: of the middle half of the runs."),
            Column("median", pa.float64(), "", "Median over runs."),
            Column("min", pa.float64(), "", "Smallest."),
            Column("max", pa.float64(), "", "Largest."),
        ),
        RESULTS_VERSION,
    ),
    Table(
        "comparisons",
        "two configs at one length on one metric, paired by seed",
        ("stage", "epochs", "dataset", "split", "metric", "label_a", "label_b"),
        (
            *_summarised("label_a", "label_b"),
            _required("family", STRING, "", "What Holm's correction is over, in words."),
            _required("comparisons", pa.int32(), "", "Comparisons of that family."),
            _required("n", pa.int32(), "pairs", "Seeds (and nuisance values) that both have."),
            _required("n_missing", pa.int32(), "pairs", "Those that one of them lacks."),
            Column("mean_a", pa.float64(), "", "Mean of a over the pairs."),
            Column("mean_b", pa.float64(), "", "Mean of b over the pairs."),
            Column("difference", pa.float64(), "", "Mean of a − b over the pairs."),
            Column("std", pa.float64(), "", "Sample standard deviation of a − b."),
            Column("low", pa.float64(), "", "Lower end of the 95 % interval of the difference."),
            Column("high", pa.float64(), "", "Upper end of it; Student's t."),
            Column("total_low", pa.float64(), "", "The same over seeds and images (bootstrap)."),
            Column("total_high", pa.float64(), "", "Null where predictions were not compared."),
            Column("p", pa.float64(), "", "Of the sign-flip permutation test, two-sided."),
            Column("smallest_p", pa.float64(), "", "The least p that so many pairs can reach."),
            Column("p_holm", pa.float64(), "", "p, corrected for the family (Holm)."),
            Column("significant", pa.bool_(), "", "Whether that is below 0.05; null without p."),
            Column(
                "probability_of_improvement",
                pa.float64(),
                "",
                "That a run of a beats one of b; ½ a tie.",
            ),
            Column("cohens_d", pa.float64(), "", "Difference over its standard deviation."),
            Column("cliffs_delta", pa.float64(), "", "P(a > b) − P(a < b), of any two runs."),
            Column("seeds_needed", pa.int32(), "", "For 80 % power at this difference; paired t."),
            Column("mcnemar_runs", pa.int32(), "", "Pairs whose predictions were compared."),
            Column("mcnemar_different", pa.int32(), "", "Those that differ (McNemar, p < 0.05)."),
        ),
        RESULTS_VERSION,
    ),
    Table(
        "ranking",
        "one config among those of one length on one metric",
        ("stage", "epochs", "dataset", "split", "metric", "label"),
        (
            *_summarised("label"),
            _required("n", pa.int32(), "runs", "Runs with a value."),
            Column("mean", pa.float64(), "", "Mean over runs."),
            Column("rank", pa.float64(), "", "1 is the best mean; ties share theirs."),
            Column("rank_low", pa.float64(), "", "Lower end of its 95 % bootstrap interval."),
            Column("rank_high", pa.float64(), "", "Upper end of it; seeds are drawn again."),
            Column("p_best", pa.float64(), "share", "Resamples in which it is first."),
            Column("group", STRING, "", "Letters: configs that share one are not told apart."),
            Column("behind", pa.float64(), "", "By how much it is behind the best mean."),
            Column("seeds_needed", pa.int32(), "", "To tell it from the best at 80 % power."),
            Column("tau", pa.float64(), "", "Kendall's, of resampled rankings with this; mean."),
            Column("tau_low", pa.float64(), "", "Its 2.5 % quantile, of the whole ranking."),
            Column("tau_high", pa.float64(), "", "Its 97.5 % quantile."),
        ),
        RESULTS_VERSION,
    ),
    Table(
        "effects",
        "what one parameter, or two together, make of one metric",
        ("stage", "dataset", "split", "metric", "kind", "term", "level"),
        (
            _required("sweep", WORD, "", "Name of the sweep."),
            _required("stage", WORD, "", "What asks for it: `grid`, `search` or `confirm`."),
            *_key("dataset", "split"),
            _required("metric", WORD, "", "A score of `evaluations`, or a cost of a search."),
            _required("unit", WORD, "", "Its unit."),
            _required(
                "kind", WORD, "", "`main`, `interaction`, `seed`, `residual` or `importance`."
            ),
            _required("term", STRING, "", "Parameter, or several joined by ` × `."),
            _required(
                "level",
                STRING,
                "",
                "Values, as JSON; empty for the whole term. Of an importance, its study's.",
            ),
            _required("n", pa.int32(), "", "Cells, or proposals of a search, that it rests on."),
            Column(
                "effect",
                pa.float64(),
                "",
                "Mean at this level minus that of all levels; of two parameters together, what is "
                "left of it beyond the sum of their own.",
            ),
            Column("low", pa.float64(), "", "Lower end of its 95 % interval."),
            Column("high", pa.float64(), "", "Upper end of it."),
            Column("df", pa.int32(), "", "Degrees of freedom; 0 if not told from other terms."),
            Column("sum_of_squares", pa.float64(), "", "Of the term, beside all others."),
            Column("share", pa.float64(), "share", "Of the variance, or of a search's importance."),
            Column(
                "p",
                pa.float64(),
                "",
                "Of the term, by flipping the signs of whole seeds' effects; of an importance, by "
                "shuffling the proposals' scores. Not corrected for the number of terms.",
            ),
            Column("method", STRING, "", "How it was found."),
            Column(
                "at_border",
                pa.bool_(),
                "",
                "Whether the best lies in the outer 5 % of a search's range, or is the least or "
                "greatest of three numbers or more; null where there is no order.",
            ),
        ),
        RESULTS_VERSION,
    ),
    Table(
        "gates",
        "one channel at one site of an attention module, over the images of one label",
        ("run_id", "epoch", "dataset", "split", "site", "label", "channel"),
        (
            *_key("run_id", "epoch", "dataset", "split"),
            _required("site", WORD, "", "Where the attention module stands."),
            _required("label", WORD, "", "REAL or FAKE: which images."),
            _required("channel", pa.int32(), "", "Channel of the feature map, from 0."),
            _required("n", pa.int64(), "images", "Images of that label."),
            Column("mean", pa.float64(), "", "Mean gate over them; null without an image."),
            Column("std", pa.float64(), "", "Sample standard deviation; null below two images."),
        ),
        RESULTS_VERSION,
    ),
    Table(
        "benchmarks",
        "one measurement of one benchmark",
        ("name", "measured_at"),
        (
            _required("name", WORD, "", "What is measured."),
            _required("value", pa.float64(), "", "Median over the repeats, in `unit`."),
            _required("unit", WORD, "", "Unit of value and baseline."),
            Column("baseline_value", pa.float64(), "", "Median of what it is compared with."),
            Column("ratio", pa.float64(), "", "Value over baseline."),
            Column("target", pa.float64(), "", "What must be reached; null where nothing must."),
            Column("met", pa.bool_(), "", "Whether it was reached."),
            Column("commit", STRING, "", "Commit of the code; null outside a checkout."),
            _required("cpu", WORD, "", "Processor, and the widest instructions torch uses."),
            _required("cores", pa.int32(), "", "Cores that the process may use."),
            _required("torch", WORD, "", "Version of torch."),
            _required("ray", WORD, "", "Version of Ray."),
            _required("measured_at", _TIMESTAMP, "", "End of the measurement."),
            _required("judged", WORD, "", "What is held against the target, and from which side."),
            _required("low", pa.float64(), "", "Lowest repeat of ratio, or of value without one."),
            _required("high", pa.float64(), "", "Highest repeat, likewise."),
            Column("cpu_ratio", pa.float64(), "", "Median ratio by processor time."),
            _required("repeats", pa.int32(), "", "Repeats, each in turn with its baseline."),
            _required("device", WORD, "", "Processor or GPU that did the work."),
        ),
        BENCHMARKS_VERSION,
    ),
)

TABLES: dict[str, Table] = {table.name: table for table in _TABLES}

RunTable = Literal[
    "runs", "batches", "epochs", "evaluations", "thresholds", "classes", "predictions"
]

RUN_TABLES: tuple[RunTable, ...] = get_args(RunTable)
"""Tables that every run has."""


def score_unit(metric: str) -> str:
    """The unit of a score of the `evaluations` table."""
    columns: Sequence[Column] = TABLES["evaluations"].columns
    return next(column.unit for column in columns if column.name == metric)


def higher_is_better(metric: str) -> bool:
    """Which way a score of the `evaluations` table points."""
    return not metric.startswith(_LOSSES)


def documentation() -> str:
    """The schema reference, as Markdown."""
    lines = [
        "# Tables",
        "",
        "Generated from `cifake/tables.py` by `make docs`; do not edit by hand.",
        "",
        (
            f"Schema version {SCHEMA_VERSION}, of `cells` and `labels` {SWEEPS_VERSION}, of what "
            f"is made of them {RESULTS_VERSION}. A missing value is null, never 0. A store holds "
            "the tables of a run at `runs/<run_id>/<table>.parquet`, and those of a sweep at "
            "`sweeps/<name>/<table>.parquet`; `images` and `unreadable` lie in a pack, and "
            "`benchmarks` in `results/benchmarks`."
        ),
    ]
    for table in _TABLES:
        keys = ", ".join(f"`{key}`" for key in table.keys)
        lines += ["", f"## `{table.name}`", "", f"A row is {table.row}. Key: {keys}.", ""]
        lines += ["| column | type | unit | null | description |", "|---|---|---|---|---|"]
        for column in table.columns:
            null = "yes" if column.nullable else "no"
            kind = "string" if column.type == WORD else str(column.type).replace("element: ", "")
            text = column.description.replace("|", "\\|")
            lines.append(f"| `{column.name}` | {kind} | {column.unit} | {null} | {text} |")
    return "\n".join(lines) + "\n"
