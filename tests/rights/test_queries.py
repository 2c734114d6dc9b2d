"""Rights for queries of the pack: found however the query writes its names."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from include.rights.declared import query_rights
from include.rights.missing import Login, lacks_query
from include.services.errors import UsageError

ROLE = "query_reader"
RIGHTS = query_rights()


@pytest.fixture
def login(database: str) -> Iterator[Login]:
    """The session of a role without rights; nothing of it is committed."""
    with psycopg.connect(database) as connection:
        connection.execute(
            f"""
            CREATE TABLE customer (id int, name text);
            CREATE TABLE "Kunden Daten" ("ID" int, "a ""b"" c" text);
            CREATE FUNCTION secret() RETURNS int LANGUAGE sql AS 'SELECT 1';
            REVOKE EXECUTE ON FUNCTION secret FROM PUBLIC;
            CREATE ROLE {ROLE};
            SET LOCAL ROLE {ROLE}
            """
        )
        yield Login(connection)
        connection.rollback()


@pytest.mark.parametrize(
    ("query", "grant"),
    [
        ("SELECT ID FROM Customer", 'GRANT SELECT ("id") ON "public"."customer" TO'),
        (
            'SELECT k."ID", "a ""b"" c" FROM "Kunden Daten" k',
            'GRANT SELECT ("ID", "a ""b"" c") ON "public"."Kunden Daten" TO',
        ),
    ],
)
def test_missing_right_of_a_query_is_named(login: Login, query: str, grant: str) -> None:
    """PostgreSQL folds names without quotes, and names in quotes may have any character."""
    (missing,) = lacks_query(login, query, RIGHTS)
    assert missing.grant == f'{grant} "{ROLE}";'
    login.connection.execute("RESET ROLE")
    login.connection.execute(missing.grant.encode())
    login.connection.execute(f"SET LOCAL ROLE {ROLE}".encode())
    assert list(lacks_query(login, query, RIGHTS)) == []


def test_refusal_that_no_table_explains_is_reported(login: Login) -> None:
    """A check that finds no statement to print must not pass."""
    with pytest.raises(UsageError, match="permission denied for function secret"):
        list(lacks_query(login, "SELECT secret()", RIGHTS))
