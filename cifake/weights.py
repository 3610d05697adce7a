"""Weights from a file that somebody gives, without running anything that the file may hold."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch

from cifake.errors import InputError, Mistake, refuse

Tensors = dict[str, torch.Tensor]

PICKLED = (".pt", ".pth", ".bin")
"""Endings of what `torch.save` writes."""

SUFFIXES = (".safetensors", *PICKLED)
"""Endings of files that hold weights."""

_NESTED = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts put the state dict beside other things."""

_WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""


def read_weights(path: Path) -> Tensors:
    """The state dict in a file, by name, on the CPU.

    A state dict inside another dictionary is found, and the prefixes of wrappers are taken off. A
    pickle is read by a loader that knows tensors and plain containers alone.

    Raises:
        InputError: not a state dict, damaged, or a pickle that needs code to be run.
    """
    if path.suffix.lower() not in SUFFIXES:
        refuse(path, f"must end in one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        refuse(path, "no such file")
    if path.suffix.lower() == ".safetensors":
        return _unwrapped(_read_safetensors(path))
    return _unwrapped(_state_dict(path, _read_pickle(path)))


def _read_safetensors(path: Path) -> Tensors:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return dict(load(path.read_bytes()))
    except (OSError, SafetensorError) as error:
        refuse(path, f"cannot be read as safetensors ({error})")


def _read_pickle(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            # On the protocol of old pickles; what cannot be read is refused all the same.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        refuse(
            path,
            "holds more than tensors, and code in it is not run; save the weights alone, with "
            "torch.save(model.state_dict(), path)",
        )
    except Exception as error:  # noqa: BLE001 - damaged archives raise whatever they lead to
        reason = str(error).partition("\n")[0]
        refuse(path, f"cannot be read as a state dict ({type(error).__name__}: {reason})")


def _state_dict(path: Path, content: object) -> Tensors:
    """The state dict in what was saved, or in a dictionary around it."""
    for _ in _NESTED:
        if not isinstance(content, Mapping):
            break
        inner = next((content[key] for key in _NESTED if isinstance(content.get(key), Mapping)), 0)
        if not isinstance(inner, Mapping):
            break
        content = inner
    if not isinstance(content, Mapping) or not content:
        refuse(path, "holds no state dict; save one with torch.save(model.state_dict(), path)")
    strange = [key for key, value in content.items() if not _is_weight(key, value)]
    if strange:
        raise InputError(
            [
                Mistake(where=str(path), field=str(key), problem="must be a dense tensor by name")
                for key in strange
            ]
        )
    return dict(content)


def _is_weight(key: object, value: object) -> bool:
    if not isinstance(key, str) or not isinstance(value, torch.Tensor):
        return False
    return value.layout == torch.strided and not value.is_quantized


def _unwrapped(state: Tensors) -> Tensors:
    """Names without the prefixes that wrappers of a network put before all of them."""
    for wrapper in _WRAPPERS * 2:
        if all(name.startswith(wrapper) for name in state):
            state = {name.removeprefix(wrapper): value for name, value in state.items()}
    return state
