"""Test `./parcelseal compose init`: written files, their permissions, and repeated calls."""

from __future__ import annotations

import json
import shutil
import ssl
import stat
import subprocess
from collections import Counter
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509

from include.composition import services_from
from include.deployment import layout
from include.deployment.private import ALL_CONNECTIONS, DOTENV, SAMPLE_PEOPLE, read_settings
from include.deployment.zones import OVERRIDE, ZONES, without_overrides
from include.orchestration.access.roles import ROLES
from include.sample_company import staff
from include.sample_company.answers import AnswerSheetBuilder
from include.sample_company.staff import DEPARTMENTS
from include.sample_company.world import Rates, World
from include.service_container import ROOT
from include.services.connections import FILE_BACKEND, configured
from include.services.database import DatabaseAddress
from include.services.mail import MailServer
from include.services.stores import open_store
from tests.deployment.conftest import init


def hashes_of(folder: Path) -> dict[str, str]:
    """Return the hashes of all files below a folder, by path."""
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def copy(deployed: Path, tmp_path: Path) -> Path:
    """Return a copy of the deployment folder that a test may change."""
    folder = tmp_path / "copy"
    shutil.copytree(deployed, folder)
    return folder


def test_compose_init_writes_files_readable_only_by_their_owner(deployed: Path):
    """Containers run as the owner of the files. The owner is never root."""
    private = deployed / "deploy" / "private"
    uid = int(read_settings(deployed / ".env")["PARCELSEAL_UID"])
    assert uid > 0
    for path in (private, *private.rglob("*")):
        status = path.stat()
        assert stat.S_IMODE(status.st_mode) == (0o700 if path.is_dir() else 0o600), path
        assert status.st_uid == uid
    assert stat.S_IMODE((deployed / ".env").stat().st_mode) == 0o600


def test_second_compose_init_changes_no_file(copy: Path):
    """`compose init` may be repeated at any time."""
    before = hashes_of(copy)
    done = init(copy, "--sample")
    assert done.exit_code == 0
    assert hashes_of(copy) == before


def test_compose_init_updates_the_code_revision_in_the_env_file(copy: Path):
    """`docker compose build` writes the revision into images. Evidence bundles state it."""
    dotenv = copy / DOTENV
    revision = read_settings(dotenv)["PARCELSEAL_REVISION"]
    assert revision == services_from({}).code_version != "unknown"
    text = dotenv.read_text()
    dotenv.write_text(text.replace(revision, "of-the-version-before"))
    assert init(copy).exit_code == 0
    assert dotenv.read_text() == text


def test_compose_init_adds_missing_files_and_connections_and_keeps_existing_connections(copy: Path):
    """Operators delete a server certificate to renew it, and upgrades need new files."""
    private = copy / "deploy" / "private"
    before = hashes_of(private)
    (private / "redis_certificate").unlink()
    (private / "fernet_key").unlink()
    connections = json.loads((private / "connections.json").read_text())
    connections["state_db"]["password"] = "of-our-own"
    connections["warehouse_db"] = "postgresql://reader:x@warehouse.example/records"
    del connections["mail"]
    (private / "connections.json").write_text(json.dumps(connections))
    assert init(copy).exit_code == 0
    after = hashes_of(private)
    changed = {name for name in before if before[name] != after[name]}
    derived = {ALL_CONNECTIONS, *(zone.connections_file for zone in ZONES.values())}
    assert changed == {"redis_certificate", "redis_key", "fernet_key", "connections.json", *derived}
    existing_name = json.loads((private / "connections.json").read_text())
    assert existing_name["state_db"]["password"] == "of-our-own"
    assert "warehouse_db" in existing_name
    assert existing_name["mail"]["host"] == layout.MAIL


def test_compose_init_adds_the_extract_store_to_an_existing_deployment_and_keeps_its_secrets(
    copy: Path,
):
    """An earlier version wrote a deployment without the extract store."""
    private = copy / "deploy" / "private"
    before = hashes_of(private)
    names = ("connections.json", "connections_pages.json")
    complete = {name: json.loads((private / name).read_text()) for name in names}
    for name, connections in complete.items():
        rest = {key: each for key, each in connections.items() if key != "extract_store"}
        (private / name).write_text(json.dumps(rest))
    removed = [*private.glob("store_extract*"), private / "extract_password_key"]
    assert len(removed) == 5
    for path in removed:
        path.unlink()
    assert init(copy).exit_code == 0
    key = (private / "extract_password_key").read_text()
    for name, user in zip(names, (layout.EXTRACTS, layout.EXTRACT_READER), strict=True):
        added = json.loads((private / name).read_text())
        store = added.pop("extract_store")
        assert store["login"] == (private / f"store_{user}_access").read_text()
        assert store["extra_dejson"].get("password_key") == (
            key if name == "connections.json" else None
        )
        assert added == {k: v for k, v in complete[name].items() if k != "extract_store"}
    zone = json.loads((private / "connections_default.json").read_text())
    assert zone["extract_store"]["extra_dejson"]["password_key"] == key
    after = hashes_of(private)
    new = {path.name for path in removed}
    derived = {ALL_CONNECTIONS, "connections_default.json"}
    assert {name for name in before if before[name] != after[name]} == {*names, *derived, *new}


@pytest.mark.parametrize(
    "replaced",
    [
        {"conn_type": "fs", "extra": {"path": "/srv/extracts", "password_key": "x" * 32}},
        {"conn_type": "aws", "extra": {"bucket": "extracts", "password_key": "x" * 32}},
    ],
)
def test_compose_init_adds_no_extract_store_for_the_pages_if_operators_use_another_store(
    copy: Path, replaced: dict[str, object]
):
    """The pages would search for the extracts in the stack's own store."""
    private = copy / "deploy" / "private"
    for name, store in (("connections.json", replaced), ("connections_pages.json", None)):
        connections = json.loads((private / name).read_text())
        del connections["extract_store"]
        kept = {**connections, **({"extract_store": store} if store else {})}
        (private / name).write_text(json.dumps(kept))
    assert init(copy).exit_code == 0
    assert "extract_store" not in json.loads((private / "connections_pages.json").read_text())
    assert json.loads((private / "connections.json").read_text())["extract_store"] == replaced


def test_compose_init_adds_no_trust_zone_logins_to_an_offsite_store_with_a_changed_endpoint(
    copy: Path,
) -> None:
    path = copy / "deploy" / "private" / "connections.json"
    whole = json.loads(path.read_text())
    own = {name: each for name, each in whole.items() if OVERRIDE not in name}
    extra = {**own["offsite_store"]["extra_dejson"], "endpoint_url": "https://s3.company.example"}
    own["offsite_store"] = {**own["offsite_store"], "extra_dejson": extra}
    path.write_text(json.dumps(own))
    assert init(copy).exit_code == 0
    added = json.loads(path.read_text()).keys() - own.keys()
    assert added == {name for name in whole if name.startswith(f"evidence_store{OVERRIDE}")}


def test_two_deployments_share_no_secret(deployed: Path, tmp_path: Path):
    """There are no default secrets, and sample users cannot log in to other deployments."""
    shutil.copy(ROOT / "docker-compose.yaml", tmp_path)
    assert init(tmp_path).exit_code == 0
    own, others = (hashes_of(root / "deploy" / "private") for root in (deployed, tmp_path))
    same = {name for name in own.keys() & others.keys() if own[name] == others[name]}
    assert {name for name in same if not name.startswith("policy/")} == set()
    for folder, people in ((deployed, json.loads(SAMPLE_PEOPLE.read_bytes())), (tmp_path, [])):
        users = json.loads((folder / "deploy" / "private" / "users.json").read_text())
        assert [user["id"] for user in users] == ["admin", *(person["id"] for person in people)]


def test_git_ignores_all_files_that_compose_init_writes(deployed: Path):
    """The files are .env and all files of the private folder."""
    names = [".env", *(f"deploy/private/{name}" for name in hashes_of(deployed / "deploy/private"))]
    done = subprocess.run(
        ["git", "-C", str(ROOT), "check-ignore", "--stdin"],
        input="\n".join(names),
        capture_output=True,
        text=True,
        check=False,
    )
    assert set(done.stdout.splitlines()) == set(names)
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "deploy/private", ".env"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert tracked.stdout == ""


def test_compose_init_fails_if_a_public_key_exists_without_its_private_key(copy: Path):
    """Older evidence could not be verified with a new signing key."""
    (copy / "deploy" / "private" / "evidence.key").unlink()
    done = init(copy)
    assert done.exit_code != 0
    assert "evidence.key" in str(done.exception)


@pytest.mark.parametrize(
    ("existing_name", "missing_name"),
    [
        ("offline/escrow.key", "escrow.crt"),
        ("drill.key", "drill.crt"),
        ("authority.key", "ca_certificate"),
        ("evidence.key", "evidence.pub"),
    ],
)
def test_compose_init_creates_a_missing_public_key_from_the_existing_private_key(
    copy: Path, existing_name: str, missing_name: str
):
    """The next call creates the missing public key file from the existing private key."""
    private = copy / "deploy" / "private"
    before = public_key(private / missing_name)
    key = (private / existing_name).read_bytes()
    (private / missing_name).unlink()
    assert init(copy).exit_code == 0
    assert (private / existing_name).read_bytes() == key
    assert public_key(private / missing_name) == before


def public_key(file: Path) -> bytes:
    """Return the public key in a file with a certificate or a public key."""
    kind = ["x509", "-pubkey"] if b"CERTIFICATE" in file.read_bytes() else ["pkey", "-pubin"]
    words = ["openssl", *kind, "-noout" if kind[0] == "x509" else "-pubout", "-in", str(file)]
    return subprocess.run(words, capture_output=True, check=True).stdout


def test_compose_init_fails_if_a_private_key_does_not_match_its_certificate(copy: Path):
    """Otherwise, the escrow key could not decrypt backups."""
    private = copy / "deploy" / "private"
    shutil.copy(private / "offline" / "operations.key", private / "offline" / "escrow.key")
    done = init(copy)
    assert done.exit_code != 0
    assert "do not belong together" in str(done.exception)


def test_compose_init_copies_the_whole_policy_pack_after_an_interrupted_copy(copy: Path):
    """The next call must not use the incomplete policy pack of the interrupted call."""
    private = copy / "deploy" / "private"
    whole = hashes_of(private / "policy")
    shutil.rmtree(private / "policy")
    (private / ".policy.partial").mkdir()
    (private / ".policy.partial" / "calendar.yaml").write_text("half")
    assert init(copy).exit_code == 0
    assert hashes_of(private / "policy") == whole


def test_compose_init_creates_no_new_offline_keys_after_the_offline_folder_was_removed(copy: Path):
    """Operators move the offline folder to a safe.

    After that, no call may create a new escrow key.
    """
    private = copy / "deploy" / "private"
    shutil.rmtree(private / "offline")
    before = hashes_of(private)
    assert init(copy).exit_code == 0
    assert hashes_of(private) == before
    assert not any((private / "offline").iterdir())


def test_server_certificates_are_valid_for_their_host_names(deployed: Path):
    """OpenSSL verifies each certificate and host name with the stack's certificate authority."""
    private = deployed / "deploy" / "private"
    context = ssl.create_default_context(cafile=private / "ca_certificate")
    assert context.verify_mode is ssl.CERT_REQUIRED
    for host in layout.SERVERS:
        path = private / f"{host}_certificate"
        words = ["-CAfile", str(private / "ca_certificate"), "-verify_hostname", host]
        done = subprocess.run(
            ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", *words, str(path)],
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        names = x509.load_pem_x509_certificate(path.read_bytes()).extensions
        assert names.get_extension_for_class(x509.SubjectAlternativeName)


@pytest.mark.parametrize(
    "name", [ALL_CONNECTIONS, *(zone.connections_file for zone in ZONES.values())]
)
def test_airflow_and_command_line_read_equal_connections_from_the_same_file(
    deployed: Path, name: str
):
    """Airflow and the command line read the same file.

    Connections to databases, mail server and stores use verified TLS.
    """
    from airflow.secrets.local_filesystem import LocalFilesystemBackend

    path = deployed / "deploy" / "private" / name
    airflow = LocalFilesystemBackend(connections_file_path=str(path))
    environment = {
        "AIRFLOW__WORKERS__SECRETS_BACKEND": FILE_BACKEND,
        "AIRFLOW__WORKERS__SECRETS_BACKEND_KWARGS": json.dumps(
            {"connections_file_path": str(path)}
        ),
    }
    for conn_id in json.loads(path.read_text()):
        theirs, own = airflow.get_connection(conn_id), configured(conn_id, environment)
        assert own is not None
        assert theirs is not None
        assert (own.host, own.login, own.password, own.extra) == (
            theirs.host or "",
            theirs.login or "",
            theirs.password or "",
            theirs.extra_dejson,
        )
        if own.conn_type == "postgres":
            assert DatabaseAddress.from_connection(own).parameters["sslmode"] == "verify-full"
        elif own.conn_type == "smtp":
            assert MailServer.from_connection(own).security == "starttls"
        else:
            assert open_store(own).kind == "s3"


def test_connections_of_compliance_pages_have_no_signing_key_and_no_login_that_can_write(
    deployed: Path,
):
    """An attacker who controls the API server could steal its secrets."""
    private = deployed / "deploy" / "private"
    pages = json.loads((private / "connections_pages.json").read_text())
    whole = json.loads((private / "connections.json").read_text())
    # As in docs/explanation/compliance-pages.md.
    assert set(pages) == {"pages_db", "evidence_store", "offsite_store", "extract_store"}
    assert "signing_key" not in json.dumps(pages)
    assert "password_key" not in json.dumps(pages)
    writing = {override["login"] for override in without_overrides(whole).values()}
    for store, user in (
        ("evidence_store", layout.READER),
        ("offsite_store", layout.READER),
        ("extract_store", layout.EXTRACT_READER),
    ):
        assert pages[store]["login"] not in writing | {whole["offsite_store@backup"]["login"]}
        assert pages[store]["login"] == (private / f"store_{user}_access").read_text()
        assert pages[store]["extra_dejson"]["bucket"] == whole[store]["extra_dejson"]["bucket"]
    assert pages["pages_db"]["login"] == layout.PAGES


def test_compose_init_fails_and_writes_no_file_in_a_folder_without_docker_compose_file(
    tmp_path: Path,
):
    """The command must not write files outside of the stack's folder."""
    done = init(tmp_path)
    assert done.exit_code != 0
    assert not any(tmp_path.iterdir())


def test_policy_pack_contains_data_maps_of_the_sample_airflow_and_state_databases(deployed: Path):
    """The stack therefore backs up its own databases from the first night."""
    from include.registry import load_pack

    pack = load_pack(deployed / "deploy" / "private" / "policy")
    assert set(pack.databases) == {"airflow", "courier", "parcelseal_state"}


def test_sample_users_are_current_employees_in_the_sample_database():
    """Reviews and dispositions in the sample wait for the answers of these users.

    Each department that the policy pack names has two users, because a decision needs a second
    person.
    """
    world = World(5000, 1, datetime(2026, 11, 27, tzinfo=UTC), Rates())
    staff.build(world, AnswerSheetBuilder())
    current = {
        f"E{employee.employee_id:05}": employee for employee in world.staff if not employee.left_on
    }
    people = {load["id"]: load for load in json.loads(SAMPLE_PEOPLE.read_bytes())}
    del people["auditor"]
    departments = Counter(current[account].department_id for account in people)
    answering_departments = ("公司总部", "客户服务部", "信息管理部", "信息技术部", "合规部")
    for number, (name, _kind) in enumerate(DEPARTMENTS, 1):
        assert departments[number] >= (2 if name in answering_departments else 0), name


def test_each_workflow_with_human_tasks_has_at_least_two_sample_users_who_may_answer():
    """A decision needs a second person, so at least two users have a role that may answer."""
    people = json.loads(SAMPLE_PEOPLE.read_bytes())
    answers = {role.name: role.answers for role in ROLES}
    could = Counter(
        workflow
        for person in people
        for workflow in set().union(*(answers[r] for r in person["roles"]))
    )
    assert set(could) == set().union(*answers.values())
    assert min(could.values()) >= 2, could
