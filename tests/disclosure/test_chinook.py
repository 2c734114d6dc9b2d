"""The workflows for the use of information on Chinook, a schema of a third party."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
import pyzipper

from include.disclosure.approval import APPROVE, APPROVE_SECOND
from include.disclosure.delivery import DELIVER
from include.disclosure.opening import open_extract
from include.disclosure.use_check import CHECK, prepare_request
from include.disclosure.use_form import make_content
from include.local.postgres import EmbeddedPostgres
from include.registry import load_pack
from include.service_container import Services
from include.services.connections import ConnectionSpec
from tests.disclosure.use_fixtures import UseCompany, new_company
from tests.retention.chinook_pack import DATABASE
from tests.support.contexts import connection

PACK = Path(__file__).parents[2] / "examples" / "packs" / "chinook"


class ChinookStore(UseCompany):
    """The music store, with the example's policy pack."""

    @property
    def services(self) -> Services:
        """Services with the connection that the example's data map names."""
        base = super().services
        database = connection("customer_db", self.source)

        def lookup(conn_id: str) -> ConnectionSpec | None:
            return database if conn_id == "customer_db" else base.lookup(conn_id)

        return replace(base, lookup=lookup)


@pytest.fixture
def store(postgres: EmbeddedPostgres, migrated_once: str, tmp_path: Path) -> Iterator[ChinookStore]:
    """Provide the music store with its customers."""
    with new_company(postgres, migrated_once, tmp_path / "extracts") as company:
        with psycopg.connect(company.source, autocommit=True) as database:
            database.execute("DROP TABLE customer, roster")
            database.execute(DATABASE.read_text(encoding="utf-8"))
        yield ChinookStore(
            company.source, company.state, company.folder, company.clock, load_pack(PACK),
            company.extract_spec,
        )  # fmt: skip


def test_support_agent_gets_masked_customers_of_a_country_after_two_approvals(
    store: ChinookStore,
) -> None:
    content = make_content(
        {
            "requester": "3",
            "purpose": "support",
            "database": "chinook",
            "collection": "customer",
            "fields": ["customer_id", "first_name", "last_name", "phone", "email", "country"],
            "filters": [{"column": "country", "kind": "code", "values": ["Brazil"]}],
            "days": 5,
            "case": "T-1",
            "form": "zip",
        },
        frozenset(),
    )
    context = store.context()
    with store.state.begin() as conn:
        request = prepare_request(context, conn, content, frozenset(), store.clock.now())
    assert request.plan.refused_fields == ("country",)
    allowed = content.model_copy(update={"fields": content.fields[:-1]})
    with store.state.begin() as conn:
        request = prepare_request(context, conn, allowed, frozenset(), store.clock.now())
    run = store.start(by="3", request=request.id)
    run.step(CHECK)
    run.answer(APPROVE, "2")  # the sales manager
    run.answer(APPROVE_SECOND, "1")  # the general manager
    run.step(DELIVER)
    opened = open_extract(
        store.state, store.store, store.clock, request.id, person="3", channel="command"
    )
    with pyzipper.AESZipFile(io.BytesIO(b"".join(opened.pieces))) as archive:
        archive.setpassword(store.password(request.id).encode())
        text = archive.read(f"extract-{request.id}.csv").decode("utf-8-sig")
    with psycopg.connect(store.source) as database:
        expected = database.execute(
            "SELECT count(*) FROM customer WHERE country = 'Brazil'"
        ).fetchone()
    lines = text.splitlines()
    assert (len(lines) - 1,) == expected
    assert lines[1].startswith("1,Luís,G**,")
    assert lines[1].endswith(",")  # the mail address has no mask in use.yaml and stays empty
