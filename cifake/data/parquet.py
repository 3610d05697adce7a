"""Rows of Hugging Face image parquet files, with their class names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cifake.errors import refuse


def parquet_files(path: Path) -> list[Path]:
    """The parquet files at a path: the file itself, or all below a folder, in a fixed order."""
    if not path.is_dir():
        return [path]
    found = sorted(path.rglob("*.parquet"))
    return [f for f in found if not any(p.startswith(".") for p in f.relative_to(path).parts)]


def is_parquet(path: Path) -> bool:
    """Whether a path is a parquet file or a folder that holds some."""
    if path.is_dir():
        return bool(parquet_files(path))
    return path.suffix == ".parquet"


def iter_rows(file: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the named columns of a file, row by row.

    Raises:
        InputError: the file is damaged or lacks a column.
    """
    try:
        with pq.ParquetFile(file) as source:
            missing = [name for name in columns if name not in source.schema_arrow.names]
            if missing:
                refuse(
                    file,
                    f"no such column; the file has {', '.join(source.schema_arrow.names)}",
                    field=missing[0],
                )
            for batch in source.iter_batches(batch_size=1024, columns=list(columns)):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        refuse(file, f"damaged or truncated parquet file ({error}); fetch it again")


def class_names(file: Path) -> Mapping[str, list[str]]:
    """Names of the class-label columns, from the metadata that Hugging Face writes."""
    try:
        metadata = pq.read_schema(file).metadata or {}
    except (pa.ArrowException, OSError) as error:
        refuse(file, f"damaged or truncated parquet file ({error}); fetch it again")
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    return {
        column: feature["names"]
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }


def image_bytes(file: Path, row: int, cell: object) -> tuple[bytes, str | None]:
    """The encoded image of a Hugging Face image cell, and its path where there is one."""
    if not isinstance(cell, dict) or not isinstance(cell.get("bytes"), bytes):
        refuse(file, f"row {row} holds no image bytes; expected a struct of bytes and path")
    return cell["bytes"], cell.get("path")
