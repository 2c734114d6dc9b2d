"""Forged restore points, and a store that exchanges the dump while it is read."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

from include.backup.manifest import DUMP_NAME, Manifest
from include.encryption.crypto import FRAME, encrypting
from include.encryption.recipients import Recipient
from include.encryption.stream import packed
from include.services.objectstore.directory import DirectoryReader, DirectoryStore


def forged(clear: bytes, manifest: Manifest, recipients: Sequence[Recipient]) -> bytes:
    """Encrypt an archive with the recipients' public keys, which are no secret."""
    pieces = io.BytesIO(b"".join(packed([clear])))
    message = encrypting(pieces, recipients, manifest.encryption.context)
    return b"".join(iter(lambda: message.read(FRAME), b""))


def replaced(archive: bytes, old: str, new: str) -> bytes:
    """Replace a text of the archive, which keeps its length."""
    assert archive.count(old.encode()) == 1
    assert len(new) <= len(old)
    return archive.replace(old.encode(), new.ljust(len(old)).encode())


def forged_definition(archive: bytes) -> bytes:
    """Run other statements before the data is loaded: the index is created in post-data."""
    create = "CREATE TABLE public.zone (\n    id integer NOT NULL,\n    name text\n);\n"
    return replaced(archive, create, "CREATE TABLE public.forged (); CREATE TABLE zone ();")


def forged_index(archive: bytes) -> bytes:
    create = "CREATE INDEX by_iban ON public.account USING btree (iban);"
    return replaced(archive, create, "CREATE TABLE public.forged ();")


def forged_copy_statement(archive: bytes) -> bytes:
    """Run other statements instead of the COPY of a table."""
    copy = "COPY public.account (id, iban) FROM stdin;"
    return replaced(archive, copy, "CREATE TABLE public.forged ();")


def forged_rows(archive: bytes) -> bytes:
    return replaced(archive, "iban of the owner", "iban of a thief!!")


def forged_last_rows(archive: bytes) -> bytes:
    """Change the last table's rows, far behind those of the others."""
    return replaced(archive, "zone of the owner", "zone of a thief!!")


def forged_rows_that_fail(archive: bytes) -> bytes:
    """Let COPY fail: the forgery is the reason to report, not what the server says about it."""
    return replaced(archive, "1\tiban of the owner", "x\tiban of a thief!!")


FORGERIES: dict[str, Callable[[bytes], bytes]] = {
    "definition": forged_definition,
    "index": forged_index,
    "copy statement": forged_copy_statement,
    "rows": forged_rows,
    "last rows": forged_last_rows,
    "failing rows": forged_rows_that_fail,
}


class SwappingStore(DirectoryStore):
    """A directory whose dump is exchanged after a number of readers were opened.

    Attributes:
        content: what takes the object's place; None leaves it.
        readers: how many readers of the dump are opened before the exchange; the check, then the
            head, then the loaders.
    """

    content: bytes | None = None
    readers = 1

    def open_reader(self, key: str, *, version_id: str = "") -> DirectoryReader:
        if key.endswith(DUMP_NAME) and self.content is not None:
            if self.readers == 0:
                self.path(key).write_bytes(self.content)
            self.readers -= 1
        return super().open_reader(key, version_id=version_id)

    def path(self, key: str) -> Path:
        return Path(self.description) / key
