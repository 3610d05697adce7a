"""From gradients to steps: optimisers, learning rates, and mixed precision."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from cifake.config import Config, Optimizer, Schedule

Tensors = dict[str, torch.Tensor]

ONE_CYCLE_START = 25.0
"""The highest rate over the first, as torch's OneCycleLR has it."""

ONE_CYCLE_END = 1e4
"""The first rate over the last, likewise."""

_Update = Callable[..., None]

_SCALER = "/scaler/"
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def learning_rate(schedule: Schedule, highest: float, step: int, steps_per_epoch: int) -> float:
    """The learning rate of one step, counted from 0 over all epochs.

    `cosine` rises along a line over the warm-up and falls to 0 along half a cosine (Loshchilov and
    Hutter 2017, without restarts); `one_cycle` rises and falls along half cosines (Smith and Topin
    2018), as torch's OneCycleLR does.
    """
    if schedule.name == "constant":
        return highest
    total = (schedule.horizon or 0) * steps_per_epoch
    warmup = (schedule.warmup or 0.0) * total
    if schedule.name == "cosine":
        if step < warmup:
            return highest * (step + 1) / (math.floor(warmup) + 1)
        return highest * _cosine((step - warmup) / (total - warmup))
    first = highest / ONE_CYCLE_START
    peak = warmup - 1
    if step <= peak:
        return highest + (first - highest) * _cosine(step / peak if peak > 0 else 1.0)
    last = first / ONE_CYCLE_END
    return last + (highest - last) * _cosine((step - peak) / max(total - 1 - peak, 1e-9))


class _Fused:
    """A rule of torch.optim by its functional form, in one kernel for all parameters of a group.

    It is used as torch's own classes are, which import torch's compiler: 70 MB of every trial.

    Args:
        update: changes parameters, and their states, by their gradients.
        groups: each with its `params` and their `weight_decay`.
        how: what else the rule asks for.
    """

    _step_supports_amp_scaling = True
    """A scaler then gives `grad_scale` and `found_inf` for the time of a step."""

    def __init__(self, update: _Update, groups: list[dict[str, Any]], how: dict[str, Any]) -> None:
        self.param_groups = groups
        self.state: dict[torch.Tensor, dict[str, Any]] = defaultdict(dict)
        self._update = update
        self._how = how

    @torch.no_grad()
    def step(self) -> None:
        """Go one step at every group's rate, `lr`."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            self._update(
                parameters,
                [p.grad for p in parameters],
                [self.state[p] for p in parameters],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                fused=True,
                maximize=False,
                grad_scale=getattr(self, "grad_scale", None),
                found_inf=getattr(self, "found_inf", None),
                **self._how,
            )


def _sgd(
    parameters: list[torch.Tensor],
    gradients: list[torch.Tensor],
    states: list[dict[str, Any]],
    **how: Any,
) -> None:
    if how["momentum"]:
        # torch leaves the first buffer as it finds the memory where a scaler has the step skipped.
        for state, gradient in zip(states, gradients, strict=True):
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(gradient)
    buffers = [state.get("momentum_buffer") for state in states]
    sgd(parameters, gradients, buffers, dampening=0.0, **how)


def _adam(
    parameters: list[torch.Tensor],
    gradients: list[torch.Tensor],
    states: list[dict[str, Any]],
    **how: Any,
) -> None:
    for parameter, state in zip(parameters, states, strict=True):
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
    names = ("exp_avg", "exp_avg_sq", "step")
    means, squares, steps = ([state[name] for state in states] for name in names)
    adam(parameters, gradients, means, squares, [], steps, amsgrad=False, **how)


Rule = _Fused | torch.optim.Optimizer


class Updater:
    """The update rule of a configuration over a network's parameters, and its state.

    Args:
        config: what is trained.
        model: a network, or several side by side.
        device: where it is.
        members: how many.
    """

    def __init__(self, config: Config, model: nn.Module, device: str, members: int = 1) -> None:
        self.config = config
        self.kind = torch.device(device).type
        self.members = members
        self.paths = {parameter: path for path, parameter in model.named_parameters()}
        self.matrices: dict[nn.Parameter, list[nn.Parameter]] = {}
        self.optimizers = list(self._make(config.optimizer))
        scaled = config.execution.precision == "fp16"
        self.scaler = torch.amp.GradScaler(self.kind, enabled=scaled)

    def autocast(self) -> torch.autocast:
        """The context of the forward pass."""
        dtype = _DTYPES.get(self.config.execution.precision)
        return torch.autocast(self.kind, dtype=dtype, enabled=dtype is not None)

    def step(self, loss: torch.Tensor, rate: float) -> None:
        """Go one step down the gradient of a loss."""
        self.differentiate(loss)
        self.update(rate)

    def differentiate(self, loss: torch.Tensor) -> None:
        """Make every parameter's gradient anew."""
        for parameter in self.paths:
            parameter.grad = None
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def update(self, rate: float) -> None:
        """Go one step by the gradients that are there."""
        for parameter, matrices in self.matrices.items():
            if parameter.grad is not None:
                gradients = parameter.grad.chunk(self.members)
                for matrix, gradient in zip(matrices, gradients, strict=True):
                    matrix.grad = _as_matrix(gradient)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            self.scaler.step(optimizer)  # type: ignore[arg-type]
        self.scaler.update()

    def tensors(self) -> Tensors:
        """The state, copied: `<parameter>/<name>`, and the loss scale where there is one.

        Members lie one after another along the first dimension, as in the network's state dict.
        """
        found = {
            f"{path}/{name}": _joined([optimizer.state[each][name] for each in parameters]).cpu()
            for path, optimizer, parameters in self._stateful()
            for name, value in optimizer.state[parameters[0]].items()
            if value is not None
        }
        scale = self.scaler.state_dict()
        return found | {
            _SCALER + name: torch.tensor(float(value))
            for name, value in scale.items()
            if name in ("scale", "_growth_tracker")
        }

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what `tensors` gave."""
        places = {path: (optimizer, parameters) for path, optimizer, parameters in self._stateful()}
        scale: dict[str, Any] = self.scaler.state_dict()
        for key, value in tensors.items():
            if key.startswith(_SCALER):
                kind = type(scale[key.removeprefix(_SCALER)])
                scale[key.removeprefix(_SCALER)] = kind(value.item())
                continue
            path, _, name = key.rpartition("/")
            optimizer, parameters = places[path]
            count = len(parameters)
            values = value.chunk(count) if value.dim() else [value] * count
            for like, part in zip(parameters, values, strict=True):
                optimizer.state[like][name] = _strided_as(part.to(like.device), like)
        if scale:
            self.scaler.load_state_dict(scale)

    def _make(self, settings: Optimizer) -> Iterator[Rule]:
        groups = self._groups(settings)
        if settings.name == "sgd":
            how = {"momentum": settings.momentum, "nesterov": settings.nesterov}
            yield _Fused(_sgd, groups, how)
        elif settings.name == "muon":
            yield from self._muon(settings, groups)
        else:
            yield _Fused(_adam, groups, _of_adam(settings))

    def _muon(self, settings: Optimizer, groups: list[dict[str, Any]]) -> Iterator[Rule]:
        """Muon for weight matrices, convolutions as matrices of their filters; AdamW for the rest.

        Each member's matrix is orthogonalised by itself.
        Steps of matrices are scaled to AdamW's size, so that one rate serves both (Liu et al. 2025,
        equation 4). The output layer and attention are left to AdamW, as Jordan et al. 2024 advise
        for heads.
        """
        self.matrices = {
            parameter: [self._matrix(path, part) for part in parameter.detach().chunk(self.members)]
            for parameter, path in self.paths.items()
            if parameter.dim() > 1 and len(parameter) > self.members and not _of_attention(path)
        }
        rest = [
            {**group, "params": [p for p in group["params"] if p not in self.matrices]}
            for group in groups
        ]
        if self.matrices:
            yield torch.optim.Muon(
                [matrix for matrices in self.matrices.values() for matrix in matrices],
                lr=settings.lr,
                weight_decay=settings.weight_decay,
                momentum=settings.momentum or 0.0,
                nesterov=bool(settings.nesterov),
                adjust_lr_fn="match_rms_adamw",
            )
        yield _Fused(_adam, [group for group in rest if group["params"]], _of_adam(settings))

    def _groups(self, settings: Optimizer) -> list[dict[str, Any]]:
        """Parameters by weight decay: attention modules have none."""
        decayed = [p for p, path in self.paths.items() if not _of_attention(path)]
        attention = [p for p, path in self.paths.items() if _of_attention(path)]
        if not settings.weight_decay or not attention:
            return [{"params": list(self.paths), "weight_decay": settings.weight_decay}]
        return [
            {"params": decayed, "weight_decay": settings.weight_decay},
            {"params": attention, "weight_decay": 0.0},
        ]

    @staticmethod
    def _matrix(path: str, weight: torch.Tensor) -> nn.Parameter:
        matrix = nn.Parameter(_as_matrix(weight))
        if matrix.data_ptr() != weight.data_ptr():
            raise RuntimeError(f"{path} has no view as a matrix")
        return matrix

    def _stateful(self) -> Iterator[tuple[str, Rule, list[nn.Parameter]]]:
        """Every parameter's path, its optimiser, and what that optimiser steps in its place."""
        owners = {
            parameter: optimizer
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        for parameter, path in self.paths.items():
            stepped = self.matrices.get(parameter, [parameter])
            yield path, owners[stepped[0]], stepped


def _of_adam(settings: Optimizer) -> dict[str, Any]:
    """What Adam and AdamW ask for; the latter is Muon's rule for what is no matrix."""
    return {
        "beta1": settings.beta1,
        "beta2": settings.beta2,
        "eps": settings.eps,
        "decoupled_weight_decay": settings.name != "adam",
    }


def _cosine(share: float) -> float:
    """From 1 to 0 along half a cosine."""
    return (1 + math.cos(math.pi * share)) / 2


def _of_attention(path: str) -> bool:
    return path.startswith("attention.")


def _as_matrix(tensor: torch.Tensor) -> torch.Tensor:
    """A weight as (outputs, inputs); a view of it where its strides allow one.

    The order of the inputs follows the memory format; Muon's steps do not depend on it.
    """
    if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.reshape(len(tensor), -1)


def _joined(values: list[Any]) -> torch.Tensor:
    """A copy of some members' state; a number, such as a count of steps, is common to all."""
    tensors = [torch.as_tensor(value) for value in values]
    return torch.cat(tensors) if tensors[0].dim() else tensors[0].clone()


def _strided_as(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A copy with the strides of a parameter, where it has the parameter's shape."""
    if value.shape != like.shape:
        return value.clone()
    return torch.empty_like(like, dtype=value.dtype, requires_grad=False).copy_(value)
