"""Settings of `train`: every field is a flag, a key of a recipe and of config.yaml, and a keyword of striate.train."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from striate.settings.base import Settings
from striate.settings.launch import find_launch
from striate.settings.values import check_bytes, check_order, parse_range, parse_time, read_numbers, read_size


class TrainSettings(Settings):
    """Everything that decides a training run."""

    # what
    data: str = Field("digits", description="name of a data set, or a folder, table or archive of pictures")
    data_root: Path | None = Field(None, description="folder that holds the data sets")
    download: bool = Field(True, description="download a named data set that is not here")
    class_names: Literal["en", "zh"] = Field("en", description="language of a named data set's class names")
    model: str | None = Field(None, description="name of a net, net.py:MyNet, or timm:NAME")
    model_option: dict[str, Any] = Field(default_factory=dict, description="options of the net, name=value")
    recipe: str | None = Field(None, description="named settings to start from")
    init_from: str | None = Field(
        "auto",
        description="first weights: a run's, a file's, torchvision; none: drawn; auto: of timm:NAME its published ones",
    )
    freeze: str | None = Field(None, description="epochs in which only the head is trained, or all; needs a start")
    # pictures
    size: tuple[int, int] | None = Field(None, description="height and width the net sees: 96 or 96x128")
    fit: Literal["auto", "crop", "pad", "stretch"] = Field("auto", description="how a picture is brought to that size")
    max_pixels: int = Field(50_000_000, ge=1, description="own pictures with more are refused (JPEG: decoded scaled)")
    fixes: Path | None = Field(None, description="own pictures: table of what to drop, relabel or merge (see check)")
    follow_links: bool = Field(False, description="own pictures: also follow links that lead out of the folder")
    strict: bool = Field(False, description="own pictures: refuse to train while a finding must be decided")
    cache: bool = Field(True, description="own pictures: keep them decoded for the next run")
    mean: tuple[float, ...] | None = Field(None, description="subtracted, in units of 0-1; default: of the train set")
    std: tuple[float, ...] | None = Field(None, description="divided by, in units of 0-1; default: of the train set")
    augment: str = Field("none", description="such as shift:2,flip")
    memory: str | None = Field(
        None, description="what the pictures may take, such as 2gb; more lie on disk; default: a quarter of the memory"
    )
    order: str = Field(
        "auto", description="how they are shuffled: whole, blocks (also blocks:PICTURES,HELD), auto: blocks on disk"
    )
    # split
    validation: float = Field(0.1, ge=0, description="share (< 1) or number (>= 1) of train pictures; 0: none")
    test: float = Field(0.15, ge=0, description="share or number of pictures, where there is no official test set")
    group: str | None = Field(
        None, description="own pictures: table column, or regex on the path; a group is never divided"
    )
    train_range: str | None = Field(None, description="first:end of the train pictures that are used")
    validation_range: str | None = Field(None, description="first:end of the train pictures that validate")
    test_range: str | None = Field(None, description="first:end of the test pictures that are used")
    # steps
    epochs: int = Field(10, ge=1, description="passes over the train pictures")
    time: str | None = Field(None, description="train so long instead: 90s, 10m, 1.5h")
    batch_size: int = Field(128, ge=1, description="pictures a step")
    accumulate: int = Field(1, ge=1, description="parts in which a batch goes through the net, for less memory")
    optimizer: Literal["sgd", "adam", "adamw", "muon"] = Field("adamw", description="rule that changes the weights")
    lr: float = Field(0.002, gt=0, allow_inf_nan=False, description="learning rate (its peak, where it changes)")
    bias_lr: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="learning rate of biases and BatchNorm's scales; default: lr"
    )
    head_lr: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="learning rate of the last linear layer; default: lr"
    )
    whitening_epochs: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="epochs in which the bias of airnet's first layer is trained"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd; of muon's filters and matrices")
    side_momentum: float = Field(0.85, ge=0, lt=1, description="of muon's biases and head")
    nesterov: bool = Field(False, description="sgd looks ahead")
    betas: tuple[float, float] = Field((0.9, 0.999), description="of adam and adamw")
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False, description="pull of the weights towards zero")
    weight_decay_mode: Literal["auto", "coupled", "decoupled"] = Field(
        "auto", description="coupled: added to the gradient (L2); decoupled: applied apart; auto: adamw decoupled"
    )
    schedule: Literal["constant", "step", "linear", "cosine", "one-cycle", "triangular"] = Field(
        "constant", description="how the learning rate changes with the step"
    )
    warmup: float = Field(0.0, ge=0, lt=1, description="share of all steps in which the rate rises to its peak")
    step_epochs: int = Field(10, ge=1, description="schedule step: epochs between falls")
    step_factor: float = Field(0.1, gt=0, le=1, description="schedule step: factor of each fall")
    loss: Literal["cross-entropy", "binary-cross-entropy", "mean-squared-error"] = Field(
        "cross-entropy", description="binary-cross-entropy and mean-squared-error are against one-hot, on sigmoids"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all classes")
    balance: Literal["auto", "loss", "sampler", "none"] = Field(
        "auto", description="rare classes weigh more (loss) or come more often (sampler); auto: loss where uneven"
    )
    clip: float | None = Field(None, gt=0, description="largest norm of the gradient")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of an average of the weights, which is then used")
    lookahead: float | None = Field(
        None, gt=0, lt=1, description="decay of slow weights, which the net takes over every 5 steps"
    )
    early_stop: int | None = Field(None, ge=1, description="stop after so many epochs without a better validation")
    init: Literal["default", "xavier-uniform", "kaiming-normal"] = Field(
        "default", description="first weights of convolutions and linear layers; default: as torch or the net does"
    )
    recompute_batchnorm: Literal["auto", "on", "off"] = Field(
        "auto", description="BatchNorm statistics measured anew after training; auto: for batches under 8"
    )
    validate_every: int = Field(1, ge=0, description="epochs between validations; 0: only at the end")
    tta: Literal["none", "mirror", "shift", "mirror-shift"] = Field(
        "none", description="test-time augmentation, a row of its own in the final test"
    )
    # machine
    seed: int = Field(0, ge=0, lt=2**63, description="same seed, same machine, same bits")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="number format of the arithmetic")
    threads: int = Field(0, ge=0, description="0 chooses")
    timeout: str = Field("10m", description="under torchrun: how long a process waits for another one: 90s, 10m")
    # files
    out: Path | None = Field(None, description="exactly this folder; default: runs/<data>-<model>-<n>")
    save_every: str | None = Field(
        "auto", description="also save within an epoch: 200 (steps), 60s or none; auto: under 1 % of the time"
    )

    track: tuple[Literal["tensorboard", "mlflow"], ...] = Field(
        (), description="also write the run to tensorboard, mlflow, or both with a comma; none: to neither"
    )

    @field_validator("track", mode="before")
    @classmethod
    def _track(cls, value: Any) -> Any:
        if value is None or (isinstance(value, str) and value.lower() == "none"):
            return ()
        return tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value

    @field_validator("size", mode="before")
    @classmethod
    def _size(cls, value: Any) -> Any:
        return read_size(value)

    @field_validator("mean", "std", "betas", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        return read_numbers(value)

    @field_validator("std")
    @classmethod
    def _std(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and any(not number > 0 for number in value):
            raise ValueError("every std must be above 0")
        return value

    @field_validator("validation", "test")
    @classmethod
    def _share_or_number(cls, value: float) -> float:
        if value >= 1 and value != int(value):
            raise ValueError("a share is under 1, a number of pictures is whole")
        return value

    @field_validator("train_range", "validation_range", "test_range")
    @classmethod
    def _range(cls, value: str | None) -> str | None:
        if value is not None:
            parse_range(value)
        return value

    @field_validator("time", "timeout")
    @classmethod
    def _time(cls, value: str | None) -> str | None:
        if value is not None:
            parse_time(value)
        return value

    @field_validator("memory")
    @classmethod
    def _memory(cls, value: str | None) -> str | None:
        return check_bytes(value)

    @field_validator("order")
    @classmethod
    def _order(cls, value: str) -> str:
        return check_order(value)

    @field_validator("init_from", mode="before")
    @classmethod
    def _init_from(cls, value: Any) -> Any:
        value = getattr(value, "folder", value)  # a Run
        return None if value is None else str(value)

    @field_validator("freeze", mode="before")
    @classmethod
    def _freeze(cls, value: Any) -> Any:
        text = str(value)
        if value is None or text == "all" or (text.isdecimal() and text.isascii() and int(text) > 0):
            return None if value is None else text
        raise ValueError("write a number of epochs (2), all or none")

    @field_validator("save_every", mode="before")
    @classmethod
    def _save_every(cls, value: Any) -> Any:
        if value is None or value == "auto":
            return value
        text = str(value)
        if not text.removesuffix("s").isdigit() or int(text.removesuffix("s")) < 1:
            raise ValueError("write a number of steps (200), of seconds (60s), auto or none")
        return text

    @model_validator(mode="after")
    def _together(self) -> TrainSettings:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std are given together or not at all: add --mean or --std")
        if self.ema is not None and self.lookahead is not None:
            raise ValueError("ema and lookahead are both averages of the weights: leave out --ema or --lookahead")
        if self.accumulate > self.batch_size:
            raise ValueError(f"a batch of {self.batch_size} has no {self.accumulate} parts: change --accumulate")
        return self

    @property
    def output(self) -> str:
        """How probabilities are made of logits: `softmax`, or `sigmoid` for the losses against one-hot."""
        return "softmax" if self.loss == "cross-entropy" else "sigmoid"

    @property
    def has_start(self) -> bool:
        """Whether the first weights are any that were trained before; of a module of the user's nobody knows."""
        own = self.model is not None and (self.model.startswith("own:") or ".py:" in self.model)
        return own or self.init_from not in (None, "auto") or self.has_published_weights

    @property
    def has_published_weights(self) -> bool:
        """Whether the first weights are those that timm publishes for the net."""
        return self.init_from == "auto" and self.model is not None and self.model.startswith("timm:")

    @property
    def has_validation(self) -> bool:
        """Whether pictures are set apart for validation."""
        return self.validation > 0 or self.validation_range is not None

    @property
    def decay_is_decoupled(self) -> bool:
        """Whether weight decay is applied apart from the gradient."""
        if self.weight_decay_mode == "auto":
            return self.optimizer == "adamw"
        return self.weight_decay_mode == "decoupled"


# A setting that does nothing beside others: (name, the rule it needs, does it have an effect?)
EFFECTS: tuple[tuple[str, str, Any], ...] = (
    ("epochs", "no --time", lambda s: s.time is None),
    ("momentum", "optimizer sgd or muon", lambda s: s.optimizer in ("sgd", "muon")),
    ("side_momentum", "optimizer muon", lambda s: s.optimizer == "muon"),
    ("nesterov", "optimizer sgd with momentum", lambda s: s.optimizer == "sgd" and s.momentum > 0),
    ("betas", "optimizer adam or adamw", lambda s: s.optimizer in ("adam", "adamw")),
    (
        "weight_decay_mode",
        "a weight_decay above 0 and another optimizer than muon",
        lambda s: s.weight_decay > 0 and s.optimizer != "muon",
    ),
    ("step_epochs", "schedule step", lambda s: s.schedule == "step"),
    ("step_factor", "schedule step", lambda s: s.schedule == "step"),
    ("label_smoothing", "loss cross-entropy", lambda s: s.loss == "cross-entropy"),
    ("validate_every", "a validation set", lambda s: s.has_validation),
    ("timeout", "torchrun", lambda s: find_launch() is not None),
    ("freeze", "a start, such as --init-from RUN", lambda s: s.has_start),
    ("early_stop", "a validation set, seen after epochs", lambda s: s.has_validation and s.validate_every > 0),
)
