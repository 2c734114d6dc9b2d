"""Tests that missing rights for queries of the policy pack are found, however names are written."""

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
    """Yield the session of a role without rights. Its changes are rolled back."""
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
def test_lacks_query_returns_the_grant_statement_for_a_missing_right(
    login: Login, query: str, grant: str
) -> None:
    """PostgreSQL folds unquoted names to lower case; quoted names may have any character."""
    (missing,) = lacks_query(login, query, RIGHTS)
    assert missing.grant == f'{grant} "{ROLE}";'
    login.connection.execute("RESET ROLE")
    login.connection.execute(missing.grant.encode())
    login.connection.execute(f"SET LOCAL ROLE {ROLE}".encode())
    assert list(lacks_query(login, query, RIGHTS)) == []


def test_lacks_query_raises_usage_error_if_right_on_a_function_is_missing(login: Login) -> None:
    """The check must not pass if it has no GRANT statement to print."""
    with pytest.raises(UsageError, match="permission denied for function secret"):
        list(lacks_query(login, "SELECT secret()", RIGHTS))
