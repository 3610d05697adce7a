"""What a machine must share with the driver before it gets work, each told in a line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cifake.data.locate import open_dataset
from cifake.data.pack import Pack
from sweeps.admission import Terms, facts, make_terms, problems, ready
from sweeps.store import Store


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store of which the driver has claimed a sweep."""
    where = str(tmp_path / "store")
    if request.param == "s3":
        where = request.getfixturevalue("bucket")
    opened = Store.open(where, create=True)
    with opened.claimed("a"):
        yield opened


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAKE_CACHE", str(tmp_path_factory.mktemp("driver")))
        return open_dataset("demo")


@pytest.fixture
def terms(store: Store, pack: Pack) -> Terms:
    return make_terms(store, [pack.folder])


@pytest.fixture
def in_folder(tmp_path: Path, pack: Pack) -> Iterator[tuple[Terms, Path]]:
    """Terms of a driver whose store is a folder, and the folder."""
    opened = Store.open(str(tmp_path / "store"), create=True)
    with opened.claimed("a"):
        yield make_terms(opened, [pack.folder]), tmp_path / "store"


def test_the_drivers_own_machine_is_fit(terms: Terms) -> None:
    assert problems(terms) == []


def test_a_fit_machine_has_the_packs_when_it_is_ready(
    terms: Terms, pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAKE_CACHE", str(tmp_path / "cache"))
    assert ready(terms) == []
    assert (tmp_path / "cache" / "packs" / pack.folder.name).is_dir()


def test_a_look_at_a_machine_leaves_nothing_in_the_store(store: Store, terms: Terms) -> None:
    def listed() -> list[list[str]]:
        places = (store.root, store.root.at("owners"), store.root.at("runs"))
        return [[*place.files(), *place.folders()] for place in places]

    before = listed()
    assert problems(terms) == []
    assert listed() == before


@pytest.mark.parametrize(
    "name", ["Python", "ray", "torch", "numpy", "cifake-sweeps", "trainer version", "code"]
)
def test_what_must_be_the_same_is_named_where_it_is_not(
    in_folder: tuple[Terms, Path], name: str
) -> None:
    terms, _ = in_folder
    assert name in facts()
    other = replace(terms, facts={**terms.facts, name: "9.9"})
    assert problems(other) == [f"has {name} {facts()[name]}, and the driver 9.9"]


def test_all_that_is_wrong_is_told_at_once(in_folder: tuple[Terms, Path]) -> None:
    terms, folder = in_folder
    other = replace(terms, store=f"{folder}-elsewhere", facts={**facts(), "ray": "1", "code": "2"})
    assert len(problems(other)) == 3


def test_a_store_that_is_not_there_is_told_and_not_made(in_folder: tuple[Terms, Path]) -> None:
    """On a machine that does not share the folder, every run would go into a store of its own."""
    terms, folder = in_folder
    (problem,) = problems(replace(terms, store=f"{folder}-elsewhere"))
    assert f"store {folder}-elsewhere is not there" in problem
    assert "give --store a folder that all nodes share" in problem
    assert not Path(f"{folder}-elsewhere").exists()


def test_another_store_in_the_same_place_is_told_from_the_drivers(
    in_folder: tuple[Terms, Path], tmp_path: Path
) -> None:
    terms, _ = in_folder
    Store.open(str(tmp_path / "other"), create=True)
    (problem,) = problems(replace(terms, store=str(tmp_path / "other")))
    assert "is another folder than the driver's" in problem


def test_a_copy_of_the_store_is_told_from_it_when_the_driver_lives_on(
    in_folder: tuple[Terms, Path], tmp_path: Path
) -> None:
    """Of a snapshot the driver's signs of life are old."""
    terms, folder = in_folder
    shutil.copytree(folder, tmp_path / "copy")
    beats(tmp_path / "copy", terms, -300)
    (problem,) = problems(replace(terms, store=str(tmp_path / "copy")))
    assert "ahead of the driver's" in problem


def test_a_store_that_can_only_be_read_is_told(in_folder: tuple[Terms, Path]) -> None:
    terms, folder = in_folder
    bind = ["mount", "--bind", str(folder), str(folder)]
    if os.geteuid() != 0 or subprocess.run(bind, check=False, capture_output=True).returncode:
        pytest.skip("a folder can only be mounted by root")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        (problem,) = problems(terms)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    assert f"store {folder}: cannot be written" in problem


def test_a_bucket_without_permission_is_told(bucket: str, pack: Pack) -> None:
    opened = Store.open(bucket, create=True)
    with opened.claimed("a"):
        terms = make_terms(opened, [pack.folder])
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
            (problem,) = problems(terms)
    assert problem == f"cannot reach the store {bucket} (access denied)"


def test_an_object_store_out_of_reach_is_told_within_half_a_minute(bucket: str, pack: Pack) -> None:
    opened = Store.open(bucket, create=True)
    with opened.claimed("a"):
        terms = make_terms(opened, [pack.folder])
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
            (problem,) = problems(terms)
    assert problem.startswith(f"cannot reach the store {bucket} (")


def beats(folder: Path, terms: Terms, seconds: float) -> None:
    """Let the driver's last sign of life be earlier or later."""
    (path,) = (folder / "owners").glob(f"{terms.owner}.json")
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "beat": content["beat"] + seconds}))


@pytest.mark.parametrize(("seconds", "said"), [(-90, "ahead"), (60, "behind")])
def test_a_clock_that_would_take_the_living_for_dead_is_told(
    in_folder: tuple[Terms, Path], seconds: float, said: str
) -> None:
    terms, folder = in_folder
    beats(folder, terms, seconds)
    (problem,) = problems(terms)
    assert said in problem


def test_a_pack_that_cannot_be_had_is_told(
    in_folder: tuple[Terms, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms, _ = in_folder
    monkeypatch.setenv("CIFAKE_CACHE", str(tmp_path / "cache"))
    missing = replace(terms, packs=("/nowhere/x-0-v3",))
    assert problems(missing) == [], "a look at all nodes fetches nothing"
    (problem,) = ready(missing)
    assert "pack x-0-v3: cannot be had here" in problem


def test_terms_need_a_sweep_that_is_claimed(tmp_path: Path, pack: Pack) -> None:
    store = Store.open(str(tmp_path / "store"), create=True)
    with store.claimed("a"):
        assert make_terms(store, [pack.folder]).owner
    with pytest.raises(RuntimeError, match="must be claimed"):
        make_terms(store, [pack.folder])
