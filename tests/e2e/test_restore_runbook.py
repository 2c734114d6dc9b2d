"""The restore runbook's shell blocks, as printed, restore a backup without ParcelSeal."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.backup.manifest import Manifest
from include.encryption.crypto import FRAME, decrypting, encrypting
from include.encryption.recipients import opening_key_from_pem, recipient_from_pem
from include.services.programs import program_folder
from include.workplace import ROOT
from tests.e2e.conftest import Cli
from tests.erasure.support import record
from tests.support.damage import flip
from tests.support.registers import unguarded

pytestmark = pytest.mark.airflow

PAGE = (ROOT / "docs" / "restore-runbook.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
ERASED = [["3"], ["5"]]  # keys of intake_record, to which nothing refers


@pytest.fixture(scope="module")
def point(cli: Cli, backed_up: dict[str, Any]) -> Path:
    """The sample's restore point."""
    (manifest,) = (cli.home / "offsite" / "courier").glob("*/manifest.json")
    return manifest.parent


def default_address(cli: Cli) -> str:
    """An address to which its customer refers, who stays."""
    with psycopg.connect(cli.postgres("courier")) as conn:
        row = conn.execute("SELECT min(default_address_id)::text FROM customer").fetchone()
    assert row
    return str(row[0])


@pytest.fixture(scope="module")
def erasures(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The ledger's export and its keys: three were erased and one masked after the backup."""
    folder = tmp_path_factory.mktemp("ledger")
    keys = cli.place.erasure_keys
    query = (
        "COPY (SELECT e.action, collection, key_id, encode(key_hmac, 'hex'),"
        " coalesce(key_types, '') FROM erasure e"
        " JOIN erasure_batch b ON b.id = batch_id WHERE database = 'courier') TO STDOUT"
    )
    with cli.place.state.begin() as conn:
        for collection, those, action in (
            ("intake_record", ERASED, "delete"),
            ("customer", [["7"]], "mask"),
            ("address", [[default_address(cli)]], "delete"),
        ):
            record(
                conn,
                keys,
                database="courier",
                collection=collection,
                record_keys=those,
                record_class="intake",
                rule="r",
                dag_id="d",
                run_id="r",
                erased_at=cli.place.clock.now(),
                action=action,  # type: ignore[arg-type]  # text of the tuples above
            )
    with (
        psycopg.connect(cli.postgres("parcelseal_state")) as raw,
        raw.cursor() as cursor,
        cursor.copy(query) as rows,
    ):
        (folder / "erasures.tsv").write_bytes(b"".join(rows))
    content = {"current": keys.current, "keys": {k: v.decode() for k, v in keys.keys.items()}}
    (folder / "keys.json").write_text(json.dumps(content))
    yield {
        "LEDGER": str(folder / "erasures.tsv"),
        "ERASURE_KEYS": str(folder / "keys.json"),
    }
    with psycopg.connect(cli.postgres("parcelseal_state")) as raw:
        mine = "FROM erasure_batch WHERE database = 'courier' AND dag_id = 'd'"  # no run's
        with unguarded(raw, "erasure", "erasure_batch"):
            raw.execute(f"DELETE FROM erasure WHERE batch_id IN (SELECT id {mine}); DELETE {mine}")


def follow(
    cli: Cli, tmp_path: Path, target: str, variables: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run every block in one shell that cannot import our code, with other variables on top."""
    with psycopg.connect(cli.postgres("postgres"), autocommit=True) as conn:
        conn.execute(f"DROP DATABASE IF EXISTS {target}")
        conn.execute(f"CREATE DATABASE {target}")
    top, *others = BLOCKS
    others = [one.replace("HIDE=()", "HIDE=(customer=name)") for one in others]
    detach = "DETACH=(address=customer.default_address_id)"
    others = [one.replace("DETACH=()", detach) for one in others]
    for name, value in {"TARGET": cli.postgres(target), **variables}.items():
        top, changed = re.subn(
            rf"^{name}=.*$", lambda _, n=name, v=value: f"{n}='{v}'", top, flags=re.MULTILINE
        )
        assert changed == 1, name
    # The packages are there as after `pip install`; PostgreSQL's client is of the dump's version.
    path = f"{Path(sys.executable).parent}:{program_folder()}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(tmp_path)}
    ours = subprocess.run(
        ["python3", "-I", "-c", "import include"],
        check=False,
        capture_output=True,
        cwd=tmp_path,
        env=environment,
    )
    assert ours.returncode != 0
    return subprocess.run(
        ["bash", "-c", "\n".join([top, *others])],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )


@pytest.fixture
def variables(cli: Cli, point: Path, erasures: dict[str, str]) -> dict[str, str]:
    return {
        "POINT": str(point),
        "TRUSTED": str(cli.home / "keys" / "evidence.pub"),
        "KEY": str(cli.home / "keys" / "escrow.key"),
        **erasures,
    }


def tables(cli: Cli, database: str) -> int:
    """How many tables somebody can see in a database."""
    with psycopg.connect(cli.postgres(database)) as conn:
        row = conn.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert row
    return int(row[0])


def test_the_page_restores_a_backup_without_us(
    cli: Cli, tmp_path: Path, variables: dict[str, str], point: Path
):
    """Every row of the manifest is back, but for the erased ones."""
    done = follow(cli, tmp_path, "by_hand", variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Signature Verified Successfully" in done.stdout
    assert "4 entries in the ledger, 0 left in the copy" in done.stdout
    manifest = json.loads((point / "manifest.json").read_text())
    erased = {"intake_record": len(ERASED), "address": 1}
    with psycopg.connect(cli.postgres("by_hand")) as conn:
        for table in manifest["tables"]:
            name = table["name"]
            row = conn.execute(f'SELECT count(*) FROM ONLY public."{name}"').fetchone()
            assert row == (table["rows"] - erased.get(name, 0),), name
        keys = [[one] for (one,) in conn.execute("SELECT intake_id::text FROM intake_record")]
        masked = conn.execute("SELECT customer_id FROM customer WHERE name = '**'").fetchall()
        analyzed = conn.execute("SELECT reltuples FROM pg_class WHERE relname = 'customer'")
        assert analyzed.fetchone() == (300,)
    assert not [one for one in ERASED if one in keys]
    assert masked == [(7,)]


@pytest.mark.parametrize(
    ("damaged", "at"),
    [("manifest.json", 300), ("manifest.json.sig", 5), ("database.dump.zst.enc", -9)],
)
def test_the_page_stops_at_damage(
    cli: Cli, tmp_path: Path, variables: dict[str, str], point: Path, damaged: str, at: int
):
    """Nothing is loaded from a restore point of which one byte was changed."""
    copy = tmp_path / point.name
    copy.mkdir()
    for path in point.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    flip(copy / damaged, at)
    done = follow(cli, tmp_path, "by_hand_damaged", {**variables, "POINT": str(copy)})
    assert done.returncode != 0
    assert tables(cli, "by_hand_damaged") == 0


def test_the_decryption_itself_refuses_what_the_checks_before_it_would_let_through(
    cli: Cli, tmp_path: Path, variables: dict[str, str], point: Path
):
    """A restore point whose manifest and object do not belong together leaves nothing behind."""
    copy = tmp_path / point.name
    copy.mkdir()
    for path in point.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    flip(copy / "database.dump.zst.enc", -9)
    with pytest.MonkeyPatch.context() as patch:
        unchecked = [block for block in BLOCKS if "sha256sum -c" not in block]
        field = next(block for block in BLOCKS if "sha256sum -c" in block)
        unchecked.insert(2, field.split("test ")[0])
        patch.setattr(sys.modules[__name__], "BLOCKS", unchecked)
        done = follow(cli, tmp_path, "by_hand_damaged", {**variables, "POINT": str(copy)})
    assert done.returncode != 0
    assert tables(cli, "by_hand_damaged") == 0


def test_page_stops_when_object_and_manifest_are_exchanged_after_the_checks(
    cli: Cli, tmp_path: Path, variables: dict[str, str], point: Path
):
    """The other object opens with the key, and the other manifest fits it."""
    copy, other = tmp_path / "a" / point.name, tmp_path / "other"
    for folder in (copy, other):
        folder.mkdir(parents=True)
    for path in point.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    manifest = Manifest.model_validate_json((point / "manifest.json").read_bytes())
    key, certificate = cli.home / "keys" / "escrow.key", cli.home / "keys" / "escrow.crt"
    with (point / "database.dump.zst.enc").open("rb") as file:
        context = manifest.encryption.context
        clear = decrypting(file, opening_key_from_pem(key.read_bytes(), "key"), context, "x")
        recipients = [recipient_from_pem("escrow", certificate.read_bytes())]
        message = encrypting(clear, recipients, context)
        content = b"".join(iter(lambda: message.read(FRAME), b""))
    (other / "database.dump.zst.enc").write_bytes(content)
    dump = manifest.dump.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
    (other / "manifest.json").write_bytes(manifest.model_copy(update={"dump": dump}).as_bytes())
    with pytest.MonkeyPatch.context() as patch:
        place = next(n for n, block in enumerate(BLOCKS) if "sha256sum -c" in block) + 1
        exchange = f'cp -f {other}/* "$POINT"/\n'
        patch.setattr(sys.modules[__name__], "BLOCKS", [*BLOCKS[:place], exchange, *BLOCKS[place:]])
        done = follow(cli, tmp_path, "by_hand_damaged", {**variables, "POINT": str(copy)})
    assert done.returncode != 0
    assert "the object changed after it was checked" in done.stderr
    assert tables(cli, "by_hand_damaged") == 0


def test_the_page_stops_at_a_wrong_key(cli: Cli, tmp_path: Path, variables: dict[str, str]):
    """Before anything is loaded."""
    wrong = tmp_path / "wrong.key"
    subprocess.run(
        ["openssl", "genpkey", "-quiet", "-algorithm", "RSA", "-out", wrong],
        check=True,
        capture_output=True,
    )
    done = follow(cli, tmp_path, "by_hand_damaged", {**variables, "KEY": str(wrong)})
    assert done.returncode != 0
    assert tables(cli, "by_hand_damaged") == 0
