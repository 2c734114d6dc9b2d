"""Test reading connections of Airflow without Airflow: formats, special characters, secrets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.services.connections import (
    FILE_BACKEND,
    ConnectionSpec,
    configured,
    from_environment,
    parse,
)
from include.services.errors import UsageError

SECRET = "s3cr3t-pass"


def test_connection_uri_and_json_with_same_values_are_parsed_to_equal_connections():
    """All fields are equal: type, host, port, login, password, database and extra."""
    uri = parse("customer_db", f"postgresql://me:{SECRET}@db.example:6432/courier?sslmode=require")
    given_json = json.dumps(
        {
            "conn_type": "postgres",
            "host": "db.example",
            "port": "6432",
            "login": "me",
            "password": SECRET,
            "schema": "courier",
            "extra": json.dumps({"sslmode": "require"}),
        }
    )
    assert uri == parse("customer_db", given_json)
    assert uri == ConnectionSpec(
        "customer_db",
        "postgres",
        "db.example",
        6432,
        "me",
        SECRET,
        "courier",
        {"sslmode": "require"},
    )


@given(st.text(st.characters(blacklist_categories=["Cs"]), min_size=1))
def test_percent_encoded_password_login_and_database_of_connection_uri_are_decoded(text: str):
    """As in Airflow, characters such as @, : and spaces, and Chinese text, are percent-encoded."""
    word = quote(text, safe="")
    spec = parse("x", f"postgres://{word}:{word}@h/{word}?k={word}")
    assert (spec.login, spec.password, spec.schema) == (text, text, text)
    assert spec.extra == {"k": text}


@pytest.mark.parametrize(
    ("uri", "host", "port"),
    [
        ("postgres://u:p@%2Frun%2FPostgreSQL/db", "/run/PostgreSQL", None),
        ("postgres://u:p@%2Ftmp%2FX:5433/db", "/tmp/X", 5433),  # noqa: S108 - only a name
        ("postgres://u:p@[::1]:5433/db", "::1", 5433),
        ("postgres:///db", "", None),
        ("postgres://DB.Example/db", "DB.Example", None),
        ("aws://key:secret@", "", None),
    ],
)
def test_upper_case_in_host_of_connection_uri_is_unchanged(uri: str, host: str, port: int | None):
    """The host may be the path of a socket folder, in which upper case matters."""
    spec = parse("x", uri)
    assert (spec.host, spec.port) == (host, port)


def test_extra_with_nested_objects_is_read_from_uri_and_json():
    """In a URI, ``__extra__`` contains the extra. In JSON, the extra is a text or an object."""
    extra = {"bucket": "b", "recipients": ["a.crt", {"name": "kms", "kms_key": "arn:x"}]}
    uri = "aws://?__extra__=" + quote(json.dumps(extra))
    assert parse("offsite_store", uri).extra == extra
    for form in (extra, json.dumps(extra)):
        text = json.dumps({"conn_type": "aws", "extra": form})
        assert parse("offsite_store", text).extra == extra


@pytest.mark.parametrize(
    ("name", "conn_type"),
    [
        ("postgresql", "postgres"),
        ("postgres", "postgres"),
        ("postgresql+psycopg", "postgres"),
        ("s3", "s3"),
    ],
)
def test_connection_type_postgresql_with_or_without_driver_is_read_as_postgres(
    name: str, conn_type: str
):
    """As in Airflow, postgresql means postgres, and the name of a driver is ignored."""
    assert parse("x", f"{name}://h/d").conn_type == conn_type
    assert parse("x", json.dumps({"conn_type": name})).conn_type == conn_type


@pytest.mark.parametrize(
    "value",
    [
        f"//u:{SECRET}@host/db",
        f"postgres://u:{SECRET}@host:port/db",
        f"postgres://u:{SECRET}@[host/db",
        f'{{"conn_type": "postgres", "password": "{SECRET}"',
        f'{{"host": "h", "password": "{SECRET}"}}',
        f'{{"conn_type": null, "password": "{SECRET}"}}',
        f'{{"conn_type": "postgres", "password": "{SECRET}", "extra": "[1]"}}',
        f'{{"conn_type": "postgres", "password": "{SECRET}", "extra": "not json"}}',
        f"aws://k:{SECRET}@?__extra__=%5B1%5D",
        f"aws://k:{SECRET}@?__extra__=x",
    ],
)
def test_error_for_unreadable_connection_contains_its_variable_and_not_its_value(value: str):
    """The error names the variable and the expected format.

    Neither the error nor its cause contains the password.
    """
    with pytest.raises(UsageError, match="AIRFLOW_CONN_CUSTOMER_DB") as error:
        parse("customer_db", value)
    assert SECRET not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


def test_connection_is_read_from_airflow_variable_in_upper_case_and_is_none_if_missing():
    """The names of the variables are in upper case.

    If a variable is missing, no connection is defined; an empty variable is an error.
    """
    environment = {"AIRFLOW_CONN_CUSTOMER_DB": "postgres://h/d", "AIRFLOW_CONN_EMPTY": ""}
    connection = from_environment("customer_db", environment)
    assert connection is not None
    assert connection.host == "h"
    with pytest.raises(UsageError, match="AIRFLOW_CONN_EMPTY is set but empty"):
        from_environment("empty", environment)
    assert from_environment("other", environment) is None


def test_repr_of_connection_shows_neither_password_nor_extra():
    """Logs show objects by their repr."""
    spec = parse("x", f"postgres://u:{SECRET}@h/d?token={SECRET}")
    assert SECRET not in repr(spec)


def test_default_replaces_missing_or_null_extra_value_but_not_false_or_zero():
    """For example, the default must not replace the JSON value ``"verify": false``."""
    spec = ConnectionSpec("x", "aws", extra={"no": False, "yes": True, "zero": 0, "null": None})
    assert spec.text("no", "true") == "false"
    assert spec.text("yes") == "true"
    assert spec.text("zero", "5") == "0"
    assert spec.text("null", "d") == spec.text("absent", "d") == "d"


@pytest.mark.parametrize(
    ("extra", "verify"),
    [
        ({}, True),
        ({"verify": True}, True),
        ({"verify": "True"}, True),
        ({"verify": False}, False),
        ({"verify": "false"}, False),
        ({"verify": "/etc/ca.pem"}, "/etc/ca.pem"),
    ],
)
def test_tls_verification_of_aws_connection_is_on_by_default(
    extra: dict[str, object], verify: bool | str
):
    """The test covers the connections of S3 and KMS."""
    assert ConnectionSpec("x", "aws", extra=extra).verify == verify


def _settings(path: Path, setting: str = "AIRFLOW__WORKERS__SECRETS_BACKEND") -> dict[str, str]:
    return {
        setting: FILE_BACKEND,
        f"{setting}_KWARGS": json.dumps({"connections_file_path": str(path)}),
    }


def test_connection_in_airflow_connections_file_overrides_environment_variable(tmp_path: Path):
    """As in Airflow, the environment is read only for connections that the file does not define."""
    path = tmp_path / "connections.json"
    connection_json = {
        "conn_type": "postgres",
        "host": "db",
        "extra_dejson": {"sslmode": "require"},
    }
    path.write_text(
        json.dumps({"customer_db": connection_json, "state_db": "postgresql://me@state/own"})
    )
    environment = {**_settings(path), "AIRFLOW_CONN_CUSTOMER_DB": "postgresql://other/x"}
    connection = configured("customer_db", environment)
    assert connection is not None
    assert (connection.host, connection.text("sslmode")) == ("db", "require")
    named = configured("state_db", {**_settings(path, "AIRFLOW__SECRETS__BACKEND")})
    assert named is not None
    assert named.schema == "own"
    assert configured("mail", environment) is None
    mail_connection = configured("mail", {**environment, "AIRFLOW_CONN_MAIL": "smtp://relay"})
    assert mail_connection is not None
    assert mail_connection.host == "relay"


@pytest.mark.parametrize("content", ["", "[1]", '{"customer_db": '])
def test_error_for_unreadable_connections_file_contains_its_path(tmp_path: Path, content: str):
    """If the file counted as empty, the local profile would be used instead."""
    path = tmp_path / "connections.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"connections\.json"):
        configured("customer_db", _settings(path))
    path.unlink()
    with pytest.raises(UsageError, match=r"connections\.json"):
        configured("customer_db", _settings(path))
    with pytest.raises(UsageError, match="KWARGS"):
        configured("customer_db", {"AIRFLOW__SECRETS__BACKEND": FILE_BACKEND})


def test_changed_connections_file_is_read_again(tmp_path: Path):
    """A long-lived process needs a new password immediately."""
    path = tmp_path / "connections.json"
    for moment, host in enumerate(("old", "new"), 1):
        path.write_text(json.dumps({"customer_db": f"postgresql://{host}/x"}))
        os.utime(path, (moment, moment))
        connection = configured("customer_db", _settings(path))
        assert connection is not None
        assert connection.host == host
