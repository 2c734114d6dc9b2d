"""Test that `include.deployment.zones` and docker-compose.yaml define the same zones.

The zones also have to match the declarations of the workflows.
"""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from include import registry
from include.deployment import layout
from include.deployment.prepare import bucket_policy
from include.deployment.private import ALL_CONNECTIONS
from include.deployment.zones import ZONES, Zone, connections_of, logins_of
from include.disclosure.extracts.passwords import MINIMUM_KEY
from include.policy import PolicyPack
from include.policy.loader import SHIPPED
from include.registry import load_pack
from include.service_container import ROOT
from include.services.connections import parse
from include.services.errors import UsageError
from include.workflow.declaration import Queue

# Tasks that need a key or right which their workflow's zone lacks, and the zone that has it.
ELSEWHERE = {
    ("backup_offsite", "prune"): Queue.RETENTION,
    ("enforce_retention", "prune_evidence"): Queue.SEALING,
    ("sample_audit", "commit"): Queue.SEALING,
    ("respond_to_incident", "report"): Queue.SEALING,
    ("respond_to_incident", "decide"): Queue.SEALING,
    ("respond_to_incident", "report_rest"): Queue.SEALING,
    ("respond_to_incident", "summary"): Queue.SEALING,
    ("update_incident", "decide"): Queue.SEALING,
}
PRIVATE_KEYS = {"evidence.key", "manifest.key", "drill.key", "erasure_keys"}
BROKER_AND_STATE = {"api-server", layout.REDIS, layout.POSTGRES, layout.STORE}
zones = pytest.mark.parametrize("zone", ZONES.values(), ids=lambda zone: zone.queue)


@pytest.fixture(scope="session")
def private(deployed: Path) -> Path:
    """Return the private folder that `compose init --sample` wrote."""
    return deployed / "deploy" / "private"


def connections(private: Path, zone: Zone) -> dict[str, Any]:
    """Return the connections that the containers of a trust zone have."""
    actual: dict[str, Any] = json.loads((private / zone.connections_file).read_text())
    return actual


def keys_in(connections: dict[str, Any]) -> set[str]:
    """Return the files with private keys that the connections name."""
    text = json.dumps(connections)
    return {key for key in PRIVATE_KEYS if layout.mounted(key) in text}


def test_tasks_run_in_the_trust_zone_of_their_workflow_except_tasks_that_seal_send_or_prune() -> (
    None
):
    """Tasks that seal run in the sealing zone.

    Tasks that notify run in the zone with access to mail.
    """
    expected, actual = {}, {}
    for workflow in registry.workflows():
        dag = runpy.run_path(str(ROOT / "dags" / f"{workflow.id}.py"))[workflow.id]()
        own = {"seal": Queue.SEALING, "send": Queue.DEFAULT}
        for task in dag.tasks:
            name = task.task_id.split(".")[-1]
            key = (workflow.id, name)
            expected[key] = ELSEWHERE.get(key) or own.get(name) or workflow.queue
            actual[key] = Queue(task.queue)
    assert actual == expected
    assert set(ELSEWHERE) <= set(actual)


def test_every_celery_queue_has_a_trust_zone() -> None:
    """Tasks in a queue without workers would wait forever."""
    assert set(ZONES) == set(Queue)


@zones
def test_workers_have_exactly_the_secrets_of_their_trust_zone(
    stack: dict[str, Any], zone: Zone
) -> None:
    """The secrets are private keys, certificates and the connections of the zone."""
    service = stack["services"][zone.service]
    command = service["command"]
    assert command[command.index("--queues") + 1] == zone.queue
    assert {secret["source"] for secret in service["secrets"]} == zone.secrets
    targets = {secret["source"]: secret["target"] for secret in service["secrets"]}
    assert Path(targets[zone.connections_file]).name == "connections.json"


@zones
def test_connections_of_a_trust_zone_contain_exactly_the_keys_of_that_zone(
    private: Path, zone: Zone
) -> None:
    """A zone must have each key that it uses, and no other key."""
    assert keys_in(connections(private, zone)) == zone.keys


def test_private_keys_are_only_in_trust_zones_that_need_them(private: Path) -> None:
    """Signing evidence, signing manifests and decrypting backups are done in different zones."""
    holders = {
        key: {queue for queue, zone in ZONES.items() if key in zone.keys} for key in PRIVATE_KEYS
    }
    assert holders == {
        "evidence.key": {Queue.SEALING},
        "manifest.key": {Queue.BACKUP},
        "drill.key": {Queue.DRILL},
        "erasure_keys": {Queue.DEFAULT, Queue.DRILL, Queue.RETENTION},
    }
    everything = json.loads((private / ALL_CONNECTIONS).read_text())
    assert keys_in(everything) == PRIVATE_KEYS


def test_trust_zone_has_only_the_logins_that_its_workflows_need(private: Path) -> None:
    """The declarations of the workflows name the logins.

    The drill zone cannot log in to customer databases.
    """
    services = {"state_db", "evidence_store"}
    databases = {"customer_db", "airflow_copy_db", "state_copy_db"}
    declared = {login.connection for login in registry.logins()}
    actual = {queue: set(connections(private, zone)) for queue, zone in ZONES.items()}
    assert actual == {
        Queue.BACKUP: services | databases | {"offsite_store"},
        Queue.DRILL: services | {"offsite_store", "drill_db"},
        Queue.RETENTION: services | databases | {"offsite_store", "retention_db"},
        Queue.SEALING: services | {"mail", "incident_db"},
        Queue.DEFAULT: services
        | databases
        | {"offsite_store", "extract_store", "mail"}
        | (declared - {"retention_db"}),
    }
    assert set().union(*map(logins_of, ZONES.values())) == declared


def test_trust_zones_use_store_logins_with_only_the_rights_that_they_need(private: Path) -> None:
    """The backup zone can write backups but not delete them. Only two zones can write evidence.

    Only one zone has a login to the bucket of extracts.
    """
    user = {(private / f"store_{name}_access").read_text(): name for name in layout.STORE_USERS}
    actual = {
        (queue, name): user[connections(private, zone)[name]["login"]]
        for queue, zone in ZONES.items()
        for name in ("offsite_store", "evidence_store", "extract_store")
        if name in connections(private, zone)
    }
    assert actual == {
        (Queue.DEFAULT, "offsite_store"): layout.READER,
        (Queue.DEFAULT, "evidence_store"): layout.EVIDENCE,
        (Queue.DEFAULT, "extract_store"): layout.EXTRACTS,
        (Queue.BACKUP, "offsite_store"): layout.WRITER,
        (Queue.BACKUP, "evidence_store"): layout.READER,
        (Queue.DRILL, "offsite_store"): layout.READER,
        (Queue.DRILL, "evidence_store"): layout.READER,
        (Queue.RETENTION, "offsite_store"): layout.BACKUPS,
        (Queue.RETENTION, "evidence_store"): layout.READER,
        (Queue.SEALING, "evidence_store"): layout.EVIDENCE,
    }
    mail = connections(private, ZONES[Queue.SEALING])["mail"]
    assert (mail["login"], mail["password"]) == ("", "")


def test_password_key_of_extracts_is_only_in_the_trust_zone_that_delivers_them(
    private: Path,
) -> None:
    """A zone that has the key and the state database can derive the password of each extract."""
    key = (private / "extract_password_key").read_text()
    holders = {
        queue for queue, zone in ZONES.items() if key in json.dumps(connections(private, zone))
    }
    queues = {each.queue for each in registry.workflows() if each.topic == "use"}
    assert holders == queues == {Queue.DEFAULT}
    assert key not in (private / "connections_pages.json").read_text()
    assert len(key.encode()) >= MINIMUM_KEY


def test_connections_added_by_operators_are_available_only_in_trust_zones_that_use_them() -> None:
    """Databases are added to the zones that read them.

    Webhooks are added to the zone that sends messages.
    """
    configured: dict[str, Any] = {
        "warehouse_db": "postgresql://reader:x@warehouse.example/records",
        "robot": {"conn_type": "http", "host": "robots.example", "password": "x"},
        "intake_db": "postgresql://intake:x@warehouse.example/records",
        "audit_db": "postgresql://audit:x@warehouse.example/records",
        "incident_db": "postgresql://incident:x@warehouse.example/records",
        "evidence_store": {
            "conn_type": "aws",
            "extra": {"bucket": "b", "signing_key": "PEM", "signing_key_passphrase": "p"},
        },
        "evidence_store@drill": {"login": "lesser", "extra": {"prefix": "p/"}},
    }
    actual = {queue: connections_of(zone, configured) for queue, zone in ZONES.items()}
    assert {queue: "warehouse_db" in each for queue, each in actual.items()} == {
        Queue.DEFAULT: True,
        Queue.BACKUP: True,
        Queue.DRILL: False,
        Queue.RETENTION: True,
        Queue.SEALING: False,
    }
    assert [queue for queue, each in actual.items() if "robot" in each] == [Queue.DEFAULT]
    assert [queue for queue, each in actual.items() if "intake_db" in each] == [Queue.DEFAULT]
    drill = parse("evidence_store", json.dumps(actual[Queue.DRILL]["evidence_store"]))
    assert drill.login == "lesser"
    assert drill.extra == {"bucket": "b", "prefix": "p/"}
    signing = actual[Queue.SEALING]["evidence_store"]["extra_dejson"]
    assert signing["signing_key"] == "PEM"
    # Without logins of their own, workflows use the database's: the sealing zone needs it then.
    del configured["incident_db"]
    assert "warehouse_db" in connections_of(ZONES[Queue.SEALING], configured)


def test_renamed_login_in_policy_pack_is_available_only_in_the_trust_zones_of_its_workflow(
    tmp_path: Path,
) -> None:
    pack = pack_with_other_logins(tmp_path)
    names = ("wipe_db", "hr_incident_db", "customer_db", "retention_db")
    configured = {name: f"postgresql://{name}:x@courier.example/records" for name in names}
    actual = {
        name: {
            queue for queue, zone in ZONES.items() if name in connections_of(zone, configured, pack)
        }
        for name in names
    }
    assert actual["wipe_db"] == {Queue.RETENTION}
    assert actual["hr_incident_db"] == {Queue.DEFAULT, Queue.SEALING}
    assert actual["retention_db"] == set()  # nothing uses it


def pack_with_other_logins(folder: Path) -> PolicyPack:
    """Return the shipped policy pack with renamed connections for incidents and for deletion."""
    shutil.copytree(SHIPPED, folder / "pack")
    incident = folder / "pack" / "incident.yaml"
    text = incident.read_text()
    assert text.count("- database: courier\n") == 1
    incident.write_text(
        text.replace(
            "- database: courier\n", "- database: courier\n    connection: hr_incident_db\n"
        )
    )
    disposition = folder / "pack" / "disposition.yaml"
    disposition.write_text(disposition.read_text().replace("retention_db", "wipe_db"))
    return load_pack(folder / "pack")


@pytest.mark.parametrize(
    ("name", "override"),
    [
        ("evidence_store@drills", {"login": "x"}),
        ("warehouse@drill", {"login": "x"}),
        ("evidence_store@drill", "aws://x:y@"),
        ("evidence_store@drill", None),
    ],
)
def test_override_for_an_unknown_connection_or_trust_zone_raises_usage_error(
    name: str, override: object
) -> None:
    configured = {"evidence_store": {"conn_type": "aws", "extra": {"bucket": "b"}}, name: override}
    with pytest.raises(UsageError, match=f"{name} in the file of connections"):
        connections_of(ZONES[Queue.DRILL], configured)


def test_trust_zone_that_sends_no_notifications_gets_mail_connection_without_password() -> None:
    mail = {"conn_type": "smtp", "host": "mail.example", "login": "us", "password": "x"}
    sealing = connections_of(ZONES[Queue.SEALING], {"mail": mail})["mail"]
    assert (sealing["host"], sealing["login"], sealing["password"]) == ("mail.example", "", "")
    assert connections_of(ZONES[Queue.DEFAULT], {"mail": mail})["mail"]["password"] == "x"


def reachable(stack: dict[str, Any], name: str) -> set[str]:
    """Return the services that share a network with a service."""
    services = stack["services"]
    own = set(services[name]["networks"])
    return {
        other
        for other, service in services.items()
        if other not in {name, "console"} and own & set(service["networks"])
    }


@zones
def test_workers_can_reach_only_shared_servers_and_the_servers_of_their_trust_zone(
    stack: dict[str, Any], zone: Zone
) -> None:
    """All zones reach the API server, the broker, PostgreSQL and the object store."""
    assert reachable(stack, zone.service) == BROKER_AND_STATE | zone.servers


def test_mail_catcher_shares_a_network_only_with_the_worker_that_sends_mail(
    stack: dict[str, Any],
) -> None:
    """The mail catcher cannot reach any server, because workers do not listen on ports."""
    assert reachable(stack, layout.MAIL) == {"worker"}


def test_workers_have_no_route_to_the_internet(stack: dict[str, Any]) -> None:
    """All networks are internal, except the one through which users reach the API server."""
    networks = stack["networks"]
    outside = {name for name, network in networks.items() if not network.get("internal")}
    assert outside == {"front"}
    services = stack["services"].items()
    assert {name for name, service in services if "front" in service["networks"]} == {"api-server"}


def test_compose_file_outside_yaml_has_a_separate_external_network_for_each_trust_zone() -> None:
    """The file is `deploy/outside.yaml`.

    The machine's firewall filters each network by its bridge.
    """
    outside = yaml.safe_load((ROOT / "deploy" / "outside.yaml").read_text())
    workers = {
        name: service["networks"]
        for name, service in outside["services"].items()
        if name.startswith("worker")
    }
    assert workers == {zone.service: [f"{zone.queue}-out"] for zone in ZONES.values()}
    assert outside["services"]["console"] == {"networks": ["console-out"]}
    bridges = [
        network["driver_opts"]["com.docker.network.bridge.name"]
        for network in outside["networks"].values()
    ]
    assert len(set(bridges)) == len(bridges)
    assert all(len(bridge) <= 15 for bridge in bridges)  # as Linux names interfaces


def test_store_users_that_do_not_own_the_bucket_cannot_delete_objects() -> None:
    """Only the owner of a bucket may delete objects in it."""
    for owner, bucket in layout.BUCKETS.items():
        statements = json.loads(bucket_policy(owner, bucket))["Statement"]
        actions = {
            statement["Principal"]["AWS"][0].rpartition("/")[2]: statement["Action"]
            for statement in statements
        }
        if owner == layout.BACKUPS:  # it prunes what the writer wrote
            assert actions.pop(layout.BACKUPS) == ["s3:*"]
        assert (
            set(actions)
            == {
                layout.BACKUPS: {layout.READER, layout.WRITER},
                layout.EVIDENCE: {layout.READER},
                layout.EXTRACTS: {layout.EXTRACT_READER},
            }[owner]
        )  # zones without extracts have the login of the reader
        granted = {action for each in actions.values() for action in each}
        assert not {
            action
            for action in granted
            if "Delete" in action or "Bypass" in action or "*" in action
        }
