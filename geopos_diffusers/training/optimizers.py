"""Optimizers by name, from torch and from packages that are imported only when one of theirs is asked for."""

import ast
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..command_line import did_you_mean
from ..errors import ConfigError
from ..optional_packages import optional_import, require_package

if TYPE_CHECKING:  # names are checked before torch is imported
    import torch

OptimizerName = Literal[
    "adamw", "adam", "adamw-8bit", "nadam", "radam", "adafactor", "sgd", "rmsprop", "adagrad", "prodigy",
    "schedule-free-adamw", "schedule-free-sgd", "lion", "came", "adan", "ademamix", "stable-adamw", "soap",
]  # fmt: skip
NAMES: tuple[str, ...] = get_args(OptimizerName)


@dataclass(frozen=True)
class Source:
    """Where an optimizer's class is, and what is known of its learning rate.

    rate: the peak learning rate of every part where none is given. "swept": those of AdamW, of which a step is as long;
        None: there is none, since lengths of steps differ.
    averages: its own moving average of the weights is what is validated and saved.
    one_rate: it finds the rate itself, the same for all parts; the one given is a factor.
    """

    package: str
    name: str
    rate: float | Literal["swept"] | None = None
    averages: bool = False
    one_rate: bool = False


SOURCES = {
    "adamw": Source("torch.optim", "AdamW", "swept"),
    "adam": Source("torch.optim", "Adam", "swept"),
    "adamw-8bit": Source("bitsandbytes.optim", "AdamW8bit", "swept"),
    "nadam": Source("torch.optim", "NAdam", "swept"),
    "radam": Source("torch.optim", "RAdam", "swept"),
    "adafactor": Source("torch.optim", "Adafactor"),
    "sgd": Source("torch.optim", "SGD"),
    "rmsprop": Source("torch.optim", "RMSprop"),
    "adagrad": Source("torch.optim", "Adagrad"),
    "prodigy": Source("pytorch_optimizer", "Prodigy", 1.0, one_rate=True),
    "schedule-free-adamw": Source("pytorch_optimizer", "ScheduleFreeAdamW", "swept", averages=True),
    "schedule-free-sgd": Source("pytorch_optimizer", "ScheduleFreeSGD", averages=True),
    "lion": Source("pytorch_optimizer", "Lion"),
    "came": Source("pytorch_optimizer", "CAME"),
    "adan": Source("pytorch_optimizer", "Adan"),
    "ademamix": Source("pytorch_optimizer", "AdEMAMix"),
    "stable-adamw": Source("pytorch_optimizer", "StableAdamW", "swept"),
    "soap": Source("pytorch_optimizer", "SOAP"),
}
# Of torch, and of each number by itself, so that they work on shards. The others were not tried.
SHARDED = ("adamw", "adam", "nadam", "radam", "sgd", "rmsprop", "adagrad")
# Options of the run instead, or what the training loop does not use.
RESERVED = {
    "params": "is what is trained",
    "lr": "is learning_rate",
    "weight_decay": "is adam_weight_decay",
    "maximize": "would make the loss grow",
}


def build_optimizer(name: str, groups: Sequence[dict[str, Any]], options: dict[str, Any]) -> "torch.optim.Optimizer":
    """An optimizer over parameter groups.

    Args:
        name: of NAMES. groups: each with "params", "lr" and "weight_decay". options: more of its constructor.

    Raises:
        ConfigError: it has no such option, or refuses a value.
        MissingDependencyError: its package is not installed.
    """
    optimizer_class = load_class(name)
    _check_options(name, optimizer_class, options)
    try:
        return optimizer_class(list(groups), lr=groups[0]["lr"], **options)
    except (ValueError, TypeError, NotImplementedError, AssertionError) as error:
        raise ConfigError(f"optimizer {name} cannot be made with {options}: {error}") from error


def check_installed(name: str) -> None:
    """Raise MissingDependencyError if the optimizer's package is not installed."""
    require_package(SOURCES[name].package.partition(".")[0], _extra(name), f"optimizer {name}")


def load_class(name: str) -> "Callable[..., torch.optim.Optimizer]":
    """The class of an optimizer of NAMES. Raises MissingDependencyError if its package is not installed."""
    source = SOURCES[name]
    with optional_import(f"optimizer {name}", _extra(name)):
        module = import_module(source.package)
    return getattr(module, source.name)


def _extra(name: str) -> str:
    return "optimizers-8bit" if SOURCES[name].package.startswith("bitsandbytes") else "optimizers"


def parse_options(words: Sequence[str]) -> dict[str, Any]:
    """The values of texts such as "betas=0.9,0.99", "nesterov=true" and "eps=1e-6".

    Raises:
        ConfigError: a text is not key=value, or a key is there twice.
    """
    options: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key.isidentifier() or not text:
            raise ConfigError(f"optimizer_arguments must be key=value, such as betas=0.9,0.99; got {word!r}")
        if key in options:
            raise ConfigError(f"optimizer_arguments has {key} twice")
        options[key] = _parse_value(text)
    return options


def _parse_value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _check_options(name: str, optimizer_class: Callable, options: dict[str, Any]) -> None:
    known = [
        parameter.name
        for parameter in inspect.signature(optimizer_class).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.name not in RESERVED
    ]
    for key in options:
        if key in RESERVED:
            raise ConfigError(f"optimizer_arguments: {key} {RESERVED[key]}")
        if key not in known:
            raise ConfigError(
                f"optimizer {name} has no argument {key!r}; it has {', '.join(known)}{did_you_mean(key, known)}"
            )
