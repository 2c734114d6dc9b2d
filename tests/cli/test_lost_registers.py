"""`restore` and `recover-ledger` report sealed rows that the state database has lost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import psycopg
import pytest
from sqlalchemy.exc import IntegrityError

from include.cli import backup
from include.cli import evidence as command
from include.cli.erasures_of_restore import is_complete
from include.erasure.ledger import open_batch
from include.evidence import registers
from include.evidence.folder import RESULT, SIGNATURE, SUMS
from include.service_container import Services
from include.services.errors import ControlFailed, UsageError
from tests.evidence.register_fixtures import KEYS, ORIGIN, Company, sealed_company
from tests.evidence.support import START

GONE = ("DELETE FROM erasure", "DELETE FROM erasure_batch", "DELETE FROM legal_hold")


@pytest.fixture
def sealed(
    migrated_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Company, Services]]:
    with sealed_company(migrated_database, tmp_path) as (company, services):
        for module in (backup, command):
            monkeypatch.setattr(module, "command_services", lambda: services)
            monkeypatch.setattr(module, "local_stack", nullcontext)
        yield company, services


def test_recover_ledger_reports_lost_rows_until_a_person_accepts_the_loss(
    sealed: tuple[Company, Services], capsys: pytest.CaptureFixture[str]
) -> None:
    company, services = sealed
    assert command.recover_ledger() == 0
    assert "all sealed entries are present" in capsys.readouterr().out
    company.harm(*GONE)
    assert command.recover_ledger() == 1
    output = capsys.readouterr()
    assert "3 of 3 entries of the erasure ledger are missing" in output.err
    assert "1 of 1 legal holds are missing" in output.err
    assert "--accept-losses" in output.err
    assert "entries after 2026-11-24 14:" in output.out
    assert "Approvals, incidents" in output.out
    with pytest.raises(UsageError, match="--by"):
        command.recover_ledger(accept_losses=True, because="no backup is left")
    words = {"by": "counsel", "because": "the disk burnt, no backup is left"}
    assert command.recover_ledger(accept_losses=True, **words) == 0
    assert "accepted by counsel: erasure, legal_hold" in capsys.readouterr().out
    services.require_complete_registers()
    assert command.recover_ledger() == 0
    assert command.recover_ledger(accept_losses=True, **words) == 0
    assert "no loss was accepted" in capsys.readouterr().out


def test_accept_losses_option_does_not_accept_lost_entries_of_the_erasure_ledger(
    sealed: tuple[Company, Services], capsys: pytest.CaptureFixture[str]
) -> None:
    """The erasure batches of the lost entries still exist, so the sealed figures are unchanged."""
    company, _place = sealed
    company.erase()
    company.harm(
        "DELETE FROM erasure WHERE ctid = '(0,1)'",
        "UPDATE erasure SET key_hmac = sha256('x') WHERE ctid = '(0,4)'",
        "INSERT INTO erasure_batch (database, collection, action, record_class, rule, dag_id,"
        " run_id, erased_at, records, entries, settled_at, entries_sha256) VALUES"
        " ('old', 'gone', 'mask', 'b', 'r', 'd', 'r', now(), 0, 0, now(), 'x')",
    )
    assert command.recover_ledger() == 1
    output = capsys.readouterr()
    assert "lost  shop/buyer: 1 entries of the erasure ledger are missing; 2 batches" in output.err
    assert "changed  old/gone: 1 batches have other entries" in output.err
    assert "When no backup has the entries" in output.err
    assert "all sealed entries are present" not in output.out
    words = {"by": "counsel", "because": "the disk burnt, no backup is left"}
    assert command.recover_ledger(accept_losses=True, **words) == 1
    output = capsys.readouterr()
    assert "no loss was accepted" in output.out
    assert "lost  shop/buyer: 1 entries" in output.err
    company.harm("DELETE FROM legal_hold")
    assert command.recover_ledger(accept_losses=True, **words) == 1
    assert "accepted by counsel: legal_hold;" in capsys.readouterr().out


def test_recover_ledger_reports_lost_erasure_entries_even_if_every_bundle_is_lost(
    sealed: tuple[Company, Services], capsys: pytest.CaptureFixture[str]
) -> None:
    company, _place = sealed
    company.harm("TRUNCATE evidence_ledger", "DELETE FROM erasure")
    for file in company.evidence.root.glob("**/*"):
        if file.is_file():
            file.unlink()
    assert command.recover_ledger() == 1
    output = capsys.readouterr()
    assert "no bundle has figures of the state database" in output.out
    assert "3 entries of the erasure ledger are missing" in output.err


def test_sql_of_recovery_page_corrects_erasure_batches_that_have_lost_entries(
    sealed: tuple[Company, Services], capsys: pytest.CaptureFixture[str]
) -> None:
    """A person then accepts the loss, and restores and dispositions are possible again."""
    company, services = sealed
    company.erase()
    company.harm("DELETE FROM erasure WHERE ctid = '(0,1)'")
    page = (Path(__file__).parents[2] / "docs/how-to/recover-lost-records.md").read_text(
        encoding="utf-8"
    )
    (statements,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    with psycopg.connect(company.evidence.database, autocommit=True) as connection:
        connection.execute(statements.encode())
    assert command.recover_ledger() == 1
    output = capsys.readouterr().err
    assert "1 of 3 entries of the erasure ledger are missing" in output
    assert output.count("of the erasure ledger") == 1
    assert "other entries than when they were settled" not in output
    words = {"by": "counsel", "because": "the disk burnt, no backup is left"}
    assert command.recover_ledger(accept_losses=True, **words) == 0
    assert command.recover_ledger() == 0
    assert is_complete(services, "shop", incomplete_is_accepted=False)
    with services.state.begin() as conn, pytest.raises(IntegrityError, match="settled batch"):
        conn.exec_driver_sql("UPDATE erasure_batch SET entries = 0")


def test_recover_ledger_reports_how_many_evidence_folders_it_could_not_check(
    sealed: tuple[Company, Services], capsys: pytest.CaptureFixture[str]
) -> None:
    """Any of them may prove a loss, so the output does not state that all entries are present."""
    company, _place = sealed
    for number in range(3):
        folder = f"backup_offsite/2026/11/forged{number}"
        company.evidence.store.put(f"{folder}/{SUMS}", b"x")
        company.evidence.store.put(f"{folder}/{SIGNATURE}", b"x" * 64)
    with patch.object(registers, "MOST_FORGED", 2):
        assert command.recover_ledger() == 1
    output = capsys.readouterr()
    assert "2 folders of the evidence store could not be checked" in output.err
    assert "all sealed entries are present" not in output.out


def test_recover_ledger_prints_message_if_no_evidence_bundle_has_figures_of_the_registers(
    sealed: tuple[Company, Services], capsys: pytest.CaptureFixture[str]
) -> None:
    """Bundles of older versions have no figures of the registers."""
    company, _place = sealed
    company.harm("TRUNCATE evidence_ledger")
    for file in company.evidence.root.glob("**/*"):
        if file.is_file():
            file.unlink()
    assert command.recover_ledger() == 0
    assert "no bundle has figures of the state database" in capsys.readouterr().out


def test_recover_ledger_reports_a_bundle_that_fails_verification(
    sealed: tuple[Company, Services], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its figures are unknown, so the output must not state that all entries are present."""
    company, services = sealed
    (file,) = company.evidence.root.glob(f"**/{RESULT}")
    file.chmod(0o600)
    file.write_bytes(file.read_bytes() + b" ")
    assert command.recover_ledger() == 1
    output = capsys.readouterr()
    assert "it is not valid, so its figures are unknown" in output.err
    assert "--accept-losses" in output.err
    assert "all sealed entries are present" not in output.out
    words = {"by": "counsel", "because": "the disk burnt, no backup is left"}
    assert command.recover_ledger(accept_losses=True, **words) == 0
    assert "accepted by counsel: backup_offsite/" in capsys.readouterr().out
    services.require_complete_registers()
    assert command.recover_ledger() == 0


def test_recover_ledger_reports_ledger_rows_without_a_trusted_signature(
    sealed: tuple[Company, Services], capsys: pytest.CaptureFixture[str]
) -> None:
    company, _place = sealed
    company.harm("UPDATE evidence_ledger SET row_signature = 'x'")
    for file in company.evidence.root.glob(f"**/{SIGNATURE}"):
        file.unlink()
    assert command.recover_ledger() == 1
    output = capsys.readouterr()
    assert "its ledger row is not signed by a trusted key" in output.err
    assert "all sealed entries are present" not in output.out


def test_restore_requires_option_incomplete_ledger_if_the_erasure_ledger_has_lost_entries(
    sealed: tuple[Company, Services], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With `--incomplete-ledger` the remaining erasures are replayed.

    Lost legal holds do not prevent a restore.
    """
    company, services = sealed
    company.harm("DELETE FROM legal_hold")
    assert is_complete(services, "shop", incomplete_is_accepted=False)
    company.harm(*GONE[:2])
    with pytest.raises(ControlFailed, match="3 of 3 entries of the erasure ledger") as refused:
        is_complete(services, "shop", incomplete_is_accepted=False)
    assert "--incomplete-ledger" in refused.value.action
    assert not is_complete(services, "shop", incomplete_is_accepted=True)
    assert "the erasure ledger may be incomplete" in capsys.readouterr().err


def test_database_without_retention_rules_and_erasures_is_restored_despite_lost_erasure_ledger(
    sealed: tuple[Company, Services],
) -> None:
    """So the state database and Airflow's database can be restored without a ledger."""
    company, services = sealed
    company.harm(*GONE)
    assert is_complete(services, "books", incomplete_is_accepted=False)
    origin = replace(ORIGIN, database="books")
    with company.state.begin() as conn:
        open_batch(conn, KEYS, origin, [["1"]], transaction="1", server="s", at=START)
    with pytest.raises(ControlFailed, match="3 of 3 entries of the erasure ledger"):
        is_complete(services, "books", incomplete_is_accepted=False)
