"""Test whether the route to an address is verified over TLS, unverified, or on this machine."""

from __future__ import annotations

import pytest

from include.services import transport
from include.services.aws import kms_transport
from include.services.connections import ConnectionSpec
from include.services.database import DatabaseAddress
from include.services.errors import UsageError
from include.services.stores import store_transport
from include.services.transport import Transport

LOCAL, VERIFIED, UNVERIFIED, PLAIN = Transport


@pytest.mark.parametrize(
    ("url", "verify", "way"),
    [
        ("http://127.0.0.1:9000", True, LOCAL),
        ("http://[::1]:9000", False, LOCAL),
        ("http://localhost/", True, LOCAL),
        ("https://store.example", True, VERIFIED),
        ("https://store.example", "/etc/ca.pem", VERIFIED),
        ("https://store.example", False, UNVERIFIED),
        ("http://store.example", True, PLAIN),
        ("http://localhost.example", True, PLAIN),
        ("http://localhost@store.example", True, PLAIN),
        ("http://127.0.0.1.example", True, PLAIN),
        ("ftp://store.example", True, PLAIN),
        ("", True, PLAIN),
    ],
)
def test_transport_security_of_url_is_classified_by_host_scheme_and_certificate_check(
    url: str, verify: bool | str, way: Transport
) -> None:
    """Only the host of the URL counts, not a user name in it that looks like a host."""
    assert transport.of_url(url, verify) is way
    assert way.is_safe is (way in (LOCAL, VERIFIED))


@pytest.mark.parametrize(
    ("conninfo", "way"),
    [
        ("dbname=x", LOCAL),
        ("host=/run/postgresql", LOCAL),
        ("host=localhost hostaddr=127.0.0.1", LOCAL),
        ("host=localhost hostaddr=10.0.0.5", VERIFIED),
        ("host=localhost hostaddr=127.0.0.1,10.0.0.5", VERIFIED),
        ("host=db.example hostaddr=127.0.0.1", VERIFIED),
        ("host=localhost service=elsewhere", VERIFIED),
        ("service=elsewhere", VERIFIED),
        ("host=localhost,db.example", VERIFIED),
        ("host=db.example sslmode=verify-ca sslrootcert=ca.pem", UNVERIFIED),
        ("host=db.example sslmode=require", UNVERIFIED),
        ("service=elsewhere sslmode=prefer", UNVERIFIED),
        ("host=localhost hostaddr=10.0.0.5 sslmode=disable", PLAIN),
    ],
)
def test_transport_to_database_is_verified_by_default_if_any_address_is_remote(
    conninfo: str, way: Transport
) -> None:
    """If the connection sets sslmode, this setting decides for addresses on other machines."""
    address = DatabaseAddress.from_conninfo(conninfo)
    assert address.transport is way
    if way is VERIFIED:
        assert address.parameters["sslmode"] == "verify-full"


@pytest.mark.parametrize(
    ("extra", "way"),
    [
        ({"endpoint_url": "http://127.0.0.1:9000"}, LOCAL),
        ({"endpoint_url": "http://store.example"}, PLAIN),
        ({"endpoint_url": "https://store.example", "verify": False}, UNVERIFIED),
        ({"endpoint_url": "https://store.example", "verify": "/etc/ca.pem"}, VERIFIED),
        ({}, VERIFIED),
    ],
)
def test_transport_security_of_store_and_kms_is_classified_by_endpoint_url(
    extra: dict[str, object], way: Transport
) -> None:
    """If no endpoint is set, AWS is used over verified TLS."""
    store = {"bucket": "b", "region_name": "cn-north-1", **extra}
    assert store_transport(ConnectionSpec("x", "aws", extra=store)) is way
    kms = {
        "kms_endpoint_url" if name == "endpoint_url" else name: value
        for name, value in store.items()
    }
    assert kms_transport(ConnectionSpec("x", "aws", extra=kms)) is way


def test_kms_connection_without_region_raises_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise, an error of boto3 would abort the preflight of a backup."""
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(UsageError, match="by the connection x: its endpoint or region"):
        kms_transport(ConnectionSpec("x", "aws", extra={"bucket": "b"}))


def test_transport_to_store_and_kms_is_classified_as_plain_if_environment_sets_http_endpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If the connection names no endpoint, boto3 uses the AWS settings of the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store.example")
    spec = ConnectionSpec("x", "aws", extra={"bucket": "b", "region_name": "cn-north-1"})
    assert (store_transport(spec), kms_transport(spec)) == (PLAIN, PLAIN)


def test_transport_to_directory_store_is_classified_as_local() -> None:
    assert store_transport(ConnectionSpec("x", "fs", extra={"path": "/mnt"})) is LOCAL
