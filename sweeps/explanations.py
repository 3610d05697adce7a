"""What the best networks of a sweep look at: made from their kept weights, kept in the store.

    sweeps/<name>/explanations/<place>-<run_id>.png   a page of Grad-CAM maps and gates, at most
                                                      200 KB; `place` is 01 for the best config
    sweeps/<name>/explanations/gates.parquet          table `gates` of all of them

The configs are the best on validation at their longest length, and of each the run that is best
there: the test split chooses nothing. Without validation they are the first of the specification.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow.compute as pc
from rich.console import Console

from cifake import tables
from cifake.data.locate import parse_sources
from cifake.data.watch import open_watched
from cifake.errors import refuse
from cifake.models import catalogue
from cifake.places import Place
from cifake.runs import DamagedError
from cifake.selection import rows_of
from sweeps.aggregate import frame
from sweeps.report.content import Content, Explanations
from sweeps.report.shown import Shown, shown
from sweeps.store import Store
from sweeps.words import counted

if TYPE_CHECKING:
    import PIL.Image

    from cifake.config import Config
    from cifake.evaluations import Images
    from cifake.explain import Explanation

FOLDER = "explanations"
GATES = "gates"

COUNT = 3
"""Configs that are explained."""

PER_GROUP = 4
"""Images of each of the four kinds of decision."""

MAX_BYTES = 200_000
"""Of a page: a report holds several."""

_SEED = 0
"""Of the draw of images."""

_DPI = 110
_SHRINK = 0.85


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A run that is explained."""

    run_id: str
    epoch: int
    seed: int
    name: str
    """Of its config."""


def choose(content: Content, count: int = COUNT) -> list[Chosen]:
    """The runs that are explained, the best config first.

    Args:
        content: the report's; runs whose weights of the longest length are not there, and those
            without feature maps, are passed over.
        count: how many at most.
    """
    stand = shown(content)
    scores = _on_validation(content, stand)
    sign = -1 if tables.higher_is_better(stand.metric) else 1
    cells = stand.ends.merge(
        frame(content.runs.select(["run_id", "epochs_done", "model"])), on="run_id"
    )
    cells = cells[cells["epochs_done"] >= cells["epochs"]]
    cells = cells[cells["model"].map(_has_sites).astype(bool)].copy()
    cells["loss"] = [
        sign * scores.get((run_id, epochs), float("nan"))
        for run_id, epochs in zip(cells["run_id"], cells["epochs"], strict=True)
    ]
    means = cells.groupby("label", sort=False)["loss"].mean().sort_values(kind="stable")
    found = []
    for label in means.index[:count]:
        best = cells[cells["label"] == label].sort_values(["loss", "seed"], kind="stable").iloc[0]
        found.append(
            Chosen(
                run_id=str(best["run_id"]),
                epoch=int(best["epochs"]),
                seed=int(best["seed"]),
                name=stand.names[str(label)],
            )
        )
    return found


def explain(content: Content, store: Store, data: Sequence[str], console: Console) -> Explanations:
    """Make the explanations of a sweep, and keep them in its folder in place of older ones.

    Args:
        content: the report's.
        store: that has the runs.
        data: where data sets lie, as `--data` takes them.
        console: shows the progress.

    Raises:
        InputError: no run can be explained, its weights are damaged, or the images are not there
            or not those that it was trained on.
    """
    runs = choose(content)
    if not runs:
        refuse(
            f"sweep {content.name}",
            "has no finished run with feature maps, which Grad-CAM needs; train one first",
            field="--explain",
        )
    dataset, split = _where(content)
    own = str(content.runs["data.train"][0])
    pack = open_watched(dataset, parse_sources(data, own), console)
    sheets, gates = {}, []
    for run in runs:
        with console.status(f"explaining run {run.run_id} …"):
            folder = store.run(run.run_id)
            config = folder.config()
            if dataset == config.data.train and config.data.fingerprint != pack.info.fingerprint:
                refuse(
                    f"data set {dataset}",
                    f"is not the one of the training, {config.data.fingerprint}; say with --data "
                    "where that lies",
                    field="fingerprint",
                    value=pack.info.fingerprint,
                )
            rows = rows_of(pack, dataset, split, config.data)

            from cifake.evaluations import Images

            images = Images(dataset, split, pack, rows)
            found = _explanation(store, run, config, images)
            sheets[run.run_id] = _sheet(run, images, found)
            gates += [*_gate_rows(run, images, found)]
    table = tables.TABLES[GATES].from_rows(gates) if gates else None
    made = Explanations(sheets=sheets, gates=table)
    _keep(store.sweep(content.name).at(FOLDER), made)
    return made


def outdated(content: Content) -> list[str]:
    """A note where other runs are best by now than those that are explained."""
    kept = content.explanations
    if kept is None or [*kept.sheets] == [run.run_id for run in choose(content)]:
        return []
    return ["other runs than the best are explained; `sweeps report --explain` draws it anew"]


def read(store: Store, sweep: str) -> Explanations | None:
    """The explanations of a sweep as `explain` kept them last; null where it never did.

    Raises:
        InputError: the table of gates is damaged.
    """
    place = store.sweep(sweep).at(FOLDER)
    files = sorted(place.files())
    sheets = {
        name.removesuffix(".png").partition("-")[2]: place.read(name)
        for name in files
        if name.endswith(".png")
    }
    if not sheets:
        return None
    try:
        gates = tables.decode(GATES, place.read(_GATES_FILE)) if _GATES_FILE in files else None
    except ValueError as error:
        refuse(
            f"{place}/{_GATES_FILE}",
            f"{error}; delete it, and `sweeps report --explain` makes it anew",
        )
    return Explanations(sheets=sheets, gates=gates)


_GATES_FILE = f"{GATES}.parquet"


def _keep(place: Place, made: Explanations) -> None:
    place.clear()
    for number, (run_id, content) in enumerate(made.sheets.items(), 1):
        place.write(f"{number:02}-{run_id}.png", content)
    if made.gates is not None:
        place.write(_GATES_FILE, tables.encode(GATES, made.gates))


def _on_validation(content: Content, stand: Shown) -> Mapping[tuple[str, int], float]:
    """The foremost score of every run and epoch on the validation split of its training set."""
    rows = content.evaluations.filter(pc.field("split") == "validation")
    keys = zip(rows["run_id"].to_pylist(), rows["epoch"].to_pylist(), strict=True)
    scores = zip(keys, rows[stand.metric].to_pylist(), strict=True)
    return {key: score for key, score in scores if score is not None}


def _where(content: Content) -> tuple[str, str]:
    """The images that are looked at: the training set's test split, if it was evaluated."""
    own = str(content.runs["data.train"][0])
    places = shown(content).datasets
    if not places:
        refuse(f"sweep {content.name}", "was evaluated on nothing; train it first")
    wanted = ((own, "test"), (own, "validation"), *places)
    return next(place for place in wanted if place in places)


def _has_sites(model: str) -> bool:
    """Whether an architecture has feature maps."""
    from cifake.config import Config

    return bool(catalogue.sites_of(Config(model=model)))


def _explanation(store: Store, run: Chosen, config: Config, images: Images) -> Explanation:
    from cifake import explain as explaining
    from cifake.evaluations import NotFiniteError
    from cifake.loading import fitted

    folder = store.run(run.run_id)
    try:
        model = fitted(f"run {run.run_id}", config, folder.read_weights(run.epoch))
        return explaining.explain(model, config, images, site=None, per_group=PER_GROUP, seed=_SEED)
    except DamagedError as error:
        refuse(store.root, f"{error}; `sweeps verify --repair` has it trained again")
    except NotFiniteError as error:
        refuse(f"run {run.run_id}", str(error))


def _sheet(run: Chosen, images: Images, found: Explanation) -> bytes:
    from cifake.sheet import draw_sheet

    title = (
        f"{run.name}: seed {run.seed} after {counted(run.epoch, 'epoch')}, on "
        f"{images.dataset} {images.split}\nGrad-CAM at {found.site}"
    )
    return small(draw_sheet(title, found, PER_GROUP, dpi=_DPI))


def small(content: bytes, limit: int = MAX_BYTES) -> bytes:
    """A PNG of at most so many bytes: fewer colours and pixels only where it must be."""
    import PIL.Image

    picture = PIL.Image.open(io.BytesIO(content)).convert("RGB")
    found = _png(picture)
    while len(found) > limit and min(picture.size) > 1:
        found = _png(picture.quantize(256, PIL.Image.Quantize.MAXCOVERAGE))
        size = (round(picture.width * _SHRINK), round(picture.height * _SHRINK))
        picture = picture.resize(size, PIL.Image.Resampling.BOX)
    return found


def _png(picture: PIL.Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _gate_rows(
    run: Chosen, images: Images, found: Explanation
) -> Iterator[dict[str, str | int | float | None]]:
    for site, labels in found.gates.items():
        for label, gates in labels.items():
            for channel, (mean, std) in enumerate(
                zip(gates.mean.tolist(), gates.std.tolist(), strict=True)
            ):
                yield {
                    "run_id": run.run_id,
                    "epoch": run.epoch,
                    "dataset": images.dataset,
                    "split": images.split,
                    "site": site,
                    "label": label,
                    "channel": channel,
                    "n": gates.images,
                    "mean": _or_null(mean),
                    "std": _or_null(std),
                }


def _or_null(value: float) -> float | None:
    return value if math.isfinite(value) else None
