"""The tables of a packed data set."""

from __future__ import annotations

import pyarrow as pa

from cifake.tables.columns import PACK_VERSION, STRING, WORD, Column, Table, required

TABLES = (
    Table(
        "images",
        "one image of a pack",
        ("image_id",),
        (
            required("image_id", pa.int32(), "", "Row of its pixels."),
            required("split", WORD, "", "As published: train, validation or test."),
            required("label", pa.int8(), "", "0 FAKE, 1 REAL."),
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
            required("file", STRING, "", "Name inside the source."),
            required("split", WORD, "", "As published: train, validation or test."),
            required("label", pa.int8(), "", "0 FAKE, 1 REAL."),
            required("problem", STRING, "", "Why it could not be read."),
        ),
        PACK_VERSION,
    ),
)
