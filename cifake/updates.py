"""From gradients to steps: optimisers, learning rates, and mixed precision."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from cifake.config import Config, Optimizer, Schedule

Tensors = dict[str, torch.Tensor]

ONE_CYCLE_START = 25.0
"""The highest rate over the first, as torch's OneCycleLR has it."""

ONE_CYCLE_END = 1e4
"""The first rate over the last, likewise."""

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


class Updater:
    """The update rule of a configuration over a network's parameters, and its state."""

    def __init__(self, config: Config, model: nn.Module, device: str) -> None:
        self.config = config
        self.kind = torch.device(device).type
        self.paths = {parameter: path for path, parameter in model.named_parameters()}
        self.matrices: dict[nn.Parameter, nn.Parameter] = {}
        self.optimizers = list(self._make(config.optimizer))
        scaled = config.execution.precision == "fp16"
        self.scaler = torch.amp.GradScaler(self.kind, enabled=scaled)

    def autocast(self) -> torch.autocast:
        """The context of the forward pass."""
        dtype = _DTYPES.get(self.config.execution.precision)
        return torch.autocast(self.kind, dtype=dtype, enabled=dtype is not None)

    def step(self, loss: torch.Tensor, rate: float) -> None:
        """Go one step down the gradient of a loss."""
        for parameter in self.paths:
            parameter.grad = None
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        for parameter, matrix in self.matrices.items():
            if parameter.grad is not None:
                matrix.grad = _as_matrix(parameter.grad)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            self.scaler.step(optimizer)
        self.scaler.update()

    def tensors(self) -> Tensors:
        """The state, copied: `<parameter>/<name>`, and the loss scale where there is one."""
        found = {
            f"{path}/{name}": torch.as_tensor(value).clone().cpu()
            for path, optimizer, parameter in self._stateful()
            for name, value in optimizer.state[parameter].items()
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
        places = {path: (optimizer, parameter) for path, optimizer, parameter in self._stateful()}
        scale: dict[str, Any] = self.scaler.state_dict()
        for key, value in tensors.items():
            if key.startswith(_SCALER):
                kind = type(scale[key.removeprefix(_SCALER)])
                scale[key.removeprefix(_SCALER)] = kind(value.item())
                continue
            path, _, name = key.rpartition("/")
            optimizer, like = places[path]
            optimizer.state[like][name] = _strided_as(value.to(like.device), like)
        if scale:
            self.scaler.load_state_dict(scale)

    def _make(self, settings: Optimizer) -> Iterator[torch.optim.Optimizer]:
        groups = self._groups(settings)
        # One kernel for all parameters; it exists for CPUs and CUDA.
        adam: dict[str, Any] = {
            "lr": settings.lr,
            "betas": (settings.beta1, settings.beta2),
            "eps": settings.eps,
            "fused": True,
        }
        if settings.name == "sgd":
            yield torch.optim.SGD(
                groups,
                lr=settings.lr,
                momentum=settings.momentum or 0.0,
                nesterov=bool(settings.nesterov),
                fused=True,
            )
        elif settings.name == "adam":
            yield torch.optim.Adam(groups, **adam)
        elif settings.name == "adamw":
            yield torch.optim.AdamW(groups, **adam)
        else:
            yield from self._muon(settings, groups, adam)

    def _muon(
        self, settings: Optimizer, groups: list[dict[str, Any]], adam: dict[str, Any]
    ) -> Iterator[torch.optim.Optimizer]:
        """Muon for weight matrices, convolutions as matrices of their filters; AdamW for the rest.

        Steps of matrices are scaled to AdamW's size, so that one rate serves both (Liu et al. 2025,
        equation 4). The output layer and attention are left to AdamW, as Jordan et al. 2024 advise
        for heads.
        """
        self.matrices = {
            parameter: nn.Parameter(_as_matrix(parameter.detach()))
            for parameter, path in self.paths.items()
            if parameter.dim() > 1 and len(parameter) > 1 and not _of_attention(path)
        }
        for parameter, matrix in self.matrices.items():
            if matrix.data_ptr() != parameter.data_ptr():
                raise RuntimeError(f"{self.paths[parameter]} has no view as a matrix")
        rest = [
            {**group, "params": [p for p in group["params"] if p not in self.matrices]}
            for group in groups
        ]
        if self.matrices:
            yield torch.optim.Muon(
                list(self.matrices.values()),
                lr=settings.lr,
                weight_decay=settings.weight_decay,
                momentum=settings.momentum or 0.0,
                nesterov=bool(settings.nesterov),
                adjust_lr_fn="match_rms_adamw",
            )
        yield torch.optim.AdamW([group for group in rest if group["params"]], **adam)

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

    def _stateful(self) -> Iterator[tuple[str, torch.optim.Optimizer, nn.Parameter]]:
        paths = self.paths | {
            matrix: self.paths[parameter] for parameter, matrix in self.matrices.items()
        }
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    yield paths[parameter], optimizer, parameter


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


def _strided_as(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A copy with the strides of a parameter, where it has the parameter's shape."""
    if value.shape != like.shape:
        return value.clone()
    return torch.empty_like(like, dtype=value.dtype, requires_grad=False).copy_(value)
