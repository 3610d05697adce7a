"""How long it takes to know how far every run of a large store is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cifake.config import Config, run_id
from cifake.data.locate import open_dataset
from cifake.places import open_place
from cifake.runs import HEAD, Head
from sweeps.store import Store
from sweeps.trial import Report, Task, run_stack
from tests.benchmarks.measure import Outcome, timed

_LISTED_WITHIN = 2.0
_EPOCHS = 10


def listing(folder: Path, runs: int, repeats: int) -> Outcome:
    """List the states of the runs of a store in a folder.

    Args:
        folder: an empty one.
        runs: that it holds, each with the head of a run of ten epochs.
        repeats: how often they are listed.
    """
    store = Store.open(str(folder), create=True)
    head = trained_head(store)
    for number in range(runs):
        name = f"{number:016x}"
        row = {**head.row, "run_id": name, "seed": number, "stack": [number]}
        store.run(name).place.write(HEAD, replace(head, row=row).encode())
    found = []
    for _ in range(repeats):
        spent = timed(runs, store.run_states)
        found.append(spent.wall)
    if len(store.run_states()) != runs + 1:
        raise ValueError("not every run was listed")
    return Outcome(f"list the states of {runs:,} runs", "s", found, "value at most", _LISTED_WITHIN)


def _unheard(report: Report) -> None:
    del report


def trained_head(store: Store) -> Head:
    """That of a run, which is trained unless the store has it."""
    pack = open_dataset("demo")
    data = {"train": "demo", "fingerprint": pack.info.fingerprint, "train_images": 64}
    config = Config.model_validate({"data": {**data, "validation": 100}})
    task = Task(
        config=config.model_dump(),
        seeds=(0,),
        epochs=_EPOCHS,
        milestones=(_EPOCHS,),
        packs={"demo": str(pack.folder)},
        evaluate=("demo",),
        store=store.address,
    )
    run_stack(task, _unheard)
    head = Store(open_place(store.address)).run(run_id(config.config_id, 0)).head()
    if head is None:
        raise ValueError("the run was not committed")
    return head
