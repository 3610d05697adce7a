"""The networks of plain Ray Tune's side are those of ours."""

from __future__ import annotations

import torch

from cifake.config import Config
from cifake.data.locate import open_dataset
from cifake.models.build import build, parameter_count
from tests.benchmarks.networks import network

_SITE = "attention.after_pool1"


def test_both_sides_have_the_same_recalibrated_network() -> None:
    ours = build(Config.model_validate({"attention": "srm", "placement": "after_pool1"}), 0).eval()
    state = ours.state_dict()
    state[f"{_SITE}.cfc.weight"].normal_(generator=torch.Generator().manual_seed(0))
    theirs = network("srm").eval()
    assert sum(map(torch.numel, theirs.parameters())) == parameter_count(ours)
    theirs.load_state_dict(
        {
            **{name: value for name, value in state.items() if not name.startswith(_SITE)},
            **{
                name.replace(f"{_SITE}.bn", "norm"): value
                for name, value in state.items()
                if name.startswith(f"{_SITE}.bn")
            },
            "weights": state[f"{_SITE}.cfc.weight"][:, 0].T,
        }
    )
    images = torch.from_numpy(open_dataset("demo").pixels[:50].copy())
    pixels = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    torch.testing.assert_close(theirs(pixels).squeeze(1), ours(images))
