"""Airflow's connections without Airflow: both forms, odd characters, secrets that stay secret."""

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


def test_uri_and_json_say_the_same():
    """Type, host, port, login, password, database and extra."""
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
def test_any_password_login_and_database_survive_the_uri(text: str):
    """Percent-encoded as Airflow writes them: @, :, /, spaces, Chinese."""
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
def test_hosts_keep_their_spelling(uri: str, host: str, port: int | None):
    """The folder of a socket is a path; paths know upper case."""
    spec = parse("x", uri)
    assert (spec.host, spec.port) == (host, port)


def test_extra_may_be_nested_in_either_form():
    """``__extra__`` in a URI, text or an object in JSON."""
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
def test_types_have_one_name(name: str, conn_type: str):
    """As Airflow: postgresql is postgres, a driver does not matter."""
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
def test_an_unreadable_value_is_named_and_not_shown(value: str):
    """The variable's name, how to write it, and no password, also not as a cause."""
    with pytest.raises(UsageError, match="AIRFLOW_CONN_CUSTOMER_DB") as error:
        parse("customer_db", value)
    assert SECRET not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


def test_the_environment_is_asked_as_airflow_does():
    """In upper case; absent is no connection, and empty is a secret that got lost."""
    environment = {"AIRFLOW_CONN_CUSTOMER_DB": "postgres://h/d", "AIRFLOW_CONN_EMPTY": ""}
    found = from_environment("customer_db", environment)
    assert found is not None
    assert found.host == "h"
    with pytest.raises(UsageError, match="AIRFLOW_CONN_EMPTY is set and empty"):
        from_environment("empty", environment)
    assert from_environment("other", environment) is None


def test_repr_shows_neither_password_nor_extra():
    """Logs print objects."""
    spec = parse("x", f"postgres://u:{SECRET}@h/d?token={SECRET}")
    assert SECRET not in repr(spec)


def test_text_reads_false_zero_and_absent_apart():
    """``"verify": false`` in JSON must not become the default."""
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
def test_verification_is_on_unless_switched_off(extra: dict[str, object], verify: bool | str):
    """For S3 and KMS alike."""
    assert ConnectionSpec("x", "aws", extra=extra).verify == verify


def _settings(path: Path, setting: str = "AIRFLOW__WORKERS__SECRETS_BACKEND") -> dict[str, str]:
    return {
        setting: FILE_BACKEND,
        f"{setting}_KWARGS": json.dumps({"connections_file_path": str(path)}),
    }


def test_airflows_file_of_connections_comes_before_the_environment(tmp_path: Path):
    """As in Airflow; objects with `extra_dejson` and URIs; what it lacks is asked elsewhere."""
    path = tmp_path / "connections.json"
    one = {"conn_type": "postgres", "host": "db", "extra_dejson": {"sslmode": "require"}}
    path.write_text(json.dumps({"customer_db": one, "state_db": "postgresql://me@state/own"}))
    environment = {**_settings(path), "AIRFLOW_CONN_CUSTOMER_DB": "postgresql://other/x"}
    found = configured("customer_db", environment)
    assert found is not None
    assert (found.host, found.text("sslmode")) == ("db", "require")
    named = configured("state_db", {**_settings(path, "AIRFLOW__SECRETS__BACKEND")})
    assert named is not None
    assert named.schema == "own"
    assert configured("mail", environment) is None
    asked = configured("mail", {**environment, "AIRFLOW_CONN_MAIL": "smtp://relay"})
    assert asked is not None
    assert asked.host == "relay"


@pytest.mark.parametrize("content", ["", "[1]", '{"customer_db": '])
def test_a_file_of_connections_that_cannot_be_read_is_named(tmp_path: Path, content: str):
    """Never taken for one that names nothing: the local profile would stand in."""
    path = tmp_path / "connections.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"connections\.json"):
        configured("customer_db", _settings(path))
    path.unlink()
    with pytest.raises(UsageError, match=r"connections\.json"):
        configured("customer_db", _settings(path))
    with pytest.raises(UsageError, match="KWARGS"):
        configured("customer_db", {"AIRFLOW__SECRETS__BACKEND": FILE_BACKEND})


def test_a_changed_file_of_connections_counts_at_once(tmp_path: Path):
    """A process that lives long sees a new password."""
    path = tmp_path / "connections.json"
    for moment, host in enumerate(("old", "new"), 1):
        path.write_text(json.dumps({"customer_db": f"postgresql://{host}/x"}))
        os.utime(path, (moment, moment))
        found = configured("customer_db", _settings(path))
        assert found is not None
        assert found.host == host
