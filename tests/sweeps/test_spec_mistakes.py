"""Mistakes in a specification are named: file, line, field, value, and what would be right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cifake.errors import InputError
from sweeps import specfile
from sweeps.parse import parse
from tests.sweeps.specs import MINIMAL, Parse, refused


@pytest.mark.parametrize(
    ("text", "line", "parts"),
    [
        ("name: a\nfixed: {epochs: 1}\nscientifc: {}", 3, ["scientifc", "mean scientific"]),
        ("name: a\nfixed:\n  epochs: 1\n  optimizer: {lrr: 1}", 4, ["lrr", "mean optimizer.lr"]),
        ("name: a\nfixed: {epochs: 1}\ndata: {trian: demo}", 3, ["data.trian", "mean train"]),
        ("name: a\nfixed:\n  epochs: soon", 3, ["fixed.epochs", "'soon'", "valid integer"]),
        ("name: a\nfixed:\n  epochs: 1.0", 3, ["fixed.epochs", "1.0", "integer"]),
        ("name: a\nfixed:\n  epochs: true", 3, ["fixed.epochs", "True", "integer"]),
        ("name: a\nfixed:\n  epochs: '2'", 3, ["fixed.epochs", "'2'", "integer"]),
        ("name: a\nscientific:\n  epochs: []", 3, ["scientific.epochs", "at least one"]),
        ("name: a\nscientific:\n  epochs: [1, -5]", 3, ["epochs[1]", "-5", "greater"]),
        ("name: a\nscientific:\n  epochs: [0]", 3, ["scientific.epochs", "0", "greater"]),
        ("name: a\nscientific:\n  epochs:\n  - 1\n  - 1", 5, ["epochs[1]", "twice"]),
        ("name: a\nfixed:\n  epochs: 1\n  epochs: 2", 4, ["fixed.epochs", "twice"]),
        ("name: a\nname: b", 2, ["name", "twice"]),
        ("name: a\nfixed:\n  epochs: 1\n  model: bose", 4, ["'bose'", "mean base"]),
        (
            "name: a\nfixed:\n  epochs: 1\n  attention: srm\n  placement: after_pool9",
            5,
            ["fixed.placement", "'after_pool9'", "after_pool1", "after_pool2"],
        ),
        (
            "name: a\nscientific:\n  attention: [none, srm]\n  epochs: 1",
            None,
            ["placement", "srm needs one of", "after_pool1"],
        ),
        ("name: a\nfixed: {epochs: 1}\ndata:\n  train: cifke", 4, ["'cifke'", "mean cifake"]),
        ("name: a\nfixed: {epochs: 1}\ndata: {train: cifar100}", 3, ["only be evaluated"]),
        (
            "name: a\nfixed: {epochs: 1}\ndata:\n  evaluate:\n  - demo\n  - dmo",
            4,
            ["data.evaluate", "'dmo'", "mean demo"],
        ),
        ("name: a\nfixed: {epochs: 1}\ndata: {evaluate: [demo, demo]}", 3, ["twice"]),
        (
            "name: a\nfixed: {epochs: 1}\ndata: {evaluate: [demo@blur=1, demo@blur=1.0]}",
            3,
            ["twice"],
        ),
        (
            "name: a\nfixed: {epochs: 1}\ndata: {evaluate: [demo@jpeg=0, folders/A, dmo]}",
            3,
            ["data.evaluate", "1 to 100", "lower-case", "mean demo"],
        ),
        (
            "name: a\nfixed: {epochs: 1}\ndata: {evaluate: [demo@blur=1,jpeg=50]}",
            3,
            ["'jpeg=50'", '"NAME@STEP,STEP"'],
        ),
        (
            "name: a\nfixed: {epochs: 1}\ndata: {train: generators@blur=1}",
            3,
            ["data.train", "only be evaluated"],
        ),
        (
            "name: a\nfixed: {epochs: 1}\ndata: {train_images: 9, images_per_class: 3}",
            3,
            ["images_per_class", "one of the two"],
        ),
        (
            "name: a\nfixed: {epochs: 1}\ndata: {only: cat, leave_out: dog}",
            3,
            ["leave_out", "leaves out all others"],
        ),
        (
            "name: a\nfixed: {epochs: 1, data.images_per_class: 3}\ndata: {train_images: 9}",
            None,
            ["fixed.data.images_per_class", "one of the two"],
        ),
        ("name: a\nfixed: {epochs: 1}\ndata: {validation: -1}", 3, ["data.validation", "-1"]),
        ("name: a\nfixed: {epochs: 1}\ndata: {fingerprint: x}", 3, ["data.fingerprint"]),
        ("name: a\nfixed:\n  epochs: 1\n  seed: 3", 4, ["fixed.seed", "nuisance"]),
        ("name: a\nscientific:\n  seed: [1, 2]\n  epochs: 1", 3, ["scientific.seed", "nuisance"]),
        ("name: a\nfixed: {epochs: 1}\nnuisance:\n  seed: 0", 4, ["nuisance.seed", "0", "least 1"]),
        ("name: a\nfixed: {epochs: 1}\nnuisance: {seed: [1, 1]}", 3, ["nuisance.seed", "twice"]),
        ("name: a\nfixed: {epochs: 1}\nnuisance: {seed: [-1]}", 3, ["nuisance.seed", "[-1]"]),
        ("name: a\nfixed: {epochs: 1}\nnuisance: {seed: two}", 3, ["nuisance.seed", "'two'"]),
        ("name: a\nfixed: {epochs: 1}\nnuisance: {seed: true}", 3, ["nuisance.seed", "True"]),
        ("name: a\nfixed: {epochs: 1}\nnuisance: {seed: []}", 3, ["nuisance.seed", "least 1"]),
        (
            "name: a\nscientific: {batch_size: [1, 2]}\nfixed:\n  epochs: 1\n  batch_size: 3",
            5,
            ["fixed.batch_size", "scientific"],
        ),
        (
            "name: a\nfixed:\n  epochs: 1\n  batch_size: [1, 2]",
            4,
            ["fixed.batch_size", "one value"],
        ),
        (
            "name: a\nscientific:\n- {epochs: 1}\n- {model: bose, epochs: 1}",
            4,
            ["scientific[1].model", "'bose'", "mean base"],
        ),
        (
            "name: a\nscientific:\n- {epochs: 1}\n- {model: base}",
            4,
            ["scientific[1].epochs", "missing", "other grids"],
        ),
        (
            "name: a\nscientific:\n- {epochs: 1}\n- {epochs: 2, input: rgb}\nfixed: {input: rgb}",
            5,
            ["fixed.input", "scientific[1]", "one of the two"],
        ),
        ("name: a\nfixed: {epochs: 1}\nscientific: []", 3, ["scientific", "list of mappings"]),
        ("name: a\nfixed: {epochs: 1}\nscientific: [1]", 3, ["scientific", "list of mappings"]),
        ("name: a\nnuisance: {epochs: 1}", 2, ["nuisance.epochs", "belongs into"]),
        ("name: a\nfixed: {batch_size: 8}", None, ["epochs", "missing"]),
        ("fixed: {epochs: 1}", None, ["name", "missing"]),
        ("name: No spaces!\nfixed: {epochs: 1}", 1, ["name", "'No spaces!'"]),
        ("name: ../up\nfixed: {epochs: 1}", 1, ["name", "'../up'"]),
        ("name: a\nfixed: {epochs: 1, optimizer.lr: .nan}", 2, ["optimizer.lr", "finite"]),
        ("name: a\nfixed: {epochs: 1, optimizer.lr: -0.1}", 2, ["optimizer.lr", "-0.1"]),
        ("name: a\nfixed: {epochs: 1, optimizer: {momentum: 1}}", 2, ["momentum", "less than 1"]),
        ("name: a\nfixed: {epochs: 1}\nresources: {cpus: 0}", 3, ["resources.cpus", "greater"]),
        ("name: a\nfixed: {epochs: 1}\nresources: {cpu: 1}", 3, ["resources.cpu", "mean cpus"]),
        ("name: a\nfixed: {epochs: 1}\nresources: {width: 0}", 3, ["resources.width", "greater"]),
        ("name: a\nfixed: {epochs: 1}\nresources: {width: 2.0}", 3, ["width", "2.0", "integer"]),
        ("name: a\nfixed: {epochs: 1}\nresources: {width: true}", 3, ["width", "True", "integer"]),
        ("name: a\nfixed: {epochs: 1}\nresources: {width: all}", 3, ["width", "'all'", "integer"]),
    ],
)
def test_a_mistake_is_named_with_its_line_field_and_remedy(
    parse_text: Parse, text: str, line: int | None, parts: list[str]
) -> None:
    message = refused(parse_text, text)
    where = r"spec\.yaml" if line is None else rf"spec\.yaml:{line}:"
    assert re.search(where, message), message
    for part in parts:
        assert part in message


def test_all_mistakes_of_a_file_are_named_at_once(parse_text: Parse) -> None:
    with pytest.raises(InputError) as caught:
        parse_text(
            "name: a\n"
            "data: {train: nowhere, validation: 10}\n"
            "scientific:\n"
            "  epochs: [1, -1, 1]\n"
            "  attenton: [none]\n"
            "nuisance: {seed: 0}\n"
            "fixed:\n"
            "  batch_size: many\n"
            "  optimizer: {lr: -1}\n"
        )
    fields = {mistake.field for mistake in caught.value.mistakes}
    assert fields == {
        "data.train",
        "scientific.epochs[1]",
        "scientific.epochs[2]",
        "scientific.attenton",
        "nuisance.seed",
        "fixed.batch_size",
        "fixed.optimizer.lr",
    }
    assert all(
        mistake.where.endswith(tuple(f":{n}" for n in range(2, 10)))
        for mistake in caught.value.mistakes
    )


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "must be a mapping"),
        (b"# nothing but a comment\n", "must be a mapping"),
        (b"- 1\n- 2\n", "must be a mapping"),
        (b"just text", "must be a mapping"),
        (b"name: [unclosed", "not readable YAML"),
        (b"name: a\n\tfixed: 1\n", "not readable YAML"),
        (b"name: !!python/object/apply:os.system [true]", "not readable YAML"),
        (bytes(range(256)) * 4, "not readable YAML"),
        (b"PK\x03\x04\x00\x00", "not readable YAML"),
        (b"name: a\nfixed: {epochs: 2026-13-45}", ""),
        (b"name: a\nfixed: {epochs: !!int many}", ""),
        (b"name: a\nfixed: {epochs: !!bool perhaps}", ""),
        (b"name: a\n? [a, b]\n: c\n", ""),
        (b"name: a\nfixed: &loop {epochs: 1, optimizer: *loop}\n", ""),
        (b"name: a\nfixed: {epochs: " + b"[" * 3000 + b"]" * 3000 + b"}", ""),
    ],
    ids=[
        "empty",
        "comment",
        "list",
        "text",
        "unclosed",
        "tab",
        "python-tag",
        "binary",
        "zip",
        "impossible-date",
        "int-tag",
        "bool-tag",
        "list-as-key",
        "loop",
        "deep",
    ],
)
def test_a_file_that_is_no_specification_is_refused(
    tmp_path: Path, content: bytes, part: str
) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        parse(specfile.read(path))
    assert str(path) in str(caught.value)
    assert part in str(caught.value)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("key", ["x]", "x[", "x[a]", "]", "[[0]", "x\n"])
def test_a_bracket_in_an_unknown_key_is_refused(parse_text: Parse, key: str) -> None:
    message = refused(parse_text, f"name: a\nfixed: {{epochs: 1}}\ndata: {{{key!r}: 1}}")
    assert "data." in message
    unlisted = specfile.SpecFile("spec.yaml", {"name": "a", "data": {key: 1}}, {"data": 7})
    with pytest.raises(InputError) as caught:
        parse(unlisted)
    assert "spec.yaml:7" in str(caught.value), "the line of what holds it"


def test_a_file_of_nested_aliases_does_not_explode(tmp_path: Path) -> None:
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 8)}]" for n in range(1, 7))
    path = tmp_path / "spec.yaml"
    path.write_text(f"name: a\nfixed: {{epochs: 1}}\nl0: &l0 [x]\n{levels}\n")
    try:
        lines = specfile.read(path).lines
    except InputError:
        return
    assert len(lines) < 10_000, "8^6 lines of a file of ten"


@pytest.mark.parametrize("seed", ["1000000000000000000000000000000", "[100000000000000000000000]"])
def test_a_seed_that_no_table_can_hold_is_refused(parse_text: Parse, seed: str) -> None:
    assert "nuisance.seed" in refused(parse_text, f"{MINIMAL}nuisance: {{seed: {seed}}}")


@pytest.mark.parametrize("name", ["demmo", "no/such.yaml", "x" * 400])
def test_a_specification_that_is_nowhere_is_refused(name: str) -> None:
    with pytest.raises(InputError) as caught:
        specfile.find(name)
    message = str(caught.value)
    assert "no such file" in message
    assert "demo" in message
