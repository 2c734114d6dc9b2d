"""Test that the commands in docs/ exist and have the options that the pages name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from include.cli.app import command_line
from tests.docs.test_pages import PAGES, TOP

_COMMAND = re.compile(r"\./parcelseal ((?:(?!\./parcelseal)[^`\n|])+)")
_PLACEHOLDER = "COMMAND"
_PASSED_ON = {"test", "bench", "airflow"}  # their arguments go to other programs


@pytest.fixture(scope="module")
def declared() -> Any:
    return typer.main.get_command(command_line([]))


def documented(page: Path) -> Iterator[str]:
    """Yield each command on a page, without comments and brackets around optional arguments."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for words in _COMMAND.findall(text):
        yield re.sub(r"[\[\]()]|\s#.*", "", words)


def problem(declared: Any, words: str) -> str | None:
    """Return a message about the unknown command or option in a command, or None if all are known.

    Args:
        declared: the command line as typer declares it.
        words: words of the command, without `parcelseal`.
    """
    lexer = shlex.shlex(words, posix=True, punctuation_chars=";&|<>")
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        tokens = list(lexer)
    except ValueError:  # a quotation that ends on the next line
        tokens = words.split()
    command = declared
    for token in tokens:
        if token == _PLACEHOLDER or token in {";", "&&", "||", "|", ">", "<"}:
            break
        if getattr(command, "commands", None):
            if token.startswith("-"):
                break
            if token.rstrip(".,:") not in command.commands:
                return f"{words}: no command {token}"
            command = command.commands[token.rstrip(".,:")]
        elif command.name in _PASSED_ON:
            break
        elif token.startswith("--"):
            option = token.partition("=")[0].rstrip(".,:;")
            options = {name for each in command.params for name in each.opts + each.secondary_opts}
            if option not in options | {"--help"}:
                return f"{words}: no option {option}"
        if re.search(r"\w[.:;]$", token):  # the end of a sentence
            break
    return None


@pytest.mark.parametrize("page", [*PAGES, *TOP], ids=lambda page: page.name)
def test_commands_and_options_on_a_page_exist(page: Path, declared: Any) -> None:
    assert [wrong for words in documented(page) if (wrong := problem(declared, words))] == []


def test_documentation_check_reports_unknown_commands_and_options(declared: Any) -> None:
    assert problem(declared, "hold place 3") == "hold place 3: no command place"
    assert problem(declared, "hold list --al") == "hold list --al: no option --al"
    assert problem(declared, "hold list --due && ./other --al") is None
