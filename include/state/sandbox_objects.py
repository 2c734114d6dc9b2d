"""The tables in which a drill keeps objects, and the streams into and out of one."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Self

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Engine,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    select,
)
from sqlalchemy.exc import IntegrityError

from include.services.objectstore.base import ObjectMissing, StoredObject, StoreError

PIECE = 1024 * 1024  # bytes of a row
TABLES = MetaData()  # never those of the state database

sandbox_upload = Table(
    "sandbox_upload",
    TABLES,
    Column("id", Uuid, primary_key=True),
    Column("store", Text, nullable=False),
    Column("key", Text, nullable=False),
)
sandbox_piece = Table(
    "sandbox_piece",
    TABLES,
    Column(
        "upload_id", Uuid, ForeignKey("sandbox_upload.id", ondelete="CASCADE"), primary_key=True
    ),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("content", LargeBinary, nullable=False),
)
sandbox_object = Table(
    "sandbox_object",
    TABLES,
    Column("store", Text, primary_key=True),
    Column("key", Text(collation="C"), primary_key=True),
    Column("upload_id", Uuid, ForeignKey("sandbox_upload.id"), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("modified_at", DateTime(timezone=True), nullable=False),
    Column("sha256", Text, nullable=False),
    Column("locked_until", DateTime(timezone=True)),
)

Publish = Callable[[Connection, int, str], StoredObject]
"""Makes an upload visible, from its size and SHA-256, in a transaction."""


class SandboxWriter:
    """A stream into one object; see ``ObjectWriter``.

    Args:
        state: the state of a drill.
        upload: what the store has begun.
        publish: makes it visible.
    """

    def __init__(self, state: Engine, upload: uuid.UUID, publish: Publish) -> None:
        self._state, self._upload, self._publish = state, upload, publish
        self._hash = hashlib.sha256()
        self._held = bytearray()
        self._size = self._pieces = 0
        self._open = True

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append bytes; raises StoreError once the writer is closed, or was cleared away."""
        self._require_open()
        view = memoryview(data).cast("B")
        self._hash.update(view)
        self._size += len(view)
        self._held += view
        while len(self._held) >= PIECE:
            self._flush()
        return len(view)

    def commit(self) -> StoredObject:
        """Make the object visible, all at once."""
        self._require_open()
        self._flush()
        with self._state.begin() as conn:
            stored = self._publish(conn, self._size, self._hash.hexdigest())
        self._open = False
        return stored

    def abort(self) -> None:
        """Give up and remove what was written so far."""
        if self._open:
            self._open = False
            with self._state.begin() as conn:
                conn.execute(sandbox_upload.delete().where(sandbox_upload.c.id == self._upload))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abort()

    def _require_open(self) -> None:
        if not self._open:
            raise StoreError("The object is closed: nothing more can be written into it.")

    def _flush(self) -> None:
        if not self._held:
            return
        row = {"number": self._pieces, "content": bytes(self._held[:PIECE])}
        try:
            with self._state.begin() as conn:
                conn.execute(sandbox_piece.insert().values(upload_id=self._upload, **row))
        except IntegrityError:
            raise StoreError("What was being written was cleared away meanwhile.") from None
        del self._held[:PIECE]
        self._pieces += 1


class SandboxReader:
    """A stream out of one object; see ``ObjectReader``.

    Args:
        state: the state of a drill.
        upload: the object's content.
        size: bytes of it.
    """

    def __init__(self, state: Engine, upload: uuid.UUID, size: int) -> None:
        self._state, self._upload, self._left = state, upload, size
        self._held = b""
        self._pieces = 0

    def read(self, size: int = -1) -> bytes:
        """Return ``size`` bytes, fewer only at the end; raises ObjectMissing once it is gone."""
        wanted = len(self._held) + self._left
        if size >= 0:
            wanted = min(size, wanted)
        pieces = [self._held]
        have = len(self._held)
        while have < wanted:
            pieces.append(self._piece())
            have += len(pieces[-1])
        whole = b"".join(pieces)
        self._held = whole[wanted:]
        return whole[:wanted]

    def close(self) -> None:
        """Nothing is kept open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _piece(self) -> bytes:
        query = select(sandbox_piece.c.content).where(
            sandbox_piece.c.upload_id == self._upload, sandbox_piece.c.number == self._pieces
        )
        with self._state.connect() as conn:
            found = conn.scalar(query)
        if found is None:
            raise ObjectMissing("The object was replaced or removed while it was read.")
        self._pieces += 1
        self._left -= len(found)
        return bytes(found)
