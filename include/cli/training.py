"""``parcelseal training``: roster, courses and completions as files, and waivers."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from include.cli.console import json_row, print_note, print_result
from include.cli.options import AsJson, By, day_option
from include.cli.stack import local_stack, workplace
from include.cli.table import Columns, fields, print_list
from include.services.errors import UsageError
from include.training.rules import TRAINING

if TYPE_CHECKING:
    from include.policy import PolicyPack
    from include.training.uploads.reading import Kind
    from include.training.uploads.storing import Stored
    from include.training.waivers import Waived
    from include.workplace import Workplace

app = typer.Typer(no_args_is_help=True, help="Training: roster, courses, completions, waivers.")

What = Annotated[str, typer.Argument(metavar="KIND", help="roster, courses or completions.")]
Person = Annotated[str, typer.Argument(help="Staff number.")]
Course = Annotated[str, typer.Argument(help="Code of the course.")]
_SOURCES = {"roster": "people", "courses": "courses", "completions": "completions"}


@app.command("upload")
def upload(
    kind: What,
    file: Annotated[Path, typer.Argument(help="A CSV file; see training template.")],
    by: By,
    shrinks: Annotated[
        bool, typer.Option("--shrinks", help="A roster of less than half the lines is meant so.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Hand in a CSV file; every fault is named by line and column, and then nothing is taken."""
    from include.training.uploads import storing
    from include.training.uploads.reading import Upload

    wanted = _kind(kind)
    place = workplace()
    with _opened(file) as stream:
        given = Upload(wanted, file.name, stream)
        with local_stack(place), place.state.begin() as conn:
            done = storing.store(conn, given, by=by, at=place.clock.now(), shrinks=shrinks)
    content = {"upload": done.id, "kind": done.kind, "unchanged": done.same}
    content |= json_row(done, "lines", "added", "mended", "replaced")
    print_result(as_json, content, _said(done))
    _remark(place.pack, wanted)
    return 0


def _opened(file: Path) -> BinaryIO:
    try:
        stream = file.open("rb")
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}.") from None
    if not stream.seekable():  # it is read more than once
        stream.close()
        raise UsageError(f"{file} is a pipe.", "Write it to a file first.")
    return stream


def _said(done: Stored) -> str:
    if done.same:
        return f"unchanged: the same file stands already, as upload {done.id}"
    text = f"taken: {done.kind}, {_lines(done.lines)} ({done.form}), as upload {done.id}"
    if done.replaced is not None:
        text += f"; takes the place of {_lines(done.replaced)}"
    if done.added != done.lines:
        text += f"; new: {done.added:,}"
    if done.mended:
        text += f"; not passed before: {done.mended:,}"
    return text


def _lines(count: int) -> str:
    return "1 line" if count == 1 else f"{count:,} lines"


def _remark(pack: PolicyPack, kind: Kind) -> None:
    """Tell somebody whose upload nobody will read."""
    source = _SOURCES[kind]
    rules = pack.section(TRAINING)
    if rules is None or not rules.sources[source].upload:
        told = (
            "the pack has no training.yaml: nobody is reminded"
            if rules is None
            else f"training.yaml takes {source} from a query: uploads count with upload: true"
        )
        print_note(f"  remark: {told}")


@app.command("template")
def template(
    kind: What,
    out: Annotated[Path, typer.Option("--out", help="The file to write.")],
    chinese: Annotated[
        bool, typer.Option("--chinese", help="Name the columns in Chinese.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Write a CSV file with the header alone, which Excel opens."""
    from include.training.uploads.reading import template as made

    content = made(_kind(kind), chinese=chinese)
    try:
        with out.open("xb") as stream:
            stream.write(content)
    except FileExistsError:
        raise UsageError(f"{out} is there already.", "Name another file.") from None
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}.") from None
    return print_result(as_json, {"kind": kind, "file": str(out)}, f"written: {out}")


@app.command("uploads")
def uploads(as_json: AsJson = False) -> int:
    """Show what was uploaded, the newest first."""
    from include.training.uploads import storing

    with local_stack(workplace()) as place, place.state.connect() as conn:
        found = storing.listed(conn)
    told = [
        {"upload": upload.id}
        | json_row(upload, "kind", "uploaded_at", "uploaded_by", "lines")
        | {"counts": upload.stands, "sha256": upload.sha256}
        for upload in found
    ]
    zone = place.pack.calendar.zone
    columns: Columns[storing.Past] = {
        "no.": lambda upload: upload.id,
        "kind": lambda upload: upload.kind,
        "uploaded at": lambda upload: f"{upload.uploaded_at.astimezone(zone):%F %R}",
        "by": lambda upload: upload.uploaded_by,
        "lines": lambda upload: f"{upload.lines:,}",
        "counts": lambda upload: upload.stands,
        "SHA-256": lambda upload: upload.sha256[:12],
    }
    print_list(as_json, {"uploads": told}, found, columns)
    return 0


@app.command("waive")
def waive(
    person: Person,
    course: Course,
    until: Annotated[date, day_option("Its last day.")],
    reason: Annotated[str, typer.Option(help="Why; no customer data.")],
    by: By,
    as_json: AsJson = False,
) -> int:
    """Waive a course for a person: up to a day, for a reason, by somebody else."""
    from include.training import waivers

    with local_stack(workplace()) as place, place.state.begin() as conn:
        made = waivers.grant(
            conn, person, course, reason=reason, until=until, by=by, at=_now(place)
        )
    text = f"waived: {made.course} for {made.person} until {made.until}"
    return print_result(as_json, _told(made), text)


@app.command("unwaive")
def unwaive(person: Person, course: Course, by: By, as_json: AsJson = False) -> int:
    """End a waiver before its day."""
    from include.training import waivers

    with local_stack(workplace()) as place, place.state.begin() as conn:
        waivers.end(conn, person, course, by=by, at=_now(place))
    content = {"person": person, "course": course, "ended_by": by}
    return print_result(as_json, content, f"ended: {course} for {person}")


@app.command("waivers")
def show_waivers(as_json: AsJson = False) -> int:
    """Show waivers in force, the one that ends first at the head."""
    from include.training import waivers

    with local_stack(workplace()) as place, place.state.connect() as conn:
        found = waivers.listed(conn, _now(place).date())
    columns: Columns[Waived] = fields("person", "course", "until", "granted_by", "reason")
    print_list(as_json, {"waivers": [_told(one) for one in found]}, found, columns)
    return 0


def _told(waiver: Waived) -> dict[str, Any]:
    names = ("person", "course", "until", "reason", "granted_by", "granted_at")
    return json_row(waiver, *names)


def _kind(text: str) -> Kind:
    from include.training.uploads.reading import Kind

    try:
        return Kind(text)
    except ValueError:
        raise UsageError(
            f"There are no files of {text}.", f"There are: {', '.join(Kind)}."
        ) from None


def _now(place: Workplace) -> datetime:
    """The moment in the timezone whose days count."""
    return place.clock.now().astimezone(place.pack.calendar.zone)
