"""Open a delivery: record the opening, then stream the encrypted file or the address of a login."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Engine

from include.disclosure import grants
from include.disclosure.content import DeliveryForm
from include.disclosure.grants import Grant
from include.disclosure.logins.connection_text import login_text
from include.disclosure.requests import UseRequest, load_request
from include.services.clock import Clock
from include.services.objectstore.base import ObjectStore

_PIECE = 1 << 20  # bytes read at a time


@dataclass(frozen=True)
class OpenedExtract:
    """An extract whose opening was recorded.

    Attributes:
        request: the request.
        file_name: name of the file for the reader.
        size: size of the encrypted file in bytes.
        pieces: content of the encrypted file, read in pieces.
    """

    request: UseRequest
    file_name: str
    size: int
    pieces: Iterator[bytes]


def open_extract(
    state: Engine, store: ObjectStore, clock: Clock, number: int, *, person: str, channel: str
) -> OpenedExtract:
    """Record that a person opens an extract or a login, and return the content of its file.

    The record is committed before the first byte is read. The end of the access is checked at this
    moment; `expire_grants` need not have run.

    Args:
        state: the state database.
        store: the extract store.
        clock: source of the current time.
        number: number of the request.
        person: account of the person.
        channel: ``page`` or ``command``.

    Raises:
        UsageError: the person is not the requester, or the extract cannot be opened now.
        StoreError: the store is unavailable.
    """
    with state.begin() as conn:
        request = load_request(conn, number)
        grant = grants.record_opening(
            conn, request, person=person, channel=channel, now=clock.now()
        )
    return OpenedExtract(
        request,
        file_name_of(request.id, request.content.form),
        size_of(request, grant),
        iter([login_text(request, grant)]) if grant.is_login else _pieces(store, grant.object_key),
    )


def size_of(request: UseRequest, grant: Grant) -> int:
    """Return the size in bytes of the file that the requester opens."""
    return len(login_text(request, grant)) if grant.is_login else grant.size or 0


def file_name_of(number: int, form: DeliveryForm) -> str:
    """Return the name of the file of a delivery, such as ``extract-17.zip`` or ``login-17.txt``."""
    if form is DeliveryForm.LOGIN:
        return f"login-{number}.txt"
    suffix = "csv.age" if form is DeliveryForm.AGE else str(form)
    return f"extract-{number}.{suffix}"


def _pieces(store: ObjectStore, key: str) -> Iterator[bytes]:
    with store.open_reader(key) as reader:
        while piece := reader.read(_PIECE):
            yield piece
