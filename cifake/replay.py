"""Forward and backward passes on a GPU, recorded once as a graph of kernels and replayed.

A small network's step is some dozens of kernels that take microseconds each, less than it takes to
launch them one by one. A graph launches them at once. They are the same kernels in the same order,
so the numbers are the same bits.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import nn

Passes = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

_WARM_UP = 3
"""Steps before one is recorded, in which libraries make what they keep."""


class Replay:
    """Passes that are recorded when batches of one shape come again and again.

    Batches of other shapes, such as the last of an epoch, are passed as ever.

    Args:
        parameters: those that have gradients.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = parameters
        self.stream = _stream(torch.cuda.current_device())
        self.graph: torch.cuda.CUDAGraph | None = None
        self._seen: Counter[torch.Size] = Counter()

    def __call__(self, passes: Passes, pixels: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """A batch's logits; its gradients are left in the parameters.

        Args:
            passes: gives the logits for pixels and targets, and makes every parameter's gradient
                anew. It is always the same, and never waits for the device.
            pixels: of the batch.
            targets: likewise.
        """
        if self.graph is None:
            self._seen[pixels.shape] += 1
            if self._seen[pixels.shape] > _WARM_UP:
                self._record(passes, pixels, targets)
        if self.graph is None or pixels.shape != self._pixels.shape:
            return self._aside(passes, pixels, targets)
        self._pixels.copy_(pixels)
        self._targets.copy_(targets)
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return self._logits.clone()

    def _aside(self, passes: Passes, pixels: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Pass a batch on the stream that is recorded, where alone libraries get ready for it."""
        before = torch.cuda.current_stream()
        self.stream.wait_stream(before)
        with torch.cuda.stream(self.stream):
            logits = passes(pixels, targets)
        before.wait_stream(self.stream)
        return logits

    def _record(self, passes: Passes, pixels: torch.Tensor, targets: torch.Tensor) -> None:
        self._pixels, self._targets = pixels.clone(), targets.clone()
        graph = torch.cuda.CUDAGraph()
        # Where recording fails, torch leaves its stream the current one.
        with (
            torch.cuda.stream(torch.cuda.current_stream()),
            torch.cuda.graph(graph, stream=self.stream),
        ):
            self._logits = passes(self._pixels, self._targets)
        self._gradients = [parameter.grad for parameter in self.parameters]
        self.graph = graph


@functools.cache
def _stream(_device: int) -> torch.cuda.Stream:
    """A GPU's stream for passes, made once: libraries keep memory for each they have worked on."""
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]
