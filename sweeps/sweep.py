"""A specification with its data opened: what cells it asks for, and what a trial is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import joblib
from rich.console import Console

from cifake.data.locate import parse_sources
from cifake.data.pack import Pack
from cifake.data.subsets import split_rows
from cifake.data.uses import check_uses
from cifake.data.watch import open_watched
from cifake.devices import has_gpu
from sweeps import overrides, specfile
from sweeps.parse import parse
from sweeps.plan import Cell, Stack, make_cells
from sweeps.sizing import Sized
from sweeps.spec import Spec
from sweeps.store import Store
from sweeps.trial import Task


@dataclass(frozen=True)
class Sweep:
    """A specification with its data opened."""

    spec: Spec
    packs: Mapping[str, Pack]
    """By data set; the training set's comes first."""

    sized: Sized | None = None
    """What each stack gets of a cluster, once one is known; on a GPU by default if this machine has
    one."""

    @property
    def uses_gpus(self) -> bool:
        """Whether stacks are trained on GPUs, as far as is known."""
        if self.sized is not None:
            return self.sized.gpus > 0
        return bool(has_gpu() if self.spec.resources.gpus is None else self.spec.resources.gpus)

    @property
    def train_pack(self) -> Pack:
        """The training data."""
        return self.packs[self.spec.data.train]

    @property
    def fingerprint(self) -> str:
        """Of the training data."""
        return self.train_pack.info.fingerprint

    @property
    def evaluations(self) -> list[tuple[str, str]]:
        """`(dataset, split)` that every milestone needs."""
        validation = [(self.spec.data.train, "validation")] if self.spec.data.validation else []
        return [*validation, *((name, "test") for name in self.spec.evaluate)]

    @property
    def test_images(self) -> int:
        """Images of all test sets."""
        return sum(len(self.packs[name].rows("test")) for name in self.spec.evaluate)

    def cells(self, suggestions: Sequence[Mapping[str, Any]] = ({},)) -> list[Cell]:
        """The cells of the grid, or of some proposals of a search."""
        variants = [v for each in suggestions for v in self.spec.variants(self.fingerprint, each)]
        return make_cells(
            variants, self.spec.seeds, "grid" if self.spec.search is None else "search"
        )

    def task(
        self, stack: Stack, store: Store, commit: str | None, *, width: int | None = None
    ) -> Task:
        """What a trial is told to train a stack; one without a width finds its own."""
        return Task(
            config=stack.config.model_dump(),
            seeds=stack.seeds,
            epochs=stack.epochs,
            milestones=stack.milestones,
            packs={name: str(pack.folder.resolve()) for name, pack in self.packs.items()},
            evaluate=tuple(self.spec.evaluate),
            store=store.address,
            width=width,
            git_commit=commit,
            gpus=self.sized.gpus if self.sized else self.spec.resources.gpus or 0.0,
            fallbacks=self.sized.fallbacks if self.sized else (),
        )


def read_spec(name: str, settings: Sequence[str], *, until_resolved: bool = False) -> Spec:
    """Find, read, override and validate a specification.

    Args:
        name: a file, or a study that ships.
        settings: overrides, KEY=VALUE.
        until_resolved: whether to give it the section `resolve` where it has none.

    Raises:
        InputError: every mistake found.
    """
    file = overrides.apply(specfile.read(specfile.find(name)), settings)
    if until_resolved and file.content.get("resolve") is None:
        file = replace(file, content={**file.content, "resolve": {}})
    return parse(file)


def open_sweep(spec: Spec, data: Sequence[str], console: Console) -> Sweep:
    """Open every data set that a specification needs, packing what was never packed.

    Raises:
        InputError: a data set is nowhere or damaged, or too small for the specification.
    """
    sources = parse_sources(data, spec.data.train)
    packs = {name: open_watched(name, sources, console) for name in spec.datasets}
    sweep = Sweep(spec, packs)
    check_uses(sweep.train_pack, [packs[name] for name in spec.evaluate], spec.source)
    for settings in dict.fromkeys(cell.variant.config.data for cell in sweep.cells()):
        split_rows(sweep.train_pack, settings, spec.source)
    return sweep


def workers_here(spec: Spec) -> int:
    """Stacks that fit on this machine at the same time."""
    return max(1, int(joblib.cpu_count() // spec.resources.cpus))
