"""Fixtures of the tests of `cifake`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from cifake.data.locate import open_dataset
from cifake.data.pack import Pack


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Equal numbers bit for bit are promised for one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def demo(_isolated_environment: None) -> Pack:
    """The embedded data set."""
    return open_dataset("demo")
