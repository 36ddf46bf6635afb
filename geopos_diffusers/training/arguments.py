"""Arguments of the scripts: one dataclass a script, filled from a YAML file and then from the command line."""

import sys
from collections.abc import Sequence
from dataclasses import field, fields
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ConfigError

Arguments = TypeVar("Arguments")


def option(default: Any, text: str) -> Any:
    """A dataclass field with a default and a help text."""
    return field(default=default, metadata={"help": text})


def parse_arguments(arguments_class: type[Arguments], argv: Sequence[str] | None = None) -> Arguments:
    """Fill `arguments_class` (a dataclass) from `--config FILE.yaml` and `--field value` overrides.

    The command line wins over the file, the file over the dataclass's defaults. Fields without a default must be given
    by one of the two. Help texts come from each field's `metadata["help"]`.

    Raises:
        ConfigError: the file is missing, is not a YAML mapping, or names a field that does not exist.
    """
    from transformers import HfArgumentParser

    argv = list(sys.argv[1:] if argv is None else argv)
    parser = HfArgumentParser(arguments_class)
    parser.add_argument("--config", help="YAML file with any of the options below; the command line wins over it")
    if (path := _config_path(argv)) is not None:
        values = read_yaml(path)
        known = {field.name for field in fields(arguments_class)}
        if unknown := sorted(set(values) - known):
            raise ConfigError(f"{path}: unknown option {unknown[0]!r}; known are {', '.join(sorted(known))}")
        parser.set_defaults(**values)
        for action in parser._actions:
            if action.dest in values:
                action.required = False
    namespace = vars(parser.parse_args(argv))
    namespace.pop("config")
    return arguments_class(**namespace)


def read_yaml(path: str) -> dict:
    """Read a YAML mapping.

    Raises:
        ConfigError: the file is missing or is not a YAML mapping.
    """
    import yaml

    if not Path(path).is_file():
        raise ConfigError(f"no config file {path}")
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping of option: value, found {type(values).__name__}")
    return values


def _config_path(argv: Sequence[str]) -> str | None:
    for position, argument in enumerate(argv):
        if argument == "--config" and position + 1 < len(argv):
            return argv[position + 1]
        if argument.startswith("--config="):
            return argument.partition("=")[2]
    return None
