"""Deliver logins, use them as requesters do, and list what is left of them."""

from __future__ import annotations

from typing import Any

import psycopg

from include.disclosure.delivery import DELIVER
from include.evidence.model import Outcome
from include.services.database import LOGIN_PREFIX
from tests.disclosure.test_delivery import approved, grant_of
from tests.disclosure.use_fixtures import UseCompany

FIELDS = ["customer_id", "name", "phone", "weight"]


NAMES = "SELECT rolname::text FROM pg_roles WHERE starts_with(rolname, %s)"


def delivered(company: UseCompany, **more: Any) -> int:
    """Deliver a login, and return the number of its request."""
    run, number = approved(company, form="login", **more)
    record = run.step(DELIVER)
    assert record.outcome is not Outcome.FAIL, record.findings
    assert run.verify().outcome is Outcome.PASS
    return number


def log_in(company: UseCompany, number: int) -> psycopg.Connection[Any]:
    """Connect as the requester does: with the user of the file and the password of the mail."""
    return psycopg.connect(
        company.source,
        user=grant_of(company, number).object_key,
        password=company.password(number),
        autocommit=True,
    )


def traces(company: UseCompany) -> list[tuple[Any, ...]]:
    """Return the roles, schemas and sessions of transient logins."""
    return company.execute(
        f"{NAMES} UNION SELECT nspname::text FROM pg_namespace WHERE starts_with(nspname, %s) "
        "UNION SELECT usename::text FROM pg_stat_activity WHERE starts_with(usename, %s)",
        *[LOGIN_PREFIX] * 3,
    )
