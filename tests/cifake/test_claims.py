"""A run is trained by one process at a time, and one that died is in nobody's way."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from cifake import claims
from cifake.claims import (
    OWNERS,
    Claim,
    LostError,
    Owner,
    Process,
    claim,
    claimed,
    forget_dead,
    holder_of,
    is_claim,
)
from cifake.config import Config, run_id
from cifake.places import LocalPlace, Place, open_place
from cifake.record import Record
from cifake.runs import RunFolder


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return open_place(str(tmp_path / "store"))
    return open_place(request.getfixturevalue("bucket"))


def test_what_is_claimed_is_refused_to_others_until_it_is_released(root: Place) -> None:
    folder = root.at("runs").at("r1")
    with Owner(root, "first") as first, Owner(root, "second") as second:
        mine = claim(folder, first)
        assert isinstance(mine, Claim)
        theirs = claim(folder, second)
        assert isinstance(theirs, Process)
        assert theirs.pid == os.getpid()
        assert str(theirs).startswith(f"`first`, process {os.getpid()} on ")
        mine.check()
        mine.release()
        assert isinstance(claim(folder, second), Claim)
    assert root.at(OWNERS).files() == []


def test_who_holds_a_claim_is_told_while_it_lives(root: Place) -> None:
    folder = root.at("runs").at("r1")
    assert holder_of(folder, root) is None
    with Owner(root, "first") as first:
        mine = claim(folder, first)
        assert isinstance(mine, Claim)
        found = holder_of(folder, root)
        assert found is not None
        assert (found.what, found.pid) == ("first", os.getpid())
        assert [is_claim(name) for name in folder.files()] == [True]
    assert holder_of(folder, root) is None
    assert not is_claim("run.json")


def test_what_an_owner_leaves_behind_is_claimed_by_the_next(root: Place) -> None:
    folder = root.at("runs").at("r1")
    with Owner(root, "first") as first:
        before = claim(folder, first)
    with Owner(root, "second") as second:
        after = claim(folder, second)
        assert isinstance(before, Claim)
        assert isinstance(after, Claim)
        after.check()
        with pytest.raises(LostError, match="r1 was claimed by another"):
            before.check()
    assert len(folder.files()) == 1


def test_of_many_who_claim_at_once_one_succeeds(root: Place) -> None:
    folder = root.at("runs").at("r1")
    owners = [Owner(root, str(number)) for number in range(8)]
    for owner in owners:
        owner.__enter__()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda owner: claim(folder, owner), owners))
    for owner in owners:
        owner.__exit__(None, None, None)
    assert sum(isinstance(each, Claim) for each in found) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"owner": 3}', b"\xff"])
def test_a_damaged_claim_or_owner_is_nobodys(tmp_path: Path, content: bytes) -> None:
    root = LocalPlace(tmp_path)
    folder = root.at("r1")
    folder.write("claim-000007.json", content)
    with Owner(root, "first") as first, Owner(root, "second") as second:
        assert isinstance(claim(folder, first), Claim)
        root.at(OWNERS).write(f"{first.token}.json", content)
        assert isinstance(claim(folder, second), Claim)


# Owners that die


def hold(root: Path, pipe: Connection) -> None:
    """Claim a run and hold it for ever."""
    place = LocalPlace(root)
    with Owner(place, "held") as owner:
        pipe.send(isinstance(claim(place.at("r1"), owner), Claim))
        time.sleep(600)


@pytest.fixture
def holder(tmp_path: Path) -> multiprocessing.process.BaseProcess:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=hold, args=(tmp_path, theirs))
    process.start()
    assert ours.recv()
    return process


def test_a_killed_owner_is_in_nobodys_way(
    holder: multiprocessing.process.BaseProcess, tmp_path: Path
) -> None:
    root = LocalPlace(tmp_path)
    with Owner(root, "next") as owner:
        assert isinstance(claim(root.at("r1"), owner), Process)
        assert holder.pid is not None
        os.kill(holder.pid, signal.SIGSTOP)
        assert isinstance(claim(root.at("r1"), owner), Process), "it lives"
        holder.kill()
        begun = time.monotonic()
        while isinstance(found := claim(root.at("r1"), owner), Process):
            time.sleep(0.01)
        assert time.monotonic() - begun < 5
        found.check()
    holder.join()


def elsewhere(root: Place, token: str, beat: float) -> None:
    """Let an owner have written its sign of life on another machine."""
    content = json.loads(root.at(OWNERS).read(f"{token}.json"))
    content |= {"machine": "another", "beat": beat}
    root.at(OWNERS).write(f"{token}.json", json.dumps(content).encode())


def test_an_owner_on_another_machine_is_dead_when_it_is_silent(tmp_path: Path) -> None:
    root = LocalPlace(tmp_path)
    with Owner(root, "far") as far, Owner(root, "near") as near:
        claim(root.at("r1"), far)
        elsewhere(root, far.token, time.time() - claims.DEAD_AFTER + 5)
        assert isinstance(claim(root.at("r1"), near), Process)
        elsewhere(root, far.token, time.time() - claims.DEAD_AFTER - 5)
        assert isinstance(claim(root.at("r1"), near), Claim)


def test_a_claim_that_was_lost_stays_lost_when_its_number_comes_again(root: Place) -> None:
    folder = root.at("runs").at("r1")
    with Owner(root, "slow") as slow, Owner(root, "quick") as quick, Owner(root, "last") as last:
        lost = claim(folder, slow)
        assert isinstance(lost, Claim)
        elsewhere(root, slow.token, time.time() - claims.DEAD_AFTER - 5)
        between = claim(folder, quick)
        assert isinstance(between, Claim)
        between.release()
        mine = claim(folder, last)
        assert isinstance(mine, Claim)
        assert mine.number == lost.number
        with pytest.raises(claims.LostError):
            lost.check()
        lost.release()
        mine.check()


def test_an_owner_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT", 0.05)
    root = LocalPlace(tmp_path)
    with Owner(root, "beating") as owner:
        beats = set()
        end = time.monotonic() + 10
        while len(beats) < 3 and time.monotonic() < end:
            beats.add(json.loads(root.at(OWNERS).read(f"{owner.token}.json"))["beat"])
            time.sleep(0.01)
    assert len(beats) == 3


def test_a_number_that_another_process_bears_by_now_is_no_sign_of_life(tmp_path: Path) -> None:
    root = LocalPlace(tmp_path)
    with Owner(root, "old") as old, Owner(root, "new") as new:
        claim(root.at("r1"), old)
        content = json.loads(root.at(OWNERS).read(f"{old.token}.json"))
        content["started"] -= 1
        root.at(OWNERS).write(f"{old.token}.json", json.dumps(content).encode())
        assert isinstance(claim(root.at("r1"), new), Claim)


# What dead owners leave behind


def test_the_file_of_a_killed_owner_is_removed_and_those_of_living_ones_stay(
    holder: multiprocessing.process.BaseProcess, tmp_path: Path
) -> None:
    root = LocalPlace(tmp_path)
    with Owner(root, "here") as here:
        assert holder.pid is not None
        os.kill(holder.pid, signal.SIGSTOP)
        assert forget_dead(root) == 0, "both live"
        assert len(root.at(OWNERS).files()) == 2
        holder.kill()
        holder.join()
        assert forget_dead(root) == 1
        assert root.at(OWNERS).files() == [f"{here.token}.json"]
        assert isinstance(claim(root.at("r1"), here), Claim)
        assert forget_dead(root) == 0


def test_an_owner_on_another_machine_is_forgotten_long_after_it_is_dead(root: Place) -> None:
    with Owner(root, "far") as far, Owner(root, "near") as near:
        for silence in (0, claims.DEAD_AFTER + 5, claims.FORGOTTEN_AFTER - 5):
            elsewhere(root, far.token, time.time() - silence)
            assert forget_dead(root) == 0
        elsewhere(root, far.token, time.time() - claims.FORGOTTEN_AFTER - 5)
        assert forget_dead(root) == 1
        assert root.at(OWNERS).files() == [f"{near.token}.json"]


def test_an_owner_that_was_forgotten_but_lives_is_an_owner_again_with_its_next_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "BEAT", 0.05)
    root = LocalPlace(tmp_path)
    with Owner(root, "slow") as slow, Owner(root, "other") as other:
        mine = claim(root.at("r1"), slow)
        root.at(OWNERS).remove(f"{slow.token}.json")
        end = time.monotonic() + 10
        while f"{slow.token}.json" not in root.at(OWNERS).files() and time.monotonic() < end:
            time.sleep(0.01)
        assert isinstance(mine, Claim)
        assert isinstance(claim(root.at("r1"), other), Process)
        mine.check()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"owner": 3}', b"\xff"])
def test_a_file_that_says_nothing_of_an_owner_stays(tmp_path: Path, content: bytes) -> None:
    root = LocalPlace(tmp_path)
    root.at(OWNERS).write("0123.json", content)
    assert forget_dead(root) == 0
    assert root.at(OWNERS).files() == ["0123.json"]


def test_owners_that_end_while_others_look_are_no_trouble(tmp_path: Path) -> None:
    root = LocalPlace(tmp_path)
    ended = threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            with Owner(root, "short"):
                pass

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        assert [forget_dead(root) for _ in range(200)] == [0] * 200
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert root.at(OWNERS).files() == []


# What is guarded


def test_folders_are_released_whatever_happens(tmp_path: Path) -> None:
    root = LocalPlace(tmp_path)
    folders = [root.at(name) for name in ("a", "b")]

    def fail(owner: Owner) -> None:
        with claimed(folders, owner, pytest.fail):
            assert all(len(folder.files()) == 1 for folder in folders)
            raise ZeroDivisionError

    with Owner(root, "x") as owner, pytest.raises(ZeroDivisionError):
        fail(owner)
    assert all(folder.files() == [] for folder in folders)


def test_who_is_told_that_a_folder_is_busy_may_wait_for_it(tmp_path: Path) -> None:
    root = LocalPlace(tmp_path)
    told = []
    with Owner(root, "first") as first, Owner(root, "second") as second:
        held = claim(root.at("a"), first)

        def busy(process: Process) -> None:
            told.append(process.what)
            if len(told) == 3:
                assert isinstance(held, Claim)
                held.release()

        with claimed([root.at("a")], second, busy) as found:
            found[0].check()
    assert told == ["first"] * 3


def test_a_record_whose_claim_is_lost_writes_nothing(tmp_path: Path) -> None:
    root, config = LocalPlace(tmp_path), Config()
    folder = RunFolder(root.at("runs").at(run_id(config.config_id, 0)))
    with Owner(root, "slow") as slow:
        mine = claim(folder.place, slow)
    assert isinstance(mine, Claim)
    record = Record(folder, config, 0, claim=mine)
    record.commit(status="complete")
    before = folder.place.read("run.json")
    with Owner(root, "next") as owner:
        claim(folder.place, owner)
        for write in (record.commit, lambda: record.commit_failure("x"), lambda: record.begin([0])):
            with pytest.raises(LostError):
                write()
    assert folder.place.read("run.json") == before
