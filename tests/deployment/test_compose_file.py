"""Test docker-compose.yaml: required and forbidden settings of services."""

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
from include.service_container import ROOT
from include.workflow.declaration import Queue

ONCE = {"init", "sample"}  # end by themselves; others wait for them
BY_HAND = {"console"}  # for commands of operators; never started with the stack
OF_BUILD = {"pip_conf", "ca"}  # secrets of the build, which no container has
PRIVATE = "deploy/private/"
TEXT = (ROOT / "docker-compose.yaml").read_text()
NAMES = sorted(set(yaml.safe_load(TEXT)["services"]) - BY_HAND)


def queues(stack: dict[str, Any]) -> dict[str, int]:
    """Return the number of workers of each queue."""
    counts: dict[str, int] = {}
    for service in stack["services"].values():
        words = service.get("command") or []
        if "--queues" in words:
            for queue in words[words.index("--queues") + 1].split(","):
                counts[queue] = counts.get(queue, 0) + int(service["deploy"]["replicas"])
    return counts


def test_hosts_and_ports_of_module_layout_exist_in_the_compose_stack(
    stack: dict[str, Any],
):
    """Connections, certificates and health checks use the names in `include.deployment.layout`."""
    assert {*layout.SERVERS, *layout.ROLES} <= set(stack["services"])
    for entry, port in (
        ("store/entry.sh", f"ssl_port={layout.STORE_PORT} "),
        ("redis/entry.sh", f"tls-port {layout.REDIS_PORT}\n"),
    ):
        assert port in (ROOT / "deploy" / entry).read_text(), entry


def test_compose_file_contains_all_required_services(stack: dict[str, Any]):
    """The stack runs Airflow, a broker, databases, an object store and a mail catcher.

    With the option `--sample`, it also runs the sample customer database.
    """
    expected = {"api-server", "scheduler", "dag-processor", "triggerer", "postgres", "scratch"}
    expected |= {"redis", "store", "mail", "customers", *ONCE}
    assert expected < set(stack["services"])
    without = yaml.safe_load(TEXT)["services"]
    assert {name for name, service in without.items() if "profiles" in service} == {
        "customers",
        "sample",
        *BY_HAND,
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_long_running_service_has_resource_limits_health_check_and_restart_policy(
    stack: dict[str, Any], name: str
):
    """Memory, processors and processes are limited. Services that run once need no health check."""
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
def test_no_service_runs_as_root_or_gains_privileges(stack: dict[str, Any], name: str):
    """Each service runs as a user without capabilities and writes only to volumes and /tmp."""
    service = stack["services"][name]
    uid, gid = service["user"].split(":")
    assert int(uid) > 0
    assert int(gid) > 0
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert "privileged" not in service


def test_postgresql_services_are_stopped_with_sigint_for_a_fast_shutdown(stack: dict[str, Any]):
    """After SIGTERM, PostgreSQL would wait for its clients until Docker kills it."""
    for host in layout.ROLES:
        assert stack["services"][host]["stop_signal"] == "SIGINT"


def test_container_environment_contains_no_secret_values_and_no_default_secrets(
    stack: dict[str, Any],
):
    """Containers get secrets only as files that `compose init` writes."""
    for name, service in stack["services"].items():
        for key, value in (service.get("environment") or {}).items():
            if re.search(r"PASSWORD|SECRET|TOKEN|FERNET|_CONN|BROKER_URL|RESULT_BACKEND|KEY", key):
                assert key.endswith("_CMD") or "SECRETS" in key, (name, key)
                assert "/run/secrets/" in value or value.endswith("LocalFilesystemBackend")
            assert "://" not in value or value.startswith("http://"), (name, key)
    for name, secret in stack["secrets"].items():
        assert PRIVATE in secret["file"] or name in OF_BUILD, name


def test_every_secret_is_a_file_that_compose_init_writes(stack: dict[str, Any]):
    """Docker would create a folder in place of a missing file. Services use all of the secrets."""
    used = {
        secret["source"] for service in stack["services"].values() for secret in service["secrets"]
    }
    assert used == set(stack["secrets"]) - OF_BUILD
    for name in used:
        assert Path(stack["secrets"][name]["file"]).is_file(), name


def test_offline_keys_are_not_mounted(stack: dict[str, Any]):
    """The offline keys are the private keys of escrow, operations and the certificate authority."""
    files = " ".join(secret["file"] for secret in stack["secrets"].values())
    assert "offline" not in files
    assert "authority" not in files


def test_workers_have_no_access_to_the_airflow_database(stack: dict[str, Any]):
    """Workers use Airflow's execution API. The API server has no connection that can write."""
    for name, service in stack["services"].items():
        mounted = {secret["source"] for secret in service["secrets"]}
        if name.startswith("worker"):
            assert not mounted & {"airflow_database", "fernet_key", "jwt_secret", "api_secret_key"}
        if name in {"api-server", "scheduler", "dag-processor", "triggerer"}:
            assert not mounted & {"evidence.key", "manifest.key", "drill.key", "erasure_keys"}
            assert not mounted & {
                "connections_all.json",
                *(z.connections_file for z in ZONES.values()),
            }
        if name != "init":
            assert not any(
                secret.endswith("superuser") for secret in mounted
            ) or name in layout.ROLES | {"sample": 0}


def test_every_queue_has_at_least_two_workers(stack: dict[str, Any]):
    """A task in a queue without workers would wait forever, and a worker may fail."""
    served = queues(stack)
    named = set()
    for path in sorted((ROOT / "dags").glob("*.py")):
        dag = runpy.run_path(str(path))[path.stem]()
        named |= {task.queue for task in dag.tasks}
    assert set(Queue) == named
    assert {queue: served.get(queue, 0) for queue in named if served.get(queue, 0) < 2} == {}


def test_each_worker_serves_a_single_queue(stack: dict[str, Any]):
    """Backups do not wait for reports, and each worker has the keys of only one trust zone."""
    for service in stack["services"].values():
        words = service.get("command") or []
        if "--queues" in words:
            assert "," not in words[words.index("--queues") + 1]


def test_only_the_api_server_publishes_a_port(stack: dict[str, Any]):
    """Tests in test_zones.py check the networks."""
    published = {name for name, service in stack["services"].items() if service.get("ports")}
    assert published == {"api-server"}
    assert stack["services"]["api-server"]["ports"][0]["host_ip"] == "127.0.0.1"


def test_every_image_has_its_base_image_as_build_argument(stack: dict[str, Any]):
    """Images can then be built from the company's base image, without a public registry."""
    built = {
        name: service["build"] for name, service in stack["services"].items() if "build" in service
    }
    assert {"postgres", "redis", "store", "init"} <= set(built)
    for build in built.values():
        assert "BASE_IMAGE" in build["args"]
    for path in [ROOT / "Dockerfile", *(ROOT / "deploy").glob("*/Dockerfile")]:
        froms = re.findall(r"^FROM (\S+)", path.read_text(), re.MULTILINE)
        assert set(froms) <= {"${BASE_IMAGE}", "base"}, path


def test_docker_build_context_excludes_dotfiles_and_the_folder_deploy_private():
    """The context excludes .env, the private folder, home folders and the virtual environment."""
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    assert rules[1] == "*"
    taken = {rule[1:] for rule in rules if rule.startswith("!")}
    assert not any(path.startswith((".", "deploy/private")) or path == "deploy" for path in taken)
    inner = (ROOT / "deploy" / ".dockerignore").read_text().splitlines()
    assert inner[1] == "*"
    assert {rule for rule in inner if rule.startswith("!")} == {"!postgres", "!redis", "!store"}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "deploy").glob("*/*.sh")), ids=lambda path: path.name
)
def test_container_scripts_are_valid_bash_and_stop_at_the_first_failed_command(path: Path):
    """Bash must parse each script, and each script must end at the first failed command."""
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    assert "set -euo pipefail" in path.read_text()


def test_celery_executor_and_worker_are_importable_with_the_locked_versions():
    """Airflow's Celery provider and Celery are released separately and may be incompatible."""
    from airflow.providers.celery.cli import celery_command
    from airflow.providers.celery.executors.celery_executor import CeleryExecutor

    assert callable(celery_command.worker)
    assert CeleryExecutor.supports_ad_hoc_ti_run is not None


def test_health_checks_in_compose_file_use_exactly_the_service_names_that_module_health_supports(
    stack: dict[str, Any],
):
    """`include.deployment.health` would check an unknown service as if it were the mail server."""
    from include.deployment import health

    supported = {*health.JOBS, "worker", "api-server", "mail"}
    named_parts = {
        shlex.join(service["healthcheck"]["test"]).rsplit(" ", 1)[-1]
        for service in stack["services"].values()
        if "include.deployment.health" in (service.get("healthcheck") or {}).get("test", [])
    }
    assert named_parts == supported


def test_connections_file_has_the_same_path_for_workers_and_api_server(stack: dict[str, Any]):
    """Workers and the API server name the same path in different settings."""
    worker = stack["services"]["worker"]["environment"]
    api = stack["services"]["api-server"]["environment"]
    for words in (
        worker["AIRFLOW__WORKERS__SECRETS_BACKEND_KWARGS"],
        api["AIRFLOW__SECRETS__BACKEND_KWARGS"],
    ):
        path = json.loads(words)["connections_file_path"]
        assert path == layout.mounted("connections.json")


def test_env_example_file_contains_each_compose_variable_with_its_default_value():
    """`deploy/env.example` lists all settings.

    `COMPOSE_PROFILES` is a setting of Docker Compose.
    """
    used = dict(re.findall(r"\$\{([A-Z_]+)(?::-([^}]*)|:\?[^}]*)?\}", TEXT)[::-1])
    shown = dict(
        re.findall(r"^#([A-Z_]+)=(.*)$", (ROOT / "deploy" / "env.example").read_text(), re.M)
    )
    assert set(shown) - {"COMPOSE_PROFILES"} == set(used)
    assert {name: shown[name] for name, default in used.items() if default} == {
        name: default for name, default in used.items() if default
    }


def test_package_index_and_certificate_authority_are_passed_to_docker_build_as_build_secrets(
    stack: dict[str, Any],
):
    """The Dockerfile mounts both secrets. Both are empty if the settings are missing."""
    mounted = re.findall(r"type=secret,id=(\w+)", (ROOT / "Dockerfile").read_text())
    build = stack["services"]["init"]["build"]
    assert {secret["source"] for secret in build["secrets"]} == set(mounted)
    assert {stack["secrets"][name]["file"] for name in mounted} == {"/dev/null"}


def test_api_server_trusts_proxy_headers_only_from_localhost_by_default(stack: dict[str, Any]):
    """tests/orchestration/access/test_reverse_proxy.py tests these settings behind nginx."""
    service = stack["services"]["api-server"]
    assert "--proxy-headers" in service["command"]
    assert service["environment"]["FORWARDED_ALLOW_IPS"] == "127.0.0.1"
    assert service["environment"]["AIRFLOW__FAB__COOKIE_SECURE"] == "False"
