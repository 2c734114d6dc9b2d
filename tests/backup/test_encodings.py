"""Test that databases with other encodings than UTF8 are backed up and restored byte by byte."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from include.backup.access import TargetAccess
from include.backup.drill import DrillTarget
from include.backup.restore import restore
from include.encryption.recipients import Recipient
from include.evidence.model import Outcome
from include.evidence.signing import Signer
from include.schema.survey import survey
from include.services.database import DatabaseAddress, unreadable_text
from include.services.errors import UsageError
from include.services.objectstore.directory import DirectoryStore
from tests.backup.drill_rig import Rig
from tests.backup.support import SEEN, Taken, mapped, rows, run, take
from tests.support.databases import pooled
from tests.support.holders import NOW, Holder

C_LOCALE = "TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C' ENCODING '{}'"
COURIER = f"""
CREATE TABLE customer (id int PRIMARY KEY, name text, seen timestamptz);
CREATE TABLE waybill (id int PRIMARY KEY);
INSERT INTO customer VALUES (1, 'plain', '{NOW}');
INSERT INTO waybill SELECT generate_series(1, 3);
"""
# Bytes that the encoding of the database accepts. The last two have no equivalent in UTF8.
NAMES = {
    "SQL_ASCII": b"caf\xe9 \xff\xb0\xa1",
    "LATIN1": "café ÿ".encode("latin-1"),
    "EUC_CN": "客户".encode("gb2312") + b"\xaa\xa1",
}
TABLE_NAMES = {"SQL_ASCII": "客户", "LATIN1": "Straße", "EUC_CN": "客户"}
GERMAN_OR_CHINESE = pytest.mark.parametrize("encoding", list(NAMES))


def raw(address: DatabaseAddress, statement: bytes) -> list[tuple[bytes, ...]]:
    """Execute a statement that is written in the encoding of the database."""
    with address.connect() as conn:
        result = conn.pgconn.exec_(b"SET client_encoding = 'SQL_ASCII'")
        result = conn.pgconn.exec_(statement)
        assert result.status in (1, 2), result.error_message
        conn.pgconn.exec_(b"COMMIT")
        return [
            tuple(result.get_value(row, column) or b"" for column in range(result.nfields))
            for row in range(result.ntuples)
        ]


@pytest.fixture
def new_taken(
    new_database: Callable[..., DatabaseAddress],
    store: DirectoryStore,
    recipients: list[Recipient],
    signer: Signer,
) -> Callable[[str], tuple[DatabaseAddress, Taken]]:
    """Return a function that creates and backs up a database with a given encoding."""

    def new(encoding: str) -> tuple[DatabaseAddress, Taken]:
        original = new_database(COURIER, options=C_LOCALE.format(encoding))
        raw(original, b"UPDATE customer SET name = '" + NAMES[encoding] + b"'")
        run(
            original,
            f'CREATE TABLE "{TABLE_NAMES[encoding]}" (id int); '
            f'GRANT SELECT ON "{TABLE_NAMES[encoding]}" TO pg_monitor',
        )
        return original, take(original, store, recipients, signer, columns=[SEEN])

    return new


@GERMAN_OR_CHINESE
def test_restore_drill_of_database_with_encoding_other_than_utf8_passes(
    encoding: str,
    new_taken: Callable[[str], tuple[DatabaseAddress, Taken]],
    operations: Holder,
    server: DatabaseAddress,
    state: Engine,
) -> None:
    original, taken = new_taken(encoding)
    source = taken.source(operations.opening)
    record = Rig(source, DrillTarget(server), server, original, state).drill(mapped())
    assert (record.outcome, record.findings) == (Outcome.PASS, [])
    assert record.data["compared"] == 3


@GERMAN_OR_CHINESE
def test_restore_keeps_bytes_of_texts_if_original_and_target_have_the_same_non_utf8_encoding(
    encoding: str,
    new_taken: Callable[[str], tuple[DatabaseAddress, Taken]],
    new_database: Callable[..., DatabaseAddress],
    operations: Holder,
) -> None:
    """A table has a name that is not ASCII. The grants on it are restored too."""
    _, taken = new_taken(encoding)
    target = new_database(options=C_LOCALE.format(encoding))
    access = TargetAccess(target, owners=True, is_new=True)
    restored = restore(taken.source(operations.opening), target, prepare=access.close, owners=True)
    access.open()
    assert restored.differences == ()
    assert raw(target, b"SELECT name FROM customer") == [(NAMES[encoding],)]
    query = "SELECT has_table_privilege('pg_monitor', quote_ident('{}'), 'SELECT')"
    assert rows(target, query.format(TABLE_NAMES[encoding])) == [(True,)]


def test_restore_raises_usage_error_if_texts_are_invalid_in_encoding_of_target(
    new_taken: Callable[[str], tuple[DatabaseAddress, Taken]],
    target: DatabaseAddress,
    operations: Holder,
) -> None:
    _, taken = new_taken("EUC_CN")
    with pytest.raises(UsageError, match="bytes that are invalid in its encoding") as refused:
        restore(taken.source(operations.opening), target)
    assert "ENCODING" in refused.value.action


@pytest.mark.parametrize(
    ("encoding", "reason"),
    [
        ("EUC_CN", "lacks a conversion of texts from EUC_CN to LATIN1"),
        ("SQL_ASCII", r"lacks the encoding SQL_ASCII of the backup \(it has LATIN1\)"),
    ],
)
def test_restore_raises_usage_error_if_texts_cannot_be_converted_to_encoding_of_target(
    encoding: str,
    reason: str,
    new_taken: Callable[[str], tuple[DatabaseAddress, Taken]],
    new_database: Callable[..., DatabaseAddress],
    operations: Holder,
) -> None:
    """PostgreSQL would accept bytes of an SQL_ASCII database that are invalid in the target."""
    _, taken = new_taken(encoding)
    target = new_database(options=C_LOCALE.format("LATIN1"))
    with pytest.raises(UsageError, match=reason):
        restore(taken.source(operations.opening), target)


def test_backup_raises_usage_error_if_a_table_name_is_not_utf8(
    new_database: Callable[..., DatabaseAddress],
    store: DirectoryStore,
    recipients: list[Recipient],
    signer: Signer,
) -> None:
    """Manifests and findings contain table names in UTF-8."""
    original = new_database(COURIER, options=C_LOCALE.format("SQL_ASCII"))
    raw(original, b'CREATE TABLE "caf\xe9" (id int)')
    with pytest.raises(UsageError, match="not UTF-8") as refused:
        take(original, store, recipients, signer)
    assert "RENAME" in refused.value.action
    assert list(store.list()) == []


@pytest.mark.parametrize("through_sqlalchemy", [False, True])
def test_error_of_reading_text_that_is_not_utf8_is_converted_to_usage_error(
    new_database: Callable[..., DatabaseAddress], through_sqlalchemy: bool
) -> None:
    """Workflows other than backups also read such a database. A retry would read the same text."""
    original = new_database(COURIER, options=C_LOCALE.format("SQL_ASCII"))
    raw(original, b"UPDATE customer SET name = '" + NAMES["SQL_ASCII"] + b"'")
    engine = pooled(original.conninfo())

    def read() -> None:
        if through_sqlalchemy:
            with engine.connect() as connection:
                connection.exec_driver_sql("SELECT name FROM customer")
        rows(original, "SELECT name FROM customer")

    with pytest.raises(Exception, match="invalid byte sequence") as failed:
        read()
    error = unreadable_text(failed.value)
    assert isinstance(error, UsageError)
    assert "SQL_ASCII" in error.message
    assert "0xe9" not in str(error)


def test_data_map_survey_raises_usage_error_if_a_table_name_is_not_utf8(
    new_database: Callable[..., DatabaseAddress],
) -> None:
    """Values that are not UTF-8 are accepted, because no value leaves the database."""
    original = new_database(COURIER, options=C_LOCALE.format("SQL_ASCII"))
    raw(original, b"UPDATE customer SET name = '" + NAMES["SQL_ASCII"] + b"'")
    with original.connect() as connection:
        assert survey(connection, name="courier").tables == 2
    raw(original, b'CREATE TABLE "caf\xe9" (id int)')
    with original.connect() as connection, pytest.raises(UsageError, match="read as UTF-8"):
        survey(connection, name="courier")
