"""Cells of several sweeps, or of a store's runs, under labels that tell them apart: tables out.

Two sweeps name their configs by different parameters. Together, each config is named by every
parameter that varies among them, so that equal configs have equal labels and no two others have.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cifake import tables
from cifake.config import IDENTITY_EXCLUDES, Config, leaves
from cifake.parameters import EPOCHS, HORIZON, make_config
from cifake.runs import RunState
from sweeps.spec import Spec

TRAIN, FINGERPRINT, TRAINER = "data.train", "data.fingerprint", "trainer_version"

_PATHS = [path for path, _ in leaves(Config)]
_COMPARED = [path for path in _PATHS if path not in {*IDENTITY_EXCLUDES, FINGERPRINT}]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One cell, with every setting of its config."""

    settings: Mapping[str, Any]
    """By path; the trainer's version beside them, null where neither is known."""

    epochs: int
    seed: int
    config_id: str
    run_id: str


def asked_by(spec: Spec, cells: pa.Table, states: Mapping[str, RunState]) -> list[Asked]:
    """The cells of a sweep; those that a search tried are passed over: they chose something.

    Args:
        spec: the sweep's, which tells the settings of runs that never finished an epoch.
        cells: table `cells`.
        states: of the runs that finished one.
    """
    found = []
    for cell in cells.to_pylist():
        if cell["stage"] == "search":
            continue
        state = states.get(cell["run_id"])
        if state is not None:
            settings = _settings(state)
        else:
            given = json.loads(cell["label"]) | json.loads(cell["nuisance"])
            values = {**spec.fixed, **given, EPOCHS: cell["epochs"]}
            settings = make_config(spec.data, values, "").flat() | {FINGERPRINT: None}
        found.append(
            Asked(
                settings=settings,
                epochs=cell["epochs"],
                seed=cell["seed"],
                config_id=cell["config_id"],
                run_id=cell["run_id"],
            )
        )
    return found


def asked_of(states: Iterable[RunState]) -> list[Asked]:
    """Cells of runs that nobody's specification is known of: what each of them is.

    A complete run is asked for at every length at which its predictions were kept, and at its end;
    one that is not, also at the lengths of its config's other runs, where it is missing.
    """
    by_config: dict[str, list[RunState]] = defaultdict(list)
    for state in states:
        by_config[state.config_id].append(state)
    found = []
    for members in by_config.values():
        lengths = {state.run_id: _lengths(state) for state in members}
        whole = {e for s in members if s.status == "complete" for e in lengths[s.run_id]}
        for state in members:
            own = lengths[state.run_id]
            if state.status != "complete":
                own = own | whole or {max(1, state.epochs_done)}
            found += [
                Asked(
                    settings=_settings(state),
                    epochs=epochs,
                    seed=state.seed,
                    config_id=state.config_id,
                    run_id=state.run_id,
                )
                for epochs in sorted(own)
            ]
    return found


def _lengths(state: RunState) -> set[int]:
    kept = {int(key.partition(":")[0]) for key in state.evaluated}
    return kept | ({state.epochs_done} if state.status == "complete" else set())


def _settings(state: RunState) -> dict[str, Any]:
    return {path: state.row[path] for path in _PATHS} | {TRAINER: state.row[TRAINER]}


def mixtures(asked: Iterable[Asked]) -> list[str]:
    """What makes runs of different kinds, in words with their counts; nothing where all are alike.

    Runs of other training images, or of a trainer that gives other numbers, are no fair comparison.
    """
    runs = {each.run_id: each.settings for each in asked}
    data = Counter(
        (str(settings[TRAIN]), str(settings[FINGERPRINT]))
        for settings in runs.values()
        if settings[FINGERPRINT] is not None
    )
    trainers = Counter(
        settings[TRAINER] for settings in runs.values() if settings.get(TRAINER) is not None
    )
    found = []
    if len({fingerprint for _, fingerprint in data}) > 1:
        parts = [
            f"{_runs(n)} on {name} ({print_[:8]})" for (name, print_), n in sorted(data.items())
        ]
        found.append("training data: " + ", ".join(parts))
    if len(trainers) > 1:
        parts = [f"{_runs(n)} by version {version}" for version, n in sorted(trainers.items())]
        found.append("trainers: " + ", ".join(parts))
    return found


def union_cells(asked: Sequence[Asked], nuisance: Collection[str]) -> tuple[pa.Table, int]:
    """The table `cells` of everything asked for, each config and seed at a length once.

    Args:
        asked: by whomever.
        nuisance: parameters that are averaged over.

    Returns:
        The cells, and how many were asked for more than once.
    """
    unique = {(each.run_id, each.epochs): each for each in asked}
    cells = list(unique.values())
    names = _varying(cells)
    ends: dict[str, int] = {}
    for each in cells:
        ends[each.run_id] = max(each.epochs, ends.get(each.run_id, 0))
    rows = [
        {
            "label": _json(each, [name for name in names if name not in nuisance]),
            "nuisance": _json(each, [name for name in names if name in nuisance]),
            "epochs": each.epochs,
            "seed": each.seed,
            "config_id": each.config_id,
            "run_id": each.run_id,
            "stage": "grid",
            "role": "end" if each.epochs == ends[each.run_id] else "milestone",
        }
        for each in cells
    ]
    return tables.TABLES["cells"].from_rows(rows), len(asked) - len(cells)


def _varying(cells: Sequence[Asked]) -> list[str]:
    """The settings that tell configs apart.

    Left out are horizons that are the length itself, and settings that some configs lack and all
    others have alike, where the rest tells those apart: the options of an attention module, say.
    """
    settings = list({each.config_id: each.settings for each in cells}.values())
    values = {path: {_text(each[path]) for each in settings} for path in _COMPARED}
    found = [path for path in _COMPARED if len(values[path]) > 1]
    if all(each.settings[HORIZON] in (None, each.epochs) for each in cells):
        found = [path for path in found if path != HORIZON]
    found += _told_apart(settings)
    for path in [path for path in found if len(values.get(path, set()) - {"null"}) == 1]:
        rest = [other for other in found if other != path]
        if _distinct(settings, rest) == _distinct(settings, found):
            found = rest
    return found


def _told_apart(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """What tells other data and other trainers apart, where there are such."""
    found = []
    if len({each[FINGERPRINT] for each in settings} - {None}) > 1:
        names = {(each[TRAIN], each[FINGERPRINT]) for each in settings if each[FINGERPRINT]}
        alike = len({name for name, _ in names}) < len(names)
        found.append(FINGERPRINT if alike else TRAIN)
    if len({each.get(TRAINER) for each in settings} - {None}) > 1:
        found.append(TRAINER)
    return found


def _distinct(settings: Sequence[Mapping[str, Any]], paths: Sequence[str]) -> int:
    return len({tuple(_text(each.get(path)) for path in paths) for each in settings})


def _json(each: Asked, names: Iterable[str]) -> str:
    return json.dumps({name: each.settings.get(name) for name in names}, sort_keys=True)


def _text(value: Any) -> str:
    return json.dumps(value)


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"
