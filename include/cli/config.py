"""``parcelseal config`` checks and drafts policy packs; ``parcelseal migrate`` updates state_db."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from include.cli.config_connect import Problem, connect_problems, pack_problem
from include.cli.console import errors, json_row, print_json, print_note, results, tell
from include.cli.options import AsJson
from include.cli.stack import DEFAULT_CUSTOMERS, command_services, local_stack
from include.policy import PackError
from include.service_container import Services
from include.services.database import DatabaseAddress
from include.services.errors import UsageError
from include.services.programs import listed, pg_version, require_fitting_client
from include.services.routes import remarks_of

if TYPE_CHECKING:
    from include.schema.draft import Draft

CUSTOMER_DB = "customer_db"

app = typer.Typer(help="The policy pack.", no_args_is_help=True)


@app.callback()
def config() -> None:
    """Check the policy pack, or draft a new one."""


@app.command("check")
def check(
    connect: Annotated[
        bool,
        typer.Option(
            help="Connect with every connection, and list the rights that its login lacks."
        ),
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Check the policy pack and the configuration of the connections.

    Every error of the policy pack is printed with its file, line and path. No server has to run,
    unless you use --connect. The command also checks the version of PostgreSQL's client programs,
    and prints the server versions that these programs support. If there is a problem, the exit code
    is 2.
    """
    services = command_services()
    try:
        pack = services.pack
        pack.require_sound()
    except PackError as error:
        problems = [pack_problem(problem) for problem in error.problems]
        return _refuse(services, problems, f"in {services.policy}", as_json=as_json)
    if faults := services.connection_faults():
        problems = [Problem(message=fault) for fault in faults]
        return _refuse(services, problems, "in the connections", as_json=as_json)
    try:
        versions = _fitting_versions()
    except UsageError as error:
        problems = [Problem(message=error.message, action=error.action)]
        return _refuse(services, problems, "in the client programs", as_json=as_json)
    if connect:
        with local_stack(services, customers=DEFAULT_CUSTOMERS):
            problems = connect_problems(services)
        if problems:
            return _refuse(services, problems, "in the connections", as_json=as_json)
    remarks = [*pack.remarks, *remarks_of(services.routes())]
    if as_json:
        done = {"valid": True, "pack": str(services.policy), "problems": [], "postgresql": versions}
        print_json(done | {"remarks": [str(remark) for remark in remarks]})
        return 0
    for remark in remarks:
        print_note(f"remark: {remark}")
    collections = sum(len(database.collections) for database in pack.databases.values())
    results.print(
        f"valid: {len(pack.databases)} databases, {collections} collections, "
        f"{len(pack.controls)} controls; policy {pack.sha256[:12]}"
    )
    results.print(
        f"client programs of PostgreSQL {versions['client']} fit servers of PostgreSQL "
        f"{listed(versions['servers'])}"
    )
    return 0


class _Versions(TypedDict):
    client: str  # version of the client programs
    servers: list[int]  # server versions that these programs support


def _fitting_versions() -> _Versions:
    """Return the version of PostgreSQL's client programs, and the server versions they support.

    Raises:
        UsageError: a client program is missing, or its version is not supported.
    """
    return {"client": pg_version("pg_dump"), "servers": require_fitting_client()}


def _refuse(services: Services, problems: list[Problem], where: str, *, as_json: bool) -> int:
    if as_json:
        in_json = [problem.as_json() for problem in problems]
        print_json({"valid": False, "pack": str(services.policy), "problems": in_json})
        return 2
    for problem in problems:
        print_note(str(problem))
    errors.print(f"[bold red]{len(problems)} errors[/bold red] {where}", soft_wrap=True)
    return 2


@app.command("map")
def draft_map(
    dsn: Annotated[
        str | None,
        typer.Option(
            help="Address of the database to map. Default: the database of the connection "
            "customer_db."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the data map (fides_key). Default: the name of the database."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder into which the drafted policy pack is written.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Draft a policy pack from an existing PostgreSQL database.

    The command reads the names of tables and columns, their types, primary and foreign keys, and
    counts of values, in a read-only transaction. No value leaves the database. Without --out, the
    command prints the data map and writes no file.
    """
    from include.schema.survey import require_name, survey, write_draft

    with _database(dsn) as address:
        chosen = name or re.sub(r"[^A-Za-z0-9_.-]+", "_", address.name).strip("._-")
        require_name(chosen)
        with errors.status("reading the schema") as status, address.connect() as connection:
            draft = survey(
                connection,
                name=chosen,
                progress=lambda label, done, total: status.update(
                    f"{done}/{total} {_plain(label)}"
                ),
            )
    written = [str(path) for path in write_draft(out, draft.files)] if out else []
    if as_json:
        print_json(
            json_row(draft, "name", "tables")
            | {"guesses": [vars(guess) for guess in draft.guesses]}
            | json_row(draft, "refused", "unread", "rows")
            | {"files": written}
        )
    elif not out:
        results.file.write(draft.data_map)
    _summarize(draft, written)
    if out:
        tell(f"next: PARCELSEAL_POLICY={_plain(shlex.quote(str(out)))} ./parcelseal config check")
    return 0


@contextmanager
def _database(dsn: str | None) -> Iterator[DatabaseAddress]:
    if dsn is not None:
        yield DatabaseAddress.from_conninfo(dsn)
        return
    services = command_services()
    if services.lookup(CUSTOMER_DB) is not None:  # the local profile is not needed
        yield services.database(CUSTOMER_DB)
        return
    with local_stack(services, customers=DEFAULT_CUSTOMERS, read=[CUSTOMER_DB]):
        yield services.database(CUSTOMER_DB)


def _summarize(draft: Draft, written: list[str]) -> None:
    """Print a summary of a drafted policy pack on stderr.

    The summary includes the guesses in the draft that a person should check first.

    Args:
        draft: the drafted policy pack.
        written: paths of the files that were written.
    """
    from rich.table import Table

    from include.schema.draft import reason_of

    table = Table("category", "columns", box=None, pad_edge=False)
    for category, columns in draft.by_category.items():
        table.add_row(category, str(columns))
    errors.print(table)
    personal = sum(draft.by_category.values())
    unsure = draft.unsure()
    tell(f"{draft.tables} tables, {personal} personal columns, {len(unsure)} uncertain guesses")
    for guess in unsure:
        parts = (guess.schema, guess.table, guess.column, guess.key)
        path = ".".join(part for part in parts if part)
        tell(f"uncertain: {_plain(path)}: {guess.category} ({guess.reason})")
    for label, code in draft.refused.items():
        extent = "read in part" if label in draft.rows else "guessed from names only"
        tell(f"{extent}: {_plain(label)}: {reason_of(code)}")
    for label, unread in draft.unread.items():
        if label not in draft.refused:
            codes = ", ".join(f"{column} ({code})" for column, code in unread.items())
            tell(f"not read in {_plain(label)}, by SQLSTATE: {_plain(codes)}")
    for path in written:
        tell(f"wrote {_plain(path)}")


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def migrate(
    pages_role: Annotated[
        str, typer.Option(help="PostgreSQL role that gets the rights of the compliance pages.")
    ] = "",
) -> int:
    """Migrate the state database to the schema of the installed version."""
    from include.registry import pages_tables
    from include.state.connect import engine
    from include.state.migrate import migrate as apply
    from include.state.migrate import newest_revision
    from include.state.reading import grant_pages

    with local_stack(command_services()) as services:
        state_engine = engine(services.database("state_db").conninfo())
        apply(state_engine)
        if pages_role:
            with state_engine.begin() as conn:
                grant_pages(conn, pages_role, pages_tables())
    results.print(f"state database at revision {newest_revision()}")
    if pages_role:
        results.print(f"{pages_role} has the rights of the compliance pages only")
    return 0
