"""State dicts of plain PyTorch code load as they are, and no code in a file is run."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as everyone writes it in such scripts
from torch import nn

from cifake.errors import InputError
from cifake.loading import load
from tests import tutorial_net

State = dict[str, torch.Tensor]


class StyleLayer(nn.Module):
    """Style recalibration with a grouped convolution as its channel-wise layer."""

    def __init__(self, channel: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.cfc = nn.Conv1d(channel, channel, kernel_size=2, bias=False, groups=channel)
        self.bn = nn.BatchNorm1d(channel)
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, c, _, _ = x.size()
        flat = x.view(b, c, -1)
        u = torch.stack((flat.mean(-1), (flat.var(-1) + self.eps).sqrt()), -1)
        g = torch.sigmoid(self.bn(self.cfc(u).squeeze(-1)))
        return x * g.view(b, c, 1, 1)


class StyleParameter(nn.Module):
    """The same with a parameter of shape (C, 2), as Lee, Kim and Nam publish it."""

    def __init__(self, channel: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.cfc = nn.Parameter(torch.zeros(channel, 2))
        self.bn = nn.BatchNorm2d(channel)
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, _, _ = x.size()
        mean = x.view(n, c, -1).mean(dim=2, keepdim=True)
        std = (x.view(n, c, -1).var(dim=2, keepdim=True) + self.eps).sqrt()
        z = torch.cat((mean, std), dim=2) * self.cfc[None, :, :]
        return x * torch.sigmoid(self.bn(torch.sum(z, dim=2)[:, :, None, None]))


class Net(tutorial_net.Net):
    """The network of the PyTorch tutorial with one output and modules after the poolings."""

    def __init__(self, first: nn.Module | None = None, second: nn.Module | None = None) -> None:
        super().__init__()
        self.style_a = first or nn.Identity()
        self.style_b = second or nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.style_a(self.pool(F.relu(self.conv1(x))))
        x = self.style_b(self.pool(F.relu(self.conv2(x))))
        x = F.relu(self.fc1(torch.flatten(x, 1)))
        return self.fc3(F.relu(self.fc2(x)))


def _weighted(net: nn.Module) -> nn.Module:
    """The net with random weights and statistics, in evaluation mode."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if name.endswith("num_batches_tracked"):
                value.fill_(7)
            elif name.endswith("running_var"):
                value.uniform_(0.5, 1.5, generator=generator)
            else:
                value.normal_(0, 0.5 if "style" in name else 0.1, generator=generator)
    return net.eval()


def _reference(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Probabilities by the tutorial's own steps: to 0…1, then Normalize with halves."""
    x = images.permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        return torch.sigmoid(net((x - 0.5) / 0.5)).squeeze(1)


def _asked(path: Path, images: torch.Tensor, *settings: str) -> torch.Tensor:
    with torch.no_grad():
        return torch.sigmoid(load(str(path), path.parent, settings=settings).model(images))


NETS: dict[str, Callable[[], nn.Module]] = {
    "base": Net,
    "style after pool1": lambda: Net(first=StyleLayer(6)),
    "style after pool2": lambda: Net(second=StyleLayer(16)),
    "style after both": lambda: Net(StyleLayer(6), StyleLayer(16)),
    "style as published": lambda: Net(StyleParameter(6), StyleParameter(16)),
}


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
def test_plain_network_gives_the_same_probabilities(
    make: Callable[[], nn.Module], few_images: torch.Tensor, tmp_path: Path
) -> None:
    net = _weighted(make())
    torch.save(net.state_dict(), tmp_path / "net.pt")
    expected = _reference(net, few_images)
    assert expected.std() > 0.01
    asked = _asked(tmp_path / "net.pt", few_images)
    np.testing.assert_allclose(asked, expected, atol=1e-6, rtol=0)


def test_deviation_without_a_guard_is_a_setting(few_images: torch.Tensor, tmp_path: Path) -> None:
    net = _weighted(Net(first=StyleLayer(6, eps=0)))
    torch.save(net.state_dict(), tmp_path / "net.pt")
    asked = _asked(tmp_path / "net.pt", few_images, "attention_options.eps=1e-12")
    np.testing.assert_allclose(asked, _reference(net, few_images), atol=1e-6, rtol=0)


def test_module_of_weights_of_two_dimensions_is_taken(
    few_images: torch.Tensor, tmp_path: Path
) -> None:
    net = _weighted(Net(first=StyleLayer(6)))
    state = net.state_dict()
    state["style_a.cfc.weight"] = state["style_a.cfc.weight"][:, 0]
    torch.save(state, tmp_path / "net.pt")
    asked = _asked(tmp_path / "net.pt", few_images)
    np.testing.assert_allclose(asked, _reference(net, few_images), atol=1e-6, rtol=0)


WRAPPED: dict[str, Callable[[State], object]] = {
    "DataParallel": lambda state: {f"module.{name}": value for name, value in state.items()},
    "compiled": lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
    "beside an epoch": lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}},
    "as a model": lambda state: {"model": {f"module.{k}": v for k, v in state.items()}},
    "without counts": lambda state: {
        name: value for name, value in state.items() if "num_batches" not in name
    },
}


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_state_dict_is_found_in_what_scripts_save(
    wrap: Callable[[State], object], suffix: str, few_images: torch.Tensor, tmp_path: Path
) -> None:
    net = _weighted(Net(StyleLayer(6), StyleLayer(16)))
    path = (tmp_path / "net").with_suffix(suffix)
    torch.save(wrap(dict(net.state_dict())), path)
    np.testing.assert_allclose(
        _asked(path, few_images), _reference(net, few_images), atol=1e-6, rtol=0
    )


class _Harmful:
    """Unpickled naively, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_file_is_refused_and_not_run(how: str, tmp_path: Path) -> None:
    content = {"conv1.weight": torch.zeros(1), "note": _Harmful(tmp_path / "ran")}
    path = tmp_path / "net.pt"
    if how == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=r"net\.pt"):
        load(str(path), tmp_path)
    assert not (tmp_path / "ran").exists()


def test_saved_module_is_refused_with_what_to_save(tmp_path: Path) -> None:
    torch.save(Net(), tmp_path / "net.pt")
    with pytest.raises(InputError, match=r"save the weights alone, with torch\.save"):
        load(str(tmp_path / "net.pt"), tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"\x80\x02."])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_damaged_file_is_refused(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = (tmp_path / "net").with_suffix(suffix)
    path.write_bytes(content)
    with pytest.raises(InputError, match="net"):
        load(str(path), tmp_path)


@pytest.mark.parametrize("content", [3, [torch.zeros(2)], {}, {"a": 1}, {3: torch.zeros(2)}])
def test_what_is_no_state_dict_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "net.pt")
    with pytest.raises(InputError, match=r"state dict|must be a dense tensor"):
        load(str(tmp_path / "net.pt"), tmp_path)


@pytest.mark.parametrize("outputs", [2, 10])
def test_head_of_several_classes_is_refused(outputs: int, tmp_path: Path) -> None:
    net = Net()
    net.fc3 = nn.Linear(84, outputs)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    with pytest.raises(InputError, match=rf"fc3\.weight: has {outputs} outputs.*must have one"):
        load(str(tmp_path / "net.pt"), tmp_path)


def test_every_name_that_does_not_fit_is_in_one_error(tmp_path: Path) -> None:
    state = Net().state_dict()
    del state["conv2.bias"], state["fc2.bias"]
    state |= {"fc4.weight": torch.zeros(1), "conv1.weight": torch.zeros(6, 3, 3, 3)}
    state["fc1.bias"] = torch.full((120,), torch.nan)
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(InputError) as refused:
        load(str(tmp_path / "net.pt"), tmp_path)
    text = str(refused.value)
    assert "missing: conv2.bias, fc2.bias" in text
    assert "unexpected: fc4.weight" in text
    assert "conv1.weight: has shape 6×3×3×3, must have 6×3×5×5" in text
    assert "fc1.bias: holds numbers that are not finite" in text
    assert "taken for base" in text


def test_module_of_a_strange_width_belongs_nowhere(tmp_path: Path) -> None:
    torch.save(Net(first=StyleLayer(12)).state_dict(), tmp_path / "net.pt")
    with pytest.raises(InputError, match=r"style_a\.cfc\.weight: has 12 channels"):
        load(str(tmp_path / "net.pt"), tmp_path)


def test_two_modules_of_one_width_are_both_named(tmp_path: Path) -> None:
    torch.save(Net(StyleLayer(6), StyleLayer(6)).state_dict(), tmp_path / "net.pt")
    with pytest.raises(InputError, match=r"style_b\.cfc\.weight: has 6 channels as style_a has"):
        load(str(tmp_path / "net.pt"), tmp_path)


def test_placement_that_is_given_moves_a_module(tmp_path: Path) -> None:
    torch.save(Net(first=StyleLayer(6)).state_dict(), tmp_path / "net.pt")
    loaded = load(str(tmp_path / "net.pt"), tmp_path, settings=["placement=after_conv1"])
    assert loaded.config.placement == "after_conv1"


def test_unknown_network_asks_for_its_name(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(3, 1)).state_dict(), tmp_path / "net.pt")
    with pytest.raises(InputError, match="give --set model=NAME, one of base, paper"):
        load(str(tmp_path / "net.pt"), tmp_path)
