"""A company that delivers database logins, through a login that is not a superuser."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from include.local.postgres import EmbeddedPostgres
from include.services.clock import SystemClock
from tests.disclosure.use_fixtures import (
    WITH_LOGINS,
    UseCompany,
    drop_logins,
    new_company,
    new_pack,
)

OWNER = "use_owner"
RIGHTS = """
GRANT USAGE ON SCHEMA public TO use_owner;
GRANT SELECT ON customer, roster TO use_owner;
"""


@pytest.fixture(scope="module")
def shared_company(
    postgres: EmbeddedPostgres, migrated_once: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[UseCompany]:
    """Provide the company that all tests of a module share."""
    with new_company(postgres, migrated_once, tmp_path_factory.mktemp("extracts")) as created:
        with psycopg.connect(created.source, autocommit=True) as admin:
            admin.execute(f"CREATE ROLE {OWNER} LOGIN CREATEROLE PASSWORD 'owner'")
            database = sql.Identifier(admin.info.dbname)
            grant = "GRANT CREATE ON DATABASE {0} TO {1}; GRANT CONNECT ON DATABASE {0} TO {1} "
            grant += "WITH GRANT OPTION; REVOKE CONNECT ON DATABASE {0} FROM PUBLIC"
            admin.execute(sql.SQL(grant).format(database, sql.Identifier(OWNER)))
            admin.execute(RIGHTS)
            created.login = postgres.conninfo(admin.info.dbname, OWNER, "owner")
        yield created
        drop_logins(created.source, OWNER)
        with psycopg.connect(created.source, autocommit=True) as admin:
            admin.execute(f"DROP OWNED BY {OWNER}")
            admin.execute(f"DROP ROLE {OWNER}")


@pytest.fixture
def company(shared_company: UseCompany) -> Iterator[UseCompany]:
    """Provide the company with five customers and without requests.

    Its clock is that of the server, because the view of a login compares its end with that clock.
    """
    shared_company.reset()
    shared_company.pack = new_pack(WITH_LOGINS)
    shared_company.clock.at = SystemClock().now()
    shared_company.add_customers()
    yield shared_company
    drop_logins(shared_company.source, OWNER)
