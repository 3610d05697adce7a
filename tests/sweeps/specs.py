"""Texts of specifications, and what is said of wrong ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cifake.errors import InputError
from sweeps.spec import Spec

Parse = Callable[..., Spec]

DESIGN = """\
name: placements
question: Does style recalibration help, and where?
data: {train: cifake, validation: 5000, train_images: null, evaluate: [cifake, cifar100]}
scientific:
  model: [base]
  attention: [none, srm]
  placement: [after_pool1, after_pool2, both]
  epochs: [1, 2, 5, 10]
nuisance: {seed: 6}
fixed:
  batch_size: 32
  optimizer: {name: sgd, lr: 0.001, momentum: 0.9}
resources: {cpus: 1, gpus: 0.25}
search:
  sampler: tpe
  trials: 40
  metric: validation.auroc
  mode: max
  scheduler: {name: asha, grace_epochs: 1}
  space:
    optimizer.weight_decay: {log_uniform: [1.0e-4, 1.0e-1]}
    attention_options.std: {choice: [biased, unbiased], when: {attention: srm}}
"""

MINIMAL = "name: small\nfixed: {epochs: 1}\n"

GRIDS = """\
name: a
data: {train: demo, validation: 100}
scientific:
- {model: [base, attn], batch_size: [18], epochs: [2]}
- {model: [base], batch_size: [32], epochs: [2, 10]}
- {model: [mini, base], epochs: [10], optimizer: {lr: [0.01]}}
fixed: {optimizer.momentum: 0.8}
"""

OVERRIDDEN = """\
name: a
data: {train: demo, validation: 100}
scientific:
  epochs: [1, 2]
  optimizer: {lr: [0.1, 0.2]}
nuisance: {seed: 2, optimizer.momentum: [0.5, 0.9]}
fixed: {batch_size: 8}
"""


def searched(space: str, rest: str = "", fixed: str = "epochs: 2") -> str:
    return (
        f"name: a\nfixed: {{{fixed}}}\n"
        f"search:\n  trials: 3\n{rest}  space:\n    {space.replace(chr(10), chr(10) + '    ')}\n"
    )


def refused(parse_text: Parse, text: str, *settings_: str) -> str:
    with pytest.raises(InputError) as caught:
        parse_text(text, *settings_)
    return str(caught.value)
