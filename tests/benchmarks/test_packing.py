"""Ways of reading files give the same images, and memory and runs are counted as they are held."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from cifake.data.locate import open_dataset
from tests.benchmarks import listing, memory, merging, packing

_MB = 2**20

_HOLDER = """
import mmap, sys
file = open(sys.argv[1], "rb")
mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
print(sum(1 for _ in mapped[::4096]), flush=True)
sys.stdin.read()
"""


def test_every_run_of_a_store_is_listed(tmp_path: Path) -> None:
    outcome = listing.listing(tmp_path / "store", runs=20, repeats=2)
    assert outcome.name == "list the states of 20 runs"
    assert all(0 < value < 1 for value in outcome.values)
    assert outcome.met


def test_every_run_of_a_store_is_read_merged_and_not(tmp_path: Path) -> None:
    outcome = merging.merging(tmp_path, runs=20, repeats=2)
    assert outcome.name == "read evaluations of 20 runs, merged"
    assert outcome.unit == "runs/s"
    assert min(outcome.values) > 0
    assert min(outcome.baselines) > 0


def test_packing_and_the_loop_read_the_same_pixels(cifake_folder: Path, tmp_path: Path) -> None:
    packing.loop(cifake_folder, tmp_path)
    read = np.load(tmp_path / "pixels.npy")
    packed = open_dataset("cifake", {"cifake": cifake_folder}).pixels
    assert read.shape == packed.shape
    assert sorted(image.tobytes() for image in read) == sorted(i.tobytes() for i in packed)
    assert np.load(tmp_path / "labels.npy").mean() == 0.5


def test_both_ways_count_every_file(cifake_folder: Path) -> None:
    found = packing.packing(cifake_folder, repeats=1)
    assert found.target == 1.7
    assert found.value > 0
    assert found.baseline is not None
    assert found.baseline > 0


def test_a_pack_is_loaded_in_a_process_of_its_own() -> None:
    found = packing.loading(open_dataset("demo").folder, repeats=2)
    assert len(found.values) == 2
    assert min(found.values) > 0


def test_the_archive_is_extracted_in_cifakes_layout(
    cifake_images: dict[str, bytes], cifake_folder: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "cifake.tar.xz"
    with tarfile.open(archive, "w:xz") as content:
        content.add(cifake_folder, "./cifake")
    folder = packing.extracted(archive, tmp_path / "files")
    assert {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    } == cifake_images


@pytest.fixture
def mapped_file(tmp_path: Path) -> Path:
    path = tmp_path / "pixels.npy"
    path.write_bytes(b"x" * 8 * _MB)
    return path


def test_processes_that_map_a_file_are_found_and_it_counts_once(mapped_file: Path) -> None:
    command = [sys.executable, "-c", _HOLDER, str(mapped_file)]
    idle = [sys.executable, "-c", "import sys; print('idle', flush=True); sys.stdin.read()"]
    started = [
        subprocess.Popen(each, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for each in (command, command, idle)
    ]
    idle_one = started[2]
    try:
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()
        found = memory.mapping(str(mapped_file), os.getpid())
        assert sorted(found) == sorted(process.pid for process in started[:2])
        once = sum(memory.held_by(process) for process in found) - 2 * memory.held_by(idle_one.pid)
        assert 7 * _MB < once < 12 * _MB
    finally:
        for process in started:
            process.communicate()


def test_bare_interpreters_have_torch_in_them() -> None:
    (held,) = memory.bare_interpreters(1)
    assert held > 100 * _MB
