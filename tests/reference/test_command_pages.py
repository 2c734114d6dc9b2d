"""Tests of the generated pages of the command line."""

from __future__ import annotations

from typing import Annotated

import pytest
import typer

from include.cli.app import COMMANDS
from include.reference.command_pages import Command, command_pages, commands


def declare(name: str = "weigh") -> Command:
    """Return a command with an argument, options and exit codes."""
    app = typer.Typer(add_completion=False)

    @app.command(name)
    def weigh(
        parcel: Annotated[str, typer.Argument(help="Number of the parcel.")],
        limit: Annotated[int, typer.Option(min=1, max=9, help="Limit in kg.")] = 5,
        labels: Annotated[list[str] | None, typer.Option("--label", help="Label.")] = None,
    ) -> int:
        """Weigh a parcel.

        The scales have to be on.

        Exit code 1: the parcel is
        too heavy.
        """
        del parcel, limit, labels
        return 0

    return Command(name, typer.main.get_command(app))


def test_reference_entry_of_a_command_contains_usage_summary_details_and_exit_code() -> None:
    command = declare()
    assert command.usage == "./parcelseal weigh PARCEL [--limit INTEGER] [--label TEXT ...]"
    assert command.summary == "Weigh a parcel."
    assert command.details == "The scales have to be on."
    assert command.exit_1 == "the parcel is too heavy"


def test_table_of_parameters_contains_type_default_and_help_text_of_each_parameter() -> None:
    rows = declare().parameters.splitlines()
    assert rows[2:] == [
        "| `PARCEL` | `TEXT` | **required** | Number of the parcel. |",
        "| `--limit` | `INTEGER`, at least 1, at most 9 | `5` | Limit in kg. |",
        "| `--label` | `TEXT` |  | Label. May be given several times. |",
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_index_page_contains_a_link_to_every_command(name: str) -> None:
    [index] = [page for page in command_pages() if page.path == "commands.md"]
    assert f"[`{name}`](commands/" in index.text or f"[`{name} " in index.text


def test_every_command_and_parameter_is_described() -> None:
    members = [command for group in commands().values() for command in group]
    assert all(command.summary for command in members)
    assert not [command.words for command in members if "|  |\n" in f"{command.parameters}\n"]
