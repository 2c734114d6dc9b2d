"""Test that a restored database equals the original.

The number of concurrent processes and the kind of store make no difference.
"""

from __future__ import annotations

import itertools
import subprocess
from dataclasses import replace

import pytest

from include.backup.compare import Definitions, check_foreign_keys, compare
from include.backup.manifest import Manifest
from include.backup.restore import restore
from include.backup.restore_program import distribute_entries
from include.encryption.crypto import ContentRefused
from include.encryption.recipients import OpeningKey, Recipient
from include.evidence.signing import Signer
from include.services.database import DatabaseAddress
from include.services.errors import UsageError
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.s3 import S3Store
from tests.backup.support import Taken, pg_dump, rows, run, take
from tests.support.holders import Holder
from tests.support.s3 import MotoServer, client_for, new_bucket

ROWS = """
SELECT (SELECT last_value FROM public.waybill_number),
       (SELECT is_called FROM public.waybill_number),
       (SELECT count(*) FROM public.customer), (SELECT count FROM public.counted),
       (SELECT upper_name FROM public.customer WHERE id = 7),
       (SELECT md5(string_agg(c::text, ',' ORDER BY id)) FROM public.customer c),
       (SELECT md5(string_agg(content::text, ',' ORDER BY id)) FROM public.photo),
       (SELECT array_agg(md5(lo_get(oid)) ORDER BY oid) FROM pg_largeobject_metadata),
       (SELECT count(*) FROM "Großes Schema".no_columns), (SELECT count(*) FROM public.scan)
"""


def sql_of(address: DatabaseAddress) -> str:
    text = pg_dump(address, "--no-owner", "--no-privileges").decode()
    return "\n".join(line for line in text.splitlines() if not line.startswith("\\"))


@pytest.mark.parametrize("jobs", [1, 2, 4])
def test_restored_database_equals_original_with_any_number_of_parallel_jobs(
    taken: Taken, rich: DatabaseAddress, target: DatabaseAddress, operations: Holder, jobs: int
):
    """The databases are compared by ParcelSeal, by a second pg_dump, and by queries."""
    steps: list[str] = []
    restored = restore(taken.source(operations.opening), target, jobs=jobs, progress=steps.append)
    assert restored.differences == ()
    assert restored.rows == taken.manifest.rows > 1000
    assert restored.tables == len(taken.manifest.tables) > 15
    comparison = compare(taken.source(operations.opening), target)
    assert comparison.different == comparison.missing == ()
    assert comparison.definitions == Definitions()
    assert comparison.compared == restored.tables
    assert sorted(sql_of(target).splitlines()) == sorted(sql_of(rich).splitlines())
    with target.connect() as conn:
        keys = check_foreign_keys(conn)
        assert conn.execute("SELECT relrowsecurity FROM pg_class WHERE relname = 'guarded'") \
            .fetchone() == (True,)  # fmt: skip
    assert keys.checked == 3
    assert keys.broken == {}
    assert len(steps) == 5
    assert rows(target, ROWS) == rows(rich, ROWS)
    assert rows(target, "INSERT INTO customer (name, seen) VALUES ('x', now()) RETURNING id") == [
        (301,)
    ]


def test_database_restored_from_s3_equals_original(
    moto: MotoServer,
    rich: DatabaseAddress,
    target: DatabaseAddress,
    recipients: list[Recipient],
    signer: Signer,
    offline: Holder,
):
    """The object was uploaded in several pieces. The key of the second recipient decrypts it."""
    client = client_for(moto.endpoint)
    store = S3Store(client, new_bucket(client), "off site/备份")
    taken = take(rich, store, recipients, signer)
    source = taken.source(offline.opening)
    assert restore(source, target).differences == ()
    comparison = compare(source, target)
    assert comparison.different == comparison.missing == ()
    assert comparison.definitions == Definitions()


def test_restore_raises_usage_error_if_target_database_has_tables_and_content_is_not_allowed(
    taken: Taken, target: DatabaseAddress, operations: Holder
):
    run(target, "CREATE TABLE mine (id int)")
    source = taken.source(operations.opening)
    with pytest.raises(UsageError, match="is not empty"):
        restore(source, target)
    assert rows(target, "SELECT count(*) FROM pg_class WHERE relname = 'customer'") == [(0,)]
    assert restore(source, target, allow_content=True).differences == ()
    assert rows(target, "SELECT count(*) FROM mine") == [(0,)]


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "other"])
def test_restore_raises_content_refused_error_and_loads_nothing_if_stored_dump_is_damaged(
    taken: Taken,
    target: DatabaseAddress,
    store: DirectoryStore,
    operations: Holder,
    damage: str,
):
    content = bytearray(taken.store.get(taken.manifest.dump.key))
    content[len(content) // 2] ^= 1 if damage == "flip" else 0
    stored = {"cut": content[:-1], "other": content[::-1]}.get(damage, content)
    if damage != "gone":
        store.put(taken.manifest.dump.key, bytes(stored))
    source = replace(taken.source(operations.opening), store=store)
    with pytest.raises(ContentRefused, match=taken.manifest.id):
        restore(source, target)
    assert rows(target, "SELECT count(*) FROM pg_class WHERE relname = 'customer'") == [(0,)]


def test_restore_raises_content_refused_error_and_loads_nothing_if_key_belongs_to_no_recipient(
    taken: Taken, target: DatabaseAddress, stranger: OpeningKey
):
    with pytest.raises(ContentRefused, match="does not belong to any of its recipients"):
        restore(taken.source(stranger), target)
    assert rows(target, "SELECT count(*) FROM pg_class WHERE relname = 'customer'") == [(0,)]


def test_restore_reports_the_extension_that_the_server_lacks(
    taken: Taken, target: DatabaseAddress, operations: Holder, monkeypatch: pytest.MonkeyPatch
):
    """The server of the target lacks the extension."""
    real = subprocess.Popen

    def with_extension(command: list[str], **more: object) -> object:
        if "--section=pre-data" in command:
            command = ["sh", "-c", 'echo "pg_restore: error: could not execute query: ERROR:  '
                       'extension \\"postgis\\" is not available" >&2; exit 1']  # fmt: skip
        return real(command, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", with_extension)
    with pytest.raises(UsageError, match="lacks the extension postgis"):
        restore(taken.source(operations.opening), target)


def test_restore_reports_missing_and_additional_rows(
    taken: Taken, target: DatabaseAddress, operations: Holder
):
    """The restored copy may also lack a table of the manifest."""
    manifest = taken.manifest
    lost = manifest.tables[0].model_copy(update={"name": "lost", "rows": 0})
    changed = [
        table.model_copy(update={"rows": table.rows + 1}) if table.name == "photo" else table
        for table in manifest.tables
    ]
    other: Manifest = manifest.model_copy(update={"tables": (*changed, lost)})
    restored = restore(replace(taken.source(operations.opening), manifest=other), target)
    assert restored.differences == ("public.photo", lost.label)


@pytest.mark.parametrize("jobs", [0, 1, 3, 50])
def test_each_data_entry_of_the_archive_is_assigned_to_exactly_one_loader(
    taken: Taken, operations: Holder, jobs: int
):
    """Each list is in the order of the archive, because a process reads its stream only forward."""
    _, entries = taken.source(operations.opening).head()
    shares = distribute_entries(entries, taken.manifest.tables, jobs)
    expected = [entry.dump_id for entry in entries if entry.section == 3]
    assert sorted(itertools.chain(*shares)) == sorted(expected)
    assert len(shares) == max(1, jobs)
    for share in shares:
        assert share == sorted(share, key=expected.index)


def test_two_largest_tables_are_assigned_to_different_loaders(taken: Taken, operations: Holder):
    _, entries = taken.source(operations.opening).head()
    first, second = sorted(taken.manifest.tables, key=lambda table: -table.bytes)[:2]
    ids = {
        (entry.schema, entry.name): entry.dump_id for entry in entries if entry.kind == "TABLE DATA"
    }
    shares = distribute_entries(entries, taken.manifest.tables, 2)
    assert not any(
        {ids[first.schema_name, first.name], ids[second.schema_name, second.name]} <= set(share)
        for share in shares
    )
