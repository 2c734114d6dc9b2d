"""Output of the command line: results go to stdout, all other messages go to stderr."""

from __future__ import annotations

import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from include.services.errors import ParcelSealError

if TYPE_CHECKING:
    from include.messages import Message

errors = Console(stderr=True, highlight=False)
results = Console(highlight=False)


def tell(text: str, screen: Console = errors) -> None:
    """Print a progress message on stderr.

    Args:
        text: message; it may contain the markup of the package rich.
        screen: console that writes to stderr.
    """
    screen.print(f"[dim]·[/dim] {text}", soft_wrap=True)


def print_line(text: str) -> None:
    """Print a line on stdout. Markup in the text is printed literally."""
    results.print(text, markup=False, soft_wrap=True)


def print_note(text: str) -> None:
    """Print a line on stderr. Markup in the text is printed literally."""
    errors.print(text, markup=False, soft_wrap=True)


def print_json(content: Mapping[str, Any]) -> None:
    """Print a JSON object as one line on stdout."""
    sys.stdout.write(json.dumps(content, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def value_of(item: object, name: str) -> Any:
    """Return the value that a mapping has for a key, or the value of an object's attribute.

    Args:
        item: a mapping, or any other object.
        name: key of the mapping, or name of the attribute.
    """
    return item[name] if isinstance(item, Mapping) else getattr(item, name)


def json_row(item: object, *names: str) -> dict[str, Any]:
    """Return named values of an item as a JSON object, with dates and times in ISO 8601.

    Args:
        item: mapping or object.
        names: keys of the mapping, or names of the attributes.
    """
    values = {name: value_of(item, name) for name in names}
    return {
        name: value.isoformat() if isinstance(value, date) else value
        for name, value in values.items()
    }


def english(message: Message) -> str:
    """Return a message in English. Values in the message are formatted as in reports."""
    from include.reports.i18n import Translator

    return Translator("en").text(message)


def print_result(as_json: bool, content: Mapping[str, Any], *lines: str) -> int:
    """Print the result of a command and return the exit code 0.

    Args:
        as_json: whether to print the JSON object instead of the lines.
        content: the JSON object.
        lines: lines of text.
    """
    if as_json:
        print_json(content)
    else:
        for line in lines:
            print_line(line)
    return 0


def complain(message: str, action: str) -> None:
    """Print an error message on stderr, and the action that corrects the error."""
    errors.print(f"[bold red]error:[/bold red] {_plain(message)}", soft_wrap=True)
    if action:
        errors.print(f"  {_plain(action)}", soft_wrap=True)


def one_line(error: ParcelSealError) -> str:
    """Return the text of an error as one line, for JSON output."""
    return "; ".join(line for line in str(error).splitlines() if line).replace(":; ", ": ")


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def new_log(folder: Path, name: str, now: datetime) -> Path:
    """Return a path for the log file of a command. A random suffix makes the path unique.

    Args:
        folder: folder of the log files.
        name: name of the command, with which the file name begins.
        now: current time, which the file name contains.
    """
    return folder / f"{name}-{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}.log"


@contextmanager
def output_to(log: Path) -> Iterator[Console]:
    """Redirect stdout and stderr into a log file for the duration of a ``with`` block.

    Airflow writes many log lines, but with ``--json`` a command must print only one object on
    stdout. The context manager yields a console that writes progress messages to the original
    stderr.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)
    try:
        with os.fdopen(os.dup(saved[1]), "w") as screen:
            yield Console(file=screen, highlight=False)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in zip((1, 2), saved, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)


class Countdown:
    """Prints that an attempt failed, and on a terminal counts down to the next attempt.

    Args:
        screen: console that writes to the user's terminal, even if stderr goes to a log file.
    """

    def __init__(self, screen: Console) -> None:
        self._screen = screen

    def __call__(self, text: str, seconds: float) -> None:
        """Print that an attempt failed, and start the countdown.

        Args:
            text: line that states which operation failed and why.
            seconds: number of seconds until the next attempt.
        """
        line = f"{text} Next attempt in {seconds:.0f} s."
        self._screen.print(f"[dim]·[/dim] {line.replace('[', chr(92) + '[')}", soft_wrap=True)
        if self._screen.is_terminal:
            threading.Thread(target=self._count, args=(seconds,), daemon=True).start()

    def _count(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        with self._screen.status("") as status:
            while (left := end - time.monotonic()) > 0:
                status.update(f"next attempt in {left:.0f} s")
                time.sleep(min(1.0, left))
