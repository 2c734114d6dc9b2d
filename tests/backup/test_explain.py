"""Test the message of a failed pg_restore: the cause in one line, without values of rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.backup.explain import explain
from include.backup.restore import restore
from include.encryption.recipients import Recipient
from include.evidence.signing import Signer
from include.services.database import DatabaseAddress
from include.services.errors import ServiceError, UsageError
from include.services.objectstore.directory import DirectoryStore
from tests.backup.support import run, take
from tests.support.holders import Holder

TARGET = DatabaseAddress.from_conninfo("host=/run/x dbname=copy user=u password=hidden")
SECRET = "王小明13800138000"
HEAD = "pg_restore: while PROCESSING TOC:\npg_restore: from TOC entry 217; 0 16386 TABLE DATA x\n"


def told(message: str, *more: str) -> str:
    lines = [f'{HEAD}pg_restore: error: COPY failed for table "customer": ERROR:  {message}', *more]
    return str(explain("\n".join(lines), TARGET))


@pytest.mark.parametrize(
    ("message", "more", "kept"),
    [
        (
            'duplicate key value violates unique constraint "customer_pkey"',
            [f"DETAIL:  Key (phone)=({SECRET}) already exists."],
            'duplicate key value violates unique constraint "customer_pkey"',
        ),
        (
            f'invalid input syntax for type integer: "{SECRET}"',
            [f'CONTEXT:  COPY customer, line 1, column id: "{SECRET}"'],
            "invalid input syntax for type integer",
        ),
        (f'value "{SECRET}" is out of range for type smallint', [], "is out of range for type"),
        (f'"{SECRET}" is not a valid binary digit', [], "failed"),
        (f'invalid input value for enum mood: "{SECRET}"', [], "invalid input value for enum mood"),
        (f'malformed array literal: "{{"{SECRET}"}}"', ["DETAIL:  x"], "malformed array literal"),
        (f'invalid input syntax for type integer: "a"b{SECRET}"', [], "invalid input syntax"),
        (f'invalid input syntax for type integer: "a"b"{SECRET}', [], "invalid input syntax"),
        (f'invalid input syntax for type integer: "customer"{SECRET}"', [], "invalid input"),
        (f'invalid input syntax for type integer: "a\n{SECRET}"', [], "invalid input syntax"),
        (f'invalid input syntax for type integer: "\nDETAIL: {SECRET}"', [], "invalid input"),
        (f'invalid input syntax for type integer: "ERROR:  {SECRET}"', [], "invalid input"),
        (f'invalid input syntax for type integer: "\npg_restore: error: {SECRET}', [], "invalid"),
        (
            f'invalid input syntax for type integer: "x" is out of range for type {SECRET}',
            [],
            "inv",
        ),
        (
            'null value in column "name" of relation "customer" violates not-null constraint',
            [f"DETAIL:  Failing row contains ({SECRET}, null)."],
            'null value in column "name" of relation "customer" violates not-null constraint',
        ),
        ('invalid byte sequence for encoding "UTF8": 0xe7 0x8e', [], 'for encoding "UTF8"'),
        (
            f"customer {SECRET} is not allowed",
            ["CONTEXT:  PL/pgSQL function public.refuse() line 2 at RAISE", "COPY customer"],
            "a function of the database raised an error",
        ),
        (
            f"customer {SECRET} is not allowed",
            [f"CONTEXT:  COPY customer, line 1: {SECRET}", 'SQL function "f" statement 1'],
            "a function of the database raised an error",
        ),
        (f"bad value '{SECRET}' in geometry", [], "see the log of its server"),
        ('could not extend file "base/5/16384": No space left on device', [], "is full"),
    ],
)
def test_explained_pg_restore_error_states_the_cause_and_contains_no_values_of_rows(
    message: str, more: list[str], kept: str
):
    """Values may be quoted, nested, in several lines, in details, or raised by functions."""
    line = told(message, *more)
    assert SECRET not in line
    assert "0x8e" not in line
    assert kept in line
    assert "\n" not in line
    assert "hidden" not in line


@given(value=st.text(min_size=8))
def test_explained_pg_restore_error_contains_no_quoted_value_of_a_row(value: str):
    """A value may contain quotes, newlines and words of server messages."""
    marked = f"<{value}>"
    for message in (
        f'invalid input syntax for type integer: "{marked}"',
        f'value "{marked}" is out of range for type integer',
    ):
        line = told(message, f"DETAIL:  {marked}", f"CONTEXT:  COPY customer, line 1: {marked}")
        assert marked not in line
        assert f"{marked}"[:8] not in line


def test_explained_pg_restore_error_states_which_extension_or_role_is_missing():
    start = "pg_restore: error: could not execute query: ERROR:  "
    lacks = explain(f'{start}extension "postgis" is not available\nDETAIL: x', TARGET)
    assert isinstance(lacks, UsageError)
    assert "lacks the extension postgis" in lacks.message
    role = explain(f'{start}role "clerk" does not exist\nCommand was: ALTER', TARGET)
    assert isinstance(role, UsageError)
    assert 'role "clerk" does not exist' in role.message


def test_explained_pg_restore_error_quotes_a_read_error_and_mentions_if_there_was_no_message():
    """A killed pg_restore prints nothing.

    A lost connection is not an ERROR message of the server.
    """
    assert "no message" in str(explain("", TARGET))
    lost = "pg_restore: error: could not read from input file: end of file"
    assert "could not read from input file" in str(explain(lost, TARGET))


ZH_CONTEXT = "CONTEXT:  在第2行的RAISE处的PL/pgSQL函数refuse()"
ES_CONTEXT = "CONTEXTO:  función PL/pgSQL refuse() en la línea 2 en RAISE"


@pytest.mark.parametrize(
    ("server_text", "context"),
    [
        (f"错误:  customer with phone {SECRET} is not known", ZH_CONTEXT),
        (f"致命错误:  customer with phone {SECRET} is not known", ZH_CONTEXT),
        (f"ERROR:  customer with phone {SECRET} is not known", ES_CONTEXT),
        (f"ERROR:  la sintaxis no es válida: {SECRET}", "CONTEXTO:  COPY customer, línea 1"),
        (f"错误:  ERROR:  relation {SECRET} already exists", ZH_CONTEXT),
        (f"错误:  无效的类型 integer 输入语法: {SECRET}", ""),
        (f"错误:  {SECRET}: ERROR:  deadlock detected", ZH_CONTEXT),
    ],
)
def test_explained_pg_restore_error_omits_message_of_server_whose_language_is_not_english(
    server_text: str, context: str
):
    """The server's `lc_messages` translates the severity and the context, but not a RAISE text."""
    output = f'{HEAD}pg_restore: error: COPY failed for table "customer": {server_text}\n{context}'
    error = explain(output, TARGET)
    assert SECRET not in str(error)
    assert error.message == (
        "pg_restore into copy on /run/x failed: "
        'COPY failed for table "customer"; see the log of its server.'
    )


@pytest.mark.parametrize(
    "message",
    [
        f"customer {SECRET} is not allowed",
        f'duplicate key of {SECRET} violates unique constraint "customer_pkey"',
        f"permission denied for customer {SECRET}",
        f'relation "customer" of {SECRET} already exists',
    ],
)
def test_explained_pg_restore_error_omits_unknown_message_of_the_server(message: str):
    """A function of the application may raise any text, even without a CONTEXT line."""
    line = told(message)
    assert SECRET not in line
    assert "see the log of its server" in line


@pytest.mark.parametrize(
    "message",
    [
        'function public.f(text, "Mood") does not exist',
        'relation "customer" already exists',
        'type "public.mood" does not exist',
        'column "size" of relation "customer" does not exist',
        'unrecognized configuration parameter "transaction_timeout"',
        'unrecognized parameter "autosummarize"',
        "permission denied for schema public",
        'permission denied to create extension "postgis"',
        "must be owner of table customer",
        'could not create unique index "customer_name"',
        'new row for relation "t" violates check constraint "c"',
        'insert or update on table "a" violates foreign key constraint "b"',
        'check constraint "c" of relation "t" is violated by some row',
        "value too long for type character varying(5)",
        "canceling statement due to statement timeout",
        "terminating connection due to administrator command",
        "deadlock detected",
        "out of memory",
        "syntax error at or near",
        'language "plpython3u" does not exist',
        'could not access file "$libdir/postgis-3": No such file or directory',
    ],
)
def test_explained_pg_restore_error_quotes_known_messages_of_the_server(message: str):
    """These messages name objects of the schema. Readers need these names."""
    assert f"failed: {message}." in told(message)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (
            'connection to server on socket "/x" failed: 致命错误:  x',
            "connection to server on socket",
        ),
        ('connection to server at "h", port 1 failed: Connection refused', "connection to server"),
        ("could not execute query: server closed the connection unexpectedly", "unexpectedly"),
        ("error returned by PQputCopyData: SSL connection has been closed", "has been closed"),
    ],
)
def test_explained_pg_restore_error_quotes_messages_of_pg_restore_itself(text: str, kept: str):
    """pg_restore and libpq write English messages, because `environment` sets their language."""
    assert kept in str(explain(f"pg_restore: error: {text}", TARGET))


RAISES = "RAISE EXCEPTION 'no place for %', name;"
DOUBLES = f"name := '{SECRET}';"


INDEX = "CREATE UNIQUE INDEX u ON t (public.key(name))"
CHECK = "ALTER TABLE t ADD CONSTRAINT c CHECK (public.key(name) = name)"


@pytest.mark.parametrize(
    ("body", "constraint", "kept"),
    [
        (RAISES, INDEX, "a function"),
        (DOUBLES, INDEX, "could not create unique index"),
        (DOUBLES, CHECK, "CHECK constraint c of public.t, which calls a function"),
    ],
)
def test_error_of_failed_restore_does_not_show_values_of_rows(
    source: DatabaseAddress,
    target: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    signer: Signer,
    operations: Holder,
    body: str,
    constraint: str,
    kept: str,
):
    """The server repeats a row in its error message while rows are loaded or indexes are built."""
    run(
        source,
        f"""CREATE FUNCTION public.key(name text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
        BEGIN IF current_database() LIKE 'r_%' THEN {body} END IF; RETURN name; END $$;
        CREATE TABLE t (name text);
        INSERT INTO t VALUES ('{SECRET}'), ('another');
        {constraint};""",
    )
    taken = take(source, store, recipients, signer)
    with pytest.raises(ServiceError, match=kept) as error:
        restore(taken.source(operations.opening), target)
    assert SECRET not in str(error.value)
