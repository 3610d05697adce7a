"""The table of benchmarks."""

from __future__ import annotations

import pyarrow as pa

from cifake.tables.columns import (
    BENCHMARKS_VERSION,
    STRING,
    TIMESTAMP,
    WORD,
    Column,
    Table,
    required,
)

TABLES = (
    Table(
        "benchmarks",
        "one measurement of one benchmark",
        ("name", "measured_at"),
        (
            required("name", WORD, "", "What is measured."),
            required("value", pa.float64(), "", "Median over the repeats, in `unit`."),
            required("unit", WORD, "", "Unit of value and baseline."),
            Column("baseline_value", pa.float64(), "", "Median of what it is compared with."),
            Column("ratio", pa.float64(), "", "Value over baseline."),
            Column("target", pa.float64(), "", "What must be reached; null where nothing must."),
            Column("met", pa.bool_(), "", "Whether it was reached."),
            Column("commit", STRING, "", "Commit of the code; null outside a checkout."),
            required("cpu", WORD, "", "Processor, and the widest instructions torch uses."),
            required("cores", pa.int32(), "", "Cores that the process may use."),
            required("torch", WORD, "", "Version of torch."),
            required("ray", WORD, "", "Version of Ray."),
            required("measured_at", TIMESTAMP, "", "End of the measurement."),
            required("judged", WORD, "", "What is held against the target, and from which side."),
            required("low", pa.float64(), "", "Lowest repeat of ratio, or of value without one."),
            required("high", pa.float64(), "", "Highest repeat, likewise."),
            Column("cpu_ratio", pa.float64(), "", "Median ratio by processor time."),
            required("repeats", pa.int32(), "", "Repeats, each in turn with its baseline."),
            required("device", WORD, "", "Processor or GPU that did the work."),
        ),
        BENCHMARKS_VERSION,
    ),
)
