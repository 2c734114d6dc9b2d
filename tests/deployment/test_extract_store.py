"""Test the extract store of the stack: its bucket, and the connections of workers and pages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from include.cli.config_connect import extracts
from include.deployment import layout
from include.deployment.prepare import Preparation
from include.disclosure.delivery import DELIVER
from include.disclosure.extract_store import STORE, password_key
from include.disclosure.grants import GrantState
from include.disclosure.opening import open_extract
from include.services.connections import ConnectionSpec, parse
from include.services.errors import UsageError
from include.services.objectstore.s3 import make_s3_client
from include.services.stores import open_store
from tests.disclosure.conftest import company, shared_company
from tests.disclosure.test_delivery import approved, grant_of
from tests.disclosure.use_fixtures import UseCompany
from tests.support.s3 import REGION, MotoServer, new_bucket, start_moto

__all__ = ["company", "shared_company"]  # fixtures


@pytest.fixture(scope="module")
def server(deployed: Path) -> Iterator[MotoServer]:
    """Provide an S3 server on which the init container created the buckets of the stack."""
    moto = start_moto()
    try:
        secrets = deployed / "deploy" / "private"
        work = Preparation(secrets, lambda _: None, {}, moto.endpoint, REGION)
        work.buckets()
        work.buckets()  # each start repeats it
        yield moto
    finally:
        moto.stop()


def connection(deployed: Path, name: str, endpoint: str) -> ConnectionSpec:
    """Return the extract store of a file of connections, on a test server without TLS.

    Args:
        deployed: folder of the deployment.
        name: name of the file of connections.
        endpoint: URL of the test server.
    """
    written = json.loads((deployed / "deploy" / "private" / name).read_text())[STORE]
    extra = {**written["extra_dejson"], "endpoint_url": endpoint, "region_name": REGION}
    del extra["verify"]
    return parse(STORE, json.dumps({**written, "extra_dejson": extra}))


def test_bucket_of_extracts_keeps_versions_and_locks_no_object(server: MotoServer) -> None:
    """The workflow refuses a store that locks new objects, because extracts must be deleted."""
    client = make_s3_client(server.endpoint, REGION, "any", "any")
    bucket = layout.BUCKETS[layout.EXTRACTS]
    assert client.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    with pytest.raises(client.exceptions.ClientError, match="ObjectLockConfigurationNotFound"):
        client.get_object_lock_configuration(Bucket=bucket)


def test_workers_deliver_and_delete_extracts_and_pages_open_them_with_connections_of_the_stack(
    company: UseCompany, deployed: Path, server: MotoServer
) -> None:
    """After the end of the access, no version of the extract is left."""
    company.extract_spec = connection(deployed, "connections_default.json", server.endpoint)
    run, number = approved(company)
    run.step(DELIVER)
    grant = grant_of(company, number)
    assert grant.state is GrantState.DELIVERED
    pages = open_store(connection(deployed, "connections_pages.json", server.endpoint))
    opened = open_extract(
        company.state, pages, company.clock, number, person="clerk", channel="page"
    )
    assert len(b"".join(opened.pieces)) == grant.size
    company.clock.at = grant.expires_at
    company.expire()
    assert grant_of(company, number).state is GrantState.ENDED
    assert list(open_store(company.extract_spec).list_versions()) == []


def test_connection_of_the_pages_has_no_key_for_passwords_of_extracts(
    company: UseCompany, deployed: Path, server: MotoServer
) -> None:
    """An intruder in the API server reads encrypted files, but cannot derive their passwords."""
    company.extract_spec = connection(deployed, "connections_pages.json", server.endpoint)
    with pytest.raises(UsageError, match="no secret for the passwords"):
        password_key(company.context())
    company.extract_spec = connection(deployed, "connections_default.json", server.endpoint)
    assert password_key(company.context())


def test_config_check_accepts_the_extract_store_of_the_stack(
    company: UseCompany, deployed: Path, server: MotoServer
) -> None:
    """Without a connection, nothing is checked, because the use of information is optional."""
    company.extract_spec = connection(deployed, "connections_default.json", server.endpoint)
    assert list(extracts(company.services)) == []
    company.extract_spec = None
    assert list(extracts(company.services)) == []


def test_config_check_reports_an_extract_store_that_locks_new_objects(
    company: UseCompany, deployed: Path, server: MotoServer
) -> None:
    client = make_s3_client(server.endpoint, REGION, "any", "any")
    spec = connection(deployed, "connections_default.json", server.endpoint)
    bucket = new_bucket(client, default_lock_days=1)
    company.extract_spec = replace(spec, extra={**spec.extra, "bucket": bucket})
    (problem,) = extracts(company.services)
    assert problem.connection == STORE
    assert "locks new objects" in problem.message
