"""Every setting that shapes a training trajectory, validated, and the identities hashed from it.

A configuration is frozen and complete: defaults are written out, presets are replaced by the
architecture they stand for, and settings without a meaning are dropped. Equal trajectories
therefore have equal identities, and a changed default never reuses an old run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cifake.models import catalogue

TRAINER_VERSION = 1
"""Raised whenever the same configuration and seed would give other numbers than before."""

IDENTITY_EXCLUDES = frozenset({"data.train"})
"""Settings that change no result: a data set is identified by its fingerprint, not its name."""


class Settings(BaseModel):
    """Base of all settings: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class Optimizer(Settings):
    """How gradients become steps."""

    name: Literal["sgd"] = "sgd"
    """Update rule."""

    lr: float = Field(0.001, gt=0, le=100)
    """Learning rate."""

    momentum: float = Field(0.9, ge=0, lt=1)
    """Share of the last step that is carried into the next."""

    weight_decay: float = Field(0.0, ge=0, le=10)
    """L2 penalty added to the gradient."""


class AttentionOptions(Settings):
    """Details of the attention module; dropped where there is none."""

    init: Literal["zero", "uniform"] = "zero"
    """Initial weights of the channel-wise layer: zero (the paper's) or Conv1d's uniform."""

    std: Literal["unbiased", "biased"] = "unbiased"
    """Divisor of the style's standard deviation: H·W − 1 or H·W."""

    eps: float = Field(1e-5, gt=0, le=1)
    """Added to the variance before the root."""


class DataSettings(Settings):
    """Which images are trained on."""

    train: str = "cifake"
    """Name of the training data set."""

    fingerprint: str = ""
    """Content fingerprint of that data set, filled in when it is opened."""

    validation: int = Field(5000, ge=0)
    """Training images set aside for validation, stratified by label and content class."""

    validation_seed: int = Field(0, ge=0)
    """Seed of the draws of validation and training images."""

    train_images: int | None = Field(None, ge=2)
    """Images trained on, stratified likewise; null means all that are left."""

    images_per_class: int | None = Field(None, ge=1)
    """Images trained on of every label and content class, instead of a total."""

    leave_out: str | None = None
    """Content class that is left out of training and validation; the test split keeps it."""

    only: str | None = None
    """The one content class that is trained and validated on; the test split keeps all."""

    @model_validator(mode="after")
    def _check_subset(self) -> Self:
        if self.train_images is not None and self.images_per_class is not None:
            raise ValueError(
                "data.images_per_class: train_images is given too; keep one of the two"
            )
        if self.leave_out is not None and self.only is not None:
            raise ValueError("data.leave_out: only is given too, which leaves out all others")
        return self

    @model_validator(mode="after")
    def _drop_seed_of_no_draw(self) -> Self:
        drawn = (self.validation or None, self.train_images, self.images_per_class)
        if not any(drawn):
            object.__setattr__(self, "validation_seed", 0)
        return self


class Config(Settings):
    """One point of a sweep: everything that shapes training, the seed and the length left out."""

    model: str = "base"
    """Architecture."""

    attention: Literal["none", "srm"] = "none"
    """Attention module."""

    placement: str = "none"
    """Sites of the architecture that carry the attention module."""

    attention_options: AttentionOptions | None = None
    """Options of the attention module."""

    batch_size: int = Field(32, ge=1, le=65536)
    """Images a step."""

    optimizer: Optimizer = Optimizer()
    """Update rule and its settings."""

    normalization: Literal["half"] = "half"
    """Pixel scaling: half maps 0…255 to −1…1."""

    data: DataSettings = DataSettings()
    """Training images."""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        """Replace a preset by its architecture and drop what has no meaning."""
        if not isinstance(values, Mapping):
            return values
        known = dict(values)
        model = known.get("model", "base")
        if isinstance(model, str) and model in catalogue.PRESETS:
            preset = catalogue.PRESETS[model]
            known = {**preset.defaults, **known, "model": preset.model}
        if known.get("attention", "none") == "none":
            known["placement"] = "none"
            known["attention_options"] = None
        elif known.get("attention_options") is None:
            known["attention_options"] = AttentionOptions()
        return known

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.model not in catalogue.ARCHITECTURES:
            raise ValueError(f"model: must be one of {', '.join(catalogue.model_names())}")
        try:
            canonical = catalogue.canonical_placement(self.model, self.placement)
        except ValueError as error:
            raise ValueError(f"placement: {error}") from None
        if self.attention != "none" and canonical == "none":
            names = ", ".join(catalogue.placement_names(self.model)[1:])
            raise ValueError(f"placement: attention {self.attention} needs one of {names}")
        if self.attention != "none" and self.batch_size < 2:
            raise ValueError("batch_size: must be at least 2: attention normalises over a batch")
        object.__setattr__(self, "placement", canonical)
        return self

    @property
    def config_id(self) -> str:
        """Sixteen hexadecimal digits that identify the trajectory, seed and length aside."""
        settings = {k: v for k, v in self.flat().items() if k not in IDENTITY_EXCLUDES}
        return _digest({"settings": settings, "trainer": TRAINER_VERSION})

    def flat(self) -> dict[str, object]:
        """Every setting by dotted path; the fields of a dropped group are null."""
        return {path: _lookup(self, path) for path, _ in leaves(Config)}


def run_id(config_id: str, seed: int) -> str:
    """Sixteen hexadecimal digits that identify one configuration with one seed."""
    return _digest({"config_id": config_id, "seed": seed})


def leaves(model: type[Settings], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and pydantic field of every setting below a settings class."""
    for name, info in model.model_fields.items():
        group = _group(info.annotation)
        if group is None:
            yield prefix + name, info
        else:
            yield from leaves(group, f"{prefix}{name}.")


def nest(flat: Mapping[str, object]) -> dict[str, Any]:
    """Dotted paths to nested mappings: `{"optimizer.lr": 1}` to `{"optimizer": {"lr": 1}}`."""
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        *groups, name = path.split(".")
        inner = nested
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[name] = value
    return nested


def _group(annotation: Any) -> type[Settings] | None:
    for option in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(option, type) and issubclass(option, Settings):
            return option
    return None


def _lookup(settings: Settings, path: str) -> object:
    value: Any = settings
    for name in path.split("."):
        if value is None:
            return None
        value = getattr(value, name)
    return value


def _digest(content: object) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
