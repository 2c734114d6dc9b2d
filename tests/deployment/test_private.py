"""`./parcelseal compose init`: what it writes, for whose eyes, and that it does so once."""

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

from include.composition import workplace_of
from include.deployment import layout
from include.deployment.private import ALL_CONNECTIONS, DOTENV, SAMPLE_PEOPLE, read_settings
from include.deployment.zones import OVERRIDE, ZONES, without_overrides
from include.orchestration.access.roles import ROLES
from include.sample_company import staff
from include.sample_company.answers import Notes
from include.sample_company.staff import DEPARTMENTS
from include.sample_company.world import Rates, World
from include.services.connections import FILE_BACKEND, configured
from include.services.database import DatabaseAddress
from include.services.mail import MailServer
from include.services.stores import open_store
from include.workplace import ROOT
from tests.deployment.conftest import init


def content(folder: Path) -> dict[str, str]:
    """Every file below a folder by its hash."""
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def copy(deployed: Path, tmp_path: Path) -> Path:
    """A deployment that a test may change."""
    folder = tmp_path / "copy"
    shutil.copytree(deployed, folder)
    return folder


def test_only_the_owner_reads_what_it_writes(deployed: Path):
    """Files 0600, folders 0700: containers run as that owner, who is never root."""
    private = deployed / "deploy" / "private"
    uid = int(read_settings(deployed / ".env")["PARCELSEAL_UID"])
    assert uid > 0
    for path in (private, *private.rglob("*")):
        found = path.stat()
        assert stat.S_IMODE(found.st_mode) == (0o700 if path.is_dir() else 0o600), path
        assert found.st_uid == uid
    assert stat.S_IMODE((deployed / ".env").stat().st_mode) == 0o600


def test_a_second_time_changes_nothing(copy: Path):
    """And says so."""
    before = content(copy)
    done = init(copy, "--sample")
    assert done.exit_code == 0
    assert content(copy) == before


def test_the_revision_follows_the_code(copy: Path):
    """`docker compose build` writes it into images, and every sealed bundle names it."""
    dotenv = copy / DOTENV
    revision = read_settings(dotenv)["PARCELSEAL_REVISION"]
    assert revision == workplace_of({}).code_version != "unknown"
    text = dotenv.read_text()
    dotenv.write_text(text.replace(revision, "of-the-version-before"))
    assert init(copy).exit_code == 0
    assert dotenv.read_text() == text


def test_what_is_missing_comes_back_and_the_rest_stays(copy: Path):
    """A server's certificate is renewed by removing it; an upgrade adds what is new."""
    private = copy / "deploy" / "private"
    before = content(private)
    (private / "redis_certificate").unlink()
    (private / "fernet_key").unlink()
    connections = json.loads((private / "connections.json").read_text())
    connections["state_db"]["password"] = "of-our-own"
    connections["warehouse_db"] = "postgresql://reader:x@warehouse.example/records"
    del connections["mail"]
    (private / "connections.json").write_text(json.dumps(connections))
    assert init(copy).exit_code == 0
    after = content(private)
    changed = {name for name in before if before[name] != after[name]}
    derived = {ALL_CONNECTIONS, *(zone.connections_file for zone in ZONES.values())}
    assert changed == {"redis_certificate", "redis_key", "fernet_key", "connections.json", *derived}
    kept = json.loads((private / "connections.json").read_text())
    assert kept["state_db"]["password"] == "of-our-own"
    assert "warehouse_db" in kept
    assert kept["mail"]["host"] == layout.MAIL


def test_init_of_a_stack_with_its_own_store_adds_no_login_of_the_replaced_store(
    copy: Path,
) -> None:
    path = copy / "deploy" / "private" / "connections.json"
    whole = json.loads(path.read_text())
    ours = {name: each for name, each in whole.items() if OVERRIDE not in name}
    extra = {**ours["offsite_store"]["extra_dejson"], "endpoint_url": "https://s3.company.example"}
    ours["offsite_store"] = {**ours["offsite_store"], "extra_dejson": extra}
    path.write_text(json.dumps(ours))
    assert init(copy).exit_code == 0
    added = json.loads(path.read_text()).keys() - ours.keys()
    assert added == {name for name in whole if name.startswith(f"evidence_store{OVERRIDE}")}


def test_no_two_deployments_share_a_secret(deployed: Path, tmp_path: Path):
    """Nothing is default; and nobody of the sample may log in to a company's own."""
    shutil.copy(ROOT / "docker-compose.yaml", tmp_path)
    assert init(tmp_path).exit_code == 0
    ours, others = (content(one / "deploy" / "private") for one in (deployed, tmp_path))
    same = {name for name in ours.keys() & others.keys() if ours[name] == others[name]}
    assert {one for one in same if not one.startswith("policy/")} == set()
    for folder, people in ((deployed, json.loads(SAMPLE_PEOPLE.read_bytes())), (tmp_path, [])):
        users = json.loads((folder / "deploy" / "private" / "users.json").read_text())
        assert [one["id"] for one in users] == ["admin", *(one["id"] for one in people)]


def test_git_tracks_nothing_of_it(deployed: Path):
    """Neither .env nor anything in the private folder."""
    names = [".env", *(f"deploy/private/{one}" for one in content(deployed / "deploy/private"))]
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


def test_half_of_a_pair_is_told_not_replaced(copy: Path):
    """A new signing key in silence would make all older evidence strangers' work."""
    (copy / "deploy" / "private" / "evidence.key").unlink()
    done = init(copy)
    assert done.exit_code != 0
    assert "evidence.key" in str(done.exception)


@pytest.mark.parametrize(
    ("kept", "lost"),
    [
        ("offline/escrow.key", "escrow.crt"),
        ("drill.key", "drill.crt"),
        ("authority.key", "ca_certificate"),
        ("evidence.key", "evidence.pub"),
    ],
)
def test_an_init_that_was_ended_between_a_key_and_its_public_half(copy: Path, kept: str, lost: str):
    """The next one makes the other half of the key that is there, not of one that nobody has."""
    private = copy / "deploy" / "private"
    before = public_key(private / lost)
    key = (private / kept).read_bytes()
    (private / lost).unlink()
    assert init(copy).exit_code == 0
    assert (private / kept).read_bytes() == key
    assert public_key(private / lost) == before


def public_key(file: Path) -> bytes:
    """Of a certificate or a public key."""
    kind = ["x509", "-pubkey"] if b"CERTIFICATE" in file.read_bytes() else ["pkey", "-pubin"]
    words = ["openssl", *kind, "-noout" if kind[0] == "x509" else "-pubout", "-in", str(file)]
    return subprocess.run(words, capture_output=True, check=True).stdout


def test_a_key_of_another_certificate_is_told(copy: Path):
    """Else backups would be made that the key in the safe does not open."""
    private = copy / "deploy" / "private"
    shutil.copy(private / "offline" / "operations.key", private / "offline" / "escrow.key")
    done = init(copy)
    assert done.exit_code != 0
    assert "do not belong together" in str(done.exception)


def test_a_policy_that_was_copied_in_part_is_copied_anew(copy: Path):
    """An init that was ended there leaves no pack behind that lacks files."""
    private = copy / "deploy" / "private"
    whole = content(private / "policy")
    shutil.rmtree(private / "policy")
    (private / ".policy.partial").mkdir()
    (private / ".policy.partial" / "calendar.yaml").write_text("half")
    assert init(copy).exit_code == 0
    assert content(private / "policy") == whole


def test_keys_may_leave_and_are_not_made_again(copy: Path):
    """The offline folder is moved to a safe; a repeated init makes no second escrow key."""
    private = copy / "deploy" / "private"
    shutil.rmtree(private / "offline")
    before = content(private)
    assert init(copy).exit_code == 0
    assert content(private) == before
    assert not any((private / "offline").iterdir())


def test_servers_certificates_are_verified_by_their_names(deployed: Path):
    """OpenSSL accepts each under its own host's name, by the authority that containers have."""
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
def test_every_connection_can_be_read_by_airflow_and_by_the_command_line(deployed: Path, name: str):
    """One file serves both; databases and mail are verified over TLS, stores too."""
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
        theirs, ours = airflow.get_connection(conn_id), configured(conn_id, environment)
        assert ours is not None
        assert theirs is not None
        assert (ours.host, ours.login, ours.password, ours.extra) == (
            theirs.host or "",
            theirs.login or "",
            theirs.password or "",
            theirs.extra_dejson,
        )
        if ours.conn_type == "postgres":
            assert DatabaseAddress.from_connection(ours).parameters["sslmode"] == "verify-full"
        elif ours.conn_type == "smtp":
            assert MailServer.from_connection(ours).security == "starttls"
        else:
            assert open_store(ours).kind == "s3"


def test_pages_get_no_key_that_signs_and_no_password_that_writes(deployed: Path):
    """What the API server is given could be stolen through it."""
    private = deployed / "deploy" / "private"
    pages = json.loads((private / "connections_pages.json").read_text())
    whole = json.loads((private / "connections.json").read_text())
    assert set(pages) == {"pages_db", "evidence_store", "offsite_store"}  # docs/pages.md
    assert "signing_key" not in json.dumps(pages)
    writing = {one["login"] for one in without_overrides(whole).values()}
    for store in ("evidence_store", "offsite_store"):
        assert pages[store]["login"] not in writing | {whole["offsite_store@backup"]["login"]}
        assert pages[store]["login"] == (private / f"store_{layout.READER}_access").read_text()
    assert pages["pages_db"]["login"] == layout.PAGES


def test_a_folder_without_the_stack_is_refused(tmp_path: Path):
    """Nothing is written in a wrong place."""
    done = init(tmp_path)
    assert done.exit_code != 0
    assert not any(tmp_path.iterdir())


def test_the_policy_pack_has_the_sample_and_the_stacks_own_databases(deployed: Path):
    """So the stack backs up itself from the first night."""
    from include.registry import load_pack

    pack = load_pack(deployed / "deploy" / "private" / "policy")
    assert set(pack.databases) == {"airflow", "courier", "parcelseal_state"}


def test_people_of_the_sample_are_employees_who_are_there():
    """As `./parcelseal roles asked` would: else reviews and deletions of the sample wait for ever.

    Two of each department that its pack asks, since one person never decides alone.
    """
    world = World(5000, 1, datetime(2026, 11, 27, tzinfo=UTC), Rates())
    staff.build(world, Notes())
    there = {f"E{one.employee_id:05}": one for one in world.staff if not one.left_on}
    people = {one["id"]: one for one in json.loads(SAMPLE_PEOPLE.read_bytes())}
    del people["auditor"]
    departments = Counter(there[account].department_id for account in people)
    asked = ("公司总部", "客户服务部", "信息管理部", "信息技术部", "合规部")
    for number, (name, _kind) in enumerate(DEPARTMENTS, 1):
        assert departments[number] >= (2 if name in asked else 0), name


def test_each_workflow_that_asks_finds_two_people_of_the_sample():
    """Their roles are roles of the table, and each may answer what the department is asked."""
    people = json.loads(SAMPLE_PEOPLE.read_bytes())
    answers = {role.name: role.answers for role in ROLES}
    could = Counter(
        workflow for one in people for workflow in set().union(*(answers[r] for r in one["roles"]))
    )
    assert set(could) == set().union(*answers.values())
    assert min(could.values()) >= 2, could
