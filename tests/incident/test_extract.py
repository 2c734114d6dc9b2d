"""The evidence extract of an access log: whole, encrypted, made once, and nothing by half."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import zstandard

from include.encryption.crypto import Refused, decrypting
from include.encryption.recipients import OpeningKey, Recipient
from include.incident.extract import Extract, opened
from include.incident.log_query import LogQuery
from include.local.postgres import EmbeddedPostgres
from include.services.database import DatabaseAddress, DatabaseUnavailable
from include.services.errors import ServiceError, UsageError
from include.services.objectstore.base import (
    ObjectDamaged,
    ObjectLocked,
    ObjectMissing,
    ObjectStore,
    StoreError,
)
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.s3 import S3Store
from tests.incident.extract_rig import (
    CONTEXT,
    FILL,
    KEY,
    LOG,
    MAPPED,
    WHOLE,
    WIDE,
    WIDE_WHOLE,
    ZONES,
    Disturbed,
    made,
    minute,
    plain,
    run,
)
from tests.support.databases import fresh
from tests.support.faulty_proxy import Fault, FaultyProxy
from tests.support.holders import NOW, Holder, offline, operations, recipients, stranger
from tests.support.s3 import client_for, new_bucket, start_moto, unfinished_uploads

__all__ = ["offline", "operations", "recipients", "stranger"]

COLUMNS = ", ".join(f'a."{one.replace(chr(34), chr(34) * 2)}"' for one in LOG.columns)
LATER = NOW.replace(microsecond=0) + timedelta(days=30)


@pytest.fixture(scope="module")
def source(postgres: EmbeddedPostgres) -> Iterator[DatabaseAddress]:
    """The log; tests only read it."""
    with fresh(postgres) as name:
        address = DatabaseAddress.from_conninfo(postgres.conninfo(name))
        run(address, FILL)
        run(address, f"ALTER DATABASE {name} SET timezone = 'Asia/Shanghai'")
        run(address, f"ALTER DATABASE {name} SET statement_timeout = '100ms'")
        yield address


@pytest.fixture(scope="module")
def wide(source: DatabaseAddress) -> DatabaseAddress:
    """With a log of 37 MB beside."""
    run(source, WIDE)
    return source


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path)


@pytest.fixture(scope="module")
def proxy() -> Iterator[FaultyProxy]:
    server = start_moto()
    with FaultyProxy(server.endpoint) as made_one:
        yield made_one
    server.stop()


@pytest.fixture
def s3(proxy: FaultyProxy) -> S3Store:
    client = client_for(proxy.endpoint, max_attempts=2)
    return S3Store(client, new_bucket(client))


@pytest.fixture(params=["store", "s3"])
def any_store(request: pytest.FixtureRequest) -> ObjectStore:
    found: ObjectStore = request.getfixturevalue(request.param)
    return found


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


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"columns": ("access_id", "phone")}, "phone"),
        ({"at": "seen_at"}, "seen_at"),
        ({"account": "a.nobody"}, "nobody"),
        ({"account": "a.access_id); DROP TABLE access_log; --"}, "multiple commands|syntax"),
        ({"account": "1 / (a.access_id - 3)"}, "SQLSTATE 22012"),
        ({"collection": "wide_log"}, "employee_id"),
    ],
)
def test_a_pack_that_does_not_fit_is_named(
    source: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    changes: dict[str, Any],
    said: str,
):
    """With the place in incident.yaml and what is wrong there; nothing is stored."""
    query = LogQuery(MAPPED, LOG.model_copy(update=changes), accounts=("E001",))
    with pytest.raises(UsageError, match=said) as refused:
        made(source, store, recipients, query)
    assert "incident.yaml, scope of courier, access" in refused.value.message
    assert not list(store.list())
    assert plain(source, "SELECT count(*) FROM access_log") == b"count\n12\n"


def test_an_expression_that_fails_in_the_midst_is_named(
    wide: DatabaseAddress, store: DirectoryStore, recipients: list[Recipient]
):
    """Also where only the copy meets the row; the value is not repeated."""
    run(
        wide,
        "CREATE OR REPLACE VIEW bad AS SELECT access_id, accessed_at,"
        " CASE access_id WHEN 11000 THEN purpose::numeric ELSE 0 END AS purpose FROM wide_log",
    )
    tables = {"bad": MAPPED.collections["wide_log"].model_copy(update={"table": "bad"})}
    database = MAPPED.model_copy(update={"collections": {**MAPPED.collections, **tables}})
    query = LogQuery(database, WIDE_WHOLE.log.model_copy(update={"collection": "bad"}))
    with pytest.raises(UsageError, match="SQLSTATE 22P02") as refused:
        made(wide, store, recipients, query)
    assert len(str(refused.value)) < 300
    assert not list(store.list())


def test_a_role_that_may_not_see_all_is_refused(
    source: DatabaseAddress, store: DirectoryStore, recipients: list[Recipient]
):
    """Neither without the right to a column nor where row-level security would hide rows."""
    with psycopg.connect(source.conninfo(), autocommit=True) as conn:
        conn.execute("SET statement_timeout = 0")
        conn.execute("CREATE ROLE clerk_of_incidents LOGIN PASSWORD 'x'")
        try:
            conn.execute("GRANT SELECT (access_id, accessed_at) ON wide_log TO clerk_of_incidents")
            clerk = replace(source, password="x")
            clerk = replace(clerk, parameters={**source.parameters, "user": "clerk_of_incidents"})
            with pytest.raises(UsageError, match="may not read all of the log"):
                made(clerk, store, recipients, WIDE_WHOLE)
            conn.execute("GRANT SELECT ON wide_log TO clerk_of_incidents")
            conn.execute("ALTER TABLE wide_log ENABLE ROW LEVEL SECURITY")
            with pytest.raises(UsageError, match="row-level security"):
                made(clerk, store, recipients, WIDE_WHOLE)
            conn.execute("ALTER TABLE wide_log DISABLE ROW LEVEL SECURITY")
            assert made(clerk, store, recipients, WIDE_WHOLE).rows >= 0
        finally:
            conn.execute("ALTER TABLE wide_log DISABLE ROW LEVEL SECURITY")
            conn.execute("DROP OWNED BY clerk_of_incidents")
            conn.execute("DROP ROLE clerk_of_incidents")


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
    place.write_bytes(place.read_bytes()[:-1] + b"x")
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


def test_without_recipients_nothing_is_copied(source: DatabaseAddress, store: DirectoryStore):
    """Nobody could open it."""
    with pytest.raises(UsageError, match="no recipient"):
        made(source, store, [])
    assert not list(store.list())
    assert not [one for one in psutil.Process().children() if one.name() == "psql"]


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


@pytest.mark.parametrize("application", ["psql", "all"])
def test_a_database_that_is_lost_in_the_midst_leaves_nothing(
    wide: DatabaseAddress, tmp_path: Path, recipients: list[Recipient], application: str
):
    """Whether the copy alone is cut or the server goes; the next attempt is whole."""

    def cut() -> None:
        with psycopg.connect(wide.with_database("postgres").conninfo(), autocommit=True) as conn:
            done = conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
                " AND (query LIKE 'COPY%%' OR %s = 'all')",
                [wide.name, application],
            ).fetchall()
        assert len(done) == {"psql": 1, "all": 2}[application]

    with pytest.raises(DatabaseUnavailable, match=r"cut|lost") as lost:
        made(wide, Disturbed(tmp_path, 2_000_000, cut), recipients, WIDE_WHOLE)
    assert "1f40fc92da24169475" not in str(lost.value)
    store = DirectoryStore(tmp_path)
    assert not list(store.list())
    assert not list(tmp_path.rglob(".*.partial-*"))
    assert made(wide, store, recipients, WIDE_WHOLE).rows == 12_000


def test_a_store_that_goes_down_in_the_midst_shows_nothing(
    wide: DatabaseAddress,
    proxy: FaultyProxy,
    s3: S3Store,
    recipients: list[Recipient],
    operations: Holder,
):
    """Its upload is cleared by the next attempt, which is whole, of several parts."""
    proxy.rule = lambda request: (
        Fault(status=503, code="SlowDown") if request.method in {"PUT", "DELETE"} else None
    )
    try:
        with pytest.raises(StoreError):
            made(wide, s3, recipients, WIDE_WHOLE)
    finally:
        proxy.rule = lambda _: None
    client, bucket = client_for(proxy.endpoint), s3.description.removeprefix("s3://").split("/")[0]
    assert not list(s3.list())
    assert unfinished_uploads(client, bucket) == 1
    assert not [one for one in psutil.Process().children() if one.name() == "psql"]
    one = made(wide, s3, recipients, WIDE_WHOLE, lock_until=LATER)
    assert unfinished_uploads(client, bucket) == 0
    assert one.checksum.endswith("-2")  # two parts
    assert sum(len(piece) for piece in opened(s3, one, operations.opening)) == one.bytes_csv


def test_a_killed_extract_leaves_nothing_and_nobody(
    wide: DatabaseAddress, tmp_path: Path, recipients: list[Recipient], operations: Holder
):
    """No psql works on, nothing is listed, and the next attempt clears what lies there."""
    root = tmp_path / "store"
    root.mkdir()
    told = {
        "root": str(root),
        "conninfo": wide.conninfo(),
        "certificate": operations.certificate_pem.decode(),
    }
    (tmp_path / "told.json").write_text(json.dumps(told))
    words = [sys.executable, "-m", "tests.incident.extract_rig", str(tmp_path / "told.json")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=os.environ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"writing\n"
        helpers = psutil.Process(child.pid).children(recursive=True)
        assert [one.name() for one in helpers] == ["psql"]
        child.kill()
    with suppress(psutil.NoSuchProcess):
        helpers[0].wait(5)
    assert not helpers[0].is_running()
    store = DirectoryStore(root)
    assert not list(store.list())
    assert list(root.rglob(".*.partial-*"))
    assert made(wide, store, recipients, WIDE_WHOLE).rows == 12_000
    assert not list(root.rglob(".*.partial-*"))


def test_the_password_and_the_accounts_are_on_no_command_line(
    wide: DatabaseAddress, tmp_path: Path, recipients: list[Recipient]
):
    """Everybody on the machine can read those."""
    seen: list[str] = []

    def look() -> None:
        (child,) = (one for one in psutil.Process().children() if one.name() == "psql")
        seen.append(" ".join(child.cmdline()))

    log = WIDE_WHOLE.log.model_copy(update={"account": "'E001'"})
    query = LogQuery(MAPPED, log, accounts=("E001",))
    made(wide, Disturbed(tmp_path, 1, look), recipients, query)
    assert wide.password not in seen[0]
    assert "E001" not in seen[0]


def test_a_longer_lock_is_left_alone(
    source: DatabaseAddress, store: DirectoryStore, recipients: list[Recipient]
):
    """A call that asks for less neither shortens it nor fails."""
    first = made(source, store, recipients, lock_until=LATER)
    made(source, store, recipients, known=first, lock_until=NOW + timedelta(days=1))
    assert store.stat(KEY).locked_until == LATER
    with pytest.raises(ObjectLocked):
        made(source, store, recipients)
