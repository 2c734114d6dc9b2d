"""The evidence extract of an access log is complete, encrypted, and created once."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import zstandard

from include.encryption.crypto import ContentRefused, decrypting
from include.encryption.recipients import OpeningKey, Recipient
from include.incident.evidence.extract import Extract, decrypt_extract
from include.incident.evidence.log_copy import LogQuery
from include.service_container import ROOT
from include.services.database import DatabaseAddress
from include.services.errors import ServiceError, UsageError
from include.services.objectstore.base import (
    ObjectDamaged,
    ObjectLocked,
    ObjectMissing,
    ObjectStore,
)
from include.services.objectstore.directory import DirectoryStore
from tests.incident.evidence.extract_fixtures import (
    CONTEXT,
    KEY,
    LOG,
    MAPPED,
    WHOLE,
    WIDE_WHOLE,
    ZONES,
    create,
    minute,
    plain,
    run,
)
from tests.incident.evidence.extract_stores import any_store, proxy, s3, source, store
from tests.support.damage import flip
from tests.support.holders import NOW, Holder, offline, operations, recipients, stranger

__all__ = ["any_store", "proxy", "s3", "source", "store"]
__all__ += ["offline", "operations", "recipients", "stranger"]

COLUMNS = ", ".join(f'a."{column.replace(chr(34), chr(34) * 2)}"' for column in LOG.columns)
LATER = NOW.replace(microsecond=0) + timedelta(days=30)


def content(store: ObjectStore, extract_: Extract, key: OpeningKey) -> bytes:
    return b"".join(decrypt_extract(store, extract_, key))


def test_decrypted_extract_equals_output_of_sql_copy(
    source: DatabaseAddress,
    any_store: ObjectStore,
    recipients: list[Recipient],
    operations: Holder,
    offline: Holder,
):
    descriptions: list[Extract] = []
    extract = create(source, any_store, recipients, keep=descriptions.append, lock_until=LATER)
    expected = plain(source, f"SELECT {COLUMNS} FROM access_log a")
    for holder in (operations, offline):
        assert content(any_store, extract, holder.opening) == expected
    assert descriptions == [extract]
    assert (extract.rows, extract.bytes_csv) == (12, len(expected))
    assert (extract.first, extract.last) == (minute(0), minute(11))
    assert extract.columns == LOG.columns
    assert b"2026-11-24 12:03:00+00" in expected  # UTC, not what the database would print
    stored = any_store.get(KEY)
    assert b"delivery" not in stored
    assert (extract.bytes_stored, extract.sha256_stored) == (
        len(stored),
        hashlib.sha256(stored).hexdigest(),
    )
    assert any_store.stat(KEY).locked_until == LATER


def test_extract_can_be_verified_by_digests_and_sizes_in_its_description(
    source: DatabaseAddress, store: DirectoryStore, recipients: list[Recipient], operations: Holder
):
    extract = create(source, store, recipients)
    record = json.loads(extract.as_bytes())
    with store.open_reader(KEY) as reader:
        clear = decrypting(reader, operations.opening, record["encryption"]["context"], "x").read()
    assert hashlib.sha256(clear).hexdigest() == record["sha256_clear"]
    assert len(clear) == record["bytes_clear"]
    assert len(zstandard.decompress(clear, max_output_size=10_000)) == record["bytes_csv"]
    assert {recipient["key_id"] for recipient in record["recipients"]} == {
        recipient.key_id for recipient in recipients
    }
    assert Extract.model_validate_json(extract.as_bytes()) == extract


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (None, None, range(12)),
        (minute(3), minute(5), [3, 4]),
        (minute(3, 1), minute(5, 1), [4, 5]),
        (minute(11), None, [11]),
        (None, minute(0), []),
        (None, minute(0, 1), [0]),
    ],
)
def test_time_window_of_extract_includes_start_and_excludes_end(
    source: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    operations: Holder,
    since: Any,
    until: Any,
    expected: Any,
):
    extract = create(source, store, recipients, replace(WHOLE, since=since, until=until))
    numbers = ",".join(map(str, expected)) or "NULL"
    statement = f"SELECT {COLUMNS} FROM access_log a WHERE access_id IN ({numbers})"
    assert content(store, extract, operations.opening) == plain(source, statement)
    assert extract.rows == len(list(expected))
    edges = (minute(expected[0]), minute(expected[-1])) if expected else (None, None)
    assert (extract.first, extract.last) == edges


@pytest.mark.parametrize(
    ("column", "expected"),
    [("accessed_at", [2, 3, 7]), ("noted", [2, 3, 7]), ("day", [2, 3, 4, 7])],
)
def test_time_window_for_column_without_timezone_uses_timezone_of_pack(
    source: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    operations: Holder,
    column: str,
    expected: list[int],
):
    run(source, ZONES)
    log = LOG.model_copy(
        update={"collection": "zones", "at": column, "columns": ("access_id", "accessed_at")}
    )
    first, last = minute(0).replace(hour=16), minute(0).replace(hour=18)  # Shanghai: midnight, 2:00
    query = LogQuery(MAPPED, log, first, last, timezone="Asia/Shanghai")
    extract = create(source, store, recipients, query)
    numbers = ",".join(map(str, expected))
    text = f"SELECT access_id, accessed_at FROM zones WHERE access_id IN ({numbers})"
    assert content(store, extract, operations.opening) == plain(source, text)
    assert extract.first == (first if column == "day" else minute(30).replace(hour=16))
    everything = create(source, store, recipients, LogQuery(MAPPED, log, timezone="Asia/Shanghai"))
    assert everything.rows == 7
    assert everything.last == minute(0).replace(day=25, hour=16)


@pytest.mark.parametrize(
    "account", [LOG.account, "(SELECT e.number FROM employee e WHERE e.employee_id=a.employee_id)"]
)
def test_extract_limited_to_accounts_contains_only_their_rows(
    source: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    operations: Holder,
    account: Any,
):
    log = LOG.model_copy(update={"account": account})
    for accounts, employees in ((("E001", "E'3\\"), "1, 3"), (("' OR true --",), "NULL")):
        extract = create(source, store, recipients, LogQuery(MAPPED, log, accounts=accounts))
        statement = f"SELECT {COLUMNS} FROM access_log a WHERE employee_id IN ({employees})"
        assert content(store, extract, operations.opening) == plain(source, statement)
        assert extract.rows == (0 if employees == "NULL" else 6)
        assert extract.accounts == accounts


def test_extract_without_rows_contains_header(
    source: DatabaseAddress, any_store: ObjectStore, recipients: list[Recipient], operations: Holder
):
    extract = create(source, any_store, recipients, replace(WIDE_WHOLE, until=minute(0)))
    assert (extract.rows, extract.first, extract.last) == (0, None, None)
    header = b"access_id,purpose,accessed_at\n"
    assert content(any_store, extract, operations.opening) == header


def test_existing_extract_is_verified_and_not_created_again(
    source: DatabaseAddress, any_store: ObjectStore, recipients: list[Recipient]
):
    first = create(source, any_store, recipients)
    before = any_store.stat(KEY)

    def never(_: Extract) -> None:
        raise AssertionError("it was create again")

    shorter = replace(WHOLE, until=minute(3))
    second = create(
        source, any_store, recipients, shorter, keep=never, existing=first, lock_until=LATER
    )
    assert second == first
    after = any_store.stat(KEY)
    assert (after.modified_at, after.version_id) == (before.modified_at, before.version_id)
    assert after.locked_until is not None
    assert (
        create(source, any_store, recipients, keep=never, existing=first, lock_until=NOW) == first
    )
    with pytest.raises(UsageError, match="not elsewhere"):
        create(source, any_store, recipients, keep=never, existing=first, key="elsewhere")


def test_changed_or_missing_extract_raises_error(
    source: DatabaseAddress, store: DirectoryStore, recipients: list[Recipient]
):
    first = create(source, store, recipients)
    path = Path(store.description) / KEY
    flip(path)
    with pytest.raises(ObjectDamaged):
        create(source, store, recipients, existing=first)
    path.unlink()
    with pytest.raises(ObjectMissing):
        create(source, store, recipients, existing=first)


def test_extract_is_created_again_if_description_was_not_stored(
    source: DatabaseAddress, any_store: ObjectStore, recipients: list[Recipient]
):
    def lost(_: Extract) -> None:
        raise ServiceError("the state database is down")

    with pytest.raises(ServiceError, match="state database"):
        create(source, any_store, recipients, keep=lost, lock_until=LATER)
    descriptions: list[Extract] = []
    extract = create(source, any_store, recipients, keep=descriptions.append, lock_until=LATER)
    any_store.verify(descriptions[0].stored)
    assert extract.sha256_stored == hashlib.sha256(any_store.get(KEY)).hexdigest()


def test_decryption_refuses_extract_that_was_replaced_by_another_extract(
    source: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    operations: Holder,
    stranger: OpeningKey,
):
    first = create(source, store, recipients)
    with pytest.raises(ContentRefused, match="does not belong"):
        content(store, first, stranger)
    other = first.model_copy(
        update={
            "encryption": first.encryption.model_copy(
                update={"context": {**CONTEXT, "incident": "INC-2026-0002"}}
            )
        }
    )
    with pytest.raises(ContentRefused, match="as another object"):
        content(store, other, operations.opening)
    create(source, store, recipients, replace(WHOLE, until=minute(3)))
    with pytest.raises(ContentRefused, match="not the extract that was recorded"):
        content(store, first, operations.opening)


def test_lock_of_extract_is_not_shortened_by_call_with_earlier_lock_end(
    source: DatabaseAddress, store: DirectoryStore, recipients: list[Recipient]
):
    first = create(source, store, recipients, lock_until=LATER)
    create(source, store, recipients, existing=first, lock_until=NOW + timedelta(days=1))
    assert store.stat(KEY).locked_until == LATER
    with pytest.raises(ObjectLocked):
        create(source, store, recipients)


def test_documented_commands_decrypt_and_verify_extract(
    source: DatabaseAddress, tmp_path: Path, recipients: list[Recipient], operations: Holder
):
    store = DirectoryStore(tmp_path / "store")
    (tmp_path / "store").mkdir()
    extract = create(source, store, recipients)
    (tmp_path / "extract.courier.1.json").write_bytes(extract.as_bytes())
    (tmp_path / "escrow.key").write_bytes(operations.private_pem)
    runbook = (ROOT / "docs" / "how-to" / "restore-without-parcelseal.md").read_text()
    script = runbook.split("decrypt.py\" <<'END'\n")[1].split("\nEND\n")[0]
    (tmp_path / "decrypt.py").write_text(script)
    (block,) = re.findall(
        r"^```sh\n(RECORD=.*?)^```$",
        (ROOT / "docs" / "how-to" / "check-a-bundle.md").read_text(),
        re.DOTALL | re.MULTILINE,
    )
    block = block.replace("/mnt/evidence", "store").replace("/media/escrow/", "")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = ["bash", "-c", block]
    environment = {"PATH": path, "HOME": str(tmp_path)}
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "12 rows, as the server counted" in result.stdout
    expected = plain(source, f"SELECT {COLUMNS} FROM access_log a")
    assert (tmp_path / "access.csv").read_bytes() == expected
    key = tmp_path / "store" / extract.key
    flip(key)
    second_result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert second_result.returncode != 0
    assert "FAILED" in second_result.stdout
