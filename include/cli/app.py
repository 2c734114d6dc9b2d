"""The command line: register the commands, and print each error as one line with an exit code."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from include.cli.console import (
    complain,
    errors,
    new_log,
    one_line,
    print_json,
    print_note,
    results,
    tell,
)
from include.cli.stack import command_services
from include.orchestration.redacted_errors import redact_traceback
from include.services import stopping
from include.services.errors import ParcelSealError, ServiceError, UsageError

COMMANDS: Mapping[str, str] = {
    "up": "up:up",
    "run": "run:run",
    "airflow": "run:airflow",
    "verify": "evidence:verify",
    "restore": "backup:restore",
    "recover-ledger": "evidence:recover_ledger",
    "inspection-pack": "inspection:inspection_pack",
    "migrate": "config:migrate",
    "test": "testing:test",
    "bench": "testing:bench",
    "backup": "backup:app",
    "compose": "compose:app",
    "config": "config:app",
    "erasure": "erasure:app",
    "findings": "findings:app",
    "hold": "hold:app",
    "incident": "incident:app",
    "keys": "keys:app",
    "notices": "notices:app",
    "partners": "partners:app",
    "access": "access:app",
    "quarantine": "quarantine:app",
    "retention": "retention:app",
    "roles": "roles:app",
    "sampling": "sampling:app",
    "training": "training:app",
}
"""Module of this package and name of the function or group, by command.

They are given as text, so that a command does not import the modules of other commands.
"""
_ANY_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True}
_FORWARDING = ("test", "airflow")  # commands whose arguments go to another program


def command_line(words: Sequence[str]) -> typer.Typer:
    """Return the typer application for the given arguments.

    It has only the command that the first argument names, because the import of all commands takes
    long. If the first argument is not the name of a command, it has all commands.

    Args:
        words: arguments of the command line.
    """
    app = typer.Typer(
        name="parcelseal",
        help="Runs a courier's customer-information protection policy and leaves sealed evidence.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    for name in words[:1] if words and words[0] in COMMANDS else COMMANDS:
        command = resolve_name(f"include.cli.{COMMANDS[name]}")
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            settings = _ANY_ARGUMENTS if name in _FORWARDING else None
            app.command(name, context_settings=settings)(command)
    return app


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        results.print(f"ParcelSeal {command_services().code_version}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the git commit, exit."
        ),
    ] = False,
) -> None:
    """Declare the options of the program `parcelseal` itself, such as ``--version``."""
    del version


def main() -> NoReturn:
    """Run the command line and exit with the exit code of the command.

    If a signal interrupted the command, the exit code is 128 plus the number of the signal.
    """
    screen = Console(file=os.fdopen(os.dup(2), "w"), highlight=False)  # runs redirect stderr
    stopping.install(lambda text: tell(text, screen))
    code = 1

    def end() -> None:
        stopping.exit_now(code)

    # Exit functions that libraries register later run earlier. Python's normal shutdown would free
    # each object of Airflow, which takes as long as a short run.
    atexit.register(end)
    code = _run(sys.argv[1:])
    if code and (interrupted := stopping.interruption()):
        with suppress(OSError, ValueError):  # the program that reads stderr may have ended
            errors.print("interrupted")
        stopping.exit_now(interrupted.exit_code)
    sys.exit(code)


def _run(words: list[str]) -> int:
    try:
        _refuse_empty_text(words)
        code = command_line(words)(words, prog_name="parcelseal", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except typer.Exit as end:
        return end.exit_code
    except typer.TyperException as error:
        if not error.format_message():  # without a message typer has printed the help
            return UsageError.exit_code
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "parcelseal"
        return _fail(words, UsageError(error.format_message(), f"See ./{command} --help."))
    except ParcelSealError as error:
        return _fail(words, error)
    except (typer.Abort, KeyboardInterrupt):
        if stopping.interruption() is None:  # otherwise `main` prints it
            errors.print("interrupted")
        return 128 + signal.SIGINT
    except Exception as error:  # noqa: BLE001 - a log gets the traceback, the user gets one line
        if interrupted := stopping.interruption():  # the clean-up failed
            log = _keep(redact_traceback(error))
            errors.print(f"the clean-up failed; see {log}", soft_wrap=True)
            return interrupted.exit_code
        from include.services.database import unreadable_text

        if unreadable := unreadable_text(error):
            return _fail(words, unreadable)
        log = _keep(redact_traceback(error))
        kind = type(error).__name__
        return _fail(words, ServiceError(f"Unexpected error: {kind}.", f"See {log}."))


def _refuse_empty_text(words: list[str]) -> None:
    """Refuse empty arguments and empty values of options.

    An empty value usually comes from a shell variable that is not set, as in ``--dsn "$UNSET"``.
    The command must not run as if the option were missing.

    Raises:
        UsageError: an argument or the value of an option is empty or blank.
    """
    if words[:1] and words[0] in (*_FORWARDING, "bench"):  # other programs get their arguments
        return
    for before, word in zip(["", *words], words, strict=False):
        name, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if value.strip() or (name and not equals):
            continue
        option = name or (before if before.startswith("-") else "An argument")
        raise UsageError(
            f"{option} has an empty value.",
            "Add a value, or omit the option. Check whether a shell variable is unset.",
        )


def _fail(words: list[str], error: ParcelSealError) -> int:
    if "--json" in words:
        print_json({"error": one_line(error)})
    complain(error.message, error.action)
    return error.exit_code


def _keep(text: str) -> Path:
    if not sys.stderr.isatty():  # in a container only the output is kept, not files
        print_note(text)
    services = command_services()
    now = services.clock.now()
    for folder in (
        services.home / "logs",
        Path(tempfile.gettempdir()),
    ):  # the home folder may be the cause of the error
        try:
            folder.mkdir(parents=True, exist_ok=True)
            log = new_log(folder, "error", now)
            log.write_text(text + "\n")
        except OSError:
            continue
        return log
    return Path(os.devnull)
