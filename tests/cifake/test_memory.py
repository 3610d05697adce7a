"""Stacks are as wide as the memory holds, told beforehand by a probe and else by running out.

What takes memory away is a real limit, of a process of its own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cifake import memory
from cifake.config import Config
from cifake.models.build import build
from cifake.models.stacked import stack

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="limits of a process need Linux"
)

SCRIPT = """
import hashlib, json, os, resource, sys
import numpy as np
import torch
from cifake.batches import TrainingData
from cifake.config import Config
from cifake.data.locate import open_dataset
from cifake.training import train

torch.set_num_threads(1)
MIB = 2**20
pack = open_dataset("demo")
data = TrainingData(pack.pixels, pack.labels, pack.rows("train")[:1500])
config = Config.model_validate({"batch_size": 1500, "optimizer": {"lr": 0.02}})

def limit(mib):
    size = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + mib * MIB, resource.RLIM_INFINITY))

def digest(state):
    found = hashlib.sha256()
    for tensors in (state.weights, state.optimizer):
        for name in sorted(tensors):
            found.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return found.hexdigest()

def trained(seeds, epochs, stacks=None, resume=None, between=lambda epoch: None):
    rows, states = [], {}
    def on_epoch(epoch):
        for member in epoch.members:
            rows.append([epoch.epoch, member.seed, list(member.stack), list(member.fallbacks),
                         digest(member.state)])
            states[epoch.epoch, member.seed] = member.state
        between(epoch.epoch)
    train(config, seeds, data, on_epoch, epochs=epochs, stacks=stacks, resume=resume)
    return rows, states

few = TrainingData(data.pixels, data.labels, data.rows[:4])
train(config, [0, 1], few, lambda epoch: None, epochs=1)
"""
"""What every process begins with: one batch of 1,500 images, whose maps take most memory.

A first step on four images loads what torch loads late.
"""


def _run(body: str) -> Any:
    """What a process of its own prints last, as JSON."""
    # What is freed is then free for whatever is asked for next, not for smaller pieces alone.
    whole = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT + body],
        capture_output=True,
        text=True,
        check=False,
        env=whole,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


# Free and taken


def test_free_memory_is_some_of_the_machines() -> None:
    assert 0 < memory.free("cpu") <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_free_memory_is_what_a_limit_of_the_process_leaves() -> None:
    body = """
from cifake import memory
limit(300)
before = memory.free("cpu")
held = np.zeros(100 * MIB, np.uint8)
print(json.dumps([before / MIB, (before - memory.free("cpu")) / MIB]))
"""
    before, taken = _run(body)
    assert before == pytest.approx(300, abs=10)
    assert taken == pytest.approx(100, abs=10)


@pytest.mark.parametrize("members", [1, 4])
def test_memory_that_a_probe_foresees_is_what_training_takes(members: int) -> None:
    """The process grows by about as much while it trains; too little would be found out late."""
    # Not by ru_maxrss, which begins with what the parent had when it forked.
    body = f"""
import re
from cifake.batches import Images
from cifake.training import _Stack
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
seeds = tuple(range({members}))
before = peak()
foreseen = _Stack(config, seeds, Images(data, "cpu"), {{}}).memory() / MIB
trained(list(seeds), 1)
print(json.dumps([foreseen, peak() - before]))
"""
    foreseen, grown = _run(body)
    assert 0.6 * grown < foreseen < 2 * grown


@pytest.mark.parametrize("name", ["base", "convnet"])
def test_foreseen_memory_grows_with_images_and_members(name: str) -> None:
    config = Config(model=name)
    models = [build(config, seed) for seed in range(3)]

    def taken(members: int, images: int) -> int:
        network = models[0] if members == 1 else stack(models[:members])
        pixels = torch.zeros(images, 32, 32, 3 * members, dtype=torch.uint8)
        return memory.taken(network, lambda: network(pixels).sum())

    one = taken(1, 64)
    assert taken(1, 128) > 1.5 * one - 4 * 4 * 61_241
    assert taken(3, 64) == pytest.approx(3 * one, rel=0.2)
    assert taken(1, 64) == one


def test_errors_that_say_memory_ran_out_are_told_from_others() -> None:
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(2**60)
    with pytest.raises(MemoryError) as of_numpy:
        np.zeros(2**55)
    with pytest.raises(RuntimeError) as of_shapes:
        torch.zeros(2) @ torch.zeros(3)
    assert memory.is_exhausted(of_torch.value)
    assert memory.is_exhausted(of_numpy.value)
    assert memory.is_exhausted(torch.OutOfMemoryError("CUDA out of memory"))
    assert not memory.is_exhausted(of_shapes.value)
    for said in (
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling",
    ):
        assert memory.is_exhausted(torch.AcceleratorError(said))
    hidden = RuntimeError("operation failed due to a previous error during capture")
    assert not memory.is_exhausted(hidden)
    hidden.__context__ = torch.OutOfMemoryError("CUDA out of memory")
    assert memory.is_exhausted(hidden)


# A stack that would not fit


def test_a_stack_that_memory_would_not_hold_is_split_beforehand() -> None:
    """Into as few parts as fit; the numbers are those of the parts asked for."""
    body = """
limit(350)
split, _ = trained([0, 1, 2, 3], 2)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
asked, _ = trained([0, 1, 2, 3], 2, stacks=[[0, 1], [2, 3]])
print(json.dumps([split, asked]))
"""
    split, asked = _run(body)
    for row, same in zip(split, asked, strict=True):
        epoch, seed, stack_, (fallback,), digest = row
        assert [epoch, seed, stack_, [], digest] == same
        said = r"stack of 4 split into 2: a member takes \d+ MiB of memory, and there are \d+"
        assert re.fullmatch(said, fallback)
    assert [row[2] for row in split] == [[0, 1], [0, 1], [2, 3], [2, 3]] * 2


# A stack that did not fit after all


def test_a_stack_that_runs_out_of_memory_is_halved_and_its_epoch_begun_anew() -> None:
    """Memory is taken away after the first epoch, in which all was well.

    From there each part has the numbers of the same part that goes on, with memory enough, from
    the state before its epoch. How often the parts are halved is the machine's affair.
    """
    body = """
halved, states = trained([0, 1, 2, 3], 3, between=lambda epoch: limit(150) if epoch == 1 else None)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
asked = []
for epoch, part in sorted({(row[0], tuple(row[2])) for row in halved if row[0] > 1}):
    before = {seed: states[epoch - 1, seed] for seed in part}
    asked += trained(list(part), epoch, stacks=[list(part)], resume=before)[0]
print(json.dumps([halved, asked]))
"""
    halved, asked = _run(body)
    assert [row[:4] for row in halved[:4]] == [[1, seed, [0, 1, 2, 3], []] for seed in range(4)]
    assert [row[:2] for row in halved[4:]] == [
        [epoch, seed] for epoch in (2, 3) for seed in range(4)
    ]
    for (*row, fallbacks, digest), same in zip(halved[4:], asked, strict=True):
        assert [*row, [], digest] == same
        assert len(row[2]) <= 2
        assert fallbacks[0] == "stack of 4 halved in epoch 2: out of memory"


def test_halves_that_do_not_fit_are_halved_again() -> None:
    body = """
seeds = list(range(8))
halved, _ = trained(seeds, 2, between=lambda epoch: limit(170) if epoch == 1 else None)
print(json.dumps(halved[8:]))
"""
    said = [f"stack of {width} halved in epoch 2: out of memory" for width in (8, 4)]
    for epoch, seed, stack_, fallbacks, _ in _run(body):
        assert epoch == 2
        assert seed in stack_
        assert len(stack_) <= 2
        assert fallbacks[:2] == said


def test_a_seed_alone_that_does_not_fit_is_an_error() -> None:
    body = """
from cifake import memory
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
try:
    trained([0], 3, between=lambda epoch: limit(10) if epoch == 1 else None)
except (MemoryError, RuntimeError) as error:
    print(json.dumps(memory.is_exhausted(error)))
"""
    assert _run(body) is True


def test_what_was_done_for_want_of_memory_is_in_the_rows_of_the_runs(tmp_path: Path) -> None:
    body = f"""
from pathlib import Path
from cifake.config import run_id
from cifake.record import Record
from cifake.places import LocalPlace
from cifake.runs import RunFolder
from cifake.session import Aim, Session
config = Config.model_validate({{"batch_size": 1500, "data": {{"validation": 50}}}})
store = LocalPlace(Path({str(tmp_path)!r}))
folders = {{seed: RunFolder(store.at(run_id(config.config_id, seed))) for seed in range(4)}}
records = {{seed: Record(folder, config, seed) for seed, folder in folders.items()}}
aim = Aim(config=config, epochs=2, milestones=(2,), evaluate=("demo",), width=4)
limit(350)
Session(aim, {{"demo": pack}}, records).run(lambda progress: None)
rows = [folder.read("runs").to_pylist()[0] for folder in folders.values()]
names = ("status", "stack", "stack_width", "fallbacks")
print(json.dumps([[row[name] for name in names] for row in rows]))
"""
    for number, (status, stack_, width, (fallback,)) in enumerate(_run(body)):
        assert (status, width) == ("complete", 2)
        assert stack_ == ([0, 1] if number < 2 else [2, 3])
        assert fallback.startswith("stack of 4 split into 2: a member takes ")
