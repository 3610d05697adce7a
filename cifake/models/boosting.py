"""Gradient boosted trees over hand-crafted statistics, as a module of plain tensors.

The trees are grown by scikit-learn and then held as buffers, so that they are stored, loaded and
evaluated as a network is, and no pickled estimator is ever needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits
from torch import nn

from cifake.config import ModelOptions
from cifake.models.handcrafted import STATISTICS, statistics

FEATURES_PER_SPLIT = 0.25
"""Share of the statistics drawn at random for each split.

It is the only chance in the fit: with all statistics every seed would grow the same trees, and a
spread over seeds would be zero by construction.
"""

L2_PENALTY = 5.0
"""Added to the sum of second derivatives in each leaf: draws the values of small leaves to zero."""

_BLOCK_IMAGES = 4096
_NODE_FIELDS = ("value", "feature_idx", "num_threshold", "left", "right", "depth", "is_leaf")


class Boosting(nn.Module):
    """An ensemble of regression trees whose sum is the logit of REAL.

    A tree of at most `leaves` leaves has at most 2 · leaves − 1 nodes. Every tree is given as many,
    so that the shapes follow from the options and a state dict loads before anything is fitted. A
    node that is no split, be it a leaf or padding, has itself as both children.
    """

    feature: torch.Tensor
    """Column of `STATISTICS` that a node compares; shape (trees, nodes), int32."""

    threshold: torch.Tensor
    """A statistic of at most this goes left; shape (trees, nodes), float32."""

    left: torch.Tensor
    """Left child; shape (trees, nodes), int32."""

    right: torch.Tensor
    """Right child; shape (trees, nodes), int32."""

    value: torch.Tensor
    """A leaf's share of the logit, learning rate included; shape (trees, nodes), float64."""

    baseline: torch.Tensor
    """The logit before the first tree; shape (), float64."""

    depth: torch.Tensor
    """Splits on the longest path; shape (), int64."""

    def __init__(self, options: ModelOptions) -> None:
        super().__init__()
        self.options = options
        trees, nodes = int(options.trees or 0), 2 * int(options.leaves or 0) - 1
        itself = torch.arange(nodes, dtype=torch.int32).repeat(trees, 1)
        self.register_buffer("feature", torch.zeros(trees, nodes, dtype=torch.int32))
        self.register_buffer("threshold", torch.zeros(trees, nodes))
        self.register_buffer("left", itself)
        self.register_buffer("right", itself.clone())
        self.register_buffer("value", torch.zeros(trees, nodes, dtype=torch.float64))
        self.register_buffer("baseline", torch.zeros((), dtype=torch.float64))
        self.register_buffer("depth", torch.zeros((), dtype=torch.int64))

    @property
    def size(self) -> int:
        """Numbers that were fitted: the thresholds of all splits and the values of all leaves."""
        trees, nodes = self.left.shape
        splits = int((self.left != torch.arange(nodes, device=self.left.device)).sum())
        return 2 * splits + trees  # a binary tree has one leaf more than splits

    def fit(
        self,
        pixels: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int8],
        rows: npt.NDArray[np.int64],
        seed: int,
    ) -> None:
        """Grow the ensemble on one thread. Equal arguments give equal bits.

        Args:
            pixels: shape (n, 32, 32, 3), uint8; may be mapped from a file.
            labels: shape (n,), int8: 0 FAKE, 1 REAL.
            rows: shape (m,), int64, the rows of both that are fitted to.
            seed: of the statistics drawn for each split.

        Raises:
            ValueError: the rows do not hold both labels.
            RuntimeError: the installed scikit-learn keeps its trees in another form.
        """
        target = labels[rows]
        if set(np.unique(target).tolist()) != {0, 1}:
            raise ValueError("boosting needs images of both labels, 0 FAKE and 1 REAL")
        grower = HistGradientBoostingClassifier(
            learning_rate=self.options.shrinkage,
            max_iter=self.options.trees,
            max_leaf_nodes=self.options.leaves,
            max_features=FEATURES_PER_SPLIT,
            l2_regularization=L2_PENALTY,
            early_stopping=False,
            random_state=seed % 2**32,
        )
        # Trials share a node: one that takes every core slows the others; one thread is repeatable.
        with threadpool_limits(1):
            grower.fit(statistics_of(pixels, rows), target)
        copy_trees(grower, self)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits of shape (n,), float32, for images of shape (n, 32, 32, 3), uint8."""
        return self.decide(statistics(pixels)).to(torch.float32)

    def decide(self, features: torch.Tensor) -> torch.Tensor:
        """Logits of shape (n,), float64, for statistics of shape (n, 38), float32."""
        trees, nodes = self.left.shape
        root = torch.arange(trees, device=self.left.device) * nodes
        children = torch.stack([self.left, self.right], 2) + root[:, None, None]
        node = root.repeat(len(features), 1)
        for _ in range(int(self.depth)):
            compared = features.gather(1, _pick(self.feature, node).long())
            goes_right = compared > _pick(self.threshold, node)
            node = _pick(children, 2 * node + goes_right)
        # One tree after the other: a sum's rounding must not depend on how many images there are.
        total = self.baseline.expand(len(features))
        for share in _pick(self.value, node).unbind(1):
            total = total + share
        return total


def statistics_of(
    pixels: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Statistics of some rows of (n, 32, 32, 3) uint8 pixels; shape (m, 38), float32."""
    out = np.empty((len(rows), len(STATISTICS)), np.float32)
    for start in range(0, len(rows), _BLOCK_IMAGES):
        block = slice(start, start + _BLOCK_IMAGES)
        out[block] = statistics(torch.from_numpy(np.take(pixels, rows[block], axis=0))).numpy()
    return out


def copy_trees(grower: Any, model: Boosting) -> None:
    """Copy the trees of a fitted binary `HistGradientBoostingClassifier` into a model.

    The one place that reads scikit-learn's private attributes, which have no public counterpart:
    `_baseline_prediction`, shape (1, 1), and `_predictors`, for each round a list of one object
    whose `nodes` is a structured array with the root first. Categories and missing values are not
    read: statistics are finite numbers.

    Raises:
        RuntimeError: they are not of that form.
    """
    trees, nodes_at_most = model.left.shape
    try:
        (baseline,) = np.asarray(grower._baseline_prediction, np.float64).ravel()  # noqa: SLF001
        grown = [only.nodes for (only,) in grower._predictors]  # noqa: SLF001
        columns = [{name: nodes[name] for name in _NODE_FIELDS} for nodes in grown]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(str(error)) from error
    if len(grown) != trees or any(len(nodes) > nodes_at_most for nodes in grown):
        raise _unreadable("trees are more, fewer or larger than asked for")
    model.baseline.fill_(float(baseline))
    for index, tree in enumerate(columns):
        _copy_tree(model, index, tree)
    model.depth.fill_(max(int(tree["depth"].max()) for tree in columns))


def _pick(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Entries of a flattened table, in the shape of the index."""
    # Several times faster than table.flatten()[index].
    return table.flatten().index_select(0, index.flatten()).view(index.shape)


def _copy_tree(model: Boosting, index: int, tree: dict[str, npt.NDArray[Any]]) -> None:
    """Put one tree's nodes into the model; what lies beyond them stays padding."""
    count = len(tree["value"])
    leaf = tree["is_leaf"].astype(bool)
    itself = np.arange(count)
    columns = {
        "feature": np.where(leaf, 0, tree["feature_idx"]),
        "threshold": np.where(leaf, 0, _float32_below(tree["num_threshold"])),
        "left": np.where(leaf, itself, tree["left"]),
        "right": np.where(leaf, itself, tree["right"]),
        "value": np.where(leaf, tree["value"], 0),
    }
    for name, column in columns.items():
        buffer = model.get_buffer(name)
        buffer[index, :count] = torch.from_numpy(column).to(buffer.dtype)


def _float32_below(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The largest float32 not above each value.

    A float32 is at most the one exactly where it is at most the other, so no decision changes.
    """
    nearest = values.astype(np.float32)
    below = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest.astype(np.float64) > values, below, nearest)


def _unreadable(detail: str) -> RuntimeError:
    import sklearn

    return RuntimeError(
        f"scikit-learn {sklearn.__version__} keeps its trees in a form unknown here ({detail}); "
        "the release in constraints.txt is known to work"
    )
