"""The command line: registers the commands, and turns errors into one line and an exit code."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import NoReturn

import typer
from click.exceptions import Abort, ClickException, Exit

from include.cli import backup, config, evidence, keys, run, testing, up
from include.cli.console import errors, print_json
from include.cli.stack import workplace
from include.services.errors import ParcelSealError

app = typer.Typer(
    name="parcelseal",
    help="Runs a courier's customer-information protection policy and leaves sealed evidence.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("up")(up.up)
app.command("run")(run.run)
app.command("verify")(evidence.verify)
app.command("restore")(backup.restore)
app.command("migrate")(config.migrate)
app.command("test", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
    testing.test
)
app.command("bench")(testing.bench)
app.add_typer(backup.app, name="backup")
app.add_typer(config.app, name="config")
app.add_typer(keys.app, name="keys")


def main() -> NoReturn:
    """Run the command line and leave with its exit code."""
    sys.exit(_run(sys.argv[1:]))


def _run(words: list[str]) -> int:
    try:
        code = app(words, prog_name="parcelseal", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except Exit as end:
        return end.exit_code
    except Abort:
        errors.print("interrupted")
        return 3
    except ClickException as error:
        return _fail(words, error.format_message(), "See --help.", 2)
    except ParcelSealError as error:
        return _fail(words, error.message, error.action, error.exit_code)
    except KeyboardInterrupt:
        errors.print("interrupted")
        return 3
    except Exception as error:  # noqa: BLE001 - the traceback goes to a log, a line to the person
        log = _keep_traceback()
        return _fail(words, f"{type(error).__name__}, which nobody foresaw.", f"See {log}.", 3)


def _fail(words: list[str], message: str, action: str, code: int) -> int:
    if "--json" in words:
        print_json({"error": f"{message} {action}".strip()})
    errors.print(f"[bold red]error:[/bold red] {_plain(message)}", soft_wrap=True)
    if action:
        errors.print(f"  {_plain(action)}", soft_wrap=True)
    return code


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def _keep_traceback() -> Path:
    place = workplace()
    folder = place.home / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"error-{place.clock.now():%Y%m%dT%H%M%S}.log"
    log.write_text(traceback.format_exc())
    return log
