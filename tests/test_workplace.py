"""A workplace makes services of connections, and says which part of one cannot be used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from include.composition import workplace_of
from include.policy import SHIPPED
from include.services.errors import UsageError
from include.services.routes import remarks_of


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"keys": {"1": "x" * 32}},
        {"current": "2", "keys": {"1": "x" * 32}},
        {"current": "1", "keys": ["x"]},
        {"current": "1"},
    ],
)
def test_erasure_keys_without_a_current_one_are_refused(
    tmp_path: Path, given: dict[str, object]
) -> None:
    """By name of the connection, with an example; never a traceback."""
    extra = json.dumps({"extra": {"erasure_keys": given}, "conn_type": "postgres"})
    environment = {"PARCELSEAL_HOME": str(tmp_path), "AIRFLOW_CONN_STATE_DB": extra}
    place = workplace_of(environment)
    with pytest.raises(UsageError, match="state_db"):
        _ = place.erasure_keys


def test_erasure_keys_are_read_by_name(tmp_path: Path) -> None:
    """Numbers as names are names."""
    keys = {"current": 1, "keys": {1: "x" * 32}}
    extra = json.dumps({"extra": {"erasure_keys": keys}, "conn_type": "postgres"})
    environment = {"PARCELSEAL_HOME": str(tmp_path), "AIRFLOW_CONN_STATE_DB": extra}
    assert workplace_of(environment).erasure_keys.current == "1"


def faults(tmp_path: Path, **connections: str) -> list[str]:
    named = {f"AIRFLOW_CONN_{name.upper()}": value for name, value in connections.items()}
    return workplace_of({"PARCELSEAL_HOME": str(tmp_path), **named}).connection_faults()


def test_without_connections_nothing_is_wrong(tmp_path: Path) -> None:
    """The local profile stands in, and nothing is made for the looking."""
    assert faults(tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


def test_nothing_stands_in_where_the_local_profile_is_off(tmp_path: Path) -> None:
    """A connection that was forgotten in production is named; no empty folder takes its place."""
    environment = {"PARCELSEAL_HOME": str(tmp_path / "none"), "PARCELSEAL_LOCAL_PROFILE": "off"}
    place = workplace_of(environment)
    for conn_id in ("offsite_store", "state_db", "mail"):
        assert not place.is_local(conn_id)
        with pytest.raises(UsageError, match=f"no connection {conn_id}, .* is off"):
            place.connection(conn_id)
    assert any("drill_db" in one for one in place.connection_faults())
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("profile", ["off", ""])
def test_a_store_that_is_configured_needs_no_home(tmp_path: Path, profile: str) -> None:
    """An API server has no home: whether backups are local is asked, and nothing made for it."""
    (tmp_path / "evidence").mkdir()
    store = {"conn_type": "fs", "extra": {"path": str(tmp_path / "evidence")}}
    place = workplace_of(
        {
            "PARCELSEAL_HOME": str(tmp_path / "none"),
            "PARCELSEAL_LOCAL_PROFILE": profile,
            "AIRFLOW_CONN_EVIDENCE_STORE": json.dumps(store),
        }
    )
    assert list(place.store("evidence_store").list()) == []
    assert not (tmp_path / "none").exists()


def test_every_faulty_connection_is_named_without_its_value(tmp_path: Path) -> None:
    """All at once, so that nobody mends one to learn of the next."""
    found = faults(
        tmp_path,
        customer_db="mysql://a:sesame@b/c",
        state_db="postgresql://a:sesame@b/c",
        evidence_store="{sesame",
        offsite_store="",
    )
    said = " ".join(found)
    for name in ("customer_db", "state_db", "evidence_store", "OFFSITE_STORE"):
        assert name in said
    assert "sesame" not in said


def test_a_recipient_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """As soon as the connection that names it can be read."""
    given = {
        "conn_type": "fs",
        "extra": {
            "path": str(tmp_path),
            "recipients": [{"name": "escrow", "certificate": "/none.crt"}],
        },
    }
    assert "escrow" in faults(tmp_path, offsite_store=json.dumps(given))[0]


@pytest.mark.parametrize("name", ["evidence_store", "drill_db"])
def test_a_key_that_lost_its_first_line_is_never_repeated(tmp_path: Path, name: str) -> None:
    """It looks like the name of a file, and would stand in logs and sealed reports."""
    body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcw/gSkAgEAAoIB"
    spec = {
        "conn_type": "fs" if name == "evidence_store" else "postgres",
        "host": "db",
        "extra": {"path": str(tmp_path), "signing_key": body, "private_key": body},
    }
    (fault,) = faults(tmp_path, **{name: json.dumps(spec)})
    assert name in fault
    assert body not in fault
    assert "gSkAgEAAoIB" not in fault


@pytest.mark.parametrize(
    "extra",
    [
        {"recipients": "[broken TOPSECRET"},
        {"recipients": 5},
        {"recipients": [5]},
        {"recipients": [{"name": "a", "certificate": 5}]},
        {},
    ],
)
def test_faulty_recipients_are_a_fault_with_a_reason(
    tmp_path: Path, extra: dict[str, object]
) -> None:
    """Never a traceback; too few are a fault too."""
    given = {"conn_type": "fs", "extra": {"path": str(tmp_path), **extra}}
    found = faults(tmp_path, offsite_store=json.dumps(given))
    assert found
    assert "TOPSECRET" not in " ".join(found)


def test_a_connection_without_a_database_is_named(tmp_path: Path) -> None:
    """PostgreSQL would take the user's name for the database's."""
    assert "names no database" in " ".join(faults(tmp_path, customer_db="postgresql://u:p@h"))


@pytest.mark.parametrize("name", ["intake_db", "retention_db"])
def test_a_faulty_connection_for_writing_is_named(tmp_path: Path, name: str) -> None:
    """Once it is configured: where it is not, there is nothing to be wrong with it."""
    assert f"{name} names no database" in " ".join(faults(tmp_path, **{name: "postgresql://u:p@h"}))


def store(**extra: object) -> str:
    given = {"bucket": "b", "region_name": "cn-north-1", **extra}
    return json.dumps({"conn_type": "aws", "login": "a", "password": "sesame", "extra": given})


@pytest.mark.parametrize("name", ["offsite_store", "evidence_store"])
@pytest.mark.parametrize(
    ("extra", "way"),
    [
        ({"endpoint_url": "http://store.example"}, "plain"),
        ({"endpoint_url": "https://store.example", "verify": False}, "unverified"),
    ],
)
def test_connection_faults_name_a_store_that_is_not_verified(
    tmp_path: Path, name: str, extra: dict[str, object], way: str
) -> None:
    """Whatever else is wrong with it; on this machine nothing is."""
    said = f"The connection {name} is not verified over TLS ({way})"
    assert said in " ".join(faults(tmp_path, **{name: store(**extra)}))
    here = faults(tmp_path, **{name: store(endpoint_url="http://127.0.0.1:9000")})
    assert "not verified" not in " ".join(here)


def test_connection_faults_name_a_kms_that_is_not_verified(tmp_path: Path) -> None:
    """Where a recipient or the drill uses it: plain data keys would go over the network."""
    kms = {"kms_endpoint_url": "http://kms.example"}
    recipient = {"recipients": [{"name": "a", "kms_key": "arn:aws:kms:x"}]}
    said = "The connection offsite_store (KMS) is not verified over TLS (plain)"
    assert said in " ".join(faults(tmp_path, offsite_store=store(**kms, **recipient)))
    drill = json.dumps(
        {"conn_type": "postgres", "host": "localhost", "extra": {"kms_key": "arn:aws:kms:x"}}
    )
    assert said in " ".join(faults(tmp_path, offsite_store=store(**kms), drill_db=drill))
    assert said not in " ".join(faults(tmp_path, offsite_store=store(**kms)))


def test_connection_faults_name_a_robot_without_https(tmp_path: Path) -> None:
    """Its token would be read on the way."""
    (tmp_path / "pack").mkdir()
    shutil.copytree(SHIPPED, tmp_path / "pack", dirs_exist_ok=True)
    roles = tmp_path / "pack" / "roles.yaml"
    roles.write_text(
        roles.read_text().replace("- id: management", "- robot: chat\n  id: management")
    )
    robot = {"conn_type": "http", "host": "http://chat.example", "extra": {"kind": "wecom"}}
    found = workplace_of(
        {
            "PARCELSEAL_HOME": str(tmp_path),
            "PARCELSEAL_POLICY": str(tmp_path / "pack"),
            "AIRFLOW_CONN_CHAT": json.dumps(robot),
        }
    ).connection_faults()
    assert found == [
        "Connection chat: the address of the robot is not https. "
        "Copy the whole webhook address from the group chat."
    ]


def test_databases_that_choose_a_weaker_mode_are_remarks(tmp_path: Path) -> None:
    """The choice is the connection's own; it is told, and refuses nothing."""
    named = {
        "AIRFLOW_CONN_CUSTOMER_DB": "postgresql://u:p@db.example/d?sslmode=disable",
        "AIRFLOW_CONN_STATE_DB": "postgresql://u:p@db.example/d",
        "AIRFLOW_CONN_DRILL_DB": "postgresql://u:p@localhost/d?hostaddr=10.0.0.5&sslmode=require",
    }
    place = workplace_of({"PARCELSEAL_HOME": str(tmp_path), **named})
    assert [(one.conn_id, str(one.transport)) for one in place.routes()] == [
        ("customer_db", "plain"),
        ("drill_db", "unverified"),
    ]
    assert [one.partition(" is not")[0] for one in remarks_of(place.routes())] == [
        "The connection customer_db",
        "The connection drill_db",
    ]
    assert "not verified" not in " ".join(place.connection_faults())


def test_a_faulty_mail_server_is_named_without_its_password(tmp_path: Path) -> None:
    """One that would send in clear over the network is a fault, before anything is sent."""
    extra = {"from_email": "a@b", "disable_ssl": True, "disable_tls": True}
    given = {"conn_type": "smtp", "host": "mail", "password": "sesame", "extra": extra}
    (fault,) = faults(tmp_path, mail=json.dumps(given))
    assert "mail" in fault
    assert "unencrypted" in fault
    assert "sesame" not in fault
    given["extra"] = {"from_email": "a@b"}
    assert faults(tmp_path, mail=json.dumps(given)) == []


def test_mail_has_a_stand_in_while_its_server_runs_only(tmp_path: Path) -> None:
    """Elsewhere somebody has to name one: nothing goes to whatever listens on port 25."""
    place = workplace_of({"PARCELSEAL_HOME": str(tmp_path)})
    with pytest.raises(UsageError, match="no connection mail"):
        place.connection("mail")
    (tmp_path / "mail").mkdir()
    (tmp_path / "mail" / "port").write_text("2525")
    assert place.connection("mail").port == 2525
