"""What the commands do that ask a network: `evaluate`, `predict` and `explain`.

Each takes what the command line gave and returns plain values; printing is `printing.py`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from cifake import tables
from cifake.data.fit import FILTERS
from cifake.data.raw import LABELS
from cifake.data.watch import open_watched
from cifake.errors import InputError, Mistake, refuse, suggest
from cifake.evaluations import Images, NotFiniteError
from cifake.files import write_aside
from cifake.loading import Loaded, load
from cifake.predicting import find_images, predict_files
from cifake.selection import SPLITS, rows_of, select

DEFAULT_DATASET = "cifake"
"""The set that is meant where neither an option nor a run says."""


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Which network is asked."""

    target: str
    store: str
    epoch: int | None = None
    settings: Sequence[str] = ()

    def load(self) -> Loaded:
        """Load it.

        Raises:
            InputError: as `loading.load` does.
        """
        return load(self.target, self.store, self.epoch, self.settings)


@dataclass(frozen=True, kw_only=True)
class DataChoice:
    """Which images it is asked about."""

    data: Sequence[str] = ()
    on: Sequence[str] = ()
    split: str = "test"

    def open(self, loaded: Loaded) -> list[Images]:
        """Open the split of every set, packing what was never packed.

        Raises:
            InputError: as `selection.select`, `selection.rows_of` and `locate.open_dataset` do.
        """
        trained_on = loaded.trained_on
        default = DEFAULT_DATASET if trained_on is None else trained_on.train
        chosen = select(self.data, self.on, default)
        opened = []
        for name in chosen.names:
            pack = open_watched(name, chosen.sources, Console(stderr=True))
            rows = rows_of(pack, name, self.split, trained_on)
            opened.append(Images(name, self.split, pack, rows))
        return opened

    def check(self) -> None:
        """Refuse an unknown split before anything is loaded.

        Raises:
            InputError: the split is unknown.
        """
        if self.split not in SPLITS:
            refuse("--split", f"must be one of {', '.join(SPLITS)}", value=self.split)


def evaluate(
    model: ModelChoice,
    data: DataChoice,
    *,
    threshold: float,
    classes: bool,
    against: str | None,
    predictions: Path | None,
) -> dict[str, Any]:
    """Score a network on every chosen set.

    Args:
        model: the network.
        data: the images.
        threshold: REAL is called at this probability or above.
        classes: whether groups of images are scored too.
        against: a second run or file of weights, compared image by image.
        predictions: a parquet file to write probabilities into.

    Raises:
        InputError: nothing to load, or nowhere to write.
    """
    data.check()
    _check_writable(predictions)
    loaded = model.load()
    other = None if against is None else load(against, model.store)
    images = data.open(loaded)

    from cifake import assessment

    kept, rows = [], []
    for part in images:
        probabilities = _probabilities(loaded, part)
        kept.append((part, probabilities))
        row = assessment.assess(part, probabilities, threshold)
        if classes:
            row["classes"] = assessment.assess_groups(part, probabilities, threshold)
        if other is not None:
            second = _probabilities(other, part)
            row["against"] = assessment.compare(part, probabilities, second, threshold)
        rows.append(row)
    if predictions is not None:
        table = assessment.predictions_table(kept)
        _write(predictions, tables.parquet(table))
    return {
        "model": describe(loaded),
        "against": None if other is None else describe(other),
        "evaluations": rows,
    }


def predict(
    model: ModelChoice, arguments: Sequence[Path], *, filter_name: str, threshold: float
) -> list[dict[str, Any]]:
    """Say of every image file how probable REAL is; unreadable ones bear a problem.

    Raises:
        InputError: nothing to load, an unknown filter, or no file that can be read.
    """
    if filter_name not in FILTERS:
        refuse("--filter", suggest(filter_name, FILTERS), value=filter_name)
    files, mistakes = find_images(arguments)
    loaded = model.load()
    found = [
        asdict(prediction)
        for prediction in predict_files(
            loaded.model, files, filter_name=filter_name, threshold=threshold
        )
    ]
    found += [
        {"file": m.where, "probability": None, "label": None, "problem": m.problem}
        for m in mistakes
    ]
    if all(row["problem"] for row in found):
        raise InputError(Mistake(where=row["file"], problem=row["problem"]) for row in found)
    return found


def explain(
    model: ModelChoice, data: DataChoice, *, out: Path, site: str | None, per_group: int, seed: int
) -> dict[str, Any]:
    """Draw a page of Grad-CAM maps and gates of a network on the chosen set.

    Raises:
        InputError: nothing to load, no feature maps, several sets, or nowhere to write.
    """
    data.check()
    _check_writable(out)
    if out.suffix.lower() != ".png":
        refuse("--out", "must end in .png", value=str(out))
    loaded = model.load()

    from cifake import explain as explaining

    explaining.feature_site(loaded.config, site)
    images = data.open(loaded)
    if len(images) > 1:
        names = ", ".join(part.dataset for part in images)
        refuse("--on", f"one page is of one data set; choose among {names}")
    (part,) = images
    try:
        explanation = explaining.explain(
            loaded.model, loaded.config, part, site=site, per_group=per_group, seed=seed
        )
    except NotFiniteError as error:
        refuse(loaded.name, str(error))
    from cifake.sheet import draw_sheet

    title = f"{_title(loaded)} on {part.dataset} {part.split}: Grad-CAM at {explanation.site}"
    _write(out, draw_sheet(title, explanation, per_group))
    return {
        "model": describe(loaded),
        "dataset": part.dataset,
        "split": part.split,
        "site": explanation.site,
        "sheet": str(out),
        "counts": explanation.counts,
        "images": [_image_facts(part, image) for image in explanation.images],
        "gates": {
            site: {label: _gate_facts(found) for label, found in labels.items()}
            for site, labels in explanation.gates.items()
        },
    }


def _probabilities(loaded: Loaded, images: Images) -> npt.NDArray[np.float32]:
    try:
        return images.probabilities(loaded.model)
    except NotFiniteError as error:
        refuse(loaded.name, str(error))


def describe(loaded: Loaded) -> dict[str, Any]:
    """What network was asked."""
    config = loaded.config
    return {
        "name": loaded.name,
        "epoch": loaded.epoch,
        "model": config.model,
        "input": config.input,
        "attention": config.attention,
        "placement": config.placement,
        "config_id": None if loaded.trained_on is None else config.config_id,
    }


def _title(loaded: Loaded) -> str:
    config = loaded.config
    attention = "" if config.attention == "none" else f" with {config.attention} {config.placement}"
    epoch = "" if loaded.epoch is None else f", epoch {loaded.epoch}"
    return f"{config.model}{attention} ({loaded.name}{epoch})"


def _image_facts(part: Images, image: Any) -> dict[str, Any]:
    row = np.asarray([image.row], np.int64)
    labels = {number: name for name, number in LABELS.items()}
    return {
        "group": image.group,
        "image_id": image.row,
        "label": labels[int(part.pack.labels[image.row])],
        "probability": image.probability,
        "content_class": part.pack.words("content_class", row)[0],
        "generator": part.pack.words("generator", row)[0],
        "file_name": part.pack.images["file_name"][image.row].as_py(),
    }


def _gate_facts(found: Any) -> dict[str, Any]:
    def numbers(values: Any) -> list[float | None]:
        return [float(value) if np.isfinite(value) else None for value in values]

    return {"images": found.images, "mean": numbers(found.mean), "std": numbers(found.std)}


def _check_writable(path: Path | None) -> None:
    """Refuse at once what could only fail after all the work."""
    if path is not None and not path.absolute().parent.is_dir():
        refuse(path, "its folder does not exist; make it first")
    if path is not None and path.is_dir():
        refuse(path, "is a folder; name a file")


def _write(path: Path, content: bytes) -> None:
    try:
        write_aside(path, content)
    except OSError as error:
        refuse(path, f"cannot be written ({error.strerror})")
