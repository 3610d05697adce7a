"""Tables come back as they were written, in one schema, every column of which is explained."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cifake import tables
from cifake.config import Config, leaves
from cifake.tables import TABLES, Column, Table, decode, documentation, encode

_MOMENTS = st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(2100, 1, 1))


def _values(type_: pa.DataType) -> st.SearchStrategy[Any]:
    """Values that a column of a type can hold."""
    if pa.types.is_dictionary(type_) or pa.types.is_string(type_):
        return st.text(max_size=8)
    if pa.types.is_list(type_):
        return st.lists(_values(type_.value_type), max_size=3)
    if pa.types.is_timestamp(type_):
        return _MOMENTS.map(lambda moment: moment.replace(tzinfo=dt.UTC))
    if pa.types.is_boolean(type_):
        return st.booleans()
    if pa.types.is_integer(type_):
        limit = 2 ** (type_.bit_width - 1)
        return st.integers(-limit, limit - 1)
    return st.floats(allow_nan=False, width=type_.bit_width)


def _row(table: Table) -> st.SearchStrategy[dict[str, Any]]:
    def column_values(column: Column) -> st.SearchStrategy[Any]:
        values = _values(column.type)
        return st.none() | values if column.nullable else values

    return st.fixed_dictionaries({c.name: column_values(c) for c in table.columns})


@st.composite
def filled(draw: st.DrawFn, name: str) -> list[dict[str, Any]]:
    return draw(st.lists(_row(TABLES[name]), max_size=4))


@pytest.mark.parametrize("name", TABLES)
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_written_table_is_read_as_it_was(name: str, data: st.DataObject) -> None:
    rows = data.draw(filled(name))
    table = TABLES[name].from_rows(rows)
    assert table.to_pylist() == rows
    read = decode(name, encode(name, table))
    assert read.equals(table)
    assert read.schema.metadata == TABLES[name].schema.metadata


@pytest.mark.parametrize("name", TABLES)
def test_empty_table_is_written_and_read(name: str) -> None:
    table = TABLES[name].empty()
    assert table.num_rows == 0
    assert decode(name, encode(name, table)).equals(table)


def _prediction(**changes: object) -> dict[str, object]:
    row: dict[str, object] = {
        "run_id": "a" * 16,
        "epoch": 1,
        "dataset": "demo",
        "split": "test",
        "image_id": 0,
        "probability": 0.5,
    }
    return {**row, **changes}


def _columns(**changes: object) -> dict[str, object]:
    columns: dict[str, object] = {
        **_prediction(),
        "image_id": np.arange(3),
        "probability": np.asarray([0.1, 0.2, 0.3], np.float32),
    }
    return {**columns, **changes}


@pytest.mark.parametrize(("rows", "compression"), [(64, "UNCOMPRESSED"), (65, "ZSTD")])
def test_a_file_of_few_rows_is_left_plain(rows: int, compression: str) -> None:
    """It is smaller so, and read twice as fast."""
    row = {"run_id": "r", "epoch": 1, "loss": 0.5, "accuracy": 0.5, "learning_rate": 0.1}
    columns = {column.name for column in TABLES["epochs"].columns}
    kept = {name: value for name, value in row.items() if name in columns}
    table = TABLES["epochs"].from_rows([kept | {"seconds": 1.0}] * rows)
    content = encode("epochs", table)
    chunk = pq.ParquetFile(pa.BufferReader(content)).metadata.row_group(0).column(0)
    assert chunk.compression == compression
    assert decode("epochs", content).equals(table)


def test_columns_and_rows_give_the_same_table() -> None:
    table = TABLES["predictions"].from_columns(_columns())
    rows = [
        _prediction(image_id=i, probability=p)
        for i, p in enumerate(np.asarray([0.1, 0.2, 0.3], np.float32).tolist())
    ]
    assert table.equals(TABLES["predictions"].from_rows(rows))


def test_column_left_out_is_null() -> None:
    row = {"run_id": "a", "epoch": 1, "batch": 50, "images_seen": 1600}
    (found,) = TABLES["batches"].from_rows([row]).to_pylist()
    assert found == {**row, "loss": None, "accuracy": None}
    columns = {**row, "batch": [50, 100]}
    assert TABLES["batches"].from_columns(columns)["loss"].null_count == 2


def test_unknown_column_is_refused_with_its_name() -> None:
    with pytest.raises(ValueError, match="predictions has no column certainty, verdict"):
        TABLES["predictions"].from_rows([_prediction(verdict=1, certainty=2)])
    with pytest.raises(ValueError, match="predictions has no column verdict"):
        TABLES["predictions"].from_columns(_columns(verdict=1))


@pytest.mark.parametrize(
    ("name", "column"),
    [(table.name, c.name) for table in TABLES.values() for c in table.columns if not c.nullable],
)
def test_null_is_refused_where_none_may_be(name: str, column: str) -> None:
    def value(type_: pa.DataType) -> object:
        if pa.types.is_list(type_):
            return []
        if pa.types.is_integer(type_):
            return 1
        if pa.types.is_timestamp(type_):
            return dt.datetime.now(dt.UTC)
        return 0.5 if pa.types.is_floating(type_) else "x"

    row = {c.name: value(c.type) for c in TABLES[name].columns if not c.nullable}
    TABLES[name].from_rows([row])
    for changed in ({**row, column: None}, {k: v for k, v in row.items() if k != column}):
        with pytest.raises(ValueError, match=f"column {column} holds a null"):
            TABLES[name].from_rows([changed])


def test_unequal_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="length"):
        TABLES["predictions"].from_columns(_columns(image_id=np.arange(2)))


def test_number_too_large_for_its_column_is_refused() -> None:
    with pytest.raises(ValueError, match="int"):
        TABLES["predictions"].from_rows([_prediction(image_id=2**40)])


# Reading


def test_another_table_is_refused() -> None:
    content = encode("predictions", TABLES["predictions"].from_rows([_prediction()]))
    with pytest.raises(ValueError, match="not a table of epochs"):
        decode("epochs", content)


def test_writing_under_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="not a table of epochs"):
        encode("epochs", TABLES["predictions"].from_rows([_prediction()]))


@pytest.mark.parametrize("version", [tables.SCHEMA_VERSION + 1, 0])
def test_other_schema_version_is_refused_with_both_versions(version: int) -> None:
    table = TABLES["predictions"].from_rows([_prediction()])
    metadata = {**table.schema.metadata, b"cifake.schema_version": str(version).encode()}
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(metadata), sink)
    said = f"schema version {version}, this release reads {tables.SCHEMA_VERSION}"
    with pytest.raises(ValueError, match=said):
        decode("predictions", sink.getvalue().to_pybytes())


def test_parquet_of_another_program_is_refused() -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": [1]}), sink)
    with pytest.raises(ValueError, match="schema version none"):
        decode("predictions", sink.getvalue().to_pybytes())


@pytest.fixture(scope="module")
def content() -> bytes:
    """A file of 200 predictions."""
    probabilities = np.random.default_rng(0).random(200).astype(np.float32)
    columns = _columns(image_id=np.arange(200), probability=probabilities)
    return encode("predictions", TABLES["predictions"].from_columns(columns))


def test_truncated_file_is_refused_at_every_length(content: bytes) -> None:
    for size in range(0, len(content), 3):
        with pytest.raises(ValueError, match="not a readable parquet file"):
            decode("predictions", content[:size])


def test_damaged_file_is_read_or_refused_but_never_breaks_the_reader(content: bytes) -> None:
    """Parquet has check sums for compressed pages alone, so that some damage cannot be seen."""
    others = set()
    for position in range(0, len(content), 5):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        try:
            decode("predictions", bytes(damaged))
        except ValueError:
            continue
        except OSError as error:
            others.add(type(error).__name__)
    assert others == set()


def test_other_readers_see_the_types(tmp_path: Path, content: bytes) -> None:
    """pandas reads a table without this package."""
    import pandas as pd

    path = tmp_path / "predictions.parquet"
    path.write_bytes(content)
    frame = pd.read_parquet(path)
    assert list(frame.columns) == [column.name for column in TABLES["predictions"].columns]
    assert frame["probability"].dtype == np.float32
    assert frame["image_id"].tolist() == list(range(200))


# Documentation


@pytest.mark.parametrize("name", TABLES)
def test_every_column_is_documented(name: str) -> None:
    table = TABLES[name]
    _, _, after = documentation().partition(f"## `{name}`\n")
    section = after.partition("\n## ")[0]
    assert table.row in section
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    assert [line.split("`")[1] for line in lines] == [column.name for column in table.columns]
    for line, column in zip(lines, table.columns, strict=True):
        cells = [cell.strip() for cell in line.replace("\\|", "¦").strip("|").split("|")]
        assert cells[1:4] == [cells[1], column.unit, "yes" if column.nullable else "no"]
        assert cells[1]
        assert cells[4] == column.description.replace("|", "¦")


@pytest.mark.parametrize("name", TABLES)
def test_every_column_is_described_by_a_sentence(name: str) -> None:
    for column in TABLES[name].columns:
        assert column.description.endswith("."), column.name
        assert column.description.strip(".` ")
        assert "  " not in column.description, column.name


@pytest.mark.parametrize("name", TABLES)
def test_keys_are_columns_that_are_never_null(name: str) -> None:
    table = TABLES[name]
    never_null = {column.name for column in table.columns if not column.nullable}
    assert table.keys
    assert set(table.keys) <= never_null
    assert len({column.name for column in table.columns}) == len(table.columns)


def test_runs_hold_every_setting() -> None:
    names = {column.name for column in TABLES["runs"].columns}
    assert {path for path, _ in leaves(Config)} <= names
    required = {c.name: c.type for c in TABLES["runs"].columns if not c.nullable}
    run = {
        **{name: "x" for name, type_ in required.items() if type_ == tables.WORD},
        **{name: [] for name, type_ in required.items() if pa.types.is_list(type_)},
        **{name: 1 for name, type_ in required.items() if pa.types.is_integer(type_)},
    }
    config = Config(attention="srm", placement="both")
    (row,) = TABLES["runs"].from_rows([{**run, **config.flat()}]).to_pylist()
    assert {path: row[path] for path in config.flat()} == config.flat()


def test_rates_are_shares_and_times_are_seconds() -> None:
    assert tables.score_unit("accuracy") == "share"
    assert tables.score_unit("loss") == "nats"
    for table in TABLES.values():
        for column in table.columns:
            if column.name.endswith("seconds"):
                assert column.unit == "s"


def test_packs_sweeps_and_benchmarks_have_versions_apart_from_the_tables_of_runs() -> None:
    versions = {name: t.schema.metadata[b"cifake.schema_version"] for name, t in TABLES.items()}
    for name in ("images", "unreadable"):
        assert int(versions.pop(name)) == tables.PACK_VERSION
    for name in ("cells", "labels"):
        assert int(versions.pop(name)) == tables.SWEEPS_VERSION
    for name in ("summary", "comparisons", "ranking", "effects", "gates"):
        assert int(versions.pop(name)) == tables.RESULTS_VERSION
    assert int(versions.pop("benchmarks")) == tables.BENCHMARKS_VERSION
    assert {int(version) for version in versions.values()} == {tables.SCHEMA_VERSION}


# The canonical form


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=6), max_size=4), st.randoms())
def test_equal_words_have_equal_dictionaries_whatever_they_came_from(
    pieces: list[list[str]], rng: Any
) -> None:
    def column(words: list[str]) -> pa.Array:
        known = rng.sample("abcdef", 6)
        indices = pa.array([known.index(word) for word in words], pa.int32())
        return pa.DictionaryArray.from_arrays(indices, pa.array(known))

    schema = pa.schema([pa.field("word", tables.WORD)], metadata={b"kept": b"yes"})
    empty = schema.empty_table()
    parts = [pa.Table.from_arrays([column(words)], schema=schema) for words in pieces]
    found = tables.canonical(pa.concat_tables([empty, *parts]))
    words = [word for piece in pieces for word in piece]
    expected = pa.array(words, pa.string()).dictionary_encode()
    assert found.schema.equals(schema, check_metadata=True)
    assert found["word"].to_pylist() == words
    assert found["word"].combine_chunks().dictionary.to_pylist() == list(dict.fromkeys(words))
    assert found["word"].combine_chunks().equals(expected)


def test_a_missing_word_stays_missing_in_the_canonical_form() -> None:
    words = pa.DictionaryArray.from_arrays(pa.array([2, None, 0], pa.int32()), pa.array([*"abc"]))
    found = tables.canonical(pa.table({"word": words}))
    assert found["word"].to_pylist() == ["c", None, "a"]
    assert found["word"].combine_chunks().dictionary.to_pylist() == ["c", "a"]


@settings(deadline=None)
@given(st.data())
def test_ranges_of_rows_come_one_after_another(data: st.DataObject) -> None:
    length = data.draw(st.integers(0, 20))
    table = pa.table({"row": pa.array(range(length), pa.int32())})
    bounds = st.tuples(st.integers(0, length), st.integers(0, length)).map(sorted)
    ranges = [(low, high - low) for low, high in data.draw(st.lists(bounds, max_size=4))]
    expected = [row for start, rows in ranges for row in range(start, start + rows)]
    assert tables.arranged(table, ranges)["row"].to_pylist() == expected


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.data())
def test_rows_are_decoded_with_the_groups_that_hold_them_alone(
    length: int, group: int, data: st.DataObject
) -> None:
    rows = [{"run_id": "r", "epoch": number} for number in range(length)]
    content = tables.parquet(TABLES["epochs"].from_rows(rows), group=group, metadata={b"a": "b"})
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, length)] * 2)))
    first, found = tables.decode_rows("epochs", content, start, end)
    kept = found["epoch"].to_pylist()
    assert kept[start - first : end - first] == list(range(start, end))
    assert len(kept) <= end - start + 2 * (group - 1)
    assert found.schema.equals(TABLES["epochs"].schema, check_metadata=True)
    assert tables.metadata(content)[b"a"] == b"b"
    assert decode("epochs", content).num_rows == length


def test_ranges_of_rows_are_decoded_from_the_groups_that_hold_them() -> None:
    rows = [{"run_id": f"r{n // 4}", "epoch": n, "loss": n / 7} for n in range(40)]
    table = tables.TABLES["epochs"].from_rows(rows)
    content = tables.parquet(table, group=6)
    for ranges in (
        [(3, 5), (30, 2)],
        [(38, 2), (0, 1)],
        [(6, 6)],
        [(40, 0)],
        [(0, 40)],
        [],
        [(7, 0)],
    ):
        expected = [n for start, length in ranges for n in range(start, start + length)]
        found = tables.decode_ranges("epochs", content, ranges)
        assert found.equals(tables.canonical(table.take(pa.array(expected, pa.int64()))))
        few = tables.decode_ranges("epochs", content, ranges, ["loss", "epoch"])
        assert few.equals(found.select(["loss", "epoch"]))
    with pytest.raises(ValueError, match="has 40 rows, and 41 are wanted"):
        tables.decode_ranges("epochs", content, [(39, 2)])
    with pytest.raises(ValueError, match="schema"):
        tables.decode_ranges("evaluations", content, [(0, 1)])
