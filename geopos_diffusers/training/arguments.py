"""Arguments of the training programs: one dataclass each, filled from a YAML file and then from the command line.

Every field is an `option` or `required`, which says what it is for and whether a resumed run may change it. What must
stay the same is computed from that by `fixed_settings`, the one rule of all programs.
"""

import sys
from collections.abc import Collection, Sequence
from dataclasses import MISSING, Field, asdict, field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ..command_line import Parser, did_you_mean, kebab
from ..errors import ConfigError
from .argument_values import check_value

Arguments = TypeVar("Arguments")
# Where configs lie by name: in the installed package, or beside it in a checkout.
CONFIG_FOLDER = next(
    (folder for place in Path(__file__).parents[1:3] if (folder := place / "configs").is_dir()), Path("configs")
)

# What `--help` of every training program says of the rule in `resuming.resume_point`.
CONTINUED = "a run that it holds is continued from its newest checkpoint"
RESUME_HELP = "go on from this checkpoint instead of the newest; latest: the newest, which then must exist"
OVERWRITE_HELP = "begin anew where the output folder holds a run, and discard that"


def option(
    default: Any,
    text: str,
    *,
    resume: Literal["fixed", "free"],
    group: str | None = None,
    name: str | None = None,
    aliases: Sequence[str] = (),
    common: bool = False,
    recorded: bool = True,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
) -> Any:
    """A dataclass field with all that is known of an option.

    Args:
        default: its value where none is given; MISSING where one must be. The text of a flag that is True says what
            `--no-flag` does.
        text: what `--help` says.
        resume: "fixed" where a resumed run must have the value that the run began with, since losses depend on it;
            "free" where it may have another.
        group: title that `--help` puts it under; None for the general one.
        name: what the command line and configs call it, if that is not the field's name. Both are accepted.
        aliases: earlier names, accepted and never shown.
        common: shown by `--help`; the others by `--help-all` alone, if there are common ones beside the required.
        recorded: whether results files hold it. False for what says where things are on a machine, and the like.
        at_least: the least that the number or numbers may be; of a text, 1 is one that is not empty.
        above: what they must be above.
        at_most: the most that they may be.
    """
    if resume not in ("fixed", "free"):
        raise TypeError(f"resume must be 'fixed' or 'free'; got {resume!r}")
    metadata = {
        "help": text,
        "resume": resume,
        "group": group,
        "name": name,
        "aliases": tuple(aliases),
        "common": common,
        "recorded": recorded,
        "range": {"at_least": at_least, "above": above, "at_most": at_most},
    }
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def required(text: str, **more: Any) -> Any:
    """An `option` that must be given."""
    return option(MISSING, text, common=True, **more)


def fixed_settings(arguments: Any, without_groups: Collection[str] = ()) -> dict[str, Any]:
    """What a resumed run must share with its beginning: the values of all options with `resume="fixed"`.

    Args:
        arguments: an instance of a dataclass of `option`s.
        without_groups: leave out the options of these groups, which a stage of the program does not depend on.
    """
    values = asdict(arguments)
    return {
        known.name: values[known.name]
        for known in fields(arguments)
        if known.metadata["resume"] == "fixed" and known.metadata["group"] not in without_groups
    }


def recorded_settings(arguments: Any) -> dict[str, Any]:
    """The values of all options that results files hold."""
    values = asdict(arguments)
    return {known.name: values[known.name] for known in fields(arguments) if known.metadata["recorded"]}


def shown_name(known: Field) -> str:
    """What configs call an option."""
    return known.metadata["name"] or known.name


def check_arguments(arguments: Any) -> None:
    """Check all values against their types and ranges; a single value in the place of a list becomes a list of one.

    Lists need a value, but where none is the default.

    Raises:
        ConfigError: a value that is not of its option's type or range.
    """
    hints = get_type_hints(type(arguments))
    for known in fields(arguments):
        value = getattr(arguments, known.name)
        if value == [] == _default(known):
            continue
        checked = check_value(shown_name(known), value, hints[known.name], **known.metadata["range"])
        setattr(arguments, known.name, checked)


def parse_arguments(arguments_class: type[Arguments], argv: Sequence[str] | None = None) -> Arguments:
    """Fill `arguments_class` (a dataclass of `option`s) from `--config FILE.yaml` and the options of a command line.

    The command line wins over the file, the file over the dataclass's defaults. Options without a default must be given
    by one of the two.

    Raises:
        ConfigError: no such file or packaged config, not a YAML mapping, or it names an option that does not exist.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    config = Parser(add_help=False, allow_unknown=True)
    config.add_argument("--config")
    path = config.parse_known_args(argv)[0].config
    given = {} if path is None else read_config(find_config(path), arguments_class)
    namespace = vars(build_parser(arguments_class, given).parse_args(argv))
    namespace.pop("config")
    namespace.pop("help_all", None)
    return arguments_class(**namespace)


def build_parser(arguments_class: type, given: dict[str, Any] | None = None) -> Parser:
    """The parser of a dataclass of `option`s; `given` are values of a config file, by field."""
    needed = " ".join(
        f"{kebab(shown_name(known))} ..." for known in fields(arguments_class) if _default(known) is MISSING
    )
    parser = Parser(
        usage=f"%(prog)s [--config FILE] {needed} [option ...]",
        description=(arguments_class.__doc__ or "").partition("\n\n")[0],
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="YAML file with any of these options, or the name of a packaged one, such as finetune_hands; the "
        "command line wins over it",
    )
    hints, given = get_type_hints(arguments_class), given or {}
    split = any(known.metadata["common"] and _default(known) is not MISSING for known in fields(arguments_class))
    for known in _in_groups(arguments_class):
        default = _default(known)
        parser.add_argument(
            kebab(shown_name(known)),
            dest=known.name,
            default=default,
            group=known.metadata["group"],
            aliases=[kebab(name) for name in (known.name, *known.metadata["aliases"])],
            advanced=split and not known.metadata["common"],
            help=_help_text(known.metadata["help"], default),
            **_argparse_type(hints[known.name]),
            **({"required": True} if default is MISSING and known.name not in given else {}),
        )
    parser.set_defaults(**given)
    return parser


def _in_groups(arguments_class: type) -> list[Field]:
    """The fields, those of the groups in `arguments_class.GROUPS`, if it has that, in its order."""
    order = list(getattr(arguments_class, "GROUPS", ()))
    return sorted(fields(arguments_class), key=lambda known: _position(order, known.metadata["group"]))


def _position(order: list[str], group: str | None) -> int:
    return order.index(group) if group in order else len(order)


def _default(known: Field) -> Any:
    """A field's default, MISSING where a value must be given."""
    return known.default if known.default_factory is MISSING else known.default_factory()


def _help_text(text: str, default: Any) -> str:
    text = text.replace("%", "%%")
    if default is MISSING:
        return f"{text} (required)"
    shown = " ".join(map(str, default)) if isinstance(default, list) else default
    return text if default in (None, "") or isinstance(default, bool) else f"{text} (default: {shown})"


def _argparse_type(hint: Any) -> dict[str, Any]:
    """What argparse needs for a type: X, X | None, list[X], Literal, of texts, numbers and bool."""
    kinds = [kind for kind in (get_args(hint) if _is_union(hint) else [hint]) if kind is not NoneType]
    if bool in kinds:
        return {"action": "store_true"}
    lists = [kind for kind in kinds if get_origin(kind) is list]
    kind = get_args(lists[0])[0] if lists else kinds[0]
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind), "type": str}
    more = {"nargs": "+"} if lists else {}
    return more | {"type": kind, "metavar": {int: "N", float: "X", str: "TEXT"}[kind]}


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType)


def packaged_configs() -> list[str]:
    """Names that `--config` takes beside paths."""
    return sorted(path.stem for path in CONFIG_FOLDER.glob("*.yaml"))


def find_config(name: str) -> Path:
    """The file of a path, or else of the name of a packaged config.

    Raises:
        ConfigError: there is neither.
    """
    if (path := Path(name)).is_file():
        return path
    known = packaged_configs()
    if name.removesuffix(".yaml") in known:
        return CONFIG_FOLDER / f"{name.removesuffix('.yaml')}.yaml"
    raise ConfigError(f"no config file {name}; packaged are {', '.join(known)}{did_you_mean(name, known)}")


def read_config(path: Path, arguments_class: type) -> dict[str, Any]:
    """The values of a YAML file by field, whichever of its names, in snake_case or kebab-case, an option has there.

    Raises:
        ConfigError: it is not a YAML mapping, names an option that does not exist, or one twice.
    """
    names = {
        name: known
        for known in fields(arguments_class)
        for name in (shown_name(known), known.name, *known.metadata["aliases"])
    }
    values: dict[str, Any] = {}
    for key, value in read_yaml(path).items():
        known = names.get(str(key).replace("-", "_"))
        if known is None:
            shown = {name: shown_name(other) for name, other in names.items()}
            raise ConfigError(f"{path}: unknown option {key!r}{did_you_mean(str(key), shown)}")
        if known.name in values:
            raise ConfigError(f"{path}: {shown_name(known)} is given twice")
        values[known.name] = value
    return values


def read_yaml(path: str | Path) -> dict:
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
