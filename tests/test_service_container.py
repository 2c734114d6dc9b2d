"""Tests that services are built from connections, and that faults name the faulty connection."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from include.composition import services_from
from include.policy import SHIPPED
from include.services.errors import UsageError
from include.services.routes import remarks_of


@pytest.mark.parametrize(
    "keys_setting",
    [
        {},
        {"keys": {"1": "x" * 32}},
        {"current": "2", "keys": {"1": "x" * 32}},
        {"current": "1", "keys": ["x"]},
        {"current": "1"},
    ],
)
def test_erasure_keys_raise_usage_error_if_current_key_is_missing_or_invalid(
    tmp_path: Path, keys_setting: dict[str, object]
) -> None:
    extra = json.dumps({"extra": {"erasure_keys": keys_setting}, "conn_type": "postgres"})
    environment = {"PARCELSEAL_HOME": str(tmp_path), "AIRFLOW_CONN_STATE_DB": extra}
    services = services_from(environment)
    with pytest.raises(UsageError, match="state_db"):
        _ = services.erasure_keys


def test_erasure_key_whose_name_is_a_number_is_read(tmp_path: Path) -> None:
    """The name of a key may be a number."""
    keys = {"current": 1, "keys": {1: "x" * 32}}
    extra = json.dumps({"extra": {"erasure_keys": keys}, "conn_type": "postgres"})
    environment = {"PARCELSEAL_HOME": str(tmp_path), "AIRFLOW_CONN_STATE_DB": extra}
    assert services_from(environment).erasure_keys.current == "1"


def faults(tmp_path: Path, **connections: str) -> list[str]:
    named = {f"AIRFLOW_CONN_{name.upper()}": value for name, value in connections.items()}
    return services_from({"PARCELSEAL_HOME": str(tmp_path), **named}).connection_faults()


def test_connection_faults_are_empty_for_the_local_profile(tmp_path: Path) -> None:
    """The check creates no files in the home folder."""
    assert faults(tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


def test_missing_connection_raises_usage_error_if_local_profile_is_off(tmp_path: Path) -> None:
    environment = {"PARCELSEAL_HOME": str(tmp_path / "none"), "PARCELSEAL_LOCAL_PROFILE": "off"}
    services = services_from(environment)
    for conn_id in ("offsite_store", "state_db", "mail"):
        assert not services.is_local(conn_id)
        with pytest.raises(UsageError, match=f"no connection {conn_id}, .* is off"):
            services.connection(conn_id)
    assert any("drill_db" in fault for fault in services.connection_faults())
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("profile", ["off", ""])
def test_configured_store_is_opened_although_no_home_folder_exists(
    tmp_path: Path, profile: str
) -> None:
    """An API server has no home folder."""
    (tmp_path / "evidence").mkdir()
    store = {"conn_type": "fs", "extra": {"path": str(tmp_path / "evidence")}}
    services = services_from(
        {
            "PARCELSEAL_HOME": str(tmp_path / "none"),
            "PARCELSEAL_LOCAL_PROFILE": profile,
            "AIRFLOW_CONN_EVIDENCE_STORE": json.dumps(store),
        }
    )
    assert list(services.store("evidence_store").list()) == []
    assert not (tmp_path / "none").exists()


def test_connection_faults_contain_name_but_no_values_of_every_faulty_connection(
    tmp_path: Path,
) -> None:
    messages = faults(
        tmp_path,
        customer_db="mysql://a:sesame@b/c",
        state_db="postgresql://a:sesame@b/c",
        evidence_store="{sesame",
        offsite_store="",
    )
    message = " ".join(messages)
    for name in ("customer_db", "state_db", "evidence_store", "OFFSITE_STORE"):
        assert name in message
    assert "sesame" not in message


def test_connection_faults_report_recipient_whose_certificate_cannot_be_read(
    tmp_path: Path,
) -> None:
    connection = {
        "conn_type": "fs",
        "extra": {
            "path": str(tmp_path),
            "recipients": [{"name": "escrow", "certificate": "/none.crt"}],
        },
    }
    assert "escrow" in faults(tmp_path, offsite_store=json.dumps(connection))[0]


@pytest.mark.parametrize("name", ["evidence_store", "drill_db"])
def test_connection_faults_never_contain_the_text_of_a_truncated_private_key(
    tmp_path: Path, name: str
) -> None:
    """A key without its first line looks like a file name."""
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
def test_connection_faults_report_invalid_or_too_few_recipients(
    tmp_path: Path, extra: dict[str, object]
) -> None:
    connection = {"conn_type": "fs", "extra": {"path": str(tmp_path), **extra}}
    messages = faults(tmp_path, offsite_store=json.dumps(connection))
    assert messages
    assert "TOPSECRET" not in " ".join(messages)


def test_connection_faults_report_connection_without_database_name(tmp_path: Path) -> None:
    """PostgreSQL would use the user name as the name of the database."""
    assert "names no database" in " ".join(faults(tmp_path, customer_db="postgresql://u:p@h"))


@pytest.mark.parametrize("name", ["intake_db", "retention_db"])
def test_connection_faults_report_workflow_connection_without_database_name(
    tmp_path: Path, name: str
) -> None:
    assert f"{name} names no database" in " ".join(faults(tmp_path, **{name: "postgresql://u:p@h"}))


def store(**extra: object) -> str:
    settings = {"bucket": "b", "region_name": "cn-north-1", **extra}
    return json.dumps({"conn_type": "aws", "login": "a", "password": "sesame", "extra": settings})


@pytest.mark.parametrize("name", ["offsite_store", "evidence_store"])
@pytest.mark.parametrize(
    ("extra", "way"),
    [
        ({"endpoint_url": "http://store.example"}, "plain"),
        ({"endpoint_url": "https://store.example", "verify": False}, "unverified"),
    ],
)
def test_connection_faults_report_store_without_verified_tls(
    tmp_path: Path, name: str, extra: dict[str, object], way: str
) -> None:
    message = f"The connection {name} is not verified over TLS ({way})"
    assert message in " ".join(faults(tmp_path, **{name: store(**extra)}))
    here = faults(tmp_path, **{name: store(endpoint_url="http://127.0.0.1:9000")})
    assert "not verified" not in " ".join(here)


def test_connection_faults_report_kms_without_verified_tls(tmp_path: Path) -> None:
    """Otherwise data keys would cross the network unencrypted."""
    kms = {"kms_endpoint_url": "http://kms.example"}
    recipient = {"recipients": [{"name": "a", "kms_key": "arn:aws:kms:x"}]}
    message = "The connection offsite_store (KMS) is not verified over TLS (plain)"
    assert message in " ".join(faults(tmp_path, offsite_store=store(**kms, **recipient)))
    drill = json.dumps(
        {"conn_type": "postgres", "host": "localhost", "extra": {"kms_key": "arn:aws:kms:x"}}
    )
    assert message in " ".join(faults(tmp_path, offsite_store=store(**kms), drill_db=drill))
    assert message not in " ".join(faults(tmp_path, offsite_store=store(**kms)))


def test_connection_faults_report_chat_robot_webhook_without_https(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    shutil.copytree(SHIPPED, tmp_path / "pack", dirs_exist_ok=True)
    roles = tmp_path / "pack" / "roles.yaml"
    roles.write_text(
        roles.read_text().replace("- id: management", "- robot: chat\n  id: management")
    )
    robot = {"conn_type": "http", "host": "http://chat.example", "extra": {"kind": "wecom"}}
    messages = services_from(
        {
            "PARCELSEAL_HOME": str(tmp_path),
            "PARCELSEAL_POLICY": str(tmp_path / "pack"),
            "AIRFLOW_CONN_CHAT": json.dumps(robot),
        }
    ).connection_faults()
    assert messages == [
        "Connection chat: the address of the robot is not https. "
        "Copy the whole webhook address from the group chat."
    ]


def test_database_without_verified_tls_gives_a_remark_but_no_connection_fault(
    tmp_path: Path,
) -> None:
    named = {
        "AIRFLOW_CONN_CUSTOMER_DB": "postgresql://u:p@db.example/d?sslmode=disable",
        "AIRFLOW_CONN_STATE_DB": "postgresql://u:p@db.example/d",
        "AIRFLOW_CONN_DRILL_DB": "postgresql://u:p@localhost/d?hostaddr=10.0.0.5&sslmode=require",
    }
    services = services_from({"PARCELSEAL_HOME": str(tmp_path), **named})
    assert [(route.conn_id, str(route.transport)) for route in services.routes()] == [
        ("customer_db", "plain"),
        ("drill_db", "unverified"),
    ]
    assert [remark.partition(" is not")[0] for remark in remarks_of(services.routes())] == [
        "The connection customer_db",
        "The connection drill_db",
    ]
    assert "not verified" not in " ".join(services.connection_faults())


def test_connection_faults_report_unencrypted_mail_server_and_do_not_contain_its_password(
    tmp_path: Path,
) -> None:
    extra = {"from_email": "a@b", "disable_ssl": True, "disable_tls": True}
    connection = {"conn_type": "smtp", "host": "mail", "password": "sesame", "extra": extra}
    (fault,) = faults(tmp_path, mail=json.dumps(connection))
    assert "mail" in fault
    assert "unencrypted" in fault
    assert "sesame" not in fault
    connection["extra"] = {"from_email": "a@b"}
    assert faults(tmp_path, mail=json.dumps(connection)) == []


def test_local_mail_connection_exists_only_with_a_local_mail_server(tmp_path: Path) -> None:
    services = services_from({"PARCELSEAL_HOME": str(tmp_path)})
    with pytest.raises(UsageError, match="no connection mail"):
        services.connection("mail")
    (tmp_path / "mail").mkdir()
    (tmp_path / "mail" / "port").write_text("2525")
    assert services.connection("mail").port == 2525
