"""The studies that a search falls into: one for each combination of scientific values."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import islice, product
from typing import Any

from cifake.parameters import EPOCHS
from sweeps.spec import Search, Spec, points
from sweeps.sweep import Sweep

_PROBES = 1_000
"""Points of a space by which it is told whether two combinations mean the same."""


def split_scientific(spec: Spec) -> list[Spec]:
    """One specification for each combination of scientific values, lengths left together.

    Of combinations that mean the same, such as the placements of no attention, the first stays.
    """
    (grid,) = spec.grids
    held = {path: values for path, values in grid.items() if path != EPOCHS}
    lengths = {path: values for path, values in grid.items() if path == EPOCHS}
    parts: dict[tuple[str, ...], Spec] = {}
    for chosen in product(*held.values()):
        given = {path: [value] for path, value in zip(held, chosen, strict=True)}
        part = replace(spec, grids=[{**given, **lengths}])
        parts.setdefault(_meaning(part), part)
    return list(parts.values())


def _meaning(part: Spec) -> tuple[str, ...]:
    """Identities of the configs that a study would train, at the corners of its space."""
    probes: Iterable[Mapping[str, Any]] = ({},)
    if part.search is not None:
        probes = islice(points(part.search, single_values(part), corners=True), _PROBES)
    found = {variant.config.config_id for probe in probes for variant in part.variants("", probe)}
    return tuple(sorted(found))


def study_name(part: Sweep, search: Search) -> str:
    """A name that changes with all that a study's values depend on, and with nothing else."""
    spec = part.spec
    left_out = {"trials", "hours", "core_hours", "gpu_hours", "confirm"}
    if search.reach is None:
        left_out.add("reach")  # the names of studies are older than it
    parts = [
        part.fingerprint,
        spec.data.model_dump_json(),
        *(repr(sorted(each.items())) for each in (spec.scientific, spec.nuisance, spec.fixed)),
        repr(spec.seeds),
        search.model_dump_json(exclude=left_out),
    ]
    return f"{spec.name}-{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:12]}"


def single_values(spec: Spec) -> dict[str, Any]:
    """Parameters with one value; conditions of the space may look at them."""
    grids = {**spec.scientific, **spec.nuisance}
    return {**spec.fixed, **{path: v[0] for path, v in grids.items() if len(v) == 1}}


def length(part: Sweep, proposed: Mapping[str, Any] | None = None) -> int:
    """Epochs of a trial: of that of some proposed values, or of the longest."""
    return max(each.epochs for each in part.spec.variants(part.fingerprint, proposed))
