"""What an epoch costs beside its training: validation, thresholds, classes, tables and state."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from cifake.config import Config, run_id
from cifake.data.pack import Pack
from cifake.record import Record
from cifake.session import Aim, Progress, Session
from cifake.training import Epoch
from sweeps.store import Store
from tests.benchmarks.measure import Outcome, Timed, cpu_seconds, timed

_SHARE = 0.08


class _Watched(Session):
    """A session that keeps what each epoch took: its training, and all that follows."""

    def run_watched(self) -> None:
        """Do what is missing."""
        self.trained: list[Timed] = []
        self.recorded: list[Timed] = []
        self.cpu = cpu_seconds()
        reports: list[Progress] = []
        self.run(reports.append)

    def _record(self, epoch: Epoch) -> Progress:
        record = super()._record
        made: list[Progress] = []
        self.trained.append(Timed(epoch.images, epoch.seconds, cpu_seconds() - self.cpu))
        self.recorded.append(timed(epoch.images, lambda: made.append(record(epoch))))
        self.cpu = cpu_seconds()
        return made[0]


def evaluation(pack: Pack, seeds: int, epochs: int, data: dict[str, Any] | None = None) -> Outcome:
    """Time beside training over time of training, an epoch a repeat; the first epoch warms up.

    Args:
        pack: the packed CIFAKE.
        seeds: runs of the stack.
        epochs: that are measured.
        data: `data` settings; by default all training images but the 5,000 of validation.
    """
    config = Config.model_validate({"data": data or {}})
    aim = Aim(config=config, epochs=epochs + 1, milestones=(), evaluate=(), width=seeds)
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(str(Path(folder) / "store"), create=True)
        records = {
            seed: Record(store.run(run_id(config.config_id, seed)), config, seed, "cpu")
            for seed in range(seeds)
        }
        session = _Watched(aim, {"cifake": pack}, records)
        session.run_watched()
    recorded, trained = session.recorded[1:], session.trained[1:]
    return Outcome(
        f"validation and tables of {seeds} seeds, vs training them an epoch",
        "s",
        [each.wall for each in recorded],
        "ratio at most",
        _SHARE,
        [each.wall for each in trained],
        [a.cpu / b.cpu for a, b in zip(recorded, trained, strict=True)],
    )
