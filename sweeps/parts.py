"""The studies that a search falls into: one for each combination of scientific values."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import product
from typing import Any

from cifake.parameters import EPOCHS
from sweeps.spec import Search, Spec
from sweeps.sweep import Sweep


def split_scientific(spec: Spec) -> list[Spec]:
    """One specification for each combination of scientific values, lengths left together."""
    held = {path: values for path, values in spec.scientific.items() if path != EPOCHS}
    lengths = {path: values for path, values in spec.scientific.items() if path == EPOCHS}
    return [
        replace(spec, scientific={**{k: [v] for k, v in zip(held, chosen, strict=True)}, **lengths})
        for chosen in product(*held.values())
    ]


def study_name(part: Sweep, search: Search) -> str:
    """A name that changes with all that a study's values depend on, and with nothing else."""
    spec = part.spec
    budget = {"trials", "hours", "core_hours", "gpu_hours"}
    parts = [
        part.fingerprint,
        spec.data.model_dump_json(),
        *(repr(sorted(each.items())) for each in (spec.scientific, spec.nuisance, spec.fixed)),
        repr(spec.seeds),
        search.model_dump_json(exclude={*budget, "confirm"}),
    ]
    return f"{spec.name}-{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:12]}"


def single_values(spec: Spec) -> dict[str, Any]:
    """Parameters with one value; conditions of the space may look at them."""
    grids = {**spec.scientific, **spec.nuisance}
    return {**spec.fixed, **{path: v[0] for path, v in grids.items() if len(v) == 1}}


def length(part: Sweep) -> int:
    """Epochs of a trial."""
    return max(cell.variant.epochs for cell in part.cells())
