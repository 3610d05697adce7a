"""The schema of every table, the one reader and the one writer.

`results/README.md` is generated from the declarations here.
"""

from cifake.tables.columns import (
    BENCHMARKS_VERSION,
    PACK_VERSION,
    RESULTS_VERSION,
    SCHEMA_VERSION,
    SWEEPS_VERSION,
    WORD,
    Column,
    Table,
)
from cifake.tables.files import (
    arranged,
    canonical,
    decode,
    decode_ranges,
    decode_rows,
    encode,
    metadata,
    parquet,
)
from cifake.tables.of_runs import (
    COMPARABLE,
    DEDUPLICATED,
    RUN_TABLES,
    SCORES,
    SCORES_AT_TEMPERATURE,
    SCORES_AT_VALIDATION_THRESHOLD,
    THRESHOLDS,
    RunTable,
    higher_is_better,
    score_unit,
)
from cifake.tables.schema import TABLES, documentation

__all__ = [
    "BENCHMARKS_VERSION",
    "COMPARABLE",
    "DEDUPLICATED",
    "PACK_VERSION",
    "RESULTS_VERSION",
    "RUN_TABLES",
    "SCHEMA_VERSION",
    "SCORES",
    "SCORES_AT_TEMPERATURE",
    "SCORES_AT_VALIDATION_THRESHOLD",
    "SWEEPS_VERSION",
    "TABLES",
    "THRESHOLDS",
    "WORD",
    "Column",
    "RunTable",
    "Table",
    "arranged",
    "canonical",
    "decode",
    "decode_ranges",
    "decode_rows",
    "documentation",
    "encode",
    "higher_is_better",
    "metadata",
    "parquet",
    "score_unit",
]
