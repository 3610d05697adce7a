"""Where a sweep is trained: a cluster of its own, or one that runs and must be fit for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rich.console import Console

from cifake.errors import refuse
from sweeps import authentication
from sweeps.admission import Terms, make_terms
from sweeps.packs import publish_packs
from sweeps.probe import Widest
from sweeps.rounds import Round
from sweeps.sizing import Placed, Sized
from sweeps.store import Store
from sweeps.sweep import Sweep
from sweeps.trial import Report, Task
from sweeps.words import counted

if TYPE_CHECKING:
    from sweeps.search.study import Study


@dataclass(frozen=True)
class Site:
    """A cluster that this process is connected to."""

    sweep: Sweep
    """With what each of its stacks gets."""

    workers: int
    """Stacks that train at the same time, on the nodes there are now."""

    sized: Sized
    terms: Terms | None
    say: Callable[[str], None]

    def run_rounds(self, rounds: Iterable[Round]) -> None:
        """Run every task of every round, as many at the same time as there is room for."""
        from sweeps import tuner

        bundle = tuner.bundle(self.sized)
        if self.terms is None:  # this machine is all there is, and will be
            tuner.run_rounds(rounds, bundle)
        else:
            room = tuner.room_for(self.sized)
            tuner.run_rounds(rounds, bundle, self.terms, self.say, room)

    def run_search(
        self,
        study: Study,
        make_task: Callable[[Mapping[str, Any]], Task],
        on_epoch: Callable[[Report], None],
        on_stack: Callable[[Task], None],
    ) -> list[str]:
        """Try what a study proposes; see `tuner.search`."""
        from sweeps import tuner
        from sweeps.tuner.search import run_search

        bundle = tuner.bundle(self.sized)
        return run_search(study, make_task, on_epoch, on_stack, bundle, self.terms, self.say)


@contextlib.contextmanager
def connected(
    sweep: Sweep, store: Store, console: Console, address: str | None, widest: Widest
) -> Iterator[Site]:
    """Connect to a cluster, or start one for as long as the block lasts.

    Every node of a running one is asked whether it is fit, and the packs are put into the store for
    those that lack them.

    Args:
        sweep: what is trained there.
        store: where its runs live.
        console: to print to.
        address: of a running cluster; null starts one on this machine.
        widest: its largest stacks, in case a GPU must hold them.

    Raises:
        InputError: the cluster, or a node of it, is not fit.
    """

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    authentication.prepare(address)
    from sweeps import tuner

    with tuner.cluster(address):
        terms = None
        if address is not None:
            terms = make_terms(store, [pack.folder for pack in sweep.packs.values()])
            tuner.inspect(terms)
            publish_packs(sweep, store)
        placed = tuner.place(sweep.spec.resources, widest, can_grow=address is not None)
        if placed.lacking is not None:
            name, most = placed.lacking
            value = getattr(placed.sized, name)
            problem = f"no node has so much for one stack; the most is {most:g}"
            if address is None:
                refuse(sweep.spec.source, problem, field=f"resources.{name}", value=value)
            say(f"note: resources.{name}: {value:g}: {problem}; stacks wait for a node that has")
        if address is not None or placed.sized.gpus or placed.sized.why:
            say(_told(placed))
        sized_sweep = replace(sweep, sized=placed.sized)
        yield Site(sized_sweep, max(1, placed.slots), placed.sized, terms, say)


def _told(placed: Placed) -> str:
    """How many workers there are, where, and what each has."""
    sized = placed.sized
    each = "1 core" if sized.cpus == 1 else f"{sized.cpus:g} cores"
    if sized.gpus:
        each += f" and {sized.gpus:g} GPU"
    parts = [
        f"{counted(placed.slots, 'worker')} on {counted(placed.nodes, 'node')}, each with {each}",
        *([sized.why] if sized.why else []),
        *sized.fallbacks,
    ]
    return "; ".join(parts)
