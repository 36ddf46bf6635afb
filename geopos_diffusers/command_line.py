"""One spelling of options for every command: `--kebab-case`, flags with a negative, and "did you mean".

`--snake_case` and earlier names are understood too, but `--help` shows one spelling of each option.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")


def did_you_mean(word: str, known: Iterable[str] | Mapping[str, str]) -> str:
    """`; did you mean NAME?` for the nearest of `known`, or nothing where none is near.

    Args:
        known: names; or, by every name that is understood, the one to suggest.
    """
    nearest = get_close_matches(word, list(known), n=1)
    if not nearest:
        return ""
    return f"; did you mean {known[nearest[0]] if isinstance(known, Mapping) else nearest[0]}?"


def kebab(name: str) -> str:
    """The option of a name: `max_train_steps` gives `--max-train-steps`."""
    return f"--{name.replace('_', '-')}"


def negative(flag: str) -> str:
    """`--no-flag` of `--flag`."""
    return f"--no-{flag.removeprefix('--')}"


class Parser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` with this package's rules of spelling.

    - An option is added as `--kebab-case`; `--snake_case` is read as the same.
    - A flag (`action="store_true"`) also takes `--no-flag`, `--flag false` and `--flag true`. One whose default is True
      is shown as `--no-flag`.
    - An unknown option, command or choice is answered with the nearest known one. Options cannot be abbreviated.

    Args:
        allow_unknown: `parse_known_args` gives unknown options back, as in argparse. Otherwise they are an error, but
            for those behind a command and all that REMAINDER takes.
    """

    def __init__(self, *args: Any, allow_unknown: bool = False, **kwargs: Any) -> None:
        self.allow_unknown = allow_unknown
        self._options: dict[str, str] = {}  # every accepted spelling, in kebab-case: the option that it means
        self._flags: set[str] = set()
        self._titles: dict[str, Any] = {}
        self._advanced: list[tuple[argparse.Action, str | None]] = []
        super().__init__(*args, **kwargs | {"allow_abbrev": False})

    def add_argument(
        self,
        *names: str,
        group: str | None = None,
        aliases: Sequence[str] = (),
        advanced: bool = False,
        **settings: Any,
    ) -> argparse.Action:
        """Add an argument as argparse does.

        Args:
            group: title that `--help` puts it under.
            aliases: earlier names of the option, accepted and never shown.
            advanced: shown by `--help-all` alone, which the parser then has.
        """
        if advanced and "--help-all" not in self._options:
            self.add_argument("--help-all", action=_HelpAll, nargs=0, help="show every option")
        add = super().add_argument if group is None else self._group(group).add_argument
        self.allow_unknown |= settings.get("nargs") == argparse.REMAINDER
        option = next((name for name in names if name.startswith("--")), None)
        self._options |= {name: option for name in (*names, *aliases) if option is not None}
        if option is not None and settings.get("action") == "store_true":
            action = self._add_flag(add, names, option, aliases, settings)
        else:
            action = add(*names, **settings)
        if advanced:
            self._advanced.append((action, action.help))
            action.help = argparse.SUPPRESS
        return action

    def _add_flag(
        self, add: Callable[..., Any], names: Sequence[str], option: str, aliases: Sequence[str], settings: dict
    ) -> argparse.Action:
        """A flag and its negative, of which one is shown."""
        self._flags.add(option)
        self._options |= {negative(name): negative(option) for name in (option, *aliases)}
        shown, hidden = settings.get("help"), argparse.SUPPRESS
        settings.setdefault("dest", option.removeprefix("--").replace("-", "_"))
        off = {"action": "store_false", "dest": settings["dest"], "default": argparse.SUPPRESS}
        if settings.get("default"):
            add(*names, **settings | {"help": hidden})
            return add(negative(option), **off, help=shown)
        add(negative(option), **off, help=hidden)
        return add(*names, **settings)

    def add_subparsers(self, **settings: Any) -> Any:
        self.allow_unknown = True
        return super().add_subparsers(**settings)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:
        words = self.respell(sys.argv[1:] if args is None else args)
        if not self.allow_unknown:
            self._refuse_unknown(words)
        return super().parse_known_args(words, namespace)

    def respell(self, words: Sequence[str]) -> list[str]:
        """A command line with the options of this parser as they were added, and flags without values."""
        respelled: list[str] = []
        words = list(words)
        while words:
            word = words.pop(0)
            if word == "--":
                return [*respelled, word, *words]
            name, equals, value = word.partition("=")
            option = self._options.get(kebab(name[2:])) if name.startswith("--") else None
            if option is None:
                respelled.append(word)
                continue
            if option in self._flags and not equals and words and words[0].lower() in TRUE + FALSE:
                equals, value = "=", words.pop(0)
            if option in self._flags and value.lower() in TRUE + FALSE:
                option = option if value.lower() in TRUE else negative(option)
                equals = value = ""
            respelled.append(f"{option}{equals}{value}")
        return respelled

    def knows(self, word: str) -> bool:
        """Whether a word of a command line is an option of this parser, in any spelling, with or without a value."""
        name = word.partition("=")[0]
        return name in self._options or (name.startswith("--") and kebab(name[2:]) in self._options)

    def show_advanced(self) -> None:
        """Let `format_help` show all options from now on."""
        for action, text in self._advanced:
            action.help = text

    def _group(self, title: str) -> Any:
        if title not in self._titles:
            self._titles[title] = self.add_argument_group(title)
        return self._titles[title]

    def _refuse_unknown(self, words: Sequence[str]) -> None:
        # Before argparse's own checks: a mistyped option must not be reported as the lack of a required one.
        for word in words[: words.index("--") if "--" in words else None]:
            if word.startswith("--") and not self.knows(word):
                name = word.partition("=")[0]
                self.error(f"unknown option {name}{did_you_mean(kebab(name[2:]), self._options)}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        # The one hook that argparse has for choices, sub-commands among them.
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += did_you_mean(str(value), map(str, action.choices or ()))
            raise


class _HelpAll(argparse.Action):
    def __call__(self, parser: Parser, *_: Any) -> None:
        parser.show_advanced()
        parser.print_help()
        parser.exit()
