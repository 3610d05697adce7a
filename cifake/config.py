"""Every setting that shapes a training trajectory, validated, and the identities hashed from it.

A configuration is frozen and complete: defaults are written out, presets are replaced by the
architecture they stand for, and settings without a meaning are null or at their default. Equal
trajectories therefore have equal identities, and a changed default never reuses an old run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cifake.models import catalogue

TRAINER_VERSION = 5
"""Raised whenever the same configuration and seed would give other numbers than before."""

IDENTITY_EXCLUDES = frozenset({"data.train", "log_every"})
"""Settings that change no result: a data set is identified by its fingerprint, not its name."""

_ADAM = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}

OPTIMIZER_DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "sgd": {"momentum": 0.9, "nesterov": False},
    "adam": _ADAM,
    "adamw": _ADAM,
    "muon": {"momentum": 0.95, "nesterov": True, **_ADAM},
}
"""What each update rule uses beside rate and decay, and the values where none are given."""

SCHEDULE_DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "constant": {},
    "cosine": {"horizon": None, "warmup": 0.0},
    "one_cycle": {"horizon": None, "warmup": 0.3},
}
"""What each schedule uses, and the values where none are given."""

_GRADIENT_SETTINGS = (
    "input",
    "attention",
    "batch_size",
    "optimizer",
    "schedule",
    "loss",
    "label_smoothing",
    "normalization",
    "augmentation",
    "shuffle",
    "data_order",
    "data_seed",
    "execution",
)
"""Settings without a meaning for a model that is not trained by gradient descent."""


class Settings(BaseModel):
    """Base of all settings: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


def _resolve(
    settings: Settings, defaults: Mapping[str, object], *, always: Collection[str] = ()
) -> None:
    """Write defaults out where nothing is given, and null where a setting has no meaning."""
    for name in type(settings).model_fields:
        if name not in always:
            given = getattr(settings, name) if name in defaults else None
            value = defaults.get(name) if given is None else given
            object.__setattr__(settings, name, value)


class Optimizer(Settings):
    """How gradients become steps. What the chosen rule does not use is null."""

    name: Literal["sgd", "adam", "adamw", "muon"] = "sgd"
    """Update rule; muon orthogonalises the steps of matrices and leaves the rest to adamw."""

    lr: float = Field(0.001, gt=0, le=100)
    """Learning rate; the highest one where a schedule varies it."""

    weight_decay: float = Field(0.0, ge=0, le=10)
    """L2 penalty added to the gradient (sgd, adam) or decoupled from it (adamw, muon)."""

    momentum: float | None = Field(None, ge=0, lt=1)
    """Share of the last step carried into the next; sgd 0.9, muon 0.95."""

    nesterov: bool | None = None
    """Whether the gradient is taken after that share of the step; sgd no, muon yes."""

    beta1: float | None = Field(None, ge=0, lt=1)
    """Decay of the gradient's running mean; adam, adamw, muon 0.9."""

    beta2: float | None = Field(None, ge=0, lt=1)
    """Decay of the squared gradient's running mean; adam, adamw, muon 0.999."""

    eps: float | None = Field(None, gt=0, le=1)
    """Added to the root of that mean; adam, adamw, muon 1e-8."""

    @model_validator(mode="after")
    def _fill_in(self) -> Self:
        _resolve(self, OPTIMIZER_DEFAULTS[self.name], always={"name", "lr", "weight_decay"})
        return self


class Schedule(Settings):
    """The learning rate over training. A schedule with a horizon shares no epoch across lengths."""

    name: Literal["constant", "cosine", "one_cycle"] = "constant"
    """Shape: constant, a half cosine down to 0, or up and down again (Smith and Topin 2018)."""

    horizon: int | None = Field(None, ge=1, le=9_999)
    """Epochs that the schedule spans; a sweep fills in the length asked for."""

    warmup: float | None = Field(None, ge=0, lt=1)
    """Share of the horizon in which the rate rises; cosine 0, one_cycle 0.3."""

    @model_validator(mode="after")
    def _fill_in(self) -> Self:
        _resolve(self, SCHEDULE_DEFAULTS[self.name], always={"name"})
        return self


class Augmentation(Settings):
    """Random changes of training images, drawn anew every epoch from the seed."""

    flip: bool = False
    """Mirror left to right, half of the time."""

    crop: int = Field(0, ge=0, le=16)
    """Black border in pixels, out of which 32×32 are cut at random; 0 means no crop."""


class ModelOptions(Settings):
    """Parameters of the architecture; null where it has no such parameter."""

    conv_layers: int | None = Field(None, ge=1, le=4)
    """Convolutions, each followed by pooling: paper 1 to 3, convnet 1 to 4."""

    filters: int | None = Field(None, ge=1, le=4096)
    """Channels of every convolution (paper), or of the first, doubling from there (convnet)."""

    dense_layers: int | None = Field(None, ge=0, le=3)
    """Hidden dense layers (paper)."""

    neurons: int | None = Field(None, ge=1, le=65_536)
    """Units of every hidden dense layer (paper); null without one."""

    depth: int | None = Field(None, ge=8, le=1202)
    """Weighted layers, 6n + 2 (resnet)."""

    width: int | None = Field(None, ge=1, le=4096)
    """Channels of the first stage, doubling twice (resnet)."""

    backbone: str | None = None
    """Network of torchvision (torchvision)."""

    trees: int | None = Field(None, ge=1, le=100_000)
    """Boosted trees (statistics)."""

    leaves: int | None = Field(None, ge=2, le=4096)
    """Leaves of a tree at most (statistics)."""

    shrinkage: float | None = Field(None, gt=0, le=1)
    """Share of each tree's correction that is applied (statistics)."""


class InputOptions(Settings):
    """Details of the input filter; null where it has no such detail."""

    sigma: float | None = Field(None, gt=0, le=10)
    """Standard deviation of the Gaussian in pixels (low_pass, high_pass)."""

    filters: int | None = None
    """High-pass filters: 30, the whole bank, or 3 of it (steg_srm, steg_srm_learned)."""

    @field_validator("filters")
    @classmethod
    def _check_filters(cls, filters: int | None) -> int | None:
        if filters not in (None, 3, 30):
            raise ValueError("must be 3 or 30")
        return filters


class AttentionOptions(Settings):
    """Details of the attention module; null where it has no such detail."""

    init: Literal["zero", "uniform"] | None = None
    """Initial weights of srm's channel-wise layer: zero (the paper's) or Conv1d's uniform."""

    std: Literal["unbiased", "biased"] | None = None
    """Divisor of the standard deviation that srm pools: H·W − 1 or H·W."""

    eps: float | None = Field(None, gt=0, le=1)
    """Added to the variance before the root (srm)."""

    pool: Literal["both", "mean", "std"] | None = None
    """Which statistics of a channel srm looks at."""

    reduction: int | None = Field(None, ge=1, le=1024)
    """Channels to one hidden unit (se, cbam)."""

    kernel_size: int | None = Field(None, ge=1, le=31)
    """Odd width of the convolution over channels (eca; null: adaptive) or over the map (cbam)."""

    @field_validator("kernel_size")
    @classmethod
    def _check_kernel_size(cls, size: int | None) -> int | None:
        if size is not None and size % 2 == 0:
            raise ValueError("must be odd")
        return size


class Execution(Settings):
    """How the arithmetic is done; part of the identity, since it changes the last bits."""

    precision: Literal["float32", "float64", "bf16", "fp16"] = "float32"
    """Numbers of the forward and backward pass; weights are float32, or float64 with it."""

    channels_last: bool = True
    """Memory format of images and convolutions."""

    compile: bool = False
    """Compile the network with torch.compile."""


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

    model_options: ModelOptions = ModelOptions()
    """Parameters of the architecture."""

    input: Literal["rgb", "greyscale", "low_pass", "high_pass", "steg_srm", "steg_srm_learned"] = (
        "rgb"
    )
    """What the first layer sees of an image."""

    input_options: InputOptions = InputOptions()
    """Details of that."""

    attention: str = "none"
    """Attention module."""

    placement: str = "none"
    """Sites of the architecture that carry the attention module."""

    attention_options: AttentionOptions = AttentionOptions()
    """Details of the attention module."""

    batch_size: int = Field(32, ge=1, le=65536)
    """Images a step."""

    optimizer: Optimizer = Optimizer()
    """Update rule and its settings."""

    schedule: Schedule = Schedule()
    """Learning rate over training."""

    loss: Literal["bce"] = "bce"
    """Binary cross-entropy of the logit."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of every label that is spread evenly over both classes."""

    normalization: Literal["half", "imagenet", "dataset"] = "half"
    """Pixel scaling: to −1…1, or by means and deviations of ImageNet or the training images."""

    augmentation: Augmentation = Augmentation()
    """Random changes of training images."""

    shuffle: Literal["reshuffle", "frozen_batches"] = "reshuffle"
    """Order of images: every epoch anew, or fixed batches whose order and inner order change."""

    data_order: Literal["per_seed", "shared"] = "per_seed"
    """Whether each seed has its own order and augmentation, or all share one."""

    data_seed: int | None = Field(None, ge=0, lt=2**63)
    """Seed of order and augmentation where it is shared; null where each run's own is used."""

    init_seed: int | None = Field(None, ge=0, lt=2**63)
    """Seed of the initial weights where all runs share them; null where each run's own is used."""

    execution: Execution = Execution()
    """How the arithmetic is done."""

    log_every: int = Field(50, ge=1)
    """Batches between two points of the first epoch's difficulty curve."""

    data: DataSettings = DataSettings()
    """Training images."""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        """Replace a preset by its architecture."""
        if not isinstance(values, Mapping):
            return values
        known = dict(values)
        model = known.get("model", "base")
        if isinstance(model, str) and model in catalogue.PRESETS:
            preset = catalogue.PRESETS[model]
            known = {**preset.defaults, **known, "model": preset.model}
        return known

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Drop what has no meaning, write the defaults out, and name what does not go together."""
        self._drop_meaningless()
        problems = [*self._problems()]
        if problems:
            raise ValueError("\n".join(problems))
        self._set("placement", catalogue.canonical_placement(self, self.placement))
        return self

    def _drop_meaningless(self) -> None:
        architecture = catalogue.ARCHITECTURES.get(self.model)
        if architecture is None or self.attention not in catalogue.ATTENTION:
            return
        if architecture.fitted:
            for name in _GRADIENT_SETTINGS:
                self._set(name, Config.model_fields[name].default)
        if self.attention == "none":
            self._set("placement", "none")
        if self.input.startswith("steg_srm"):
            self._set("normalization", "half")  # residuals are truncated, not normalised
        if self.data_order == "shared" and self.data_seed is None:
            self._set("data_seed", 0)
        if self.data_seed is not None:
            self._set("data_order", "shared")
        for name, defaults in (
            ("model_options", architecture.options),
            ("input_options", catalogue.INPUTS[self.input].options),
            ("attention_options", catalogue.ATTENTION[self.attention].options),
        ):
            options = getattr(self, name).model_copy()
            _resolve(options, defaults)
            self._set(name, options)
        if self.model_options.dense_layers == 0:
            self._set("model_options", self.model_options.model_copy(update={"neurons": None}))

    def _problems(self) -> Iterator[str]:
        if self.model not in catalogue.ARCHITECTURES:
            yield f"model: must be one of {', '.join(catalogue.model_names())}"
            return
        if self.attention not in catalogue.ATTENTION:
            yield f"attention: must be one of {', '.join(catalogue.ATTENTION)}"
            return
        yield from catalogue.ARCHITECTURES[self.model].problems(self.model_options)
        try:
            sites = catalogue.placement_sites(self, self.placement)
        except ValueError as error:
            yield f"placement: {error}"
        else:
            if self.attention != "none" and not sites:
                names = ", ".join(catalogue.placement_names(self)[1:]) or "none is possible here"
                yield f"placement: attention {self.attention} needs one of {names}"
        normalises = catalogue.ATTENTION[self.attention].normalises
        if normalises and self.batch_size < 2:
            yield "batch_size: must be at least 2: attention normalises over a batch"
        elif catalogue.ARCHITECTURES[self.model].normalises and self.batch_size < 2:
            yield f"batch_size: must be at least 2: {self.model} normalises over a batch"
        if self.schedule.name != "constant" and self.schedule.horizon is None:
            yield f"schedule.horizon: must be given for {self.schedule.name}"
        if self.optimizer.nesterov and not self.optimizer.momentum:
            yield "optimizer.nesterov: must be false without momentum"

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def config_id(self) -> str:
        """Sixteen hexadecimal digits that identify the trajectory, seed and length aside."""
        settings = {k: v for k, v in self.flat().items() if k not in IDENTITY_EXCLUDES}
        return _digest({"settings": settings, "trainer": TRAINER_VERSION})

    def flat(self) -> dict[str, object]:
        """Every setting by dotted path; the fields of a dropped group are null."""
        return {path: _lookup(self, names) for path, names in _PATHS}


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


def _lookup(settings: Settings, names: Iterable[str]) -> object:
    value: Any = settings
    for name in names:
        if value is None:
            return None
        value = getattr(value, name)
    return value


def _digest(content: object) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_PATHS = [(path, path.split(".")) for path, _ in leaves(Config)]
"""Every setting, and the names that lead to it."""
