"""A data set is found where the user says it lies, and a wrong place is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from cifake.data.locate import data_folder, find_source, parse_sources
from cifake.errors import InputError


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder of data sets under their usual names."""
    (tmp_path / "cifake.tar.xz").touch()
    (tmp_path / "cifar100-test.parquet").touch()
    return tmp_path


def test_bare_path_holds_the_default_set(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    assert parse_sources([str(tmp_path)], "cifake") == {"cifake": tmp_path}


def test_bare_path_of_a_shelf_gives_every_set_on_it(shelf: Path) -> None:
    assert parse_sources([str(shelf)], "cifake") == {
        "cifake": shelf / "cifake.tar.xz",
        "cifar100": shelf / "cifar100-test.parquet",
    }


def test_name_and_path_give_that_set(shelf: Path) -> None:
    path = shelf / "cifar100-test.parquet"
    assert parse_sources([f"cifar100={path}"], "cifake") == {"cifar100": path}


def test_path_with_an_equals_sign_is_a_path(tmp_path: Path) -> None:
    odd = tmp_path / "a=b"
    odd.mkdir()
    assert parse_sources([str(odd)], "cifake") == {"cifake": odd}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["cifak=/tmp"], ["cifak", "did you mean cifake"]),
        (["/no/such/folder"], ["/no/such/folder", "no such file"]),
        (["cifake=/no/such/folder"], ["/no/such/folder", "no such file"]),
        (["cifake=/tmp", "cifake=/usr"], ["cifake is given twice", "/usr"]),
    ],
)
def test_wrong_option_is_refused_with_its_value(options: list[str], said: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        parse_sources(options, "cifake")
    for text in ("--data", *said):
        assert text in str(caught.value)


def test_environment_is_searched_where_no_option_is_given(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAKE_DATA", str(shelf))
    assert find_source("cifar100", {}) == shelf / "cifar100-test.parquet"
    assert find_source("cifar100", {"cifar100": Path("/given")}) == Path("/given")


def test_downloads_are_searched_last(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAKE_CACHE", str(tmp_path / "cache"))
    fetched = data_folder()
    assert fetched == tmp_path / "cache" / "data"
    fetched.mkdir(parents=True)
    for name in ("cifake.zip", "cifar100-test.parquet"):
        (fetched / name).touch()
    assert find_source("cifake", {}) == fetched / "cifake.zip"
    (shelf / "cifake.tar.xz").unlink()
    monkeypatch.setenv("CIFAKE_DATA", str(shelf))
    assert data_folder() == shelf
    assert find_source("cifake", {}) == fetched / "cifake.zip"
    assert find_source("cifar100", {}) == shelf / "cifar100-test.parquet"


def test_embedded_set_needs_no_source() -> None:
    assert find_source("demo", {}) is None


def test_set_that_is_nowhere_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAKE_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"data fetch cifake.*--data cifake=PATH.*CIFAKE_DATA"):
        find_source("cifake", {})


def test_unknown_set_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="did you mean cifar100"):
        find_source("cifar10", {})


# Named folder sets and variants


def test_named_folder_set_is_given_by_its_name(shelf: Path) -> None:
    assert parse_sources([f"folders/kaggle={shelf}"], "cifake") == {"folders/kaggle": shelf}
    assert find_source("folders/kaggle", {"folders/kaggle": shelf}) == shelf
    assert find_source("folders/kaggle@filter=box,blur=1", {"folders/kaggle": shelf}) == shelf


@pytest.mark.parametrize("name", ["kaggle", "kaggle.zip", "kaggle.tar.gz", "kaggle.TXZ"])
def test_named_folder_set_is_found_on_a_shelf(
    name: str, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shelf / name).mkdir() if name == "kaggle" else (shelf / name).touch()
    assert parse_sources([str(shelf)], "cifake")["folders/kaggle"] == shelf / name
    if name != "kaggle.TXZ":
        monkeypatch.setenv("CIFAKE_DATA", str(shelf))
        assert find_source("folders/kaggle", {}) == shelf / name


def test_what_no_name_can_hold_is_no_set_of_a_shelf(shelf: Path) -> None:
    for name in ("Upper", "a@blur=1", "a.b", "generators", ".hidden"):
        (shelf / name).mkdir()
    (shelf / "README.md").touch()
    found = parse_sources([str(shelf)], "cifake")
    assert set(found) == {"cifake", "cifar100", "generators"}


def test_generators_are_found_under_their_usual_name(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shelf / "generators.tar.xz").touch()
    monkeypatch.setenv("CIFAKE_DATA", str(shelf))
    assert find_source("generators", {}) == shelf / "generators.tar.xz"


def test_source_of_a_set_is_that_of_its_variants(shelf: Path) -> None:
    path = shelf / "cifake.tar.xz"
    assert parse_sources([str(path)], "cifake@jpeg=50") == {"cifake": path}
    sources = parse_sources([f"cifake={path}"], "demo")
    assert find_source("cifake@jpeg=50", sources) == path


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("cifake@jpeg=50=/tmp", "give cifake=PATH"),
        ("folders/A=/tmp", "lower-case letters"),
        ("cifake/x=/tmp", "unknown data set 'cifake/x'"),
        ("folders/kaggle=/no/such/folder", "no such file or folder"),
    ],
)
def test_wrong_name_of_a_source_is_refused(option: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_sources([option], "cifake")


def test_named_set_that_is_nowhere_is_refused_with_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAKE_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"--data folders/kaggle=PATH.*kaggle\.zip"):
        find_source("folders/kaggle@blur=1", {})
