"""docker-compose.yaml: what every service must have, and what none may."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.deployment import layout
from include.deployment.zones import ZONES
from include.workflow.declaration import Queue
from include.workplace import ROOT

ONCE = {"init", "sample"}  # end by themselves; others wait for them
BY_HAND = {"console"}  # for commands of operators; never started with the stack
OF_BUILD = {"pip_conf", "ca"}  # secrets of the build, which no container has
PRIVATE = "deploy/private/"
TEXT = (ROOT / "docker-compose.yaml").read_text()
NAMES = sorted(set(yaml.safe_load(TEXT)["services"]) - BY_HAND)


def queues(stack: dict[str, Any]) -> dict[str, int]:
    """How many workers serve each queue."""
    found: dict[str, int] = {}
    for service in stack["services"].values():
        words = service.get("command") or []
        if "--queues" in words:
            for queue in words[words.index("--queues") + 1].split(","):
                found[queue] = found.get(queue, 0) + int(service["deploy"]["replicas"])
    return found


def test_the_code_knows_hosts_and_ports_as_the_stack_has_them(stack: dict[str, Any]):
    """Connections, certificates and health checks are made of `layout`."""
    assert {*layout.SERVERS, *layout.ROLES} <= set(stack["services"])
    for entry, port in (
        ("store/entry.sh", f"ssl_port={layout.STORE_PORT} "),
        ("redis/entry.sh", f"tls-port {layout.REDIS_PORT}\n"),
    ):
        assert port in (ROOT / "deploy" / entry).read_text(), entry


def test_the_stack_has_every_part(stack: dict[str, Any]):
    """Airflow's parts, broker, databases, store and mail; with the sample its database too."""
    wanted = {"api-server", "scheduler", "dag-processor", "triggerer", "postgres", "scratch"}
    wanted |= {"redis", "store", "mail", "customers", *ONCE}
    assert wanted < set(stack["services"])
    without = yaml.safe_load(TEXT)["services"]
    assert {name for name, one in without.items() if "profiles" in one} == {
        "customers",
        "sample",
        *BY_HAND,
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_service_is_limited_watched_and_started_again(stack: dict[str, Any], name: str):
    """Health, memory, processors and processes; restart; an init process that reaps."""
    service = stack["services"][name]
    limits = service["deploy"]["resources"]["limits"]
    assert {"cpus", "memory", "pids"} <= set(limits)
    assert service["init"] is True
    if name in ONCE:
        assert service["restart"].startswith("on-failure")
    else:
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] == "CMD"
    assert service["logging"]["options"]["max-size"]


@pytest.mark.parametrize("name", NAMES)
def test_no_service_is_root_or_can_become_it(stack: dict[str, Any], name: str):
    """An ordinary user, no capability, nothing written but on volumes and in /tmp."""
    service = stack["services"][name]
    uid, gid = service["user"].split(":")
    assert int(uid) > 0
    assert int(gid) > 0
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert "privileged" not in service


def test_databases_are_stopped_fast(stack: dict[str, Any]):
    """SIGTERM has PostgreSQL wait for its clients, until Docker kills it."""
    for host in layout.ROLES:
        assert stack["services"][host]["stop_signal"] == "SIGINT"


def test_no_secret_stands_in_the_environment_or_has_a_default(stack: dict[str, Any]):
    """Secrets come as files that `compose init` made, and as nothing else."""
    for name, service in stack["services"].items():
        for key, value in (service.get("environment") or {}).items():
            if re.search(r"PASSWORD|SECRET|TOKEN|FERNET|_CONN|BROKER_URL|RESULT_BACKEND|KEY", key):
                assert key.endswith("_CMD") or "SECRETS" in key, (name, key)
                assert "/run/secrets/" in value or value.endswith("LocalFilesystemBackend")
            assert "://" not in value or value.startswith("http://"), (name, key)
    for name, secret in stack["secrets"].items():
        assert PRIVATE in secret["file"] or name in OF_BUILD, name


def test_every_secret_is_a_file_that_compose_init_made(stack: dict[str, Any]):
    """Else Docker would make a folder in its place. None is mounted that nobody uses."""
    used = {one["source"] for service in stack["services"].values() for one in service["secrets"]}
    assert used == set(stack["secrets"]) - OF_BUILD
    for name in used:
        assert Path(stack["secrets"][name]["file"]).is_file(), name


def test_keys_that_leave_the_machine_are_mounted_nowhere(stack: dict[str, Any]):
    """Neither the escrow's and operations' private keys nor the authority's."""
    files = " ".join(one["file"] for one in stack["secrets"].values())
    assert "offline" not in files
    assert "authority" not in files


def test_workers_cannot_look_into_airflows_database(stack: dict[str, Any]):
    """They ask the execution API; and the API server has no connection that writes."""
    for name, service in stack["services"].items():
        mounted = {one["source"] for one in service["secrets"]}
        if name.startswith("worker"):
            assert not mounted & {"airflow_database", "fernet_key", "jwt_secret", "api_secret_key"}
        if name in {"api-server", "scheduler", "dag-processor", "triggerer"}:
            assert not mounted & {"evidence.key", "manifest.key", "drill.key", "erasure_keys"}
            assert not mounted & {
                "connections_all.json",
                *(z.connections_file for z in ZONES.values()),
            }
        if name != "init":
            assert not any(one.endswith("superuser") for one in mounted) or name in layout.ROLES | {
                "sample": 0
            }


def test_every_queue_of_a_workflow_is_served_by_two_workers(stack: dict[str, Any]):
    """A task in a queue that nobody serves waits for ever; one worker may die."""
    served = queues(stack)
    named = set()
    for path in sorted((ROOT / "dags").glob("*.py")):
        dag = runpy.run_path(str(path))[path.stem]()
        named |= {task.queue for task in dag.tasks}
    assert set(Queue) == named
    assert {queue: served.get(queue, 0) for queue in named if served.get(queue, 0) < 2} == {}


def test_each_queue_has_workers_of_its_own(stack: dict[str, Any]):
    """A backup waits behind no report, and workers have the keys of one zone."""
    for service in stack["services"].values():
        words = service.get("command") or []
        if "--queues" in words:
            assert "," not in words[words.index("--queues") + 1]


def test_visitors_reach_the_api_server_alone(stack: dict[str, Any]):
    """Networks are tested in test_zones.py."""
    published = {name for name, one in stack["services"].items() if one.get("ports")}
    assert published == {"api-server"}
    assert stack["services"]["api-server"]["ports"][0]["host_ip"] == "127.0.0.1"


def test_every_image_takes_its_base_as_an_argument(stack: dict[str, Any]):
    """So that it can be built from the company's own, without a registry."""
    built = {name: one["build"] for name, one in stack["services"].items() if "build" in one}
    assert {"postgres", "redis", "store", "init"} <= set(built)
    for build in built.values():
        assert "BASE_IMAGE" in build["args"]
    for path in [ROOT / "Dockerfile", *(ROOT / "deploy").glob("*/Dockerfile")]:
        froms = re.findall(r"^FROM (\S+)", path.read_text(), re.MULTILINE)
        assert set(froms) <= {"${BASE_IMAGE}", "base"}, path


def test_images_are_made_of_what_git_tracks():
    """The build context leaves out .env, the private folder, homes and the virtual environment."""
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    assert rules[1] == "*"
    taken = {rule[1:] for rule in rules if rule.startswith("!")}
    assert not any(one.startswith((".", "deploy/private")) or one == "deploy" for one in taken)
    inner = (ROOT / "deploy" / ".dockerignore").read_text().splitlines()
    assert inner[1] == "*"
    assert {rule for rule in inner if rule.startswith("!")} == {"!postgres", "!redis", "!store"}


@pytest.mark.parametrize("path", sorted((ROOT / "deploy").glob("*/*.sh")), ids=lambda one: one.name)
def test_entry_scripts_are_whole(path: Path):
    """Bash can read them, and each stops at the first failure."""
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    assert "set -euo pipefail" in path.read_text()


def test_celerys_executor_and_worker_begin_with_the_locked_versions():
    """Airflow's provider and Celery are released apart, and do not always fit."""
    from airflow.providers.celery.cli import celery_command
    from airflow.providers.celery.executors.celery_executor import CeleryExecutor

    assert callable(celery_command.worker)
    assert CeleryExecutor.supports_ad_hoc_ti_run is not None


def test_components_ask_for_health_that_the_check_knows(stack: dict[str, Any]):
    """A part that `include.deployment.health` does not know would be asked about its mail."""
    from include.deployment import health

    known = {*health.JOBS, "worker", "api-server", "mail"}
    asked = {
        shlex.join(one["healthcheck"]["test"]).rsplit(" ", 1)[-1]
        for one in stack["services"].values()
        if "include.deployment.health" in (one.get("healthcheck") or {}).get("test", [])
    }
    assert asked == known


def test_the_file_of_connections_is_where_airflow_and_the_command_line_look(stack: dict[str, Any]):
    """Workers by one pair of settings, the API server by the other; both name the same file."""
    worker = stack["services"]["worker"]["environment"]
    api = stack["services"]["api-server"]["environment"]
    for words in (
        worker["AIRFLOW__WORKERS__SECRETS_BACKEND_KWARGS"],
        api["AIRFLOW__SECRETS__BACKEND_KWARGS"],
    ):
        path = json.loads(words)["connections_file_path"]
        assert path == layout.mounted("connections.json")


def test_example_of_settings_names_each_variable_with_its_default():
    """`deploy/env.example` is the list of settings; `COMPOSE_PROFILES` is Compose's own."""
    used = dict(re.findall(r"\$\{([A-Z_]+)(?::-([^}]*)|:\?[^}]*)?\}", TEXT)[::-1])
    shown = dict(
        re.findall(r"^#([A-Z_]+)=(.*)$", (ROOT / "deploy" / "env.example").read_text(), re.M)
    )
    assert set(shown) - {"COMPOSE_PROFILES"} == set(used)
    assert {name: shown[name] for name, default in used.items() if default} == {
        name: default for name, default in used.items() if default
    }


def test_build_takes_index_and_authority_as_secrets(stack: dict[str, Any]):
    """The Dockerfile mounts them; without settings both are empty."""
    mounted = re.findall(r"type=secret,id=(\w+)", (ROOT / "Dockerfile").read_text())
    build = stack["services"]["init"]["build"]
    assert {one["source"] for one in build["secrets"]} == set(mounted)
    assert {stack["secrets"][name]["file"] for name in mounted} == {"/dev/null"}


def test_api_server_takes_the_address_of_visitors_from_named_proxies_only(stack: dict[str, Any]):
    """The settings that tests/orchestration/access/test_reverse_proxy.py tries behind nginx."""
    service = stack["services"]["api-server"]
    assert "--proxy-headers" in service["command"]
    assert service["environment"]["FORWARDED_ALLOW_IPS"] == "127.0.0.1"
    assert service["environment"]["AIRFLOW__FAB__COOKIE_SECURE"] == "False"
