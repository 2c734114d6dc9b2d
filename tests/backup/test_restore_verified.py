"""Test that a restore uses only verified bytes, even if the stored object is replaced during it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from include.backup import restore as module
from include.backup.compare import Definitions, compare
from include.backup.manifest import Manifest, folder
from include.backup.restore import restore
from include.backup.restore_program import RestoreTarget
from include.backup.source import Source, VerifiedObject
from include.encryption.crypto import FRAME, ContentRefused, encrypting
from include.encryption.recipients import Recipient
from include.encryption.stream import PIECE
from include.evidence.signing import Signer
from include.services.database import DatabaseAddress
from include.services.errors import ServiceError
from include.services.objectstore.base import StoredObject
from include.services.objectstore.directory import DirectoryReader, DirectoryStore
from include.services.objectstore.s3 import S3Store
from tests.backup.forgeries import FORGERIES, SwappingStore, forged, forged_last_rows, forged_rows
from tests.backup.support import Taken, rows, take
from tests.support.holders import Holder
from tests.support.s3 import MotoServer, client_for, new_bucket

FILL = """
CREATE TABLE account (id int PRIMARY KEY, iban text NOT NULL);
INSERT INTO account VALUES (1, 'iban of the owner');
CREATE TABLE parcel (id int PRIMARY KEY, content bytea);
ALTER TABLE parcel ALTER content SET STORAGE EXTERNAL;
INSERT INTO parcel SELECT n, (SELECT string_agg(sha512((n * 100000 + m)::text::bytea), '')
    FROM generate_series(1, 20000) m) FROM generate_series(1, 3) n;
CREATE TABLE zone (id int PRIMARY KEY, name text);
INSERT INTO zone VALUES (1, 'zone of the owner');
CREATE INDEX by_iban ON account (iban);
"""
EMPTY = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"

INDEX = "SELECT count(*) FROM pg_indexes WHERE indexname = 'by_iban'"


@pytest.fixture(scope="module")
def origin(new_database: Callable[..., DatabaseAddress]) -> DatabaseAddress:
    return new_database(FILL)


@pytest.fixture(scope="module")
def point(
    origin: DatabaseAddress,
    tmp_path_factory: pytest.TempPathFactory,
    recipients: list[Recipient],
    signer: Signer,
) -> Taken:
    """Return a published restore point of ``origin`` in a directory. Tests only read it."""
    return take(origin, DirectoryStore(tmp_path_factory.mktemp("point")), recipients, signer)


@pytest.fixture(scope="module")
def archive(point: Taken, operations: Holder) -> bytes:
    """Return the decrypted archive of the restore point."""
    with point.source(operations.opening).archive() as stream:
        return b"".join(iter(lambda: stream.read(PIECE), b""))


@pytest.fixture
def swapping(point: Taken, store: DirectoryStore) -> SwappingStore:
    swapping = SwappingStore(Path(store.description))
    swapping.put(point.manifest.dump.key, point.store.get(point.manifest.dump.key))
    return swapping


def swapped(
    point: Taken, store: SwappingStore, opening: Holder, content: bytes, readers: int
) -> Source:
    store.content, store.readers = content, readers
    return Source(store, point.manifest, opening.opening)


@pytest.mark.parametrize("forgery", FORGERIES)
@pytest.mark.parametrize("jobs", [1, 2])
def test_restore_raises_content_refused_error_if_dump_is_replaced_after_its_check(
    point: Taken,
    swapping: SwappingStore,
    archive: bytes,
    target: DatabaseAddress,
    recipients: list[Recipient],
    operations: Holder,
    forgery: str,
    jobs: int,
) -> None:
    """No forged statement is executed, and no forged row is accepted."""
    content = forged(FORGERIES[forgery](archive), point.manifest, recipients)
    source = swapped(point, swapping, operations, content, readers=1)
    with pytest.raises(ContentRefused, match=point.manifest.dump.key) as refused:
        restore(source, target, jobs=jobs)
    assert refused.value.exit_code == 1
    assert rows(target, "SELECT to_regclass('public.forged') IS NULL") == [(True,)]


@pytest.mark.parametrize("forgery", FORGERIES)
@pytest.mark.parametrize(("jobs", "readers"), [(1, 2), (2, 2), (2, 3)])
def test_restore_raises_content_refused_error_if_dump_is_replaced_after_its_archive_head_was_read(
    point: Taken,
    swapping: SwappingStore,
    archive: bytes,
    target: DatabaseAddress,
    recipients: list[Recipient],
    operations: Holder,
    forgery: str,
    jobs: int,
    readers: int,
) -> None:
    """The schema is loaded from the original, and rows come from the forgery.

    The error advises to drop the target.
    """
    content = forged(FORGERIES[forgery](archive), point.manifest, recipients)
    source = swapped(point, swapping, operations, content, readers)
    with pytest.raises(ContentRefused, match=point.manifest.dump.key) as refused:
        restore(source, target, jobs=jobs)
    assert "drop it" in refused.value.action
    assert rows(target, "SELECT to_regclass('public.forged') IS NULL") == [(True,)]
    assert rows(target, INDEX) == [(0,)], "the restore went on after the load"


@pytest.mark.parametrize("readers", [1, 2])
@pytest.mark.parametrize(
    "change",
    [lambda data: data[: len(data) // 2], lambda data: data[:-1], lambda data: data + b"\0",
     lambda data: data + data, lambda data: b""],
)  # fmt: skip
def test_restore_raises_content_refused_error_if_dump_is_truncated_or_extended(
    point: Taken,
    swapping: SwappingStore,
    target: DatabaseAddress,
    operations: Holder,
    change: Callable[[bytes], bytes],
    readers: int,
) -> None:
    """If bytes follow the encrypted message, the object also differs from the manifest."""
    content = change(point.store.get(point.manifest.dump.key))
    source = swapped(point, swapping, operations, content, readers)
    with pytest.raises(ContentRefused, match=point.manifest.dump.key):
        restore(source, target)
    assert rows(target, INDEX) == [(0,)], "the restore went on after the load"


def test_restore_raises_content_refused_error_if_dump_is_overwritten_while_it_is_read(
    point: Taken,
    swapping: SwappingStore,
    archive: bytes,
    target: DatabaseAddress,
    recipients: list[Recipient],
    operations: Holder,
) -> None:
    """An open file descriptor does not protect against changes of the file's content."""
    content = forged(forged_last_rows(archive), point.manifest, recipients)
    key = point.manifest.dump.key

    class Overwriting(DirectoryReader):
        count = 0

        def read(self, size: int = -1) -> bytes:
            Overwriting.count += 1
            if Overwriting.count == 20:
                with swapping.path(key).open("r+b") as file:
                    file.write(content)
            return super().read(size)

    class OverwritingStore(SwappingStore):
        def open_reader(self, key: str, *, version_id: str = "") -> DirectoryReader:
            return Overwriting(self.path(key).open("rb"), key, self.description)

    store = OverwritingStore(Path(swapping.description))
    with pytest.raises(ContentRefused, match=key):
        restore(Source(store, point.manifest, operations.opening), target, jobs=1)
    assert Overwriting.count > 20
    assert rows(target, "SELECT to_regclass('public.forged') IS NULL") == [(True,)]


def test_content_refused_error_does_not_advise_to_drop_a_target_database_that_had_content(
    point: Taken,
    swapping: SwappingStore,
    archive: bytes,
    target: DatabaseAddress,
    recipients: list[Recipient],
    operations: Holder,
) -> None:
    """The target also contains rows of other users."""
    content = forged(forged_rows(archive), point.manifest, recipients)
    source = swapped(point, swapping, operations, content, readers=2)
    with pytest.raises(ContentRefused) as refused:
        restore(source, target, allow_content=True)
    assert "drop" not in refused.value.action
    assert "not verified" in refused.value.action


@pytest.mark.parametrize("forgery", FORGERIES)
@pytest.mark.parametrize("readers", [1, 2])
def test_restore_with_old_manifest_without_head_digest_raises_content_refused_error_for_forged_dump(
    point: Taken,
    swapping: SwappingStore,
    archive: bytes,
    target: DatabaseAddress,
    recipients: list[Recipient],
    operations: Holder,
    forgery: str,
    readers: int,
) -> None:
    """The restore reads the whole object before it executes a statement of its schema."""
    old = point.manifest.model_copy(update={"head": None})
    content = forged(FORGERIES[forgery](archive), point.manifest, recipients)
    source = swapped(Taken(swapping, old), swapping, operations, content, readers)
    with pytest.raises(ContentRefused, match=point.manifest.dump.key):
        restore(source, target)
    assert rows(target, "SELECT to_regclass('public.forged') IS NULL") == [(True,)]
    assert (rows(target, EMPTY) == [(0,)]) == (readers == 1)


def test_restore_with_old_manifest_without_head_digest_succeeds(
    point: Taken, target: DatabaseAddress, operations: Holder
) -> None:
    """The JSON of an old manifest must stay equal to the signed JSON."""
    old = point.manifest.model_copy(update={"head": None})
    assert b'"head"' not in old.as_bytes()
    assert Manifest.model_validate_json(old.as_bytes()) == old
    source = Source(point.store, old, operations.opening)
    assert restore(source, target).differences == ()


def test_manifest_contains_size_and_digest_of_archive_head(point: Taken, archive: bytes) -> None:
    """pg_restore executes the statements in the head: definitions, COPY statements and grants."""
    head = point.manifest.head
    assert head is not None
    assert hashlib.sha256(archive[: head.bytes]).hexdigest() == head.sha256
    assert b"FROM stdin" in archive[: head.bytes]
    assert archive[head.bytes] == 1


def test_restore_raises_content_refused_error_if_schema_digest_of_manifest_differs_from_archive(
    point: Taken, target: DatabaseAddress, operations: Holder
) -> None:
    """A manifest whose digests contradict each other is refused."""
    other = point.manifest.model_copy(update={"schema_sha256": "0" * 64})
    with pytest.raises(ContentRefused, match="schema"):
        restore(Source(point.store, other, operations.opening), target)
    assert rows(target, EMPTY) == [(0,)]


@pytest.mark.parametrize(
    "clear",
    [b"", b"PGDMP", b"no archive at all", bytes(64 * 1024 * 1024)],
    ids=["empty", "cut", "other", "bomb"],
)
@pytest.mark.parametrize("with_head", [True, False])
def test_reading_archive_head_of_forged_dump_raises_content_refused_error(
    point: Taken,
    swapping: SwappingStore,
    recipients: list[Recipient],
    operations: Holder,
    clear: bytes,
    with_head: bool,
) -> None:
    """No more bytes are read than the archive has according to the manifest."""
    manifest = point.manifest.model_copy(update={} if with_head else {"head": None})
    swapping.path(manifest.dump.key).write_bytes(forged(clear, manifest, recipients))
    with pytest.raises(ContentRefused, match=manifest.dump.key):
        Source(swapping, manifest, operations.opening).head()


def test_reading_dump_that_is_not_a_zstd_stream_raises_content_refused_error(
    point: Taken, swapping: SwappingStore, recipients: list[Recipient], operations: Holder
) -> None:
    message = encrypting(
        io.BytesIO(b"no zstd" * 1000), recipients, point.manifest.encryption.context
    )
    content = b"".join(iter(lambda: message.read(FRAME), b""))
    swapping.path(point.manifest.dump.key).write_bytes(content)
    with pytest.raises(ContentRefused, match=point.manifest.dump.key):
        Source(swapping, point.manifest, operations.opening).head()
    with pytest.raises(zstandard.ZstdError):
        zstandard.ZstdDecompressor().stream_reader(io.BytesIO(b"no zstd" * 1000)).read(1)


def test_compare_raises_content_refused_error_if_dump_of_the_original_was_replaced(
    point: Taken,
    swapping: SwappingStore,
    archive: bytes,
    target: DatabaseAddress,
    recipients: list[Recipient],
    operations: Holder,
) -> None:
    """The copy and the replaced archive have the same forged row. It must still be reported."""
    restore(point.source(operations.opening), target)
    with target.connect() as conn:
        conn.execute("UPDATE account SET iban = 'iban of a thief!!'")
    content = forged(forged_rows(archive), point.manifest, recipients)
    with pytest.raises(ContentRefused, match=point.manifest.dump.key):
        compare(swapped(point, swapping, operations, content, readers=1), target)


def test_failed_load_of_verified_restore_point_raises_service_error_about_pg_restore(
    point: Taken, target: DatabaseAddress, operations: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream is verified even though pg_restore failed. Here, the object is not forged."""
    verified: list[bool] = []
    real = VerifiedObject.verify

    def verify(stored: VerifiedObject) -> None:
        real(stored)
        verified.append(True)

    monkeypatch.setattr(VerifiedObject, "verify", verify)
    real_pg_restore = module._pg_restore

    def with_check(words: list[str], archive: int, load_target: RestoreTarget) -> None:
        real_pg_restore(words, archive, load_target)
        if "--section=pre-data" in words:
            with target.connect() as conn:
                conn.execute("ALTER TABLE account ADD CHECK (iban = 'another')")

    monkeypatch.setattr(module, "_pg_restore", with_check)
    with pytest.raises(ServiceError, match=r"pg_restore into .* failed"):
        restore(point.source(operations.opening), target, jobs=1)
    assert verified == [True]


class ReplacingStore(S3Store):
    """A bucket in which a forged version of the dump is stored right after its verification."""

    content = b""

    def verify(self, expected: StoredObject) -> None:
        super().verify(expected)
        if self.content:
            self.put(expected.key, self.content)
            self.content = b""


def test_restore_reads_verified_version_of_replaced_object(
    moto: MotoServer,
    origin: DatabaseAddress,
    target: DatabaseAddress,
    recipients: list[Recipient],
    signer: Signer,
    operations: Holder,
) -> None:
    """A bucket with versions keeps the original, and the restore reads only that version."""
    client = client_for(moto.endpoint)
    store = ReplacingStore(client, new_bucket(client), "off site")
    taken = take(origin, store, recipients, signer)
    source = taken.source(operations.opening)
    with source.archive() as stream:
        archive = b"".join(iter(lambda: stream.read(PIECE), b""))
    assert taken.manifest.dump.version_id
    store.content = forged(forged_rows(archive), taken.manifest, recipients)
    assert restore(source, target).differences == ()
    assert store.stat(taken.manifest.dump.key).version_id != taken.manifest.dump.version_id
    assert rows(target, "SELECT iban FROM account") == [("iban of the owner",)]
    comparison = compare(source, target)
    assert comparison.different == comparison.missing == ()
    assert comparison.definitions == Definitions()
    with source.archive() as stream:
        assert b"".join(iter(lambda: stream.read(PIECE), b"")) == archive


def test_restore_raises_content_refused_error_if_object_in_bucket_without_versions_was_replaced(
    moto: MotoServer,
    origin: DatabaseAddress,
    target: DatabaseAddress,
    recipients: list[Recipient],
    signer: Signer,
    operations: Holder,
) -> None:
    client = client_for(moto.endpoint)
    store = ReplacingStore(client, new_bucket(client, lock=False), "off site")
    taken = take(origin, store, recipients, signer)
    source = taken.source(operations.opening)
    with source.archive() as stream:
        archive = b"".join(iter(lambda: stream.read(PIECE), b""))
    store.content = forged(forged_rows(archive), taken.manifest, recipients)
    with pytest.raises(ContentRefused, match=taken.manifest.dump.key):
        restore(source, target)
    assert folder("courier", taken.manifest.id) in taken.manifest.dump.key
