"""How long a sweep takes that is asked for again when all its runs are there."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
from rich.console import Console

from cifake import tables
from cifake.runs import RunFolder
from sweeps.plan import Stack
from sweeps.store import Store
from sweeps.sweep import Sweep, open_sweep, read_spec
from sweeps.trial import Report, run_stack
from tests.benchmarks.measure import Outcome

_ASKED_WITHIN = 4.0
_SEEDS = 10
_SPEC = """\
name: asked-again
data: {{train: demo, validation: 100, train_images: 64}}
scientific:
  optimizer.lr: {rates}
  epochs: [1, 2]
nuisance: {{seed: {seeds}}}
"""


def asking(folder: Path, runs: int, repeats: int) -> Outcome:
    """Run `sweeps run` on a store in a folder that holds every run that the sweep asks for.

    Args:
        folder: an empty one.
        runs: of the sweep; one is trained, the others have its tables under their own names.
        repeats: how often the command is run.
    """
    store = folder / "store"
    spec = folder / "again.yaml"
    rates = [round(0.001 * (1 + number), 3) for number in range(runs // _SEEDS)]
    folder.mkdir(parents=True, exist_ok=True)
    spec.write_text(_SPEC.format(rates=rates, seeds=_SEEDS))
    _fill(spec, Store.open(str(store), create=True))
    command = [sys.executable, "-m", "sweeps", "run", str(spec), "--store", str(store)]
    found = []
    for _ in range(repeats):
        begun = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found.append(time.perf_counter() - begun)
        if f"{runs} done, 0 to continue, 0 new" not in done.stdout:
            raise ValueError(f"the store did not hold every run:\n{done.stdout}")
    name = f"ask again for a finished sweep of {runs:,} runs"
    return Outcome(name, "s", found, "value at most", _ASKED_WITHIN)


def _fill(spec: Path, store: Store) -> None:
    """Train one run of a sweep and write all the others after its example."""
    sweep = open_sweep(read_spec(str(spec), []), [], Console(stderr=True))
    example = _trained(sweep, store)
    state = example.state()
    if state is None:
        raise ValueError("the run was not committed")
    content = {name: example.read(name) for name in tables.RUN_TABLES if name != "runs"}
    for cell in sweep.cells():
        if cell.run_id == example.run_id:
            continue
        config = cell.variant.config
        own = {
            "run_id": cell.run_id,
            "config_id": config.config_id,
            "seed": cell.seed,
            "stack": [cell.seed],
        }
        files = {
            f"{name}.parquet": tables.encode(name, _renamed(table, cell.run_id))
            for name, table in content.items()
        }
        store.run(cell.run_id).commit({**state.row, **config.flat(), **own}, files)


def _trained(sweep: Sweep, store: Store) -> RunFolder:
    """The first run of a sweep, with its milestones."""
    first = sweep.cells()[0]
    stack = Stack(
        config=first.variant.config, seeds=(first.seed,), start=0, epochs=2, milestones=(1, 2)
    )
    run_stack(sweep.task(stack, store, None), _unheard)
    return store.run(first.run_id)


def _renamed(table: pa.Table, run_id: str) -> pa.Table:
    field = table.schema.field("run_id")
    index = table.schema.get_field_index("run_id")
    return table.set_column(index, field, pa.array([run_id] * len(table)).cast(field.type))


def _unheard(report: Report) -> None:
    del report
