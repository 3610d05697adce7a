"""A folder set is read from any layout of real and fake; what cannot be read is listed."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cifake.data.archives import MAX_FILE_BYTES
from cifake.data.folders import SUFFIXES, is_image, place, read
from cifake.data.locate import open_dataset
from cifake.data.pack import Pack
from cifake.errors import InputError

Images = Mapping[str, bytes]
Open = Callable[..., Pack]


def picture(colour: str | tuple[int, ...] = "red", size: tuple[int, int] = (40, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def write_folder(root: Path, images: Images) -> Path:
    source = root / "set"
    for name, blob in images.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(blob)
    return source


def write_zip(root: Path, images: Images) -> Path:
    with zipfile.ZipFile(root / "set.zip", "w") as archive:
        for name, blob in images.items():
            archive.writestr(name, blob)
    return root / "set.zip"


def write_tar(root: Path, images: Images) -> Path:
    with tarfile.open(root / "set.tar.gz", "w:gz") as archive:
        for name, blob in images.items():
            member = tarfile.TarInfo(name)
            member.size = len(blob)
            archive.addfile(member, io.BytesIO(blob))
    return root / "set.tar.gz"


FORMS = {"folder": write_folder, "zip": write_zip, "tar": write_tar}


@pytest.fixture
def open_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    monkeypatch.setenv("CIFAKE_CACHE", str(tmp_path / "cache"))

    def open_(path: Path, name: str = "folders") -> Pack:
        return open_dataset(name, {name.partition("@")[0]: path}, workers=1)

    return open_


def refused(open_source: Open, path: Path, name: str = "folders") -> str:
    with pytest.raises(InputError) as caught:
        open_source(path, name)
    return str(caught.value)


# What the folders say


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("real/0.jpg", ("test", 1, None)),
        ("FAKE/0.jpg", ("test", 0, None)),
        ("train/Real/0.jpg", ("train", 1, None)),
        ("real/TRAIN/0.jpg", ("train", 1, None)),
        ("a/b/test/c/fake/0.jpg", ("test", 0, None)),
        ("val/fake/0.jpg", ("validation", 0, None)),
        ("valid/fake/0.jpg", ("validation", 0, None)),
        ("fake/Validation/0.jpg", ("validation", 0, None)),
        ("fake/sd-1.4/0.jpg", ("test", 0, "sd-1.4")),
        ("fake/gan/StyleGAN2/0.jpg", ("test", 0, "gan/StyleGAN2")),
        ("train/fake/sd/0.jpg", ("train", 0, "sd")),
        ("fake/sd/train/0.jpg", ("train", 0, "sd")),
        ("fake/train/sd/0.jpg", ("train", 0, "sd")),
        ("fake/sd/fake/0.jpg", ("test", 0, "sd")),
        ("real/cats/black/0.jpg", ("test", 1, None)),
        ("real_vs_fake/real-vs-fake/test/real/0.jpg", ("test", 1, None)),
        ("test/test/fake/fake.jpg", ("test", 0, None)),
    ],
)
def test_folders_give_split_label_and_generator(
    name: str, expected: tuple[str, int, str | None]
) -> None:
    assert tuple(place(name)) == expected


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("0.jpg", "no folder named real or fake"),
        ("real.jpg", "no folder named real or fake"),
        ("reals/0.jpg", "no folder named real or fake"),
        ("train/nature/0.jpg", "no folder named real or fake"),
        ("real/fake/0.jpg", "both real and fake"),
        ("FAKE/x/Real/0.jpg", "both real and fake"),
        ("train/real/test/0.jpg", "lies in test and train"),
    ],
)
def test_place_without_one_meaning_is_an_error(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        place(name)


_other = st.text("abcdefgh-_0 ", min_size=1, max_size=6).filter(lambda text: text.strip())
_case = st.sampled_from([str.lower, str.upper, str.title])


@given(
    above=st.lists(_other, max_size=3),
    below=st.lists(_other, max_size=3),
    label=st.sampled_from(["real", "fake"]),
    split=st.sampled_from([None, "train", "test", "val", "valid", "validation"]),
    depth=st.integers(0, 7),
    case=_case,
)
def test_any_depth_and_case_is_read(
    above: list[str],
    below: list[str],
    label: str,
    split: str | None,
    depth: int,
    case: Callable[[str], str],
) -> None:
    folders = [*above, case(label), *below]
    if split is not None:
        folders.insert(min(depth, len(folders)), case(split))
    found = place("/".join([*folders, "0.jpg"]))
    expected = {"val": "validation", "valid": "validation", None: "test"}.get(split, split)
    assert found.split == expected
    assert found.label == (label == "real")
    assert found.generator == (("/".join(below) or None) if label == "fake" else None)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_image_suffix_counts_in_any_case(suffix: str) -> None:
    assert is_image(f"real/a{suffix}")
    assert is_image(f"real/a{suffix.upper()}")
    assert not is_image(f"real/a{suffix}.txt")


# Sources


SET = {
    "data/train/real/0.png": picture((0, 0, 9)),
    "data/train/FAKE/sd/0.png": picture((0, 0, 8), (32, 32)),
    "data/test/real/0.PNG": picture((0, 0, 7), (1, 100)),
    "data/test/fake/gan/a/0.png": picture((0, 0, 6)),
    "data/val/fake/0.png": picture((0, 0, 5)),
    "data/test/real/notes.txt": b"not an image",
    "LICENSE": b"",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_pack(form: str, open_source: Open, tmp_path: Path) -> None:
    pack = open_source(FORMS[form](tmp_path, SET))
    rows = [
        (row["split"], row["label"], row["generator"], int(pack.pixels[i, 0, 0, 2]))
        for i, row in enumerate(pack.images.to_pylist())
    ]
    assert rows == [
        ("train", 0, "sd", 8),
        ("train", 1, None, 9),
        ("validation", 0, None, 5),
        ("test", 0, "gan/a", 6),
        ("test", 1, None, 7),
    ]
    assert pack.images["content_class"].null_count == 5
    assert len(pack.unreadable_files) == 0
    other = open_dataset("folders", {"folders": write_folder(tmp_path / "again", SET)}, workers=1)
    assert pack.folder == other.folder


def test_set_without_training_images_is_packed(open_source: Open, tmp_path: Path) -> None:
    pack = open_source(write_folder(tmp_path, {"real/a.png": picture()}))
    assert len(pack.rows("test")) == 1
    assert len(pack.rows("train")) == 0


@pytest.mark.parametrize("form", FORMS)
def test_misplaced_images_are_counted_and_the_first_ten_named(
    form: str, open_source: Open, tmp_path: Path
) -> None:
    misplaced = {f"elsewhere/{number:02}.png": picture() for number in range(23)}
    text = refused(open_source, FORMS[form](tmp_path, {**SET, **misplaced, "x/y.txt": b""}))
    assert sum(name in text for name in misplaced) == 10
    assert "23 images are misplaced" in text
    assert not (tmp_path / "cache" / "packs").exists()


def test_every_kind_of_misplacement_is_named_at_once(open_source: Open, tmp_path: Path) -> None:
    wrong = {"a.png": picture(), "real/fake/b.png": picture(), "real/train/test/c.png": picture()}
    text = refused(open_source, write_folder(tmp_path, {**SET, **wrong}))
    for said in (
        "a.png: lies in no folder",
        "b.png: lies in both",
        "c.png: lies in test and train",
    ):
        assert said in text


@pytest.mark.parametrize("form", FORMS)
def test_source_without_images_is_refused(form: str, open_source: Open, tmp_path: Path) -> None:
    path = FORMS[form](tmp_path, {"real/notes.txt": b"nothing"})
    assert "holds no images" in refused(open_source, path)


@pytest.mark.parametrize("form", FORMS)
def test_large_file_that_is_no_image_is_passed_over(
    form: str, open_source: Open, tmp_path: Path
) -> None:
    path = FORMS[form](tmp_path, {**SET, "data/weights.bin": bytes(MAX_FILE_BYTES + 1)})
    assert open_source(path).info.images == 5


@pytest.mark.parametrize("name", ["../real/0.png", "real/../../0.png"])
@pytest.mark.parametrize("form", ["zip", "tar"])
def test_member_that_leaves_the_archive_is_refused_with_its_name(
    name: str, form: str, open_source: Open, tmp_path: Path
) -> None:
    text = refused(open_source, FORMS[form](tmp_path, {**SET, name: picture()}))
    assert name in text
    assert "leaves the archive" in text


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_file_name_that_is_no_text_is_kept_readable(
    form: str, open_source: Open, tmp_path: Path
) -> None:
    pack = open_source(FORMS[form](tmp_path, {"fake/g\udcff/a\udce9.png": picture()}))
    assert pack.images["file_name"].to_pylist() == ["a\ufffd.png"]
    assert pack.images["generator"].to_pylist() == ["g\ufffd"]


_part = st.text(st.characters(exclude_characters="/\0\\", exclude_categories=["Cs"]), max_size=12)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(parts=st.lists(_part | st.sampled_from(["real", "fake", "..", ".", "test"]), max_size=5))
def test_any_member_name_is_read_passed_over_or_refused_with_it(
    parts: list[str], tmp_path: Path
) -> None:
    name = "/".join([*parts, "0.png"])
    path = write_zip(tmp_path, {name: picture()})
    try:
        found, said = list(read(path)), ""
    except InputError as error:
        found, said = [], str(error)
    assert said == "" or (str(path) in said and "0.png" in said)
    assert all(image.name == name and image.file_name == "0.png" for image in found)


# What cannot be read


BROKEN = {
    "data/train/real/cut.png": picture()[:60],
    "data/test/real/empty.jpg": b"",
    "data/test/fake/page.jpg": b"<html>not found</html>",
    "data/test/fake/gan/text.gif": b"GIF89a",
}


@pytest.mark.parametrize("form", FORMS)
def test_unreadable_files_are_listed_and_the_others_packed(
    form: str, open_source: Open, tmp_path: Path
) -> None:
    pack = open_source(FORMS[form](tmp_path, {**SET, **BROKEN}))
    assert pack.info.images == 5
    listed = pack.unreadable_files.to_pylist()
    assert [row["file"] for row in listed] == sorted(BROKEN)
    assert Counter((row["split"], row["label"]) for row in listed) == {
        ("train", 1): 1,
        ("test", 1): 1,
        ("test", 0): 2,
    }
    assert all("cannot be read as an image" in row["problem"] for row in listed)
    assert [pack.unreadable(split) for split in ("train", "validation", "test")] == [1, 0, 3]


def test_unreadable_files_change_the_pack_and_not_the_fingerprint(
    open_source: Open, tmp_path: Path
) -> None:
    whole = open_source(write_folder(tmp_path / "a", SET))
    broken = open_source(write_folder(tmp_path / "b", {**SET, **BROKEN}))
    assert broken.info.fingerprint == whole.info.fingerprint
    assert broken.folder != whole.folder
    assert (whole.unreadable("test"), broken.unreadable("test")) == (0, 3)


def test_set_of_which_nothing_can_be_read_is_refused_with_the_names(
    open_source: Open, tmp_path: Path
) -> None:
    text = refused(open_source, write_folder(tmp_path, BROKEN))
    assert all(name in text for name in BROKEN)
    assert "4 of 4 images" in text


def test_set_of_one_size_refuses_what_cannot_be_read(open_source: Open, tmp_path: Path) -> None:
    small = {"real/0.png": picture(size=(32, 32)), "fake/x/0.png": picture(size=(32, 33))}
    assert "fake/x/0.png: is 32×33" in refused(
        open_source, write_folder(tmp_path, small), "generators"
    )


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cuts=st.lists(st.integers(0, 120), min_size=1, max_size=8), form=st.sampled_from([*FORMS]))
def test_every_image_is_packed_or_listed(
    cuts: list[int], form: str, tmp_path: Path, open_source: Open
) -> None:
    whole = picture((1, 2, 3))
    images = {f"fake/{i}.png": whole[:cut] for i, cut in enumerate(cuts)}
    images["real/whole.png"] = whole
    root = tmp_path / f"{form}-{'-'.join(map(str, cuts))}"
    root.mkdir(exist_ok=True)
    pack = open_source(FORMS[form](root, images))
    names = [*pack.images["file_name"].to_pylist()]
    names += [Path(row["file"]).name for row in pack.unreadable_files.to_pylist()]
    assert sorted(names) == sorted(Path(name).name for name in images)


# Filters and many large files


def test_filter_step_decides_how_images_are_resized(open_source: Open, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    image = Image.fromarray(rng.integers(0, 256, (77, 50, 3), np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    path = write_folder(tmp_path, {"real/0.png": buffer.getvalue()})
    for name, step in (("bilinear", ""), ("lanczos", "@filter=lanczos"), ("box", "@filter=box")):
        pack = open_source(path, f"folders{step}")
        expected = image.resize((32, 32), Image.Resampling[name.upper()])
        np.testing.assert_array_equal(pack.pixels[0], np.asarray(expected))
        assert pack.info.dataset == f"folders{step}"


def test_usual_filter_named_is_the_same_pack(open_source: Open, tmp_path: Path) -> None:
    path = write_folder(tmp_path, SET)
    assert open_source(path, "folders@filter=bilinear").folder == open_source(path).folder


def test_chunks_are_bounded_in_bytes() -> None:
    from cifake.data import decode

    blobs = [bytes(3 * 2**19) for _ in range(9)]
    assert [len(chunk) for chunk in decode._chunks(iter(blobs))] == [3, 3, 3]
    assert [len(chunk) for chunk in decode._chunks(iter([b""] * 1025))] == [512, 512, 1]
