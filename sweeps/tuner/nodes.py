"""The nodes of the cluster that this process is connected to."""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cifake.errors import InputError, Mistake
from sweeps.admission import Terms, problems
from sweeps.sizing import Machine

_FRESH = 1.0
"""Seconds for which an answer of the control store is good."""

_ANSWER = 120.0
"""Seconds that a node has to answer: it may have to start a process and to import us."""


class Nodes:
    """Which nodes live, as the control store knows."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, Any]] = {}
        self.draining: set[str] = set()
        self.looked = float("-inf")

    def leaves(self, node_id: str) -> bool:
        """Whether a node is dead, or will be soon and takes no work any more."""
        if node_id not in self.known:  # it may have joined since
            self.looked = float("-inf")
        self._look()
        node = self.known.get(node_id)
        return node is None or not node["Alive"] or node_id in self.draining

    def machines(self) -> list[Machine]:
        """Those that live and take work."""
        self._look()
        return [
            Machine(
                node_id=node_id,
                name=_name(node),
                cpus=float(node["Resources"].get("CPU", 0)),
                gpus=float(node["Resources"].get("GPU", 0)),
            )
            for node_id, node in self.known.items()
            if not self.leaves(node_id)
        ]

    def name(self, node_id: str) -> str:
        """A node, for people."""
        self._look()
        return _name(self.known[node_id]) if node_id in self.known else f"node {node_id}"

    def _look(self) -> None:
        if time.monotonic() > self.looked + _FRESH:
            nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
            self.known = {node["NodeID"]: node for node in nodes}
            # Ray's own Train is told of nodes that are about to be taken away in this way.
            self.draining = set(ray._private.state.state.get_draining_nodes())  # noqa: SLF001
            self.looked = time.monotonic()


def inspect(terms: Terms) -> None:
    """Ask every node whether it fulfils what work for this process asks of it.

    Raises:
        InputError: everything that is wrong on any of them.
    """
    look = ray.remote(problems)
    asked = {on_node(each.node_id, look, terms): each for each in Nodes().machines()}
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER)
    answers = [(asked[answer], problem) for answer in ready for problem in _answer(answer)]
    slow = f"did not answer within {_ANSWER:.0f} s; is it overloaded, or out of reach?"
    answers += [(asked[answer], slow) for answer in late]
    nodes = Nodes()  # one that died meanwhile has no say
    found = [(each.name, problem) for each, problem in answers if not nodes.leaves(each.node_id)]
    if found:
        raise InputError(Mistake(where=name, problem=problem) for name, problem in sorted(found))


def on_node(node_id: str, function: Any, *arguments: Any, **resources: float) -> Any:
    """Call a function on a node; what it returns can be got by Ray.

    Args:
        node_id: where.
        function: a remote one.
        arguments: of the function.
        resources: `num_gpus` and its like; by default none are waited for.
    """
    there = NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
    options = {"num_cpus": 0, "scheduling_strategy": there, "max_retries": 0, **resources}
    return function.options(**options).remote(*arguments)


def _answer(asked: Any) -> list[str]:
    try:
        found: list[str] = ray.get(asked)
    except RayError as error:
        # Such as that it has no module of ours.
        lines = [line for line in str(error).splitlines() if line.strip()]
        return [f"cannot run this project's code ({lines[-1].strip()}); install it there"]
    return found


def _name(node: dict[str, Any]) -> str:
    return f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
