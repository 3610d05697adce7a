"""From a configuration and a seed to an initialised network."""

from __future__ import annotations

import importlib
import zlib

import numpy as np
import torch
from torch import nn

from cifake.config import AttentionOptions, Config
from cifake.models import catalogue
from cifake.models.attention import MODULES

_INIT_STREAM = 1


def build(config: Config, seed: int) -> nn.Module:
    """The network of a configuration, initialised from a seed, in float32 and channels_last.

    Every module draws from a stream of its own, named by its path, so that two configurations that
    share a layer share its initial weights at equal seeds: comparisons can be paired by seed.
    """
    declared = catalogue.ARCHITECTURES[config.model]
    sites = catalogue.placement_sites(config.model, config.placement)
    options = config.attention_options or AttentionOptions()
    with torch.random.fork_rng(devices=[]):
        attention = {
            site: MODULES[config.attention](declared.sites[site], options) for site in sites
        }
        module, _, name = declared.module.partition(":")
        model: nn.Module = getattr(importlib.import_module(module), name)(attention)
        initialise(model, seed)
    return model.to(memory_format=torch.channels_last)


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
    """Trainable parameters of a network."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
