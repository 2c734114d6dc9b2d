"""Provide forged restore points, and a store that replaces the dump while a restore reads it."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

from include.backup.manifest import DUMP_NAME, Manifest
from include.encryption.crypto import FRAME, encrypting
from include.encryption.recipients import Recipient
from include.encryption.stream import compressed
from include.services.objectstore.directory import DirectoryReader, DirectoryStore


def forged(clear: bytes, manifest: Manifest, recipients: Sequence[Recipient]) -> bytes:
    """Return an archive that is encrypted with the public keys of the recipients.

    Anyone who has these keys can create such a dump.

    Args:
        clear: archive before compression and encryption.
        manifest: manifest whose encryption context is used.
        recipients: recipients of the dump.
    """
    pieces = io.BytesIO(b"".join(compressed([clear])))
    message = encrypting(pieces, recipients, manifest.encryption.context)
    return b"".join(iter(lambda: message.read(FRAME), b""))


def replaced(archive: bytes, old: str, new: str) -> bytes:
    """Return an archive in which a text is replaced. The length of the archive stays the same.

    Args:
        archive: original archive, which contains the old text once.
        old: text to replace.
        new: new text, which may be shorter and is then padded with spaces.
    """
    assert archive.count(old.encode()) == 1
    assert len(new) <= len(old)
    return archive.replace(old.encode(), new.ljust(len(old)).encode())


def forged_definition(archive: bytes) -> bytes:
    """Return an archive in which other statements replace a definition.

    They would run before the data is loaded.
    """
    create = "CREATE TABLE public.zone (\n    id integer NOT NULL,\n    name text\n);\n"
    return replaced(archive, create, "CREATE TABLE public.forged (); CREATE TABLE zone ();")


def forged_index(archive: bytes) -> bytes:
    create = "CREATE INDEX by_iban ON public.account USING btree (iban);"
    return replaced(archive, create, "CREATE TABLE public.forged ();")


def forged_copy_statement(archive: bytes) -> bytes:
    """Return an archive in which other statements replace the COPY statement of a table."""
    copy = "COPY public.account (id, iban) FROM stdin;"
    return replaced(archive, copy, "CREATE TABLE public.forged ();")


def forged_rows(archive: bytes) -> bytes:
    return replaced(archive, "iban of the owner", "iban of a thief!!")


def forged_last_rows(archive: bytes) -> bytes:
    """Return an archive in which rows of the last table are changed.

    Only the rows of this table follow the rows of all other tables.
    """
    return replaced(archive, "zone of the owner", "zone of a thief!!")


def forged_rows_that_fail(archive: bytes) -> bytes:
    """Return an archive whose rows are changed in such a way that COPY fails.

    The restore must report the forgery, not the server's error.
    """
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
    """A directory store that replaces the dump after a number of readers were opened.

    Attributes:
        content: bytes that replace the object; None to keep the object.
        readers: number of readers of the dump that are opened before the replacement. The first
            reader is opened for the check, the second for the head, the others for the rows.
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
