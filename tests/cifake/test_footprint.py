"""What a stack takes of a GPU is measured on one."""

from __future__ import annotations

import pytest
import torch

from cifake import memory
from cifake.batches import TrainingData
from cifake.config import Config
from cifake.data.locate import open_dataset
from cifake.devices import has_gpu
from cifake.footprint import gpu, stack_bytes
from cifake.training import Epoch, train

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU to measure on")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_where_torch_finds_no_gpu_there_is_none() -> None:
    assert gpu() is None


def test_a_gpu_that_is_hidden_from_this_process_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not has_gpu()


@pytest.fixture(scope="module")
def data() -> TrainingData:
    pack = open_dataset("demo")
    return TrainingData(pack.pixels, pack.labels, pack.rows("train"))


@needs_gpu
def test_wider_stacks_and_more_images_take_more_of_a_gpu(data: TrainingData) -> None:
    config = Config(batch_size=512)
    few = TrainingData(data.pixels, data.labels, data.rows[:2048])
    one, wide = (stack_bytes(config, data, width) for width in (1, 8))
    found = gpu()
    assert found is not None
    assert stack_bytes(config, few, 1) < one < wide < found.total


@needs_gpu
def test_a_process_stays_within_the_share_that_was_measured(data: TrainingData) -> None:
    config = Config(batch_size=512)
    found = gpu()
    assert found is not None
    share = min(1.0, stack_bytes(config, data, 8) / memory.SHARE / found.total)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.set_per_process_memory_fraction(share)
    trained: list[Epoch] = []
    try:
        train(config, range(8), data, trained.append, epochs=1, device="cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(trained[0].members) == 8
    assert torch.cuda.max_memory_reserved() <= share * found.total
