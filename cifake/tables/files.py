"""The one reader and the one writer of tables, as parquet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cifake.tables.columns import VERSION_KEY
from cifake.tables.schema import TABLES

_FEW_ROWS = 64
"""Rows up to which a file is neither compressed nor indexed."""


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
    version = (table.schema.metadata or {}).get(VERSION_KEY, b"none").decode()
    if version != str(TABLES[name].version):
        raise ValueError(f"schema version {version}, this release reads {TABLES[name].version}")
    return TABLES[name].check(table)
