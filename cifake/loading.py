"""From a run's name, a run's folder or a file of weights to a network that can be asked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from cifake.config import Config, DataSettings, leaves, nest
from cifake.errors import InputError, Mistake, refuse, suggest
from cifake.models import catalogue
from cifake.parameters import explain, value_problem
from cifake.places import LocalPlace, Place
from cifake.runs import HEAD, DamagedError, RunFolder
from cifake.safe_yaml import load_yaml
from cifake.store import RUNS, open_root, run_folder

if TYPE_CHECKING:
    import torch
    from torch import nn

    Tensors = dict[str, torch.Tensor]

SHORTEST_PREFIX = 4
"""Digits of a run's id that must be given at least."""

_RUN_ID = re.compile(r"[0-9a-f]{4,16}")
_STORED_WEIGHTS = re.compile(r"weights-(\d{4})\.safetensors")
_LISTED = 10


@dataclass(frozen=True)
class Loaded:
    """A network with what is known of it."""

    name: str
    """A run's id, or the name of the file."""

    epoch: int | None
    """Epochs trained; null where a file does not say."""

    config: Config
    model: nn.Module
    """In evaluation mode, on the CPU; maps (n, 32, 32, 3) uint8 to logits (n,)."""

    trained_on: DataSettings | None
    """What it was trained on; null where a file does not say."""


def load(target: str, store: str, epoch: int | None = None, settings: Sequence[str] = ()) -> Loaded:
    """Load a run, or weights.

    Args:
        target: a run's id or the beginning of one, a run's folder, or a file of weights.
        store: where runs are looked for.
        epoch: of a run, by default the last that has weights.
        settings: `KEY=VALUE` of the configuration of weights; by default it is recognised.

    Raises:
        InputError: no such run or file, weights that do not fit, or settings of a run.
    """
    path = Path(target).expanduser()
    run, stored = _find_run(target, path, store)
    if run is None or (settings and stored is not None):
        if epoch is not None:
            refuse("--epoch", "chooses among the epochs of a run; a file of weights has one")
        return _load_file(path, settings)
    if settings:
        refuse("--set", f"is for a file of weights; run {run.run_id} has its configuration")
    if epoch is not None and stored is not None and epoch != stored:
        refuse("--epoch", f"{path.name} holds epoch {stored}", value=epoch)
    return _load_run(run, stored if epoch is None else epoch)


def _find_run(target: str, path: Path, store: str) -> tuple[RunFolder | None, int | None]:
    """The run that is meant, and the epoch if one of its own files is; no run for other files."""
    if path.is_dir():
        return RunFolder(LocalPlace(path.resolve())), None
    match = _STORED_WEIGHTS.fullmatch(path.name)
    if match and (path.parent / HEAD).is_file():
        return RunFolder(LocalPlace(path.resolve().parent)), int(match[1])
    if _RUN_ID.fullmatch(target) and not path.exists():
        return _by_prefix(target, open_root(store, create=False)), None
    from cifake.weights import SUFFIXES

    if path.suffix.lower() in SUFFIXES or path.exists():
        return None, None
    kinds = ", ".join(SUFFIXES)
    return refuse(
        target,
        f"is no run and no file; give {SHORTEST_PREFIX} or more digits of a run's id, a run's "
        f"folder, or weights ({kinds})",
    )


def _by_prefix(prefix: str, store: Place) -> RunFolder:
    runs = store.at(RUNS).folders()
    if not runs:
        refuse("--store", "holds no runs", value=str(store))
    found = [name for name in runs if name.startswith(prefix)]
    if not found:
        refuse("RUN", f"no run of {store} begins so", value=prefix)
    if len(found) > 1:
        names = ", ".join(found[:_LISTED])
        more = "" if len(found) <= _LISTED else f" and {len(found) - _LISTED} more"
        refuse("RUN", f"begins the names of several runs: {names}{more}", value=prefix)
    return run_folder(store, found[0])


def _load_run(run: RunFolder, epoch: int | None) -> Loaded:
    config, epochs = run.config(), run.epochs()
    if not epochs:
        refuse(run.place, "holds no weights of a finished epoch")
    if epoch is None:
        epoch = epochs[-1]
    if epoch not in epochs:
        known = ", ".join(map(str, epochs))
        refuse("--epoch", f"run {run.run_id} has weights of epoch {known}", value=epoch)
    try:
        state = run.read_weights(epoch)
    except DamagedError as error:
        refuse(run.place, str(error))
    model = fitted(str(run.place), config, state)
    return Loaded(run.run_id, epoch, config, model, config.data)


def _load_file(path: Path, settings: Sequence[str]) -> Loaded:
    from cifake.weights import read_weights

    given = parse_settings(settings)
    state = read_weights(path)
    config, state = configure(str(path), state, given)
    model = fitted(str(path), config, state)
    told = any(key.startswith("data.") for key in given)
    return Loaded(path.name, None, config, model, config.data if told else None)


def parse_settings(options: Sequence[str]) -> dict[str, object]:
    """Read `--set` options: `KEY=VALUE`, a dotted path of the configuration and a YAML value.

    Raises:
        InputError: every option without `=`, of an unknown key, or with an unreadable value.
    """
    keys = [path for path, _ in leaves(Config)]
    mistakes: list[Mistake] = []
    settings: dict[str, object] = {}
    for option in options:
        key, separator, text = option.partition("=")
        if not separator:
            problem = "must be KEY=VALUE, as in --set model=resnet"
            mistakes.append(Mistake(where="--set", value=option, problem=problem))
        elif key not in keys:
            problem = f"unknown key; {suggest(key, keys)}"
            mistakes.append(Mistake(where="--set", field=key, problem=problem))
        else:
            try:
                settings[key] = load_yaml(text)
            except yaml.YAMLError:
                problem = "must be YAML, as in 0.01 or after_pool1"
                mistakes.append(Mistake(where="--set", field=key, value=text, problem=problem))
    mistakes += [
        Mistake(where="--set", field=key, value=value, problem=wrong)
        for key, value in settings.items()
        if (wrong := value_problem(key, value))
    ]
    if mistakes:
        raise InputError(mistakes)
    return settings


def configure(where: str, state: Tensors, given: Mapping[str, object]) -> tuple[Config, Tensors]:
    """The configuration of a state dict, and the state dict with its names as they are here.

    Args:
        where: the file, for messages.
        state: names and tensors, as somebody saved them.
        given: settings by dotted path; they go before those that are recognised.

    Raises:
        InputError: no network is recognised and none is given, settings that make none, or a base
            network with another number of outputs than one.
    """
    from cifake.plain import TUTORIAL_SITES, translate
    from cifake.recognise import is_base, recognise

    if is_base(_shapes(state)):
        _refuse_other_heads(where, state)
        placed = "placement" in given and given["placement"] != "none"
        sites = _sites_by_channels(given["placement"]) if placed else TUTORIAL_SITES
        state = translate(where, state, sites)
    found = recognise(_shapes(state))
    if found is None and "model" not in given:
        some = ", ".join(list(state)[:3])
        models = ", ".join(catalogue.model_names())
        refuse(
            where,
            f"no network is recognised by names such as {some}; give --set model=NAME, "
            f"one of {models}",
        )
    found = _agreeing(found or {}, given)
    return _config("--set" if given else where, {**found, **given}), state


def _agreeing(found: dict[str, object], given: Mapping[str, object]) -> dict[str, object]:
    """What was recognised, without what belongs to another architecture than the one given."""
    model = given.get("model", found.get("model"))
    preset = catalogue.PRESETS.get(str(model))
    if model == found.get("model") or (preset and preset.model == found.get("model")):
        return found
    return {key: value for key, value in found.items() if key.startswith("input")}


def _config(where: str, settings: Mapping[str, object]) -> Config:
    try:
        return Config.model_validate(nest(settings))
    except ValidationError as error:
        raise InputError([*_mistakes(where, error)]) from None


def _mistakes(where: str, error: ValidationError) -> Iterator[Mistake]:
    for details in error.errors():
        field = ".".join(map(str, details["loc"])) or None
        value = details["input"] if field else None
        for line in explain(details).splitlines():
            yield Mistake(where=where, field=field, value=value, problem=line)


def _sites_by_channels(placement: object) -> dict[int, tuple[str, ...]]:
    """The sites of the base network that a placement names, by their number of channels."""
    config = _config("--set", {"model": "base", "attention": "srm", "placement": placement})
    channels = catalogue.sites_of(config)
    sites: dict[int, tuple[str, ...]] = {}
    for site in catalogue.placement_sites(config, config.placement):
        sites[channels[site]] = (*sites.get(channels[site], ()), site)
    return sites


def _refuse_other_heads(where: str, state: Tensors) -> None:
    head = state.get("fc3.weight")
    if head is not None and head.ndim == 2 and head.shape[0] != 1:
        refuse(
            where,
            f"has {head.shape[0]} outputs, one for each of as many classes; must have one, the "
            "logit of REAL",
            field="fc3.weight",
        )


def fitted(where: str, config: Config, state: Tensors) -> nn.Module:
    """The network of a configuration with the weights of a state dict, in evaluation mode.

    Counts of batches that batch normalisation has seen may be missing: nothing depends on them.

    Raises:
        InputError: every name that is missing, unexpected, of another shape, or not finite.
    """
    import torch

    from cifake.models.build import build

    model = build(config, seed=0)
    own = model.state_dict()
    counts = {
        name: torch.zeros_like(value)
        for name, value in own.items()
        if name.endswith(".num_batches_tracked") and name not in state
    }
    mistakes = [*_misfits(where, own, {**counts, **state})]
    if mistakes:
        raise InputError([*mistakes, Mistake(where=where, problem=_described(config))])
    model.load_state_dict({**counts, **state})
    return model.eval()


def _misfits(where: str, own: Mapping[str, Any], given: Tensors) -> Iterator[Mistake]:
    for verdict, names in (
        ("missing", [name for name in own if name not in given]),
        ("unexpected", [name for name in given if name not in own]),
    ):
        if names:
            yield Mistake(where=where, problem=f"{verdict}: {', '.join(names)}")
    for name in (name for name in own if name in given):
        if given[name].shape != own[name].shape:
            problem = f"has shape {_shape(given[name])}, must have {_shape(own[name])}"
            yield Mistake(where=where, field=name, problem=problem)
        elif given[name].is_floating_point() and not given[name].isfinite().all():
            yield Mistake(where=where, field=name, problem="holds numbers that are not finite")


def _described(config: Config) -> str:
    parts = [config.model]
    if config.attention != "none":
        parts.append(f"{config.attention} {config.placement}")
    return f"taken for {' with '.join(parts)}; if it is another network, give --set KEY=VALUE"


def _shapes(state: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


def _shape(value: torch.Tensor) -> str:
    return "×".join(map(str, value.shape)) or "a single number"
