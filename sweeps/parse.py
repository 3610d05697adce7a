"""From a specification as written to a validated one. All mistakes of a file are named at once."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import yaml
from pydantic import ValidationError

from cifake.config import Settings
from cifake.data.choice import DataChoice
from cifake.errors import InputError, Mistake, suggest
from cifake.parameters import (
    EPOCHS,
    HORIZON,
    PARAMETERS,
    combination_problems,
    explain,
    value_problem,
)
from sweeps.spec import (
    SEED,
    Compare,
    Confirm,
    Dimension,
    Reach,
    Resolve,
    Resources,
    Scheduler,
    Search,
    Shape,
    Spec,
    flatten,
    ordered_space,
    points,
)
from sweeps.specfile import SpecFile

MAX_PROBES = 1_000
"""Combinations of a search's choices that are looked at beforehand."""

MAX_POINTS = 100_000
"""Points of the largest grid."""

MAX_SEEDS = 10_000
"""More seeds than anyone trains; the bound keeps a slip from filling the memory."""

MIN_FIRST_ROUND = 3
"""Seeds before the first decision of `--until-resolved`."""


def parse(file: SpecFile) -> Spec:
    """Validate a specification.

    Raises:
        InputError: every mistake of the file.
    """
    mistakes: list[Mistake] = []
    shape = _shape(file, mistakes)
    scientific = _scientific(file, shape)
    sections = {
        **scientific,
        "nuisance": {k: v for k, v in flatten(shape.nuisance).items() if k != SEED},
        "fixed": flatten(shape.fixed),
    }
    _check_names(file, sections, [*scientific], mistakes)
    _check_lengths(file, sections, [*scientific], mistakes)
    grids = {
        name: {path: value if isinstance(value, list) else [value] for path, value in given.items()}
        for name, given in sections.items()
    }
    for name, grid in grids.items():
        for path, values in grid.items():
            _check_values(file, f"{name}.{path}", path, values, mistakes)
    for path, value in sections["fixed"].items():
        if isinstance(value, list):
            problem = "must be one value; several belong into scientific or nuisance"
            mistakes.append(file.mistake(f"fixed.{path}", problem, value))
    seeds = _seeds(file, shape.nuisance.get(SEED, 1), mistakes)
    if shape.search is not None:
        _check_search(file, shape, shape.search, sections, mistakes)
        _check_sampler(file, shape.search, mistakes)
        _check_confirm(file, shape.search, seeds, mistakes)
        _check_one_grid(file, [*scientific], mistakes)
    _check_baseline(file, shape, [grids[name] for name in scientific], mistakes)
    if shape.resolve is not None:
        _check_resolve(file, shape, shape.resolve, seeds, mistakes)
    if mistakes:
        raise InputError(mistakes)
    spec = Spec(
        source=file.name,
        written=yaml.safe_dump(file.content, sort_keys=False, allow_unicode=True),
        name=shape.name,
        question=shape.question,
        data=shape.data,
        grids=[grids[name] for name in scientific],
        nuisance=grids["nuisance"],
        fixed=sections["fixed"],
        seeds=seeds,
        resources=shape.resources,
        search=shape.search,
        compare=shape.compare,
        resolve=shape.resolve,
    )
    _check_combinations(file, spec, mistakes)
    if not mistakes:
        _check_compared(file, spec, mistakes)
        _check_rivals(file, spec, mistakes)
    if mistakes:
        raise InputError(mistakes)
    return spec


def _shape(file: SpecFile, mistakes: list[Mistake]) -> Shape:
    """The sections of a file. What is wrong is reported and left out.

    So everything beside it is looked at all the same, and all mistakes are named at once.
    """
    content = copy.deepcopy(file.content)
    try:
        return Shape.model_validate(content)
    except ValidationError as error:
        mistakes += [_translate(file, details) for details in error.errors()]
        for details in error.errors():
            _prune(content, details["loc"])
    content.setdefault("name", "unnamed")
    try:
        return Shape.model_validate(content)
    except ValidationError as error:
        # Pruning left a section without something it needs: that section goes altogether.
        sections = {details["loc"][0] for details in error.errors()}
        kept = {k: v for k, v in content.items() if isinstance(k, str) and k not in sections}
        return Shape.model_validate(kept)


def _scientific(file: SpecFile, shape: Shape) -> dict[str, dict[str, Any]]:
    """The grids of scientific values, flat, by their place in the file."""
    one = not isinstance(file.content.get("scientific"), list)
    return {
        "scientific" if one else f"scientific[{number}]": flatten(grid)
        for number, grid in enumerate(shape.scientific)
    }


def _prune(content: Any, loc: tuple[int | str, ...]) -> None:
    *groups, last = loc
    for group in groups:
        if not isinstance(content, dict) or group not in content:
            return
        content = content[group]
    if isinstance(content, dict):
        content.pop(last, None)


def _translate(file: SpecFile, details: Any) -> Mistake:
    path = ".".join(str(part) for part in details["loc"])
    if details["type"] == "extra_forbidden":
        *groups, name = details["loc"]
        if not groups and (name in PARAMETERS or name == SEED):
            section = "nuisance" if name == SEED else "scientific or fixed"
            return file.mistake(path, f"belongs into {section}", None)
        owner = _class_at(details["loc"][:-1])
        hint = suggest(str(name), owner.model_fields) if owner else "remove it"
        return file.mistake(path, f"unknown key; {hint}", None)
    if details["type"] == "missing":
        return file.mistake(path, "is missing and needed", None)
    return file.mistake(path, explain(details), details["input"])


def _class_at(loc: tuple[int | str, ...]) -> type[Settings] | None:
    """The settings class whose keys stand at a place of the file."""
    places: dict[tuple[int | str, ...], type[Settings]] = {
        (): Shape,
        ("data",): DataChoice,
        ("resources",): Resources,
        ("search",): Search,
        ("search", "scheduler"): Scheduler,
        ("search", "reach"): Reach,
        ("search", "confirm"): Confirm,
        ("compare",): Compare,
        ("resolve",): Resolve,
    }
    if loc[:2] == ("search", "space"):
        return Dimension
    return places.get(loc)


def _check_names(
    file: SpecFile,
    sections: dict[str, dict[str, Any]],
    grids: Sequence[str],
    mistakes: list[Mistake],
) -> None:
    """Whether each name is known and given in one section; grids may name what others name."""
    owners: dict[str, str] = {}
    for section, given in sections.items():
        for path in given:
            if path == SEED:
                mistakes.append(file.mistake(f"{section}.seed", "belongs into nuisance", None))
            elif path not in PARAMETERS:
                hint = suggest(path, [*PARAMETERS, SEED])
                mistakes.append(file.mistake(f"{section}.{path}", f"unknown key; {hint}", None))
            elif path in owners and not {section, owners[path]} <= {*grids}:
                problem = f"is also given in {owners[path]}; keep one of the two"
                mistakes.append(file.mistake(f"{section}.{path}", problem, None))
            owners.setdefault(path, section)


def _check_lengths(
    file: SpecFile,
    sections: dict[str, dict[str, Any]],
    grids: Sequence[str],
    mistakes: list[Mistake],
) -> None:
    """Whether every combination has a length."""
    owners = [section for section, given in sections.items() if EPOCHS in given]
    if not owners:
        problem = "is missing and needed, in scientific or fixed, as in epochs: [1, 5]"
        mistakes.append(file.mistake(EPOCHS, problem, None))
    elif owners[0] in grids:
        for grid in sorted({*grids} - {*owners}):
            problem = "is missing and needed, as other grids have it"
            mistakes.append(file.mistake(f"{grid}.{EPOCHS}", problem, None))
    elif owners[0] == "nuisance":
        mistakes.append(file.mistake("nuisance.epochs", "belongs into scientific or fixed", None))


def _check_values(
    file: SpecFile, place: str, path: str, values: list[Any], mistakes: list[Mistake]
) -> None:
    if not values:
        mistakes.append(file.mistake(place, "must name at least one value", values))
    seen: list[Any] = []
    for index, value in enumerate(values):
        here = place if len(values) == 1 else f"{place}[{index}]"
        if any(value == other and type(value) is type(other) for other in seen):
            mistakes.append(file.mistake(here, "is there twice; remove one", value))
        seen.append(value)
        problem = value_problem(path, value)
        if problem is not None:
            mistakes.append(file.mistake(here, problem, value))


def _seeds(
    file: SpecFile, given: Any, mistakes: list[Mistake], place: str = "nuisance.seed"
) -> list[int]:
    whole = isinstance(given, int) and not isinstance(given, bool)
    if whole and 1 <= given <= MAX_SEEDS:
        return list(range(given))
    valid = isinstance(given, list) and all(
        isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**63 for seed in given
    )
    if not valid or not given:
        problem = (
            f"must be a number of seeds of at least 1 and at most {MAX_SEEDS:,}, or a list of "
            "seeds of at least 0 and below 2**63"
        )
        mistakes.append(file.mistake(place, problem, given))
        return []
    if len(set(given)) != len(given):
        mistakes.append(file.mistake(place, "names a seed twice; remove one", given))
    return list(given)


def _check_search(
    file: SpecFile,
    shape: Shape,
    search: Search,
    sections: dict[str, dict[str, Any]],
    mistakes: list[Mistake],
) -> None:
    for path, values in sections["nuisance"].items():
        if isinstance(values, list) and len(values) > 1:
            problem = "a search averages over seeds alone; give one value"
            mistakes.append(file.mistake(f"nuisance.{path}", problem, values))
    if shape.data.validation == 0:
        problem = "a search needs a validation split of at least 1 image"
        mistakes.append(file.mistake("data.validation", problem, 0))
    owners = {path: name for name, given in sections.items() for path in given}
    for path, dimension in search.space.items():
        place = f"search.space.{path}"
        if path == EPOCHS:
            problem = "is no dimension; give the most of them in fixed, and schedule.horizon here"
            mistakes.append(file.mistake(place, problem, None))
            continue
        if path not in PARAMETERS:
            hint = suggest(path, [name for name in PARAMETERS if name != EPOCHS])
            mistakes.append(file.mistake(place, f"unknown key; {hint}", None))
            continue
        if path in owners:
            problem = f"is also given in {owners[path]}; keep one of the two"
            mistakes.append(file.mistake(place, problem, None))
        _check_values(file, f"{place}.{dimension.kinds[0]}", path, dimension.values, mistakes)
        _check_conditions(file, f"{place}.when", dimension, {*search.space, *owners}, mistakes)
    try:
        ordered_space(search)
    except ValueError as error:
        mistakes.append(file.mistake("search.space", str(error), None))


def _check_one_grid(file: SpecFile, grids: Sequence[str], mistakes: list[Mistake]) -> None:
    """Whether the studies of a search are the combinations of one grid."""
    if len(grids) > 1:
        problem = "a search has a study for each combination of one grid; give one mapping"
        mistakes.append(file.mistake("scientific", problem, f"{len(grids)} grids"))


def _check_sampler(file: SpecFile, search: Search, mistakes: list[Mistake]) -> None:
    """Whether the sampler can draw from the space."""
    space = search.space
    if search.sampler == "grid":
        endless = [path for path, dimension in space.items() if dimension.points is None]
        for path in endless:
            problem = "a grid needs values to choose from: choice or int_uniform"
            mistakes.append(file.mistake(f"search.space.{path}", problem, None))
        # Counted without conditions, which only take points away.
        most = math.prod(dimension.size or 1 for dimension in space.values())
        if most > MAX_POINTS:
            problem = f"a grid has {MAX_POINTS:,} points at most; take random or tpe"
            mistakes.append(file.mistake("search.space", problem, f"{most:,} points"))
    if search.sampler == "cma_es":
        for path, dimension in space.items():
            if dimension.choice is not None or dimension.when:
                problem = "cma_es needs ranges of numbers without conditions; take tpe or gp"
                mistakes.append(file.mistake(f"search.space.{path}", problem, None))
        if len(space) < 2:
            problem = "cma_es needs two dimensions or more; take tpe or gp"
            mistakes.append(file.mistake("search.space", problem, list(space)))


def _check_confirm(
    file: SpecFile, search: Search, used: list[int], mistakes: list[Mistake]
) -> None:
    """Whether the seeds of the last stage are fresh."""
    if search.confirm is None:
        return
    place, given = "search.confirm.seeds", search.confirm.seeds
    seeds = _seeds(file, given, mistakes, place)
    stale = sorted(set(seeds) & set(used)) if isinstance(given, list) else []
    if stale:
        problem = (
            f"the search used {', '.join(map(str, stale))}, so they are not fresh; give others"
        )
        mistakes.append(file.mistake(place, problem, given))
    elif isinstance(given, int) and used and max(used) + given >= 2**63:
        problem = "there are no seeds left behind those of the search; give a list"
        mistakes.append(file.mistake(place, problem, given))


def _check_baseline(
    file: SpecFile,
    shape: Shape,
    grids: Sequence[Mapping[str, list[Any]]],
    mistakes: list[Mistake],
) -> None:
    """Whether the baseline names parameters that are compared, with values that they have."""
    space = {} if shape.search is None else shape.search.space
    scientific = dict.fromkeys(path for grid in grids for path in grid)
    # A grid that does not name a parameter has its default.
    listed = {
        path: [value for grid in grids for value in grid[path]]
        for path in scientific
        if all(path in grid for grid in grids)
    }
    compared = [path for path in (*scientific, *space) if path != EPOCHS]
    for path, value in shape.compare.baseline.items():
        place = f"compare.baseline.{path}"
        if path == EPOCHS:
            problem = "configs are compared at one length; remove it"
            mistakes.append(file.mistake(place, problem, value))
        elif path not in compared:
            kind = "has one value here" if path in PARAMETERS else "unknown key"
            problem = f"{kind}; a parameter that is compared is needed, {suggest(path, compared)}"
            mistakes.append(file.mistake(place, problem, value))
        elif path in space and not space[path].holds(value) and value is not None:
            problem = f"lies outside search.space.{path}"
            mistakes.append(file.mistake(place, problem, value))
        elif path in listed and value not in (*listed[path], None, "none"):
            known = {str(each) for each in listed[path]}
            problem = f"is none of its values here; {suggest(str(value), known)}"
            mistakes.append(file.mistake(place, problem, value))


def _check_compared(file: SpecFile, spec: Spec, mistakes: list[Mistake]) -> None:
    """Whether there are configs with the baseline's values, and others to hold against them."""
    if not spec.compare.baseline or spec.search is not None:
        return
    labels = {variant.label_json: variant.label for variant in spec.variants("")}
    found = {spec.compare.is_baseline(label) for label in labels.values()}
    if found != {True, False}:
        problem = "every config has these values" if True in found else "no config has these values"
        problem += "; name some that some configs have and others have not"
        mistakes.append(file.mistake("compare.baseline", problem, spec.compare.baseline))


def _check_resolve(
    file: SpecFile, shape: Shape, resolve: Resolve, seeds: list[int], mistakes: list[Mistake]
) -> None:
    """Whether there are scores to decide by, and seeds to add."""
    if shape.search is not None:
        problem = (
            "seeds are added to a grid, not to a search: give search.confirm instead, or move the "
            "best values into scientific and remove search"
        )
        mistakes.append(file.mistake("resolve", problem, None))
    if shape.data.validation == 0:
        problem = "--until-resolved decides by validation scores; set at least 1 image aside"
        mistakes.append(file.mistake("data.validation", problem, 0))
    if not seeds:
        return
    if len(seeds) < MIN_FIRST_ROUND:
        problem = (
            f"the first round of --until-resolved needs at least {MIN_FIRST_ROUND} seeds, to see "
            "how far they spread"
        )
        mistakes.append(file.mistake("nuisance.seed", problem, shape.nuisance.get(SEED, 1)))
    elif resolve.max_seeds <= len(seeds):
        problem = f"must be above the {len(seeds)} seeds of the first round, nuisance.seed"
        mistakes.append(file.mistake("resolve.max_seeds", problem, resolve.max_seeds))
    if max(seeds) + resolve.max_seeds >= 2**63:
        problem = "there are no seeds left behind these; give smaller ones"
        mistakes.append(file.mistake("nuisance.seed", problem, seeds))


def _check_rivals(file: SpecFile, spec: Spec, mistakes: list[Mistake]) -> None:
    """Whether there is something to rank."""
    if spec.resolve is not None and len({each.label_json for each in spec.variants("")}) < 2:
        problem = "--until-resolved ranks configs; name two values or more of a parameter"
        mistakes.append(file.mistake("scientific", problem, None))


def _check_conditions(
    file: SpecFile, place: str, dimension: Dimension, given: set[str], mistakes: list[Mistake]
) -> None:
    for path, value in dimension.when.items():
        here = f"{place}.{path}"
        if path not in PARAMETERS:
            hint = suggest(path, PARAMETERS)
            mistakes.append(file.mistake(here, f"unknown key; {hint}", None))
        elif (problem := value_problem(path, value)) is not None:
            mistakes.append(file.mistake(here, problem, value))
        elif path not in given:
            problem = "has no value in this sweep; give one, or drop the condition"
            mistakes.append(file.mistake(here, problem, value))


def _check_combinations(file: SpecFile, spec: Spec, mistakes: list[Mistake]) -> None:
    seen: set[str] = set()
    for scientific, nuisance in spec.combinations():
        given = {**spec.fixed, **scientific, **nuisance}
        for suggested in _suggestions(spec, given):
            values = {**given, **suggested}
            if spec.searches_horizon:
                values[EPOCHS] = min(values[EPOCHS], values.get(HORIZON, values[EPOCHS]))
            for problem in combination_problems(spec.data, values):
                if problem not in seen:
                    seen.add(problem)
                    mistakes.append(_combination_mistake(file, spec, values, problem))


def _suggestions(spec: Spec, given: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What a search may join to a combination: its choices, with each range by its low end."""
    if spec.search is None:
        yield {}
    else:
        yield from islice(points(spec.search, given, corners=True), MAX_PROBES)


def _combination_mistake(
    file: SpecFile, spec: Spec, values: Mapping[str, Any], problem: str
) -> Mistake:
    path, _, rest = problem.partition(": ")
    section = next(
        (name for name in ("scientific", "nuisance", "fixed") if path in getattr(spec, name)), None
    )
    place = f"{section}.{path}" if section else path
    return file.mistake(place, rest or problem, values.get(path))
