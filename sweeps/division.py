"""The stacks of a plan as tasks, which are divided while they wait if a cluster grows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sweeps.plan import Cost, Stack, divided
from sweeps.store import Store
from sweeps.trial import Task


class Division:
    """Makes tasks of stacks, and of stacks that nobody has begun smaller ones.

    A kill must not change which runs are trained together: what is divided is written down before
    any of it is handed out.

    Args:
        store: where runs live.
        sweep: name of the sweep that is trained.
        cost: what training costs.
        make_task: what a trial is told to train a stack.
    """

    def __init__(
        self, store: Store, sweep: str, cost: Cost, make_task: Callable[[Stack], Task]
    ) -> None:
        self.store = store
        self.sweep = sweep
        self.cost = cost
        self.make_task = make_task
        self.made: list[tuple[Task, Stack]] = []

    def tasks(self, stacks: Iterable[Stack]) -> list[Task]:
        """What trials are told to train some stacks."""
        made = [(self.make_task(stack), stack) for stack in stacks]
        self.made += made
        return [task for task, _ in made]

    def divide(self, tasks: Sequence[Task], workers: int) -> dict[int, list[Task]]:
        """Smaller tasks in the place of some, by place, so that workers end sooner.

        Args:
            tasks: that wait.
            workers: that have nothing else to do.
        """
        stacks = [self._stack(task) for task in tasks]
        new = [place for place, stack in enumerate(stacks) if self._is_new(stack)]
        parts = divided([stacks[place] for place in new], self.cost, workers)
        found = {new[place]: each for place, each in parts.items()}
        if found:
            self._keep((stacks[place], each) for place, each in found.items())
        return {place: self.tasks(each) for place, each in found.items()}

    def _stack(self, asked: Task) -> Stack:
        return next(stack for task, stack in self.made if task is asked)

    def _is_new(self, stack: Stack) -> bool:
        """Whether no run of it was begun, in this stack or any other."""
        if stack.start or len(stack.seeds) == 1:
            return False
        states = self.store.run_states(stack.run_ids).values()
        return not any(state.epochs_done or state.stack for state in states)

    def _keep(self, found: Iterable[tuple[Stack, Sequence[Stack]]]) -> None:
        """Write down which runs are trained together from now on."""
        decided = self.store.read_stacks(self.sweep)
        for stack, parts in found:
            others = [s for s in decided.get(stack.config_id, []) if set(s) - set(stack.seeds)]
            decided[stack.config_id] = [*others, *(list(part.seeds) for part in parts)]
        self.store.write_stacks(self.sweep, decided)
