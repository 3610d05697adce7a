"""From a configuration and a seed to an initialised network."""

from __future__ import annotations

import importlib
import zlib

import numpy as np
import torch
from torch import nn

from cifake.config import Config
from cifake.models import catalogue
from cifake.models.attention import MODULES
from cifake.models.inputs import make_input

_INIT_STREAM = 1


def build(config: Config, seed: int) -> nn.Module:
    """The network of a configuration, initialised from a seed; its weights are drawn in float32.

    It maps images of shape (n, 32, 32, 3), uint8, to logits of shape (n,). Every module draws from
    a stream of its own, named by its path, so that two configurations that share a layer share its
    initial weights at equal seeds: comparisons can be paired by seed.
    """
    with torch.random.fork_rng(devices=[]):
        model = _assemble(config)
        initialise(model, seed if config.init_seed is None else config.init_seed)
    if config.execution.precision == "float64":
        model = model.double()
    if config.execution.channels_last:
        model = model.to(memory_format=torch.channels_last)
    return model


def _assemble(config: Config) -> nn.Module:
    declared = catalogue.ARCHITECTURES[config.model]
    module, _, name = declared.module.partition(":")
    network: type[nn.Module] = getattr(importlib.import_module(module), name)
    if declared.fitted:
        return network(config.model_options)
    channels = catalogue.sites_of(config)
    attention = {
        site: MODULES[config.attention](channels[site], config.attention_options)
        for site in catalogue.placement_sites(config, config.placement)
    }
    pixels = make_input(config.input, config.input_options, config.normalization)
    return network(config.model_options, pixels, attention)


def initialise(model: nn.Module, seed: int) -> None:
    """Draw every module's initial weights from the seed and the module's path."""

    def visit(module: nn.Module, path: str) -> None:
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            stream = np.random.SeedSequence([_INIT_STREAM, seed, zlib.crc32(path.encode())])
            torch.manual_seed(int(stream.generate_state(1, np.uint64)[0] >> np.uint64(1)))
            reset()
            return
        for name, child in module.named_children():
            visit(child, f"{path}.{name}" if path else name)

    visit(model, "")


def parameter_count(model: nn.Module) -> int:
    """What is fitted in a model: trainable parameters, or the thresholds and leaves of trees."""
    size = getattr(model, "size", None)
    if isinstance(size, int):
        return size
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
