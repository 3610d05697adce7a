"""What a table is declared by: its columns, keys and version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 3
"""Version of the tables of runs, written into every file.

Raised when a column comes, goes or changes its meaning.
"""

SWEEPS_VERSION = 4
"""Version of `cells` and `labels`, from which the other tables of a sweep are made again."""

RESULTS_VERSION = 7
"""Version of the tables that are made of cells and runs."""

PACK_VERSION = 1
"""Version of the tables of packs, which are kept when those of runs change."""

BENCHMARKS_VERSION = 1
"""Version of the table of benchmarks, which is kept when those of runs change."""

VERSION_KEY = b"cifake.schema_version"
TABLE_KEY = b"cifake.table"

STRING = pa.string()
WORD = pa.dictionary(pa.int32(), pa.string())
"""A string with few distinct values."""

TIMESTAMP = pa.timestamp("us", tz="UTC")


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
        metadata = {TABLE_KEY: self.name.encode(), VERSION_KEY: str(self.version).encode()}
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
                scalar = pa.scalar(value, _plain(column.type))
                array = pa.repeat(scalar, length).cast(column.type)
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


def required(name: str, type_: pa.DataType, unit: str, description: str) -> Column:
    """A column that never holds a null."""
    return Column(name, type_, unit, description, nullable=False)


def _plain(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def key(*names: str) -> tuple[Column, ...]:
    """Some of the columns that tell which run, epoch, data set and split a row is about."""
    keys = {
        "run_id": required("run_id", WORD, "", "The run: one config with one seed."),
        "epoch": required("epoch", pa.int32(), "epochs", "Epochs trained, from 1."),
        "dataset": required("dataset", WORD, "", "The data set evaluated."),
        "split": required("split", WORD, "", "train, validation or test."),
    }
    return tuple(keys[name] for name in names)
