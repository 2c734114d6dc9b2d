"""Tests that the shell commands of the restore runbook restore a backup without ParcelSeal."""

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
from include.service_container import ROOT
from include.services.programs import program_folder
from tests.e2e.conftest import Cli
from tests.erasure.support import record
from tests.support.damage import flip
from tests.support.registers import unguarded

pytestmark = pytest.mark.airflow

PAGE = "\n".join(
    (ROOT / "docs" / "how-to" / name).read_text()
    for name in ("restore-without-parcelseal.md", "restore-erase-again.md")
)
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
ERASED = [["3"], ["5"]]  # keys of intake_record, a table without references to it


@pytest.fixture(scope="module")
def point(cli: Cli, backed_up: dict[str, Any]) -> Path:
    """The folder of the sample's restore point."""
    (manifest,) = (cli.home / "offsite" / "courier").glob("*/manifest.json")
    return manifest.parent


def default_address(cli: Cli) -> str:
    """Return the id of an address that a customer uses as default address."""
    with psycopg.connect(cli.postgres("courier")) as conn:
        row = conn.execute("SELECT min(default_address_id)::text FROM customer").fetchone()
    assert row
    return str(row[0])


@pytest.fixture(scope="module")
def erasures(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The export of the erasure ledger, and its keys.

    After the backup, records of three collections were erased or masked.
    """
    folder = tmp_path_factory.mktemp("ledger")
    keys = cli.services.erasure_keys
    query = (
        "COPY (SELECT e.action, collection, key_id, encode(key_hmac, 'hex'),"
        " coalesce(key_types, '') FROM erasure e"
        " JOIN erasure_batch b ON b.id = batch_id WHERE database = 'courier') TO STDOUT"
    )
    with cli.services.state.begin() as conn:
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
                erased_at=cli.services.clock.now(),
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
        # Batches of this test only.
        test_batches = "FROM erasure_batch WHERE database = 'courier' AND dag_id = 'd'"
        with unguarded(raw, "erasure", "erasure_batch"):
            raw.execute(
                f"DELETE FROM erasure WHERE batch_id IN (SELECT id {test_batches}); "
                f"DELETE {test_batches}"
            )


def follow(
    cli: Cli, tmp_path: Path, target: str, variables: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run all commands of the runbook in one shell that cannot import ParcelSeal.

    Args:
        cli: the command line.
        tmp_path: working folder of the shell.
        target: name of the database to restore into.
        variables: values of the shell variables that the runbook sets first.
    """
    with psycopg.connect(cli.postgres("postgres"), autocommit=True) as conn:
        conn.execute(f"DROP DATABASE IF EXISTS {target}")
        conn.execute(f"CREATE DATABASE {target}")
    top, *others = BLOCKS
    others = [item.replace("HIDE=()", "HIDE=(customer=name)") for item in others]
    detach = "DETACH=(address=customer.default_address_id)"
    others = [item.replace("DETACH=()", detach) for item in others]
    for name, value in {"TARGET": cli.postgres(target), **variables}.items():
        top, changed = re.subn(
            rf"^{name}=.*$", lambda _, n=name, v=value: f"{n}='{v}'", top, flags=re.MULTILINE
        )
        assert changed == 1, name
    # The packages are installed, and PostgreSQL's client has the version of the dump.
    path = f"{Path(sys.executable).parent}:{program_folder()}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(tmp_path)}
    without_packages = subprocess.run(
        ["python3", "-I", "-c", "import include"],
        check=False,
        capture_output=True,
        cwd=tmp_path,
        env=environment,
    )
    assert without_packages.returncode != 0
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
    """Return the number of tables in a database."""
    with psycopg.connect(cli.postgres(database)) as conn:
        row = conn.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert row
    return int(row[0])


def test_runbook_restores_a_backup_without_parcelseal(
    cli: Cli, tmp_path: Path, variables: dict[str, str], point: Path
):
    """Every row of the manifest is restored, except for the erased rows."""
    completed = follow(cli, tmp_path, "by_hand", variables)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert "Signature Verified Successfully" in completed.stdout
    assert "4 entries in the ledger, 0 left in the copy" in completed.stdout
    manifest = json.loads((point / "manifest.json").read_text())
    erased = {"intake_record": len(ERASED), "address": 1}
    with psycopg.connect(cli.postgres("by_hand")) as conn:
        for table in manifest["tables"]:
            name = table["name"]
            row = conn.execute(f'SELECT count(*) FROM ONLY public."{name}"').fetchone()
            assert row == (table["rows"] - erased.get(name, 0),), name
        keys = [[item] for (item,) in conn.execute("SELECT intake_id::text FROM intake_record")]
        masked = conn.execute("SELECT customer_id FROM customer WHERE name = '**'").fetchall()
        analyzed = conn.execute("SELECT reltuples FROM pg_class WHERE relname = 'customer'")
        assert analyzed.fetchone() == (300,)
    assert not [item for item in ERASED if item in keys]
    assert masked == [(7,)]


@pytest.mark.parametrize(
    ("damaged", "at"),
    [("manifest.json", 300), ("manifest.json.sig", 5), ("database.dump.zst.enc", -9)],
)
def test_restore_runbook_fails_and_loads_no_table_if_the_restore_point_is_damaged(
    cli: Cli, tmp_path: Path, variables: dict[str, str], point: Path, damaged: str, at: int
):
    """A restore point with a changed byte is not loaded into the database."""
    copy = tmp_path / point.name
    copy.mkdir()
    for path in point.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    flip(copy / damaged, at)
    completed = follow(cli, tmp_path, "by_hand_damaged", {**variables, "POINT": str(copy)})
    assert completed.returncode != 0
    assert tables(cli, "by_hand_damaged") == 0


def test_restore_runbook_loads_no_table_from_a_damaged_object_even_without_checksum_checks(
    cli: Cli, tmp_path: Path, variables: dict[str, str], point: Path
):
    """A changed object that was not detected by the checks leaves no table in the database."""
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
        completed = follow(cli, tmp_path, "by_hand_damaged", {**variables, "POINT": str(copy)})
    assert completed.returncode != 0
    assert tables(cli, "by_hand_damaged") == 0


def test_runbook_stops_if_object_and_manifest_are_replaced_after_they_were_checked(
    cli: Cli, tmp_path: Path, variables: dict[str, str], point: Path
):
    """The exchanged object can be decrypted with the key, and matches the exchanged manifest."""
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
        position = next(n for n, block in enumerate(BLOCKS) if "sha256sum -c" in block) + 1
        exchange = f'cp -f {other}/* "$POINT"/\n'
        patch.setattr(
            sys.modules[__name__], "BLOCKS", [*BLOCKS[:position], exchange, *BLOCKS[position:]]
        )
        completed = follow(cli, tmp_path, "by_hand_damaged", {**variables, "POINT": str(copy)})
    assert completed.returncode != 0
    assert "the object changed after it was checked" in completed.stderr
    assert tables(cli, "by_hand_damaged") == 0


def test_restore_runbook_fails_and_loads_no_table_if_the_key_is_not_that_of_a_recipient(
    cli: Cli, tmp_path: Path, variables: dict[str, str]
):
    """The runbook stops before anything is loaded into the database."""
    wrong = tmp_path / "wrong.key"
    subprocess.run(
        ["openssl", "genpkey", "-quiet", "-algorithm", "RSA", "-out", wrong],
        check=True,
        capture_output=True,
    )
    completed = follow(cli, tmp_path, "by_hand_damaged", {**variables, "KEY": str(wrong)})
    assert completed.returncode != 0
    assert tables(cli, "by_hand_damaged") == 0
