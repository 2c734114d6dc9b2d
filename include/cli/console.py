"""Output of the command line: results to stdout, everything else to stderr."""

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
        text: the message, in rich's markup.
        screen: the console of stderr.
    """
    screen.print(f"[dim]·[/dim] {text}", soft_wrap=True)


def print_line(text: str) -> None:
    """Print a line on stdout, without markup."""
    results.print(text, markup=False, soft_wrap=True)


def print_note(text: str) -> None:
    """Print a line on stderr, without markup."""
    errors.print(text, markup=False, soft_wrap=True)


def print_json(content: Mapping[str, Any]) -> None:
    """Put one JSON object on stdout."""
    sys.stdout.write(json.dumps(content, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def value_of(item: object, name: str) -> Any:
    """Return an attribute of an item, or a value of a mapping."""
    return item[name] if isinstance(item, Mapping) else getattr(item, name)


def json_row(item: object, *names: str) -> dict[str, Any]:
    """Return values of an item by their names, for JSON; moments and days in ISO 8601."""
    values = {name: value_of(item, name) for name in names}
    return {
        name: value.isoformat() if isinstance(value, date) else value
        for name, value in values.items()
    }


def english(message: Message) -> str:
    """Return a message in English, its values in the formats of reports."""
    from include.reports.i18n import Translator

    return Translator("en").text(message)


def print_result(as_json: bool, content: Mapping[str, Any], *lines: str) -> int:
    """Print the result of a command as JSON or as lines of text; return the exit code 0."""
    if as_json:
        print_json(content)
    else:
        for line in lines:
            print_line(line)
    return 0


def complain(message: str, action: str) -> None:
    """Say on stderr what went wrong, and what to do about it."""
    errors.print(f"[bold red]error:[/bold red] {_plain(message)}", soft_wrap=True)
    if action:
        errors.print(f"  {_plain(action)}", soft_wrap=True)


def one_line(error: ParcelSealError) -> str:
    """Return an error as one line, for JSON."""
    return "; ".join(line for line in str(error).splitlines() if line).replace(":; ", ": ")


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def new_log(folder: Path, name: str, now: datetime) -> Path:
    """Return the path of a log of one command's own, whatever else begins in the same second."""
    return folder / f"{name}-{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}.log"


@contextmanager
def output_to(log: Path) -> Iterator[Console]:
    """Redirect stdout and stderr of libraries into a log file.

    Airflow logs a great deal; ``--json`` promises one object on stdout and nothing else. Yields a
    console on the real stderr, for messages to the person who waits.
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
    """Prints a failed attempt, and on a terminal counts down to the next attempt.

    Args:
        screen: the person's terminal; libraries may write elsewhere.
    """

    def __init__(self, screen: Console) -> None:
        self._screen = screen

    def __call__(self, text: str, seconds: float) -> None:
        """Show a failed attempt.

        Args:
            text: what failed, and why, in one line.
            seconds: until the next attempt.
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
