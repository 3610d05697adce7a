"""Two small networks trained on CIFAKE and written as runs, and the commands that ask them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch

from cifake.__main__ import app
from cifake.config import Config, nest, run_id
from cifake.data.locate import open_dataset
from cifake.data.pack import Pack
from cifake.data.subsets import split_rows
from cifake.errors import run_command
from cifake.evaluation import predict
from cifake.places import LocalPlace
from cifake.record import Record
from cifake.runs import RunFolder
from cifake.store import open_root, run_folder
from cifake.training import Epoch, TrainingData, train

EACH = {"train": 100, "test": 20}
"""Images of every class and label: 2,000 and 400 in all."""


@pytest.fixture(scope="session")
def few_folder(
    first_images: Callable[[Mapping[str, int]], dict[str, bytes]],
    write_tree: Callable[[Path, Mapping[str, bytes]], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The first images of every class and label of CIFAKE, in the published layout."""
    return write_tree(tmp_path_factory.mktemp("few") / "cifake", first_images(EACH))


@pytest.fixture(scope="session")
def few(few_folder: Path) -> Pack:
    """Their pack."""
    return open_dataset("cifake", {"cifake": few_folder})


@pytest.fixture(scope="session")
def few_images(few: Pack) -> torch.Tensor:
    """Their first 64 test images, shape (64, 32, 32, 3), uint8."""
    return torch.from_numpy(np.array(few.pixels[few.rows("test")[::6][:64]]))


class Trained(NamedTuple):
    """A run, and what its network said of the test images after each epoch."""

    run: RunFolder
    probabilities: dict[int, npt.NDArray[np.float32]]

    @property
    def path(self) -> Path:
        """Its folder."""
        assert isinstance(self.run.place, LocalPlace)
        return self.run.place.path


@dataclass(frozen=True)
class Runs:
    """A store of two runs."""

    store: str
    srm: Trained
    base: Trained


@pytest.fixture(scope="session")
def runs(few: Pack, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The base network with style recalibration after both poolings, and without."""
    store = str(tmp_path_factory.mktemp("asking") / "store")
    srm = _train(few, store, epochs=2, attention="srm", placement="both")
    return Runs(store, srm, _train(few, store, epochs=3))


def _train(pack: Pack, store: str, epochs: int, **settings: object) -> Trained:
    flat = {
        "batch_size": 16,
        "optimizer.lr": 0.02,
        "data.fingerprint": pack.info.fingerprint,
        "data.validation": 200,
        **settings,
    }
    config = Config.model_validate(nest(flat))
    folder = run_folder(open_root(store, create=True), run_id(config.config_id, 0))
    record = Record(folder, config, 0)
    said: dict[int, npt.NDArray[np.float32]] = {}

    def keep(epoch: Epoch) -> None:
        (member,) = epoch.members
        said[epoch.epoch] = predict(member.model, pack.pixels, pack.rows("test"))
        record.keep_state(member.state)
        record.commit(status="complete", epochs_done=epoch.epoch)

    rows = split_rows(pack, config.data).train
    train(config, [0], TrainingData(pack.pixels, pack.labels, rows), keep, epochs=epochs)
    return Trained(folder, said)


class Said(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Said]:
    """Run `cifake` with arguments in this process, as its entry point does."""
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: str | Path) -> Said:
        with pytest.raises(SystemExit) as ended:
            run_command(lambda: app([str(argument) for argument in arguments]), "cifake")
        printed = capsys.readouterr()
        return Said(int(ended.value.code or 0), printed.out, printed.err)

    return run
