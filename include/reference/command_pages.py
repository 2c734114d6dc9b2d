"""Generate the pages about commands: an index with exit codes, and a page for each command group.

A command group, such as ``backup``, contains commands such as ``backup list``.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from typing import Any

import typer

from include.cli.app import command_line
from include.reference.docstrings import summary
from include.reference.markdown import Page, code, render, table, wrapped
from include.services.errors import ControlFailed, ServiceError, UsageError

FOLDER = "commands"
TOP_LEVEL = "top-level"
_EXIT_1 = re.compile(r"Exit code 1: (.+?)\.?\s*\Z", re.DOTALL)
_VALUES = {
    "str": "TEXT",
    "int": "INTEGER",
    "float": "NUMBER",
    "Path": "PATH",
    "date": "YYYY-MM-DD",
}


class Command:
    """A command of the command line.

    Args:
        words: the words that call the command, such as ``backup list``.
        declared: the command as typer declares it.
    """

    def __init__(self, words: str, declared: Any) -> None:
        self.words = words
        self._declared = declared
        self._paragraphs = (declared.help or "").split("\n\n")

    @property
    def summary(self) -> str:
        """Return the first paragraph of the command's help text."""
        return " ".join(self._paragraphs[0].split())

    @property
    def details(self) -> str:
        """Return the help text without its summary and without its paragraph about exit code 1."""
        others = [text for text in self._paragraphs[1:] if not _EXIT_1.match(text)]
        return "\n\n".join(wrapped(text) for text in others)

    @property
    def exit_1(self) -> str:
        """Return the condition for exit code 1 that the help text states; empty if none."""
        conditions = [match[1] for text in self._paragraphs if (match := _EXIT_1.match(text))]
        return " ".join(conditions[0].split()) if conditions else ""

    @property
    def usage(self) -> str:
        """Return the usage line: the command with its arguments and options."""
        words = [f"./parcelseal {self.words}"]
        words += [_usage(parameter) for parameter in self._parameters()]
        if (self._declared.context_settings or {}).get("allow_extra_args"):
            words.append("[ARGUMENT ...]")
        lines = [words[0]]
        for word in words[1:]:
            if len(lines[-1]) + len(word) > 100:
                lines.append("   ")
            lines[-1] += f" {word}"
        return " \\\n".join(lines)

    @property
    def parameters(self) -> str:
        """Return a Markdown table of the arguments and options; "" if the command has neither."""
        rows = [_row(parameter) for parameter in self._parameters()]
        header = ("argument or option", "value", "default", "meaning")
        return table(header, rows) if rows else ""

    def _parameters(self) -> list[Any]:
        parameters = [parameter for parameter in self._declared.params if parameter.name != "help"]
        return sorted(parameters, key=lambda parameter: parameter.opts[0].startswith("-"))


def _usage(parameter: Any) -> str:
    if not _is_option(parameter):
        text = parameter.name.upper()
    else:
        text = " ".join([parameter.opts[0], *([] if parameter.is_flag else [_value(parameter)])])
    if parameter.multiple if _is_option(parameter) else parameter.nargs == -1:
        text += " ..."
    return text if parameter.required else f"[{text}]"


def _row(parameter: Any) -> tuple[str, ...]:
    if _is_option(parameter):
        names = ", ".join(code(name) for name in [*parameter.opts, *parameter.secondary_opts])
        is_repeated = parameter.multiple
    else:
        names, is_repeated = code(parameter.name.upper()), parameter.nargs == -1
    default = parameter.default
    is_plain = isinstance(default, str | int) and not isinstance(default, bool)
    shown = code(default) if is_plain and str(default) else ""
    meaning = parameter.help or ""
    if is_repeated:
        meaning += " May be given several times."
    return names, _range(parameter), "**required**" if parameter.required else shown, meaning


def _range(parameter: Any) -> str:
    if _is_option(parameter) and parameter.is_flag:
        return ""
    limits = [
        f"{sign} {limit}"
        for sign, limit in (("at least", parameter.min), ("at most", parameter.max))
        if limit is not None
    ]
    return ", ".join([code(_value(parameter)), *limits])


def _value(parameter: Any) -> str:
    if parameter.metavar:
        return str(parameter.metavar)
    annotation = str(getattr(parameter.type_descriptor, "annotation", ""))
    kind = re.sub(r".*[.\[']", "", annotation.rstrip("'>]"))
    return _VALUES.get(kind, "TEXT")


def _is_option(parameter: Any) -> bool:
    return bool(parameter.opts[0].startswith("-"))


def commands() -> dict[str, list[Command]]:
    """Return the commands by command group. The commands without a group come first."""
    declared: Any = typer.main.get_command(command_line([]))
    groups: dict[str, list[Command]] = {TOP_LEVEL: []}
    for name, command in declared.commands.items():
        inner = getattr(command, "commands", None)
        if inner is None:
            groups[TOP_LEVEL].append(Command(name, command))
        else:
            groups[name] = [
                Command(f"{name} {word}", subcommand) for word, subcommand in inner.items()
            ]
    return groups


def _meaning(error: type[Exception]) -> str:
    text = summary(error).partition(" (exit code")[0].removeprefix("The error that ")
    return f"{text[:1].upper()}{text[1:]}."


def _exit_codes() -> str:
    failures = [
        (code(error.exit_code), _meaning(error))
        for error in (ControlFailed, UsageError, ServiceError)
    ]
    signals = [
        (code(128 + number), f"{number.name} ended the command.")
        for number in (signal.SIGINT, signal.SIGTERM)
    ]
    return table(("exit code", "meaning"), [("`0`", "The command succeeded."), *failures, *signals])


def command_pages() -> Iterator[Page]:
    """Yield the reference pages of the command line."""
    groups = commands()
    for group, members in groups.items():
        title = "Commands without a group" if group == TOP_LEVEL else f"parcelseal {group}"
        yield render("commands.md.j2", f"{FOLDER}/{group}.md", title=title, commands=members)
    yield render(
        "command_index.md.j2",
        "commands.md",
        exit_codes=_exit_codes(),
        groups=[
            (
                group,
                table(
                    ("command", "meaning"),
                    (
                        (
                            f"[`{command.words}`]({FOLDER}/{group}.md#{_anchor(command)})",
                            command.summary,
                        )
                        for command in members
                    ),
                ),
            )
            for group, members in groups.items()
        ],
    )


def _anchor(command: Command) -> str:
    return command.words.replace(" ", "-")
