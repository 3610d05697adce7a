"""Several networks of one architecture as one, with the members side by side along the channels.

A feature map of shape (n, c, h, w) becomes (n, members · c, h, w), a vector (n, f) becomes
(n, members · f), each member's channels in a block of their own. Convolutions become grouped,
linear layers batched matrix products, batch normalisation keeps its statistics by channel and so by
member. Every tensor of the state dict is the members' tensors one after another along the first
dimension, so the members are put together and taken apart by name. The idea is that of HFTA (Wang
et al., MLSys 2021).

Whatever treats channels alike is left as it is. A module of our own that looks across channels is
written for any number of members and has the attribute `members`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from cifake.models import grouped
from cifake.models.geometry import Geometry, of_convolution

Tensors = dict[str, torch.Tensor]

_CHANNELWISE: set[type[nn.Module]] = {
    nn.Identity,
    nn.ReLU,
    nn.MaxPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Flatten,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.Sequential,
    nn.ModuleList,
    nn.ModuleDict,
}
"""Modules that do the same to every channel, each with its own numbers, and containers."""


class NotStackableError(TypeError):
    """A network holds a module that cannot be trained side by side with others."""


def declare_channelwise(*modules: type[nn.Module]) -> None:
    """Say of other modules that they treat every channel alike, or only hold modules."""
    _CHANNELWISE.update(modules)


class StackedConv1d(nn.Module):
    """The members' convolutions as one grouped convolution."""

    def __init__(self, conv: nn.Conv1d, members: int) -> None:
        super().__init__()
        self.padding, self.groups = conv.padding, conv.groups * members
        self.weight = nn.Parameter(_repeated(conv.weight, members))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sequences of shape (n, members · out, length) for (n, members · in, length)."""
        return functional.conv1d(x, self.weight, padding=self.padding, groups=self.groups)


class StackedConv2d(nn.Module):
    """The members' convolutions as one grouped convolution.

    An input with the channels of one member is taken to be the same for all.
    """

    def __init__(self, conv: nn.Conv2d, members: int) -> None:
        super().__init__()
        self.members = members
        self.geometry = geometry_of(conv)
        self.in_channels, self.groups = conv.in_channels, conv.groups
        self.weight = nn.Parameter(_repeated(conv.weight, members))
        self.bias = None if conv.bias is None else nn.Parameter(_repeated(conv.bias, members))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps of shape (n, members · out, h, w) for (n, members · in, h, w) or (n, in, h, w)."""
        shared = x.shape[1] == self.in_channels and self.groups == 1
        groups = 1 if shared else self.members * self.groups
        return grouped.conv2d(x, self.weight, self.bias, self.geometry, groups)


class StackedLinear(nn.Module):
    """The members' linear layers as one batched matrix product.

    An input with the features of one member is taken to be the same for all.
    """

    def __init__(self, linear: nn.Linear, members: int) -> None:
        super().__init__()
        self.members = members
        self.in_features = linear.in_features
        self.weight = nn.Parameter(_repeated(linear.weight, members))
        self.bias = None if linear.bias is None else nn.Parameter(_repeated(linear.bias, members))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Vectors of shape (n, members · out) for (n, members · in) or (n, in)."""
        if x.shape[1] == self.in_features:
            return functional.linear(x, self.weight, self.bias)
        # The weight comes first, so that its gradient has its layout and is not copied into it.
        inputs = x.view(len(x), self.members, -1).permute(1, 2, 0)
        weight = self.weight.view(self.members, -1, self.in_features)
        if self.bias is None:
            out = torch.bmm(weight, inputs)
        else:
            out = torch.baddbmm(self.bias.view(self.members, -1, 1), weight, inputs)
        return out.permute(2, 0, 1).reshape(len(x), -1)


def stack(models: Sequence[nn.Module]) -> nn.Module:
    """One network of several; the models themselves are left as they are.

    Raises:
        NotStackableError: a module looks across channels and is not written for members.
    """
    stacked = _for_members(copy.deepcopy(models[0]), len(models))
    stacked.load_state_dict(join([model.state_dict() for model in models]))
    return stacked


def join(states: Sequence[Mapping[str, torch.Tensor]]) -> Tensors:
    """The tensors of a stack, by name, from those of its members."""
    return {
        name: torch.cat([state[name] for state in states]) if value.dim() else value.clone()
        for name, value in states[0].items()
    }


def part(tensors: Mapping[str, torch.Tensor], member: int, members: int) -> Tensors:
    """The tensors of one member, by name, copied out of those of a stack."""
    return {
        name: (value.chunk(members)[member] if value.dim() else value).clone()
        for name, value in tensors.items()
    }


def _for_members(module: nn.Module, members: int) -> nn.Module:
    """A module for several members: itself, with larger tensors, or another in its place."""
    if isinstance(module, nn.Conv1d):
        return StackedConv1d(module, members)
    if isinstance(module, nn.Conv2d):
        return StackedConv2d(module, members)
    if isinstance(module, nn.Linear):
        return StackedLinear(module, members)
    if hasattr(module, "members"):
        setattr(module, "members", members)  # noqa: B010 - mypy takes an assignment for a module
    elif not isinstance(module, tuple(_CHANNELWISE)):
        raise NotStackableError(f"{type(module).__name__} looks across channels or draws at random")
    for name, parameter in [*module.named_parameters(recurse=False)]:
        setattr(module, name, nn.Parameter(_repeated(parameter, members)))
    for name, buffer in [*module.named_buffers(recurse=False)]:
        setattr(module, name, _repeated(buffer, members))
    for name, child in [*module.named_children()]:
        setattr(module, name, _for_members(child, members))
    return module


def geometry_of(conv: nn.Conv2d | StackedConv2d) -> Geometry:
    """How a convolution moves, of one network or of several."""
    found = conv.geometry if isinstance(conv, StackedConv2d) else of_convolution(conv)
    if found is None:
        raise NotStackableError("same padding of an even kernel is not the same on all sides")
    return found


def _repeated(tensor: torch.Tensor, members: int) -> torch.Tensor:
    return torch.cat([tensor.detach()] * members) if tensor.dim() else tensor.detach().clone()
