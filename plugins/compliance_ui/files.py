"""Serve the files of an evidence bundle.

Each file is compared with its sealed digest, and is served without active content.
"""

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
from include.evidence.bundle_reader import IN_MEMORY, LARGEST
from include.evidence.folder import SIGNATURE, SUMS
from include.evidence.ledger import LedgerRow
from include.orchestration.access.permissions import Page
from include.reports.i18n import language_tag
from include.services.objectstore.base import ObjectMissing
from plugins.compliance_ui.access import Visitor, visitor_of
from plugins.compliance_ui.language import locale_of
from plugins.compliance_ui.page_services import PageServices, page_services
from plugins.compliance_ui.workflow_names import dag_of

router = APIRouter()

Number = Annotated[int, Path(ge=1, lt=2**63)]
Reader = Annotated[Visitor, Depends(visitor_of(Page.EVIDENCE))]

CONCURRENT_BUNDLES = 2  # bundles that are checked or packed at the same time
PATIENCE = 10  # seconds for which a request waits for its turn
_CHUNK = 256 * 1024  # bytes
_turns = threading.BoundedSemaphore(CONCURRENT_BUNDLES)
# Types that a browser may show; all others are downloads. Reports quote text that other people
# wrote, so their content has no origin and may not run, load or send anything.
_INLINE_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".csv": "text/plain; charset=utf-8",
    ".pem": "text/plain; charset=utf-8",
    ".pdf": "application/pdf",
}
_INERT = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; "
_INERT += "form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
# A browser's PDF viewer needs an origin; a PDF cannot run scripts in the origin of the pages.
_INERT_PDF = "default-src 'none'; object-src 'self'; frame-ancestors 'self'"


@router.get("/evidence/{number}/report")
def report(request: Request, visitor: Reader, number: Number) -> Response:
    """Show the report of a bundle in the language of the visitor.

    Args:
        request: request of the visitor, which states the language.
        visitor: the person who is logged in.
        number: sequence number of the bundle in the evidence ledger.
    """
    name = f"report.{language_tag(locale_of(request))}.html"
    return _file(visitor, number, name, download=False)


@router.get("/evidence/{number}/files/{name:path}")
def file(visitor: Reader, number: Number, name: str, download: bool = False) -> Response:
    """Return a file of a bundle if it matches its sealed digest. A changed file is refused.

    Args:
        visitor: the visitor.
        number: sequence number of the bundle in the evidence ledger.
        name: path of the file relative to the bundle.
        download: whether the browser saves the file instead of showing it.
    """
    return _file(visitor, number, name, download=download)


@router.get("/evidence/{number}/bundle.zip")
def bundle_zip(visitor: Reader, number: Number) -> Response:
    """Return all files of a bundle as a ZIP file.

    The reader can unpack the ZIP file and verify the bundle with sha256sum and openssl.

    Args:
        visitor: the visitor.
        number: sequence number of the bundle in the evidence ledger.
    """
    services = page_services()
    row = row_of(services, visitor, number)
    signed = services.bundle_reader.signed(row)
    sizes = services.bundle_reader.sizes(row)
    names = (*signed.sums.files, SUMS, SIGNATURE)
    refuse_too_large_response(2 * sum(sizes.get(name, 0) for name in names), 2 * LARGEST)
    packed: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - the response closes it
    with limited_turn(), zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name in (*sorted(signed.sums.files), SUMS, SIGNATURE):
            # The size is unknown in advance, and a file above 4 GiB needs the ZIP64 format.
            with (
                services.bundle_reader.open(row, name, signed) as source,
                archive.open(f"{row.bundle}/{name}", "w", force_zip64=True) as packing,
            ):
                shutil.copyfileobj(source, packing, _CHUNK)
    packed.seek(0)
    folder = PurePosixPath(row.bundle).name
    return file_response(packed, "application/zip", f"{folder}.zip", download=True)


def row_of(services: PageServices, visitor: Visitor, number: int) -> LedgerRow:
    """Return the row of a bundle in the evidence ledger.

    Args:
        services: services for the request.
        visitor: the visitor.
        number: sequence number of the bundle in the evidence ledger.

    Raises:
        HTTPException: 404 if the bundle does not exist. The response is the same if the visitor may
            not read the bundle's workflow, so that the visitor cannot learn whether the bundle
            exists.
    """
    with services.read_connection() as conn:
        row = ledger.row_at(conn, number)
    if row is None or not visitor.reads(dag_of(row.dag_id)):
        raise HTTPException(status.HTTP_404_NOT_FOUND)
    return row


def refuse_too_large_response(size: int, largest: int | None = None) -> None:
    """Refuse a response that would not fit on the disk together with concurrent responses.

    Args:
        size: number of bytes that the API server buffers on its disk before the response starts.
        largest: additional upper limit of `size` in bytes; None for no additional limit.

    Raises:
        HTTPException: 413 if the response is too large.
    """
    space = shutil.disk_usage(tempfile.gettempdir()).free // CONCURRENT_BUNDLES
    if size > max(IN_MEMORY, space if largest is None else min(space, largest)):
        raise HTTPException(status.HTTP_413_CONTENT_TOO_LARGE)


@contextmanager
def limited_turn(turns: threading.BoundedSemaphore = _turns) -> Iterator[None]:
    """Let only a limited number of slow requests run their ``with`` blocks at the same time.

    If that many requests are running already, the function waits until one of them ends.

    Args:
        turns: the turns of one kind of request. Other kinds of requests do not wait for them.

    Raises:
        HTTPException: 503 if no slow request ended within `PATIENCE` seconds.
    """
    if not turns.acquire(timeout=PATIENCE):
        raise HTTPException(status.HTTP_503_SERVICE_UNAVAILABLE)
    try:
        yield
    finally:
        turns.release()


def _file(visitor: Visitor, number: int, name: str, *, download: bool) -> Response:
    services = page_services()
    row = row_of(services, visitor, number)
    signed = services.bundle_reader.signed(row)
    if name not in {*signed.sums.files, SUMS, SIGNATURE}:
        raise HTTPException(status.HTTP_404_NOT_FOUND)
    with suppress(ObjectMissing):  # `bundle_reader.open` raises the error for the page
        refuse_too_large_response(services.bundle_reader.store.stat(f"{row.bundle}/{name}").size)
    content = services.bundle_reader.open(row, name, signed)
    suffix = PurePosixPath(name).suffix.lower()
    media_type = _INLINE_TYPES.get(suffix, "application/octet-stream")
    is_download = download or suffix not in _INLINE_TYPES
    return file_response(content, media_type, PurePosixPath(name).name, download=is_download)


def file_response(content: IO[bytes], media_type: str, name: str, *, download: bool) -> Response:
    """Send a file in pieces, and close it when it was sent or the visitor cancelled the download.

    Args:
        content: the file, which disappears when it is closed.
        media_type: media type of the file.
        name: file name that the browser suggests.
        download: whether the browser saves the file instead of showing it.
    """
    size = content.seek(0, io.SEEK_END)
    content.seek(0)
    disposition = "attachment" if download else "inline"
    headers = {
        "content-length": str(size),
        # The encoding of RFC 8187 keeps any file name a single value.
        "content-disposition": f"{disposition}; filename*=UTF-8''{quote(name, safe='')}",
        "content-security-policy": _INERT_PDF if media_type == "application/pdf" else _INERT,
    }
    return StreamingResponse(_chunks(content), media_type=media_type, headers=headers)


def _chunks(content: IO[bytes]) -> Iterator[bytes]:
    with content:
        while chunk := content.read(_CHUNK):
            yield chunk
