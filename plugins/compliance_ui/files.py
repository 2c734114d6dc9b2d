"""The files of a bundle: handed over as they were sealed, inert, or not at all."""

from __future__ import annotations

import io
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import IO, Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, HTTPException, Path, Request, status
from fastapi.responses import Response, StreamingResponse

from include.evidence import ledger
from include.evidence.folder import SIGNATURE, SUMS
from include.evidence.ledger import LedgerRow
from include.evidence.shelf import IN_MEMORY, LARGEST
from include.orchestration.access.permissions import Page
from include.reports.i18n import language_tag
from include.services.objectstore.base import ObjectMissing
from plugins.compliance_ui.access import Visitor, opening
from plugins.compliance_ui.language import locale_of
from plugins.compliance_ui.names import dag_of
from plugins.compliance_ui.services import Services, services

router = APIRouter()

Number = Annotated[int, Path(ge=1, lt=2**63)]
Reader = Annotated[Visitor, Depends(opening(Page.EVIDENCE))]

AT_ONCE = 2  # bundles that are checked or packed at the same time
PATIENCE = 10  # seconds for which somebody waits for their turn
_PIECE = 256 * 1024  # bytes sent at a time
_turns = threading.BoundedSemaphore(AT_ONCE)
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
    row = row_of(here, who, number)
    signed = here.shelf.signed(row)
    sizes = here.shelf.sizes(row)
    names = (*signed.sums.files, SUMS, SIGNATURE)
    require_room(2 * sum(sizes.get(name, 0) for name in names), 2 * LARGEST)
    packed: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - handed over
    with in_turn(), zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name in (*sorted(signed.sums.files), SUMS, SIGNATURE):
            # The size is not known ahead: a file may be larger than a ZIP of old can say.
            with (
                here.shelf.open(row, name, signed) as source,
                archive.open(f"{row.bundle}/{name}", "w", force_zip64=True) as packing,
            ):
                shutil.copyfileobj(source, packing, _PIECE)
    packed.seek(0)
    folder = PurePosixPath(row.bundle).name
    return _handed_over(packed, "application/zip", f"{folder}.zip", download=True)


def row_of(here: Services, who: Visitor, number: int) -> LedgerRow:
    """Return the ledger's row; who may not read its workflow is not told whether there is one.

    Raises:
        HTTPException: 404 for no such bundle and for one that the visitor may not read.
    """
    with here.reading() as conn:
        row = ledger.at(conn, number)
    if row is None or not who.reads(dag_of(row.dag_id)):
        raise HTTPException(status.HTTP_404_NOT_FOUND)
    return row


def require_room(size: int, largest: int | None = None) -> None:
    """Refuse what does not fit beside what others are handed.

    Args:
        size: bytes that are put aside before the first one is sent.
        largest: of them; as far as there is room where none is said.

    Raises:
        HTTPException: 413.
    """
    room = shutil.disk_usage(tempfile.gettempdir()).free // AT_ONCE
    if size > max(IN_MEMORY, room if largest is None else min(room, largest)):
        raise HTTPException(status.HTTP_413_CONTENT_TOO_LARGE)


@contextmanager
def in_turn() -> Iterator[None]:
    """Wait for one's turn at what takes long; raises HTTPException (503) after a while."""
    if not _turns.acquire(timeout=PATIENCE):
        raise HTTPException(status.HTTP_503_SERVICE_UNAVAILABLE)
    try:
        yield
    finally:
        _turns.release()


def _file(who: Visitor, number: int, name: str, *, download: bool) -> Response:
    here = services()
    row = row_of(here, who, number)
    signed = here.shelf.signed(row)
    if name not in {*signed.sums.files, SUMS, SIGNATURE}:
        raise HTTPException(status.HTTP_404_NOT_FOUND)
    with suppress(ObjectMissing):  # the shelf says so
        require_room(here.shelf.store.stat(f"{row.bundle}/{name}").size)
    content = here.shelf.open(row, name, signed)
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
