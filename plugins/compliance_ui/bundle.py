"""One bundle: what it says, whether it holds, its files, and how anyone checks it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from tempfile import SpooledTemporaryFile
from typing import IO, Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, HTTPException, Path, Request, status
from fastapi.responses import Response, StreamingResponse

from include.approvals.registry import APPROVE, REJECT
from include.evidence import ledger
from include.evidence.check import Refused, SignedSums
from include.evidence.ledger import LedgerRow
from include.evidence.model import Result
from include.evidence.names import SIGNATURE, SUMS
from include.evidence.shelf import IN_MEMORY, pruned_up_to
from include.evidence.verify import Verification, verify_one
from include.messages import _
from include.orchestration.access.pages import Page
from include.reports.i18n import LOCALES, language_tag
from include.services.errors import UsageError
from plugins.compliance_ui.access import Visitor, opening
from plugins.compliance_ui.language import locale_of
from plugins.compliance_ui.names import dag_of, title_of
from plugins.compliance_ui.rendering import render
from plugins.compliance_ui.services import Services, services

router = APIRouter()

Number = Annotated[int, Path(ge=1, lt=2**63)]
Reader = Annotated[Visitor, Depends(opening(Page.EVIDENCE))]

_DECISIONS = {APPROVE: _("approved"), REJECT: _("rejected")}
_PIECE = 256 * 1024  # bytes sent at a time
_LARGEST = 1024**3  # bytes that are checked or packed while somebody waits
# What a browser may show; everything else is handed over as a file. Nothing in it may run, load or
# send anything, and it has no origin: a report is somebody's words about data.
_SHOWN = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".csv": "text/plain; charset=utf-8",
    ".pem": "text/plain; charset=utf-8",
    ".pdf": "application/pdf",
}
_INERT = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; "
_INERT += "form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
# A browser's own viewer of PDF needs an origin; a PDF runs nothing in this page's.
_INERT_PDF = "default-src 'none'; object-src 'self'; frame-ancestors 'self'"


@dataclass(frozen=True)
class FileShown:
    """A file of a bundle.

    Attributes:
        name: relative to the bundle.
        sha256: as SHA256SUMS has it; empty for that file and its signature.
        size: bytes.
    """

    name: str
    sha256: str
    size: int


@router.get("/evidence/{number}")
def one_bundle(request: Request, who: Reader, number: Number) -> Response:
    """Show a bundle, after every file of it was held against what was sealed."""
    here = services()
    row = _row(here, who, number)
    with here.reading() as conn:
        pruned = row.seq <= pruned_up_to(conn)
    signed: SignedSums | None = None
    checked: Verification | None = None
    result: Result | None = None
    files: list[FileShown] = []
    sizes: dict[str, int] = {}
    if not pruned:
        prefix = f"{row.bundle}/"
        sizes = {one.key.removeprefix(prefix): one.size for one in here.shelf.store.list(prefix)}
        if sum(sizes.values()) <= _LARGEST:
            with here.reading() as conn:
                checked = verify_one(here.shelf.store, row.bundle, here.place.trusted, conn)
        try:
            signed = here.shelf.signed(row)
            result = here.shelf.result(row)
        except Refused as bad:
            checked = checked or Verification(False, 1, row.bundle, bad.message)
        else:
            known = {**signed.sums.files, SUMS: signed.sha256, SIGNATURE: ""}
            files = [FileShown(name, known[name], sizes.get(name, -1)) for name in sorted(known)]
    reports = [
        (language_tag(one), kind)
        for one in LOCALES
        for kind in ("html", "pdf")
        if signed and f"report.{language_tag(one)}.{kind}" in signed.sums.files
    ]
    return render(
        request,
        "bundle.html.j2",
        page=Page.EVIDENCE,
        title=title_of(row.dag_id),
        who=who,
        timezone=here.place.pack.calendar.timezone,
        now=here.now(),
        row=row,
        dag=dag_of(row.dag_id),
        pruned=pruned,
        signed=signed,
        checked=checked,
        result=result,
        files=files,
        decisions=_DECISIONS,
        reports=sorted(reports, key=lambda one: one[0] != language_tag(locale_of(request))),
        added=sorted(sizes.keys() - {one.name for one in files}) if signed else [],
    )


@router.get("/evidence/{number}/report")
def report(request: Request, who: Reader, number: Number) -> Response:
    """Show the report in the reader's language."""
    name = f"report.{language_tag(locale_of(request))}.html"
    return _file(who, number, name, download=False)


@router.get("/evidence/{number}/files/{name:path}")
def file(who: Reader, number: Number, name: str, download: bool = False) -> Response:
    """Hand over a file whose digest was checked; one that was changed is never shown."""
    return _file(who, number, name, download=download)


@router.get("/evidence/{number}/bundle.zip")
def whole(who: Reader, number: Number) -> Response:
    """Hand over all files in one, to be checked elsewhere with sha256sum and openssl."""
    here = services()
    row = _row(here, who, number)
    signed = here.shelf.signed(row)
    prefix = f"{row.bundle}/"
    if sum(one.size for one in here.shelf.store.list(prefix)) > _LARGEST:
        raise UsageError(
            f"The bundle {row.bundle} is too large to be packed here.",
            f"Copy it from {here.shelf.store.description}.",
        )
    packed: IO[bytes] = SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - handed over
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name in (*sorted(signed.sums.files), SUMS, SIGNATURE):
            with here.shelf.open(row, name, signed) as source:
                archive.writestr(f"{row.bundle}/{name}", source.read())
    packed.seek(0)
    folder = PurePosixPath(row.bundle).name
    return _handed_over(packed, "application/zip", f"{folder}.zip", download=True)


def _row(here: Services, who: Visitor, number: int) -> LedgerRow:
    """Return the ledger's row; who may not read its workflow is not told whether there is one.

    Raises:
        HTTPException: 404 for no such bundle and for one that the visitor may not read.
    """
    with here.reading() as conn:
        row = ledger.at(conn, number)
    if row is None or not who.reads(dag_of(row.dag_id)):
        raise HTTPException(status.HTTP_404_NOT_FOUND)
    return row


def _file(who: Visitor, number: int, name: str, *, download: bool) -> Response:
    here = services()
    row = _row(here, who, number)
    signed = here.shelf.signed(row)
    try:
        content = here.shelf.open(row, name, signed)
    except KeyError:
        raise HTTPException(status.HTTP_404_NOT_FOUND) from None
    suffix = PurePosixPath(name).suffix.lower()
    kind = _SHOWN.get(suffix, "application/octet-stream")
    return _handed_over(
        content, kind, PurePosixPath(name).name, download=download or suffix not in _SHOWN
    )


def _handed_over(content: IO[bytes], kind: str, name: str, *, download: bool) -> Response:
    size = content.seek(0, io.SEEK_END)
    content.seek(0)
    way = "attachment" if download else "inline"
    headers = {
        "content-length": str(size),
        # RFC 8187: whatever a name holds, it is one value.
        "content-disposition": f"{way}; filename*=UTF-8''{quote(name, safe='')}",
        "content-security-policy": _INERT_PDF if kind == "application/pdf" else _INERT,
    }
    return StreamingResponse(_pieces(content), media_type=kind, headers=headers)


def _pieces(content: IO[bytes]) -> Iterator[bytes]:
    with content:
        while piece := content.read(_PIECE):
            yield piece
