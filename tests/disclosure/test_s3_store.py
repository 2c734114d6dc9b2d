"""Extracts in a real S3 server: all versions are deleted, and a bucket that locks is refused."""

from __future__ import annotations

from datetime import timedelta

import pytest

from include.disclosure.delivery import DELIVER
from include.disclosure.extract_store import STORE
from include.disclosure.grants import GrantState
from include.disclosure.use_check import CHECK
from include.services.connections import ConnectionSpec
from include.services.errors import CouldNotRun
from include.services.objectstore.s3 import S3Store
from tests.disclosure.test_delivery import approved, grant_of
from tests.disclosure.use_fixtures import MASTER, UseCompany
from tests.support.s3 import ACCESS_KEY, REGION, SECRET_KEY, MotoServer, client_for, new_bucket


def spec(endpoint: str, bucket: str) -> ConnectionSpec:
    """Return the connection of an extract store in a bucket."""
    extra = {"bucket": bucket, "endpoint_url": endpoint, "region_name": REGION}
    return ConnectionSpec(
        STORE,
        "aws",
        login=ACCESS_KEY,
        password=SECRET_KEY,
        extra=extra | {"prefix": "extracts", "password_key": MASTER},
    )


def test_expired_extract_leaves_no_version_in_a_bucket_with_versions(
    company: UseCompany, moto: MotoServer
) -> None:
    client = client_for(moto.endpoint)
    bucket = new_bucket(client)
    company.extract_spec = spec(moto.endpoint, bucket)
    run, number = approved(company)
    run.step(DELIVER)
    key = grant_of(company, number).object_key
    S3Store(client, bucket, "extracts").put(key, b"an older version would stay behind this one")
    upload = client.create_multipart_upload(Bucket=bucket, Key=f"extracts/use/{number}/begun.zip")
    assert upload["UploadId"]
    company.clock.at = grant_of(company, number).expires_at
    company.expire()
    versions = client.list_object_versions(Bucket=bucket)
    assert not versions.get("Versions")
    assert not versions.get("DeleteMarkers")
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")
    assert grant_of(company, number).state is GrantState.ENDED


def test_bucket_that_locks_new_objects_is_refused(company: UseCompany, moto: MotoServer) -> None:
    company.extract_spec = spec(
        moto.endpoint, new_bucket(client_for(moto.endpoint), default_lock_days=1)
    )
    with pytest.raises(CouldNotRun, match="locks new objects"):
        company.start(request=company.request().id).step(CHECK)


def test_bucket_without_versions_is_accepted(company: UseCompany, moto: MotoServer) -> None:
    company.extract_spec = spec(moto.endpoint, new_bucket(client_for(moto.endpoint), lock=False))
    run, number = approved(company)
    run.step(DELIVER)
    company.clock.at += timedelta(days=4)
    company.expire()
    assert grant_of(company, number).state is GrantState.ENDED
