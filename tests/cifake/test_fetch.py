"""`cifake data fetch` brings the published set or nothing, from the clients of the real sites."""

from __future__ import annotations

import fcntl
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from cifake.data import download as downloads
from cifake.data import kaggle
from cifake.data.catalogue import DATASETS, Dataset
from cifake.data.cifake import read
from cifake.data.fetch import fetch
from cifake.data.locate import find_source, open_dataset
from cifake.data.pack import write_pack
from cifake.data.repositories import REPOSITORIES
from cifake.errors import InputError

EACH = {"train": 3, "test": 1}
KAGGLE, GITHUB, HUGGING = (
    REPOSITORIES["cifake"][source].name for source in ("kaggle", "github", "huggingface")
)
ARCHIVE = f"/{GITHUB}/tar.gz/HEAD"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
STORAGE = "/storage/archive.zip"
BULK = np.random.default_rng(1).bytes(3_000_000)
"""Kaggle's client writes whole MiB, so only a larger archive shows that it continues."""


@pytest.fixture(scope="session")
def images(
    first_images: Callable[[Mapping[str, int]], dict[str, bytes]],
) -> dict[str, bytes]:
    """The first real images of every split, label and class, 80 in all."""
    return first_images(EACH)


@pytest.fixture(scope="session")
def expected(images: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The catalogue's entry as if these images were the published set."""
    work = tmp_path_factory.mktemp("expected")
    (work / "unnamed").mkdir()
    for name, body in parquet(images, named=False).items():
        (work / "unnamed" / name).write_bytes(body)
    (work / "named.zip").write_bytes(zipped(images))
    fingerprints = [
        write_pack(work / "packs", "cifake", "test", read(path), trains=True).info.fingerprint
        for path in (work / "named.zip", work / "unnamed")
    ]
    return replace(DATASETS["cifake"], published=fingerprints[0], published_unnamed=fingerprints[1])


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache and a home of this test alone, and no pause between attempts."""
    monkeypatch.setenv("CIFAKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HF_ENDPOINT", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for module in (downloads, kaggle):
        monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    return tmp_path


def zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, blob in files.items():
            archive.writestr(name, blob)
    return buffer.getvalue()


def tarred(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, blob in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(blob)
            archive.addfile(member, io.BytesIO(blob))
    return buffer.getvalue()


def repository(images: Mapping[str, bytes]) -> dict[str, bytes]:
    """Images as they lie in the authors' repository, with a picture beside them."""
    root = "CIFAKE-main"
    within = {f"{root}/DATASET/{name}": blob for name, blob in images.items()}
    return {f"{root}/README.md": b"# CIFAKE", f"{root}/figure.png": b"no photograph", **within}


def parquet(images: Mapping[str, bytes], *, named: bool) -> dict[str, bytes]:
    """Images as Hugging Face keeps them, with or without their file names."""
    files = {}
    for split in ("train", "test"):
        chosen = {name: blob for name, blob in images.items() if name.startswith(split)}
        cells = [
            {"bytes": blob, "path": name.split("/")[-1] if named else None}
            for name, blob in chosen.items()
        ]
        labels = [int("/REAL/" in name) for name in chosen]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        buffer = io.BytesIO()
        pq.write_table(pa.table({"image": pa.array(cells, kind), "label": labels}), buffer)
        files[f"{split}-00000-of-00001.parquet"] = buffer.getvalue()
    return files


def offer_hub(server: Any, name: str, files: Mapping[str, bytes]) -> None:
    """What the client asks Hugging Face for."""
    listing = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]}
    server.offer(f"/api/datasets/{name}", json.dumps(listing).encode())
    for file, body in files.items():
        path = f"/datasets/{name}/resolve/{COMMIT}/{file}"
        server.offer(path, body, headers={"X-Repo-Commit": COMMIT})


def offer_kaggle(server: Any, archive: bytes, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the client asks Kaggle for; this server is the proxy to it."""
    for name, value in (
        ("KAGGLE_API_ENVIRONMENT", "LOCALHOST"),
        ("HTTP_PROXY", server.url),
        ("http_proxy", server.url),
        ("NO_PROXY", ""),
        ("no_proxy", ""),
    ):
        monkeypatch.setenv(name, value)
    service = "/api/v1/datasets.DatasetApiService"
    as_json = {"Content-Type": "application/json"}
    server.offer(f"{service}/GetDataset", b'{"currentVersionNumber": 3}', headers=as_json)
    moved = {"Location": f"http://localhost{STORAGE}"}
    server.offer(f"{service}/DownloadDataset", b"", status=302, headers=moved)
    return server.offer(STORAGE, archive)


def run(
    expected: Dataset, folder: Path, source: str, mirror: str | None = None
) -> tuple[Path, str]:
    """Fetch, and return the path and what was said."""
    said = io.StringIO()
    console = Console(file=said, width=1000)
    path = fetch("cifake", folder, console, source=source, mirror=mirror, dataset=expected)
    return path, said.getvalue()


def assert_nothing_lies_in(folder: Path) -> None:
    assert not folder.exists() or not list(folder.iterdir())


def test_archive_of_the_repository_gives_the_published_set(
    server: Any, images: dict[str, bytes], expected: Dataset, tmp_path: Path
) -> None:
    server.offer(ARCHIVE, tarred(repository(images)))
    path, said = run(expected, tmp_path / "to", "github", server.url)
    assert path == tmp_path / "to" / "cifake.zip"
    assert [file.name for file in path.parent.iterdir()] == ["cifake.zip"]
    with zipfile.ZipFile(path) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == images
    assert "without file names" not in said
    assert open_dataset("cifake", {"cifake": path}).info.source == str(path)


def test_fetched_set_is_found_without_an_option_and_not_packed_again(
    server: Any, images: dict[str, bytes], expected: Dataset, home: Path
) -> None:
    server.offer(ARCHIVE, tarred(repository(images)))
    path, _ = run(expected, home / "cache" / "data", "github", server.url)
    assert find_source("cifake", {}) == path
    packed = open_dataset("cifake", advance=lambda _: pytest.fail("packed again"))
    assert packed.info.fingerprint == expected.published


def test_right_copy_is_not_fetched_again(
    server: Any, images: dict[str, bytes], expected: Dataset, tmp_path: Path
) -> None:
    server.offer(ARCHIVE, tarred(repository(images)))
    path, _ = run(expected, tmp_path / "to", "github", server.url)
    asked, before = len(server.asked), path.stat()
    again, said = run(expected, tmp_path / "to", "github", server.url)
    assert again == path
    assert "is there already" in said
    assert len(server.asked) == asked
    assert path.stat() == before


def test_wrong_copy_that_is_there_is_refused_and_kept(
    server: Any, images: dict[str, bytes], expected: Dataset, tmp_path: Path
) -> None:
    folder = tmp_path / "to"
    folder.mkdir()
    wrong = zipped(dict(list(images.items())[:-1]))
    (folder / "cifake.zip").write_bytes(wrong)
    with pytest.raises(InputError, match=r"cifake\.zip.*is there, but its 79 images.*move it away"):
        run(expected, folder, "github", server.url)
    assert (folder / "cifake.zip").read_bytes() == wrong
    assert not server.asked


@pytest.mark.parametrize("source", ["github", "huggingface", "kaggle"])
def test_other_content_than_published_leaves_nothing(
    server: Any,
    images: dict[str, bytes],
    expected: Dataset,
    home: Path,
    source: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fewer = dict(list(images.items())[:-1])
    server.offer(ARCHIVE, tarred(repository(fewer)))
    offer_hub(server, HUGGING, parquet(fewer, named=True))
    mirror = None if source == "kaggle" else server.url
    if source == "kaggle":
        offer_kaggle(server, zipped(fewer), monkeypatch)
    with pytest.raises(InputError, match="79 images are not the published set: fingerprint"):
        run(expected, home / "to", source, mirror)
    assert_nothing_lies_in(home / "to")
    assert_nothing_lies_in(home / "cache" / "packs")


def test_damaged_archive_leaves_nothing(
    server: Any, images: dict[str, bytes], expected: Dataset, tmp_path: Path
) -> None:
    server.offer(ARCHIVE, tarred(repository(images))[:-40])
    with pytest.raises(InputError, match="damaged or truncated archive"):
        run(expected, tmp_path / "to", "github", server.url)
    assert_nothing_lies_in(tmp_path / "to")


def test_archive_with_a_path_that_escapes_is_refused(
    server: Any, images: dict[str, bytes], expected: Dataset, home: Path
) -> None:
    name, blob = next(iter(images.items()))
    server.offer(ARCHIVE, tarred({f"../../{name}": blob, **repository(images)}))
    with pytest.raises(InputError, match="leaves the archive"):
        run(expected, home / "to", "github", server.url)
    assert not list(home.rglob("*.jpg"))


def test_same_image_twice_is_refused(
    server: Any, images: dict[str, bytes], expected: Dataset, tmp_path: Path
) -> None:
    doubled = {f"{folder}/{name}": blob for folder in "ab" for name, blob in images.items()}
    server.offer(ARCHIVE, tarred(doubled))
    with pytest.raises(InputError, match="is there twice"):
        run(expected, tmp_path / "to", "github", server.url)


def test_interrupted_archive_is_continued_by_the_next_call(
    server: Any, images: dict[str, bytes], expected: Dataset, tmp_path: Path
) -> None:
    body = tarred(repository(images))
    cut = len(body) // 2
    offer = server.offer(ARCHIVE, body, cuts=[cut] + [0] * downloads.ATTEMPTS)
    with pytest.raises(InputError, match="the same command continues"):
        run(expected, tmp_path / "to", "github", server.url)
    assert all(file.name.startswith(".") for file in (tmp_path / "to").iterdir())
    offer.cuts.clear()
    run(expected, tmp_path / "to", "github", server.url)
    assert server.ranges(ARCHIVE)[-1] == f"bytes={cut}-"


def test_hugging_face_with_file_names_is_the_published_set(
    server: Any, images: dict[str, bytes], expected: Dataset, tmp_path: Path
) -> None:
    files = {f"data/{name}": body for name, body in parquet(images, named=True).items()}
    offer_hub(server, HUGGING, {**files, "README.md": b"# CIFAKE"})
    path, said = run(expected, tmp_path / "to", "huggingface", server.url)
    assert path == tmp_path / "to" / "cifake"
    assert {str(f.relative_to(path)) for f in path.rglob("*") if f.is_file()} == set(files)
    assert "without file names" not in said


def test_hugging_face_without_file_names_is_taken_and_explained(
    server: Any, images: dict[str, bytes], expected: Dataset, tmp_path: Path
) -> None:
    offer_hub(server, HUGGING, parquet(images, named=False))
    path, said = run(expected, tmp_path / "to", "huggingface", server.url)
    assert "published images, but without file names" in said
    again, said = run(expected, tmp_path / "to", "huggingface", server.url)
    assert again == path
    assert "without file names" in said


def test_hugging_face_is_asked_at_its_variable(
    server: Any,
    images: dict[str, bytes],
    expected: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offer_hub(server, HUGGING, parquet(images, named=True))
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    run(expected, tmp_path / "to", "huggingface")
    assert server.asked


@pytest.mark.parametrize("name", ["../train.parquet", "/train.parquet", "data/../../t.parquet"])
def test_listing_that_escapes_is_refused(
    server: Any, images: dict[str, bytes], expected: Dataset, home: Path, name: str
) -> None:
    offer_hub(server, HUGGING, {name: parquet(images, named=True)["train-00000-of-00001.parquet"]})
    with pytest.raises(InputError, match="leaves its folder"):
        run(expected, home / "to", "huggingface", server.url)
    assert not list(home.rglob("*.parquet"))


def test_kaggle_gives_the_published_set_and_keeps_no_cache(
    server: Any,
    images: dict[str, bytes],
    expected: Dataset,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offer_kaggle(server, zipped(images), monkeypatch)
    path, _ = run(expected, home / "to", "kaggle")
    assert path == home / "to" / "cifake.zip"
    assert not list(home.rglob("*.jpg"))
    assert "KAGGLEHUB_CACHE" not in os.environ


def test_kaggle_is_continued_where_it_was_cut(
    server: Any,
    images: dict[str, bytes],
    expected: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offer_kaggle(server, zipped({"beside.bin": BULK, **images}), monkeypatch).cuts[:] = [1_500_000]
    run(expected, tmp_path / "to", "kaggle")
    assert f"bytes={2**20}-" in server.ranges(STORAGE)


def test_kaggle_is_continued_by_the_next_call(
    server: Any,
    images: dict[str, bytes],
    expected: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offer = offer_kaggle(server, zipped({"beside.bin": BULK, **images}), monkeypatch)
    offer.cuts[:] = [1_500_000] + [0] * 2 * kaggle.ATTEMPTS
    with pytest.raises(InputError, match="the same command continues"):
        run(expected, tmp_path / "to", "kaggle")
    offer.cuts.clear()
    server.asked.clear()
    run(expected, tmp_path / "to", "kaggle")
    assert f"bytes={2**20}-" in server.ranges(STORAGE)


@pytest.mark.parametrize("name", ["../../../../../../escaped.jpg", "/escaped.jpg"])
def test_kaggle_archive_that_escapes_writes_nothing_outside(
    server: Any,
    images: dict[str, bytes],
    expected: Dataset,
    home: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offer_kaggle(server, zipped({name: b"outside", **images}), monkeypatch)
    run(expected, home / "to", "kaggle")
    assert not list(home.rglob("escaped*"))
    assert not Path("/escaped.jpg").exists()


def test_kaggle_archive_that_is_damaged_starts_anew_next_time(
    server: Any,
    images: dict[str, bytes],
    expected: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offer = offer_kaggle(server, zipped(images)[:-10], monkeypatch)
    with pytest.raises(InputError, match=r"cannot be used.*starts anew"):
        run(expected, tmp_path / "to", "kaggle")
    assert_nothing_lies_in(tmp_path / "to")
    offer.body = zipped(images)
    run(expected, tmp_path / "to", "kaggle")


@pytest.mark.parametrize(
    ("source", "status", "said"),
    [
        ("github", 404, "not found"),
        ("github", 403, "access is refused"),
        ("github", 500, "answers 500"),
        ("huggingface", 404, "not found"),
        ("huggingface", 401, "HF_TOKEN"),
        ("huggingface", 403, "HF_TOKEN"),
        ("kaggle", 404, "not found"),
        ("kaggle", 401, "KAGGLE_API_TOKEN"),
        ("kaggle", 403, "accept its terms at https://www.kaggle.com/datasets/birdy654/"),
        ("kaggle", 500, "answers 500"),
    ],
)
def test_refusal_is_said_in_one_line_and_leaves_nothing(
    server: Any,
    expected: Dataset,
    tmp_path: Path,
    source: str,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if source == "kaggle":
        offer_kaggle(server, b"", monkeypatch)
    for path in (ARCHIVE, f"/api/datasets/{HUGGING}", *server.offers):
        server.offer(path, b"", status=status)
    mirror = None if source == "kaggle" else server.url
    with pytest.raises(InputError, match=said) as caught:
        run(expected, tmp_path / "to", source, mirror)
    assert "\n" not in str(caught.value)
    assert_nothing_lies_in(tmp_path / "to")


@pytest.mark.parametrize("source", ["github", "huggingface", "kaggle"])
def test_server_that_is_not_there_is_said_in_one_line(
    server: Any,
    expected: Dataset,
    tmp_path: Path,
    source: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mirror = None if source == "kaggle" else server.url
    if source == "kaggle":
        offer_kaggle(server, b"", monkeypatch)
    server.socket.close()
    with pytest.raises(InputError, match=r"cannot be reached|connection failed") as caught:
        run(expected, tmp_path / "to", source, mirror)
    assert "\n" not in str(caught.value)
    assert_nothing_lies_in(tmp_path / "to")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("github", "damaged or truncated archive"),
        ("huggingface", "not that of a Hugging Face server"),
        ("kaggle", "cannot be used"),
    ],
)
def test_page_of_something_else_is_refused(
    server: Any,
    expected: Dataset,
    tmp_path: Path,
    source: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a hotel's network gives instead of the site that was asked for."""
    if source == "kaggle":
        offer_kaggle(server, b"", monkeypatch)
    for path in (ARCHIVE, f"/api/datasets/{HUGGING}", *server.offers):
        server.offer(path, b"<html>Welcome</html>", headers={"Content-Type": "text/html"})
    mirror = None if source == "kaggle" else server.url
    with pytest.raises(InputError, match=said):
        run(expected, tmp_path / "to", source, mirror)
    assert_nothing_lies_in(tmp_path / "to")


def test_what_another_source_began_is_removed_in_the_end(
    server: Any, images: dict[str, bytes], expected: Dataset, tmp_path: Path
) -> None:
    server.offer(ARCHIVE, tarred(repository(images)), cuts=[9000] + [0] * downloads.ATTEMPTS)
    with pytest.raises(InputError, match="the same command continues"):
        run(expected, tmp_path / "to", "github", server.url)
    offer_hub(server, HUGGING, parquet(images, named=True))
    run(expected, tmp_path / "to", "huggingface", server.url)
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["cifake"]


def test_interruption_while_packing_keeps_the_download(
    server: Any,
    images: dict[str, bytes],
    expected: Dataset,
    tmp_path: Path,
) -> None:
    """Ctrl-C, as the reader of the set meets it."""
    server.offer(ARCHIVE, tarred(repository(images)))

    def interrupted(_: Path) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(replace(expected, read=interrupted), tmp_path / "to", "github", server.url)
    server.asked.clear()
    run(expected, tmp_path / "to", "github")
    assert not server.asked


def test_repository_without_the_files_is_said(
    server: Any, expected: Dataset, tmp_path: Path
) -> None:
    offer_hub(server, HUGGING, {"README.md": b"# moved"})
    with pytest.raises(InputError, match=r"holds no \*\.parquet"):
        run(expected, tmp_path / "to", "huggingface", server.url)


def test_two_fetches_into_one_folder_do_not_mix(
    server: Any, expected: Dataset, tmp_path: Path
) -> None:
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(InputError, match="another fetch is running"):
        run(expected, tmp_path, "github", server.url)
    os.close(handle)


def test_folder_that_cannot_be_made_is_said(server: Any, expected: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written.*--to"):
        run(expected, tmp_path / "file" / "to", "github", server.url)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cifake", "data", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_command_continues_a_cut_cifar100_and_every_command_finds_it(
    server: Any, real_data: Path, home: Path
) -> None:
    """The published file itself: large enough that the client asks for a part of it."""
    name = REPOSITORIES["cifar100"]["huggingface"].name
    file = "cifar100/test-00000-of-00001.parquet"
    body = (real_data / "cifar100-test.parquet").read_bytes()
    offer_hub(server, name, {file: body, "cifar100/train-00000-of-00001.parquet": b"unwanted"})
    path = f"/datasets/{name}/resolve/{COMMIT}/{file}"
    server.offers[path].cuts[:] = [15_000_000]
    result = command("fetch", "cifar100", "--mirror", server.url)
    assert result.returncode == 0, result.stderr
    found = home / "cache" / "data" / "cifar100-test.parquet"
    assert result.stdout.strip() == str(found)
    assert found.read_bytes() == body
    assert [given for given in server.ranges(path) if given] == ["bytes=10485760-"]
    facts = json.loads(command("info", "cifar100", "--json").stdout)
    assert facts["published"]
    assert facts["source"] == str(found)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("cifak",), "did you mean cifake"),
        (("demo",), "there is nothing to fetch"),
        (("cifake", "--from", "kagle"), "did you mean kaggle"),
        (("cifar100", "--from", "kaggle"), "valid: huggingface"),
        (("cifake", "--from", "github", "--mirror", "file:///etc"), "must be a server as https://"),
        (("cifake", "--from", "kaggle", "--mirror", "https://localhost"), "no setting for it"),
    ],
)
def test_bad_input_is_refused_with_what_is_right(arguments: tuple[str, ...], said: str) -> None:
    result = command("fetch", *arguments)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_refusal_of_a_server_is_an_error_of_the_command(server: Any) -> None:
    result = command("fetch", "cifake", "--from", "github", "--mirror", server.url)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("cifake: error: ")
    assert "not found (404)" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("source", ["github", "huggingface", "kaggle"])
def test_full_disk_is_said_by_the_command(
    server: Any,
    images: dict[str, bytes],
    home: Path,
    source: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A limit on the size of files stands for the disk: the write fails as it does there."""
    server.offer(ARCHIVE, tarred(repository(images)))
    offer_hub(server, HUGGING, parquet(images, named=True))
    if source == "kaggle":
        offer_kaggle(server, zipped(images), monkeypatch)
    mirror = () if source == "kaggle" else ("--mirror", server.url)
    limited = (
        "import resource, runpy, sys; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, resource.RLIM_INFINITY)); "
        "runpy.run_module('cifake', run_name='__main__')"
    )
    result = subprocess.run(
        [sys.executable, "-B", "-c", limited, "data", "fetch", "cifake", "--from", source, *mirror],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 2
    assert "cannot be written" in result.stderr
    assert "Traceback" not in result.stderr
    assert not list((home / "cache" / "data").glob("cifake*"))
