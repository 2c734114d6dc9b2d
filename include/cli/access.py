"""``parcelseal access``: request customer information, open an extract, confirm deleted copies."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from include.cli.console import json_row, print_json, print_line, print_result, tell
from include.cli.options import AsJson, By
from include.cli.stack import DEFAULT_CUSTOMERS, command_services, local_stack
from include.cli.table import Columns, fields, print_list
from include.services.errors import UsageError

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from include.disclosure.grants import Grant
    from include.disclosure.requests import UseRequest
    from include.disclosure.rules import UseRules
    from include.service_container import Services
    from include.workflow.run_context import RunContext

app = typer.Typer(
    no_args_is_help=True,
    help="Use of customer information: requests, approvals, extracts, and the end of access.",
)

Number = Annotated[int, typer.Argument(help="Number of the request.")]
Ranges = list[str] | None
_MOST_BYTES = 300 * 1024 * 1024  # of a file of keys


@app.command("request")
def request(
    by: By,
    purpose: Annotated[str, typer.Option(help="Purpose of use.yaml.")],
    collection: Annotated[str, typer.Option(help="DATABASE.COLLECTION of use.yaml.")],
    field: Annotated[list[str], typer.Option(help="Requested field. Repeat the option.")],
    days: Annotated[int, typer.Option(help="Days from the approval to the end of the access.")],
    case: Annotated[str, typer.Option(help="Case reference, without customer data.")],
    unmask: Annotated[
        list[str] | None,
        typer.Option(help="Field that must not be masked. It needs a second approval."),
    ] = None,
    date: Annotated[
        Ranges, typer.Option(help="COLUMN=FIRST..LAST, with days such as 2026-11-01.")
    ] = None,
    number: Annotated[Ranges, typer.Option(help="COLUMN=SMALLEST..LARGEST.")] = None,
    code: Annotated[Ranges, typer.Option(help="COLUMN=CODE,CODE.")] = None,
    keys: Annotated[
        str | None,
        typer.Option(help="COLUMN=FILE with one key in each line (UTF-8), or a CSV file."),
    ] = None,
    form: Annotated[
        str, typer.Option(help="xlsx, zip, age, or login (a database login).")
    ] = "xlsx",
    age_key: Annotated[str, typer.Option(help="age public key of the receiving machine.")] = "",
    as_json: AsJson = False,
) -> int:
    """Prepare a request, and print its figures. It does not ask for the approval yet.

    To ask for the approval, trigger the workflow use_information with the number of the request.
    Exit code 1: the request cannot be approved as it is.
    """
    with local_stack(command_services(), customers=DEFAULT_CUSTOMERS) as services:
        from include.approvals.reasons import redact_reason
        from include.disclosure.planning import plan_problem
        from include.disclosure.request_text import describe_request
        from include.disclosure.roster import read_roster
        from include.disclosure.use_check import check_people, prepare_request
        from include.disclosure.use_form import make_content
        from include.messages import in_english

        run = _context(services)
        uploaded = _read_keys(keys)
        database, _dot, name = collection.partition(".")
        values = {
            "requester": by,
            "purpose": purpose,
            "database": database,
            "collection": name,
            "fields": list(dict.fromkeys(field)),
            "unmasked": list(dict.fromkeys(unmask or [])),
            "filters": list(_filters(date, number, code, keys)),
            "days": days,
            "case": redact_reason(case),
            "form": form,
            "recipient": age_key,
        }
        content = make_content(values, uploaded)
        check_people(read_roster(run), content)
        with run.state.begin() as conn:
            stored = prepare_request(run, conn, content, uploaded, run.now)
        problem = plan_problem(run.rules, stored.plan, content.form)
    state = "prepared" if problem is None else "refused"
    row = {
        "request": stored.id,
        "hash": stored.sha256,
        "state": state,
        "refused_fields": list(stored.plan.refused_fields),
        "rows": stored.plan.records,
        "people": stored.plan.people,
        "minors": stored.plan.minors,
        "unknown_keys": stored.plan.unknown_keys,
        "needs_second_approval": stored.plan.needs_second_approval,
    }
    if as_json:
        print_json(row)
    else:
        print_line(f"request {stored.id}:")
        for label, value in describe_request(services.pack, stored):
            print_line(f"  {in_english(label)}: {in_english(value)}")
        if problem is not None:
            print_line(f"It cannot be approved: {in_english(problem)}")
        else:
            print_line(
                "No approval was requested yet. Trigger the workflow use_information in Airflow "
                "with this number, or run: ./parcelseal run use_information --conf "
                f"'{{\"request\": {stored.id}}}'"
            )
    return 0 if problem is None else 1


def _filters(
    date: Ranges, number: Ranges, code: Ranges, keys: str | None
) -> Iterator[dict[str, Any]]:
    for kind, entries in (("date", date), ("number", number)):
        for column, text in _pairs(kind, entries):
            start, dots, end = text.partition("..")
            if not dots:
                raise UsageError(
                    f"--{kind} {column}={text} is not a range.", f"Write {column}=FIRST..LAST."
                )
            yield {"column": column, "kind": kind, "start": start, "end": end}
    for column, text in _pairs("code", code):
        yield {"column": column, "kind": "code", "values": text.split(",")}
    if keys is not None:
        yield {"column": keys.partition("=")[0], "kind": "key"}


def _pairs(option: str, entries: Iterable[str] | None) -> Iterator[tuple[str, str]]:
    for entry in entries or ():
        column, equals, text = entry.partition("=")
        if not equals or not column or not text:
            raise UsageError(f"--{option} {entry} is not COLUMN=VALUE.", "Correct the option.")
        yield column, text


def _read_keys(option: str | None) -> frozenset[str]:
    """Return the keys in the first column of the file that an option COLUMN=FILE names.

    Raises:
        UsageError: the file is missing, too large, empty, or not UTF-8. The message names the line.
    """
    if option is None:
        return frozenset()
    column, _equals, name = option.partition("=")
    if not column or not name:
        raise UsageError("--keys needs COLUMN=FILE.", "Correct the option.")
    path = Path(name)
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UsageError(f"{path} is larger than 300 MiB.", "Split the request.")
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", "Name a file.") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{path}, line {line}: the file is not UTF-8.", "Save the file with UTF-8 encoding."
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UsageError(f"{path}, line {line}: a null character.", "Correct the line.")
    try:
        keys = frozenset(
            row[0].strip() for row in csv.reader(text.splitlines()) if row and row[0].strip()
        )
    except csv.Error as error:
        raise UsageError(f"{path} is not a CSV file: {error}.", "Correct the file.") from None
    if not keys:
        raise UsageError(f"{path} contains no key.", "Write one key in each line.")
    return keys


@app.command("list")
def list_grants(as_json: AsJson = False) -> int:
    """List the requests and their grants, newest first."""
    with local_stack(command_services()) as services:
        from include.disclosure import access_list

        run = _context(services)
        with run.state.connect() as conn:
            listed = access_list.list_requests(conn, run.now)
        rows = [
            {
                "request": entry.request.id,
                "requester": entry.request.requester,
                "purpose": entry.request.content.purpose,
                "state": entry.state,
                "approved_at": _at(entry.grant, "approved_at", run.zone),
                "expires_at": _at(entry.grant, "expires_at", run.zone),
                "delivery": str(entry.request.content.form),
                "rows": entry.request.plan.records,
                "openings": entry.openings,
            }
            for entry in listed
        ]
    columns: Columns[dict[str, Any]] = {
        **fields("request", "requester", "purpose", "state"),
        "access ends": lambda row: (row["expires_at"] or "").replace(":00+", " UTC+"),
        **fields("rows", "openings"),
    }
    print_list(as_json, {"grants": rows}, rows, columns)
    return 0


def _at(grant: Grant | None, name: str, zone: ZoneInfo) -> str | None:
    moment = getattr(grant, name) if grant is not None else None
    return None if moment is None else moment.astimezone(zone).isoformat(timespec="seconds")


@app.command("open")
def open_extract(
    number: Number,
    by: By,
    out: Annotated[Path, typer.Option(help="File to write. It must not exist.")],
    as_json: AsJson = False,
) -> int:
    """Write the encrypted extract, or the address of the database login, to a file.

    The opening is recorded. The password was sent by mail.
    """
    with local_stack(command_services()) as services:
        from include.disclosure import opening
        from include.disclosure.extract_store import open_extract_store

        with _new_file(out) as file:  # before the opening is recorded
            opened = opening.open_extract(
                services.state,
                open_extract_store(services),
                services.clock,
                number,
                person=by,
                channel="command",
            )
            for piece in opened.pieces:
                file.write(piece)
    row = {"request": number, "file": str(out), "bytes": opened.size}
    return print_result(as_json, row, f"request {number}: {opened.size} bytes in {out}")


@contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """Create a file that only its owner can read, and remove it if the block fails.

    Raises:
        UsageError: the file exists, or cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError(f"{path} exists already.", "Name another file.") from None
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}.",
            "Name a file in a folder in which you may write.",
        ) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@app.command("confirm")
def confirm(number: Number, by: By, as_json: AsJson = False) -> int:
    """Confirm that all local copies of an extract are deleted. The access ends."""
    with local_stack(command_services()) as services:
        from include.disclosure import grants
        from include.disclosure.requests import load_request

        with services.state.begin() as conn:
            loaded = load_request(conn, number)
            grant = grants.confirm_deletion(conn, loaded, by, services.clock.now())
        _remove_login(services, loaded, grant)
    return _show(loaded, grant, as_json)


@app.command("end")
def end(number: Number, by: By, as_json: AsJson = False) -> int:
    """End an access at once. The next run of expire_grants deletes the extract.

    A database login is removed at once.
    """
    with local_stack(command_services()) as services:
        from include.disclosure import grants
        from include.disclosure.grants import EndReason
        from include.disclosure.requests import load_request

        with services.state.begin() as conn:
            loaded = load_request(conn, number)
            if not grants.end_access(
                conn, number, EndReason.ENDED_BY_PERSON, services.clock.now(), by=by
            ):
                raise UsageError(
                    f"Request {number} has no access that could be ended.",
                    "List the requests: ./parcelseal access list.",
                )
            grant = grants.find_grant(conn, number)
            assert grant is not None
        _remove_login(services, loaded, grant)
    tell(f"the access of request {number} has ended; expire_grants proves the deletion")
    return _show(loaded, grant, as_json)


def _remove_login(services: Services, loaded: UseRequest, grant: Grant) -> None:
    """Remove the database login of an ended access, or say that it could not be removed."""
    from include.disclosure.login_expiry import remove_login_now

    run = _context(services)
    if grant.is_login and not remove_login_now(run, grant, loaded.content.database):
        tell(f"the login {grant.object_key} still works; the next run of expire_grants removes it")


def _show(loaded: UseRequest, grant: Grant, as_json: bool) -> int:
    row = {"request": loaded.id, "requester": loaded.requester} | json_row(
        grant, "state", "end_reason", "ending_at", "confirmed_at"
    )
    return print_result(as_json, row, f"request {loaded.id}: {grant.state}")


def _context(services: Services) -> RunContext[UseRules]:
    from include.disclosure.rules import USE
    from include.workflow.run_context import context_of

    return context_of(USE, services)
