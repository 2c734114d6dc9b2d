"""Test drills and restores of databases from the PostgreSQL server of a Linux distribution.

Drills and restores use the embedded server, which has fewer features.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine

from include.backup.drill import DrillTarget, require_drill_server
from include.backup.restore import restore
from include.backup.source import Source
from include.encryption.recipients import Recipient
from include.evidence.model import Outcome
from include.evidence.signing import Signer
from include.local.postgres import EmbeddedPostgres
from include.services.database import DatabaseAddress
from include.services.errors import UsageError
from include.services.objectstore.directory import DirectoryStore
from tests.backup.drill_rig import Rig
from tests.backup.support import SEEN, rows, take
from tests.support.holders import NOW, Holder
from tests.support.servers import WITH_ICU, icu_server

pytestmark = pytest.mark.postgres(WITH_ICU)

COURIER = f"""
CREATE TABLE customer (id int PRIMARY KEY, name text, seen timestamptz);
CREATE TABLE waybill (id int PRIMARY KEY, customer int REFERENCES customer);
INSERT INTO customer SELECT n, 'name ' || n, '{NOW}' FROM generate_series(1, 9) n;
INSERT INTO waybill SELECT n, n FROM generate_series(1, 9) n;
"""
LIKE_EMBEDDED = (
    "TEMPLATE template0 LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C.UTF-8'"
)
NEEDY = f"""
CREATE SCHEMA ext; CREATE EXTENSION pgcrypto SCHEMA ext; CREATE EXTENSION hstore;
CREATE COLLATION phonebook (provider = icu, locale = 'de-u-co-phonebk');
CREATE TABLE street (name text COLLATE "sv-x-icu", note text COLLATE "C", tags hstore);
INSERT INTO street VALUES ('Ö', 'o', 'a=>1');
{COURIER}
"""
# The names of the refusal, in its order.
MISSING = ("the extension pgcrypto; ", "the collation sv-x-icu; ", "COLLATION public.phonebook")


@pytest.fixture(scope="module")
def icu() -> Iterator[EmbeddedPostgres]:
    with icu_server() as server:
        yield server


@pytest.fixture(scope="module")
def new_original(icu: EmbeddedPostgres) -> Callable[..., DatabaseAddress]:
    """Return a function that creates databases on the distribution's server."""

    def new(fill: str, options: str = "") -> DatabaseAddress:
        name = f"o_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(icu.conninfo("postgres"), autocommit=True) as admin:
            admin.execute(sql.SQL(f"CREATE DATABASE {name} {options}"))  # type: ignore[arg-type]
        address = DatabaseAddress.from_conninfo(icu.conninfo(name))
        with address.connect() as conn:
            conn.execute(fill)  # type: ignore[arg-type]
        return address

    return new


@pytest.fixture
def new_rig(
    store: DirectoryStore,
    recipients: list[Recipient],
    signer: Signer,
    operations: Holder,
    server: DatabaseAddress,
    state: Engine,
) -> Callable[..., Rig]:
    """Return a function that backs up a database for a drill, by default on the embedded server."""

    def new(original: DatabaseAddress, drill_server: DatabaseAddress = server) -> Rig:
        taken = take(original, store, recipients, signer, columns=[SEEN])
        target = DrillTarget(drill_server)
        return Rig(taken.source(operations.opening), target, drill_server, original, state)

    return new


def test_restore_drill_on_older_patch_release_passes_with_backup_of_newer_patch_release(
    new_original: Callable[..., DatabaseAddress], new_rig: Callable[..., Rig]
) -> None:
    """Since November 2026, servers store versions of columns, which an older pg_dump writes."""
    n_distinct = "ALTER TABLE customer ALTER id SET (n_distinct = 5);"
    rig = new_rig(new_original(COURIER + n_distinct, LIKE_EMBEDDED))
    record = rig.drill()
    assert (record.outcome, record.findings) == (Outcome.PASS, [])
    assert record.data["rows"] == 18


@pytest.fixture(scope="module")
def needy(new_original: Callable[..., DatabaseAddress]) -> DatabaseAddress:
    """Return a database that needs ICU and pgcrypto. Tests only read it."""
    return new_original(NEEDY)


def test_drill_reports_all_missing_features_of_the_server_before_it_reads_the_dump(
    needy: DatabaseAddress, new_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = new_rig(needy)
    with pytest.raises(UsageError) as refused:
        require_drill_server(rig.source, rig.server)
    assert [name for name in MISSING if name not in refused.value.message] == []
    assert "hstore" not in refused.value.message
    assert "connection drill_db" in refused.value.action
    monkeypatch.setattr(Source, "check", pytest.fail)
    with pytest.raises(UsageError, match="lacks the extension pgcrypto; the collation sv-x-icu"):
        rig.drill()
    assert rig.scratch_left() == []


def test_restore_reports_all_missing_features_of_the_server_and_loads_nothing(
    needy: DatabaseAddress,
    target: DatabaseAddress,
    new_rig: Callable[..., Rig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = new_rig(needy).source
    monkeypatch.setattr(Source, "check", pytest.fail)
    with pytest.raises(UsageError) as refused:
        restore(source, target)
    assert [name for name in MISSING if name not in refused.value.message] == []
    assert rows(target, "SELECT count(*) FROM pg_class WHERE relname = 'customer'") == [(0,)]


def test_restore_drill_passes_on_server_with_all_extensions_and_collations_of_the_original(
    needy: DatabaseAddress, icu: EmbeddedPostgres, new_rig: Callable[..., Rig]
) -> None:
    """The connection drill_db names a server that has all features of the original server."""
    rig = new_rig(needy, DatabaseAddress.from_conninfo(icu.conninfo("postgres")))
    record = rig.drill()
    assert (record.outcome, record.findings) == (Outcome.PASS, [])
    assert record.data["rows"] == 19


def test_restore_drill_needs_attention_if_server_lacks_the_default_collation_of_original(
    new_original: Callable[..., DatabaseAddress],
    new_rig: Callable[..., Rig],
    target: DatabaseAddress,
) -> None:
    """A restore also reports that the collation differs."""
    rig = new_rig(new_original(COURIER))
    (finding,) = rig.drill().findings
    assert (finding.code, finding.severity) == ("drill.locale", Outcome.ATTENTION)
    assert finding.message.values == {"original": "icu de", "copy": "builtin C.UTF-8"}
    lines: list[str] = []
    restore(rig.source, target, progress=lines.append)
    assert lines[0].startswith("the target sorts texts by builtin C.UTF-8, the original by icu de")


XML = "CREATE TABLE customs (id int, form xml); INSERT INTO customs VALUES (1, NULL);"


def test_drill_and_restore_raise_usage_error_if_server_cannot_load_xml_values_of_a_table(
    new_original: Callable[..., DatabaseAddress],
    new_rig: Callable[..., Rig],
    target: DatabaseAddress,
) -> None:
    """The embedded server is built without libxml."""
    value = "INSERT INTO customs VALUES (2, '<no>7</no>');"
    rig = new_rig(new_original(COURIER + XML + value, LIKE_EMBEDDED))
    for load in (rig.drill, lambda: restore(rig.source, target)):
        with pytest.raises(
            UsageError, match='cannot load values of type xml in the table "customs"'
        ) as refused:
            load()
        assert "drill_db" in refused.value.action
        assert "<no>" not in str(refused.value)
    assert rig.scratch_left() == []


def test_restore_drill_passes_on_server_without_libxml_if_xml_column_is_empty(
    new_original: Callable[..., DatabaseAddress], new_rig: Callable[..., Rig]
) -> None:
    assert new_rig(new_original(COURIER + XML, LIKE_EMBEDDED)).drill().outcome is Outcome.PASS


def test_restore_drill_raises_usage_error_if_its_role_may_not_create_an_extension(
    new_original: Callable[..., DatabaseAddress], icu: EmbeddedPostgres, new_rig: Callable[..., Rig]
) -> None:
    """The owner of a database may create trusted extensions such as pgcrypto, but not dblink."""
    with psycopg.connect(icu.conninfo("postgres"), autocommit=True) as admin:
        admin.execute("CREATE ROLE driller LOGIN CREATEDB PASSWORD 'd'")
    driller = DatabaseAddress.from_conninfo(icu.conninfo("postgres", "driller", "d"))
    rig = new_rig(
        new_original(f"CREATE EXTENSION dblink; CREATE EXTENSION pgcrypto;{COURIER}"), driller
    )
    with pytest.raises(UsageError) as refused:
        rig.drill()
    assert "lacks the extension dblink, which only a superuser may create." in refused.value.message
    assert "the connection needs a superuser's login" in (refused.value.action or "")
