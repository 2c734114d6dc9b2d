"""``parcelseal training``: upload rosters, courses and completions, and manage waivers."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from include.cli.console import json_row, print_note, print_result
from include.cli.options import AsJson, By, day_option
from include.cli.stack import command_services, local_stack
from include.cli.table import Columns, fields, print_list
from include.services.errors import UsageError
from include.training.rules import TRAINING

if TYPE_CHECKING:
    from include.policy import PolicyPack
    from include.service_container import Services
    from include.training.uploads.reading import Kind
    from include.training.uploads.storing import StoredUpload
    from include.training.waivers import GrantedWaiver

app = typer.Typer(no_args_is_help=True, help="Training: roster, courses, completions, waivers.")

What = Annotated[
    str, typer.Argument(metavar="KIND", help="Kind of file: roster, courses or completions.")
]
Person = Annotated[str, typer.Argument(help="Staff number of the person.")]
Course = Annotated[str, typer.Argument(help="Code of the course.")]
_SOURCES = {"roster": "people", "courses": "courses", "completions": "completions"}


@app.command("upload")
def upload(
    kind: What,
    file: Annotated[
        Path, typer.Argument(help="CSV file with the columns that `training template` writes.")
    ],
    by: By,
    shrinks: Annotated[
        bool,
        typer.Option(
            "--shrinks",
            help="Accept a roster that has less than half as many lines as the previous roster.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Import a CSV file of people, courses or completions.

    If the file has faults, the command prints them and imports nothing.
    """
    from include.training.uploads import storing
    from include.training.uploads.reading import Upload

    upload_kind = _kind(kind)
    services = command_services()
    with _opened(file) as stream:
        upload_file = Upload(upload_kind, file.name, stream)
        with local_stack(services), services.state.begin() as conn:
            done = storing.store_upload(
                conn, upload_file, by=by, at=services.clock.now(), shrinks=shrinks
            )
    content = {"upload": done.id, "kind": done.kind, "unchanged": done.was_stored_before}
    content |= json_row(done, "lines", "added", "replaced") | {"mended": done.corrected}
    print_result(as_json, content, _summary(done))
    _remark(services.pack, upload_kind)
    return 0


def _opened(file: Path) -> BinaryIO:
    try:
        stream = file.open("rb")
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}.") from None
    if not stream.seekable():  # it is read more than once
        stream.close()
        raise UsageError(f"{file} is a pipe.", "Write its content to a file first.")
    return stream


def _summary(done: StoredUpload) -> str:
    if done.was_stored_before:
        return f"unchanged: the same file is already in force, as upload {done.id}"
    text = f"imported: {done.kind}, {_lines(done.lines)} ({done.file_format}), as upload {done.id}"
    if done.replaced is not None:
        text += f"; replaces {_lines(done.replaced)}"
    if done.added != done.lines:
        text += f"; new: {done.added:,}"
    if done.corrected:
        text += f"; not passed before: {done.corrected:,}"
    return text


def _lines(count: int) -> str:
    return "1 line" if count == 1 else f"{count:,} lines"


def _remark(pack: PolicyPack, kind: Kind) -> None:
    """Print a remark if the policy pack does not use the uploaded data.

    The policy pack may have no training rules, or it may read this kind of data with a query
    instead.

    Args:
        pack: the policy pack.
        kind: kind of the uploaded file: people, courses or completions.
    """
    source = _SOURCES[kind]
    rules = pack.section(TRAINING)
    if rules is None or not rules.sources[source].upload:
        shown = (
            "the policy pack has no training.yaml, so no reminders are sent"
            if rules is None
            else f"training.yaml reads {source} with a query; to use uploads, set upload: true"
        )
        print_note(f"  remark: {shown}")


@app.command("template")
def template(
    kind: What,
    out: Annotated[Path, typer.Option("--out", help="CSV file that the command writes.")],
    chinese: Annotated[
        bool, typer.Option("--chinese", help="Write the Chinese names of the columns.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Write a CSV file that has only the header line. Excel can open the file."""
    from include.training.uploads.reading import template as waiver

    content = waiver(_kind(kind), chinese=chinese)
    try:
        with out.open("xb") as stream:
            stream.write(content)
    except FileExistsError:
        raise UsageError(f"The file {out} exists already.", "Name another file.") from None
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}.") from None
    return print_result(as_json, {"kind": kind, "file": str(out)}, f"written: {out}")


@app.command("uploads")
def uploads(as_json: AsJson = False) -> int:
    """List the uploaded files, newest first."""
    from include.training.uploads import storing

    with local_stack(command_services()) as services, services.state.connect() as conn:
        listed = storing.list_uploads(conn)
    shown = [
        {"upload": upload.id}
        | json_row(upload, "kind", "uploaded_at", "uploaded_by", "lines")
        | {"counts": upload.is_in_use, "sha256": upload.sha256}
        for upload in listed
    ]
    zone = services.pack.calendar.zone
    columns: Columns[storing.UploadRecord] = {
        "no.": lambda upload: upload.id,
        "kind": lambda upload: upload.kind,
        "uploaded at": lambda upload: f"{upload.uploaded_at.astimezone(zone):%F %R}",
        "by": lambda upload: upload.uploaded_by,
        "lines": lambda upload: f"{upload.lines:,}",
        "counts": lambda upload: upload.is_in_use,
        "SHA-256": lambda upload: upload.sha256[:12],
    }
    print_list(as_json, {"uploads": shown}, listed, columns)
    return 0


@app.command("waive")
def waive(
    person: Person,
    course: Course,
    until: Annotated[date, day_option("Last day of the waiver.")],
    reason: Annotated[str, typer.Option(help="Reason, without customer data.")],
    by: By,
    as_json: AsJson = False,
) -> int:
    """Waive a course for a person until a date. People cannot waive their own courses."""
    from include.training import waivers

    with local_stack(command_services()) as services, services.state.begin() as conn:
        waiver = waivers.grant_waiver(
            conn, person, course, reason=reason, until=until, by=by, at=_now(services)
        )
    text = f"waived: {waiver.course} for {waiver.person} until {waiver.until}"
    return print_result(as_json, _row(waiver), text)


@app.command("unwaive")
def unwaive(person: Person, course: Course, by: By, as_json: AsJson = False) -> int:
    """End a waiver before the last day of the waiver."""
    from include.training import waivers

    with local_stack(command_services()) as services, services.state.begin() as conn:
        waivers.end_waiver(conn, person, course, by=by, at=_now(services))
    content = {"person": person, "course": course, "ended_by": by}
    return print_result(as_json, content, f"waiver ended: {course} for {person}")


@app.command("waivers")
def show_waivers(as_json: AsJson = False) -> int:
    """List the waivers that are in force. The waiver that ends first is at the top."""
    from include.training import waivers

    with local_stack(command_services()) as services, services.state.connect() as conn:
        listed = waivers.list_waivers(conn, _now(services).date())
    columns: Columns[GrantedWaiver] = fields("person", "course", "until", "granted_by", "reason")
    print_list(as_json, {"waivers": [_row(waiver) for waiver in listed]}, listed, columns)
    return 0


def _row(waiver: GrantedWaiver) -> dict[str, Any]:
    names = ("person", "course", "until", "reason", "granted_by", "granted_at")
    return json_row(waiver, *names)


def _kind(text: str) -> Kind:
    from include.training.uploads.reading import Kind

    try:
        return Kind(text)
    except ValueError:
        raise UsageError(
            f"The kind of file {text} is unknown.", f"Use one of: {', '.join(Kind)}."
        ) from None


def _now(services: Services) -> datetime:
    """Return the current time in the policy pack's timezone."""
    return services.clock.now().astimezone(services.pack.calendar.zone)
