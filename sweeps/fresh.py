"""Whether a report is as it would be made now: by what it was made of, and what it left.

`made.json`, which is written last, has a digest of everything that went into a report, and one of
each file that came out. It is cheap to look at where thousands of runs would have to be read.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping
from importlib import metadata

import pyarrow as pa
from pydantic import BaseModel, ValidationError

from cifake import tables
from cifake.runs import Head, digest
from sweeps.code import code_digest
from sweeps.store import Store

FILE = "made.json"

_LIBRARIES = (
    "fonttools",
    "jinja2",
    "matplotlib",
    "numpy",
    "pandas",
    "pyarrow",
    "scipy",
    "vl-convert-python",
)
"""What numbers and pictures of a report depend on, beside this project's code."""


class _Made(BaseModel):
    """What `made.json` says."""

    inputs: str
    outputs: dict[str, str]
    """Digest of each file, by its name."""


def inputs(words: Iterable[str], kept: Iterable[pa.Table], heads: Mapping[str, Head]) -> str:
    """A digest of everything that a sweep's report is made of.

    Args:
        words: the specification, and what else stands in the report as it is.
        kept: tables that are kept of the sweep: what it asks for, and labels.
        heads: of its runs, which say what each of their tables holds.
    """
    found = hashlib.sha256(code().encode())
    for text in words:
        found.update(f"{text}\0".encode())
    for table in kept:
        found.update(tables.parquet(tables.canonical(table)))
    for name, head in sorted(heads.items()):
        found.update(name.encode())
        found.update(head.encode())
    return found.hexdigest()


@functools.cache
def code() -> str:
    """A digest of this project's code and of the versions of what it counts and draws with."""
    found = hashlib.sha256(code_digest().encode())
    for library in _LIBRARIES:
        found.update(f"{library} {metadata.version(library)}\0".encode())
    return found.hexdigest()


def unchanged(
    store: Store, sweep: str, expected: str, wanted: Iterable[str]
) -> Mapping[str, pa.Table] | None:
    """The tables of a sweep's report, if making it now would make the same.

    Args:
        store: that has the report.
        sweep: its name.
        expected: digest of what it would be made of.
        wanted: names of tables.

    Returns:
        Null where it was made of something else, or where a file is missing or damaged.
    """
    made = _made(store, sweep)
    if made is None or made.inputs != expected:
        return None
    found = {}
    for file, held in made.outputs.items():
        try:
            found[file] = store.read_file(sweep, file)
        except FileNotFoundError:
            return None
        if digest(found[file]) != held:
            return None
    if any(f"{name}.parquet" not in found for name in wanted):
        return None
    return {name: tables.decode(name, found[f"{name}.parquet"]) for name in wanted}


def keep(store: Store, sweep: str, made_of: str, files: Mapping[str, bytes]) -> None:
    """Write the files of a report, and what it was made of.

    Files of an earlier report that are no part of this one are removed.
    """
    before = _made(store, sweep)
    for file, content in files.items():
        store.write_sweep(sweep, file, content)
    outputs = {file: digest(content) for file, content in files.items()}
    for file in [] if before is None else before.outputs:
        if file not in outputs:
            store.remove_file(sweep, file)
    store.write_sweep(
        sweep, FILE, _Made(inputs=made_of, outputs=outputs).model_dump_json().encode()
    )


def _made(store: Store, sweep: str) -> _Made | None:
    """What is known of the last report; null where it is not, or in no form of ours."""
    try:
        return _Made.model_validate_json(store.read_file(sweep, FILE))
    except (FileNotFoundError, ValidationError):
        return None
