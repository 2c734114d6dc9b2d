"""The evidence extract of an access log: whole, encrypted, made once, and nothing by half."""

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

from include.encryption.crypto import Refused, decrypting
from include.encryption.recipients import OpeningKey, Recipient
from include.incident.evidence.extract import Extract, opened
from include.incident.evidence.log_copy import LogQuery
from include.services.database import DatabaseAddress
from include.services.errors import ServiceError, UsageError
from include.services.objectstore.base import (
    ObjectDamaged,
    ObjectLocked,
    ObjectMissing,
    ObjectStore,
)
from include.services.objectstore.directory import DirectoryStore
from include.workplace import ROOT
from tests.incident.evidence.extract_places import any_store, proxy, s3, source, store
from tests.incident.evidence.extract_rig import (
    CONTEXT,
    KEY,
    LOG,
    MAPPED,
    WHOLE,
    WIDE_WHOLE,
    ZONES,
    made,
    minute,
    plain,
    run,
)
from tests.support.damage import flip
from tests.support.holders import NOW, Holder, offline, operations, recipients, stranger

__all__ = ["any_store", "proxy", "s3", "source", "store"]
__all__ += ["offline", "operations", "recipients", "stranger"]

COLUMNS = ", ".join(f'a."{one.replace(chr(34), chr(34) * 2)}"' for one in LOG.columns)
LATER = NOW.replace(microsecond=0) + timedelta(days=30)


def content(store: ObjectStore, one: Extract, key: OpeningKey) -> bytes:
    return b"".join(opened(store, one, key))


def test_the_extract_is_byte_for_byte_what_copy_gives(
    source: DatabaseAddress,
    any_store: ObjectStore,
    recipients: list[Recipient],
    operations: Holder,
    offline: Holder,
):
    """In both stores, for each recipient; line breaks, quotes, end marks and NULL as they are."""
    kept: list[Extract] = []
    one = made(source, any_store, recipients, keep=kept.append, lock_until=LATER)
    expected = plain(source, f"SELECT {COLUMNS} FROM access_log a")
    for holder in (operations, offline):
        assert content(any_store, one, holder.opening) == expected
    assert kept == [one]
    assert (one.rows, one.bytes_csv) == (12, len(expected))
    assert (one.first, one.last) == (minute(0), minute(11))
    assert one.columns == LOG.columns
    assert b"2026-11-24 12:03:00+00" in expected  # UTC, not what the database would print
    stored = any_store.get(KEY)
    assert b"delivery" not in stored
    assert (one.bytes_stored, one.sha256_stored) == (
        len(stored),
        hashlib.sha256(stored).hexdigest(),
    )
    assert any_store.stat(KEY).locked_until == LATER


def test_what_is_recorded_is_enough_to_check_it_without_us(
    source: DatabaseAddress, store: DirectoryStore, recipients: list[Recipient], operations: Holder
):
    """The SDK and zstd alone: digest and size of the packed file, then as many rows."""
    one = made(source, store, recipients)
    record = json.loads(one.as_bytes())
    with store.open_reader(KEY) as reader:
        clear = decrypting(reader, operations.opening, record["encryption"]["context"], "x").read()
    assert hashlib.sha256(clear).hexdigest() == record["sha256_clear"]
    assert len(clear) == record["bytes_clear"]
    assert len(zstandard.decompress(clear, max_output_size=10_000)) == record["bytes_csv"]
    assert {one["key_id"] for one in record["recipients"]} == {
        recipient.key_id for recipient in recipients
    }
    assert Extract.model_validate_json(one.as_bytes()) == one


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
def test_the_window_begins_with_its_first_moment_and_ends_before_its_last(
    source: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    operations: Holder,
    since: Any,
    until: Any,
    expected: Any,
):
    """Half open, to the microsecond."""
    one = made(source, store, recipients, replace(WHOLE, since=since, until=until))
    numbers = ",".join(map(str, expected)) or "NULL"
    statement = f"SELECT {COLUMNS} FROM access_log a WHERE access_id IN ({numbers})"
    assert content(store, one, operations.opening) == plain(source, statement)
    assert one.rows == len(list(expected))
    edges = (minute(expected[0]), minute(expected[-1])) if expected else (None, None)
    assert (one.first, one.last) == edges


@pytest.mark.parametrize(
    ("column", "expected"),
    [("accessed_at", [2, 3, 7]), ("noted", [2, 3, 7]), ("day", [2, 3, 4, 7])],
)
def test_a_moment_without_a_zone_is_meant_in_the_packs(
    source: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    operations: Holder,
    column: str,
    expected: list[int],
):
    """A day is in the window where a part of it is; what has no moment, or none that a calendar
    has, may be in any. What is printed does not depend on the zone.
    """
    run(source, ZONES)
    log = LOG.model_copy(
        update={"collection": "zones", "at": column, "columns": ("access_id", "accessed_at")}
    )
    first, last = minute(0).replace(hour=16), minute(0).replace(hour=18)  # Shanghai: midnight, 2:00
    query = LogQuery(MAPPED, log, first, last, timezone="Asia/Shanghai")
    one = made(source, store, recipients, query)
    numbers = ",".join(map(str, expected))
    text = f"SELECT access_id, accessed_at FROM zones WHERE access_id IN ({numbers})"
    assert content(store, one, operations.opening) == plain(source, text)
    assert one.first == (first if column == "day" else minute(30).replace(hour=16))
    everything = made(source, store, recipients, LogQuery(MAPPED, log, timezone="Asia/Shanghai"))
    assert everything.rows == 7
    assert everything.last == minute(0).replace(day=25, hour=16)


@pytest.mark.parametrize(
    "account", [LOG.account, "(SELECT e.number FROM employee e WHERE e.employee_id=a.employee_id)"]
)
def test_accounts_narrow_it_down(
    source: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    operations: Holder,
    account: Any,
):
    """By their names as people write them, whatever stands in them; nobody is no row at all."""
    log = LOG.model_copy(update={"account": account})
    for accounts, employees in ((("E001", "E'3\\"), "1, 3"), (("' OR true --",), "NULL")):
        one = made(source, store, recipients, LogQuery(MAPPED, log, accounts=accounts))
        statement = f"SELECT {COLUMNS} FROM access_log a WHERE employee_id IN ({employees})"
        assert content(store, one, operations.opening) == plain(source, statement)
        assert one.rows == (0 if employees == "NULL" else 6)
        assert one.accounts == accounts


def test_no_row_is_an_extract_too(
    source: DatabaseAddress, any_store: ObjectStore, recipients: list[Recipient], operations: Holder
):
    """It holds the names of the columns and says that there was nothing."""
    one = made(source, any_store, recipients, replace(WIDE_WHOLE, until=minute(0)))
    assert (one.rows, one.first, one.last) == (0, None, None)
    header = b"access_id,purpose,accessed_at\n"
    assert content(any_store, one, operations.opening) == header


def test_what_is_known_is_verified_and_not_made_again(
    source: DatabaseAddress, any_store: ObjectStore, recipients: list[Recipient]
):
    """The second call writes nothing, not even where the log has other rows by now."""
    first = made(source, any_store, recipients)
    before = any_store.stat(KEY)

    def never(_: Extract) -> None:
        raise AssertionError("it was made again")

    shorter = replace(WHOLE, until=minute(3))
    again = made(source, any_store, recipients, shorter, keep=never, known=first, lock_until=LATER)
    assert again == first
    after = any_store.stat(KEY)
    assert (after.modified_at, after.version_id) == (before.modified_at, before.version_id)
    assert after.locked_until is not None
    assert made(source, any_store, recipients, keep=never, known=first, lock_until=NOW) == first
    with pytest.raises(UsageError, match="not elsewhere"):
        made(source, any_store, recipients, keep=never, known=first, key="elsewhere")


def test_what_is_known_and_not_there_any_more_is_said(
    source: DatabaseAddress, store: DirectoryStore, recipients: list[Recipient]
):
    """Evidence that changed or went is never replaced by new one in silence."""
    first = made(source, store, recipients)
    place = Path(store.description) / KEY
    flip(place)
    with pytest.raises(ObjectDamaged):
        made(source, store, recipients, known=first)
    place.unlink()
    with pytest.raises(ObjectMissing):
        made(source, store, recipients, known=first)


def test_what_could_not_be_kept_is_made_anew(
    source: DatabaseAddress, any_store: ObjectStore, recipients: list[Recipient]
):
    """Stored, and its digests lost: it is not locked yet, so the next attempt replaces it."""

    def lost(_: Extract) -> None:
        raise ServiceError("the state database is down")

    with pytest.raises(ServiceError, match="state database"):
        made(source, any_store, recipients, keep=lost, lock_until=LATER)
    kept: list[Extract] = []
    one = made(source, any_store, recipients, keep=kept.append, lock_until=LATER)
    any_store.verify(kept[0].stored)
    assert one.sha256_stored == hashlib.sha256(any_store.get(KEY)).hexdigest()


def test_an_extract_that_was_exchanged_does_not_open(
    source: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    operations: Holder,
    stranger: OpeningKey,
):
    """Not another incident's, not another one made for this one, not with a stranger's key."""
    first = made(source, store, recipients)
    with pytest.raises(Refused, match="does not belong"):
        content(store, first, stranger)
    other = first.model_copy(
        update={
            "encryption": first.encryption.model_copy(
                update={"context": {**CONTEXT, "incident": "INC-2026-0002"}}
            )
        }
    )
    with pytest.raises(Refused, match="as another object"):
        content(store, other, operations.opening)
    made(source, store, recipients, replace(WHOLE, until=minute(3)))
    with pytest.raises(Refused, match="not the extract that was recorded"):
        content(store, first, operations.opening)


def test_a_longer_lock_is_left_alone(
    source: DatabaseAddress, store: DirectoryStore, recipients: list[Recipient]
):
    """A call that asks for less neither shortens it nor fails."""
    first = made(source, store, recipients, lock_until=LATER)
    made(source, store, recipients, known=first, lock_until=NOW + timedelta(days=1))
    assert store.stat(KEY).locked_until == LATER
    with pytest.raises(ObjectLocked):
        made(source, store, recipients)


def test_the_page_opens_an_extract_without_us(
    source: DatabaseAddress, tmp_path: Path, recipients: list[Recipient], operations: Holder
):
    """Its lines, as printed, with the runbook's script."""
    store = DirectoryStore(tmp_path / "store")
    (tmp_path / "store").mkdir()
    one = made(source, store, recipients)
    (tmp_path / "extract.courier.1.json").write_bytes(one.as_bytes())
    (tmp_path / "escrow.key").write_bytes(operations.private_pem)
    runbook = (ROOT / "docs" / "restore-runbook.md").read_text()
    script = runbook.split("decrypt.py\" <<'END'\n")[1].split("\nEND\n")[0]
    (tmp_path / "decrypt.py").write_text(script)
    (block,) = re.findall(
        r"^```sh\n(RECORD=.*?)^```$",
        (ROOT / "docs" / "evidence.md").read_text(),
        re.DOTALL | re.MULTILINE,
    )
    block = block.replace("/mnt/evidence", "store").replace("/media/escrow/", "")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    words = ["bash", "-c", block]
    environment = {"PATH": path, "HOME": str(tmp_path)}
    done = subprocess.run(
        words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 rows, as the server counted" in done.stdout
    expected = plain(source, f"SELECT {COLUMNS} FROM access_log a")
    assert (tmp_path / "access.csv").read_bytes() == expected
    key = tmp_path / "store" / one.key
    flip(key)
    again = subprocess.run(
        words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert again.returncode != 0
    assert "FAILED" in again.stdout
