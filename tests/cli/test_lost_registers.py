"""`restore` and `recover-ledger` name sealed rows that the state database lost."""

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
from include.erasure.ledger import intend
from include.evidence import registers
from include.evidence.folder import RESULT, SIGNATURE, SUMS
from include.services.errors import ControlFailed, UsageError
from include.workplace import Workplace
from tests.evidence.register_fixtures import KEYS, ORIGIN, Company, sealed_company
from tests.evidence.support import START

GONE = ("DELETE FROM erasure", "DELETE FROM erasure_batch", "DELETE FROM legal_hold")


@pytest.fixture
def sealed(
    migrated_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Company, Workplace]]:
    with sealed_company(migrated_database, tmp_path) as (company, place):
        for module in (backup, command):
            monkeypatch.setattr(module, "workplace", lambda: place)
            monkeypatch.setattr(module, "local_stack", nullcontext)
        yield company, place


def test_recover_ledger_names_lost_rows_until_a_person_accepts_the_loss(
    sealed: tuple[Company, Workplace], capsys: pytest.CaptureFixture[str]
) -> None:
    company, place = sealed
    assert command.recover_ledger() == 0
    assert "nothing that was sealed is missing" in capsys.readouterr().out
    company.harm(*GONE)
    assert command.recover_ledger() == 1
    shown = capsys.readouterr()
    assert "3 of 3 sealed erasures are missing" in shown.err
    assert "1 of 1 sealed legal holds are missing" in shown.err
    assert "--accept-losses" in shown.err
    assert "was entered after 2026-11-24 14:" in shown.out
    assert "Approvals, incidents" in shown.out
    with pytest.raises(UsageError, match="--by"):
        command.recover_ledger(accept_losses=True, because="no backup is left")
    words = {"by": "counsel", "because": "the disk burnt, no backup is left"}
    assert command.recover_ledger(accept_losses=True, **words) == 0
    assert "accepted by counsel: erasure, legal_hold" in capsys.readouterr().out
    place.require_complete_registers()
    assert command.recover_ledger() == 0
    assert command.recover_ledger(accept_losses=True, **words) == 0
    assert "nothing was accepted" in capsys.readouterr().out


def test_recover_ledger_names_lost_entries_which_accept_losses_leaves(
    sealed: tuple[Company, Workplace], capsys: pytest.CaptureFixture[str]
) -> None:
    """The batches of the entries are there, so that no sealed figure differs."""
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
    shown = capsys.readouterr()
    assert "lost  shop/buyer: 1 entries of the erasure ledger are missing; 2 batches" in shown.err
    assert "changed  old/gone: 1 batches have other entries" in shown.err
    assert "When no backup has the entries" in shown.err
    assert "nothing that was sealed is missing" not in shown.out
    words = {"by": "counsel", "because": "the disk burnt, no backup is left"}
    assert command.recover_ledger(accept_losses=True, **words) == 1
    shown = capsys.readouterr()
    assert "nothing was accepted" in shown.out
    assert "lost  shop/buyer: 1 entries" in shown.err
    company.harm("DELETE FROM legal_hold")
    assert command.recover_ledger(accept_losses=True, **words) == 1
    assert "accepted by counsel: legal_hold;" in capsys.readouterr().out


def test_recover_ledger_names_lost_entries_when_no_bundle_has_figures(
    sealed: tuple[Company, Workplace], capsys: pytest.CaptureFixture[str]
) -> None:
    company, _place = sealed
    company.harm("TRUNCATE evidence_ledger", "DELETE FROM erasure")
    for file in company.evidence.root.glob("**/*"):
        if file.is_file():
            file.unlink()
    assert command.recover_ledger() == 1
    shown = capsys.readouterr()
    assert "no bundle says what the state database held" in shown.out
    assert "3 entries of the erasure ledger are missing" in shown.err


def test_documented_sql_settles_batches_again_with_the_entries_that_are_left(
    sealed: tuple[Company, Workplace], capsys: pytest.CaptureFixture[str]
) -> None:
    """A person accepts that loss by its signed figures; then restores and retention go on."""
    company, place = sealed
    company.erase()
    company.harm("DELETE FROM erasure WHERE ctid = '(0,1)'")
    page = (Path(__file__).parents[2] / "docs/evidence.md").read_text(encoding="utf-8")
    (statements,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    with psycopg.connect(company.evidence.database, autocommit=True) as connection:
        connection.execute(statements.encode())
    assert command.recover_ledger() == 1
    shown = capsys.readouterr().err
    assert "1 of 3 sealed erasures are missing" in shown
    assert "entries of the erasure ledger" not in shown
    words = {"by": "counsel", "because": "the disk burnt, no backup is left"}
    assert command.recover_ledger(accept_losses=True, **words) == 0
    assert command.recover_ledger() == 0
    assert is_complete(place, "shop", incomplete_is_accepted=False)
    with place.state.begin() as conn, pytest.raises(IntegrityError, match="settled batch"):
        conn.exec_driver_sql("UPDATE erasure_batch SET entries = 0")


def test_recover_ledger_names_folders_that_could_not_be_checked(
    sealed: tuple[Company, Workplace], capsys: pytest.CaptureFixture[str]
) -> None:
    """A bundle that shows a loss may be among them, so nothing says that no row is missing."""
    company, _place = sealed
    for number in range(3):
        folder = f"backup_offsite/2026/11/forged{number}"
        company.evidence.store.put(f"{folder}/{SUMS}", b"x")
        company.evidence.store.put(f"{folder}/{SIGNATURE}", b"x" * 64)
    with patch.object(registers, "MOST_FORGED", 2):
        assert command.recover_ledger() == 1
    shown = capsys.readouterr()
    assert "2 folders of the evidence store could not be checked" in shown.err
    assert "nothing that was sealed is missing" not in shown.out


def test_recover_ledger_says_when_no_bundle_has_figures(
    sealed: tuple[Company, Workplace], capsys: pytest.CaptureFixture[str]
) -> None:
    """Bundles of older versions say nothing of registers."""
    company, _place = sealed
    company.harm("TRUNCATE evidence_ledger")
    for file in company.evidence.root.glob("**/*"):
        if file.is_file():
            file.unlink()
    assert command.recover_ledger() == 0
    assert "no bundle says what the state database held" in capsys.readouterr().out


def test_recover_ledger_names_a_bundle_that_cannot_be_read(
    sealed: tuple[Company, Workplace], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its figures are unknown, so nothing says that no row is missing."""
    company, place = sealed
    (file,) = company.evidence.root.glob(f"**/{RESULT}")
    file.chmod(0o600)
    file.write_bytes(file.read_bytes() + b" ")
    assert command.recover_ledger() == 1
    shown = capsys.readouterr()
    assert "it does not verify, so its figures are unknown" in shown.err
    assert "--accept-losses" in shown.err
    assert "nothing that was sealed is missing" not in shown.out
    words = {"by": "counsel", "because": "the disk burnt, no backup is left"}
    assert command.recover_ledger(accept_losses=True, **words) == 0
    assert "accepted by counsel: backup_offsite/" in capsys.readouterr().out
    place.require_complete_registers()
    assert command.recover_ledger() == 0


def test_recover_ledger_names_rows_that_no_trusted_key_signed(
    sealed: tuple[Company, Workplace], capsys: pytest.CaptureFixture[str]
) -> None:
    company, _place = sealed
    company.harm("UPDATE evidence_ledger SET row_signature = 'x'")
    for file in company.evidence.root.glob(f"**/{SIGNATURE}"):
        file.unlink()
    assert command.recover_ledger() == 1
    shown = capsys.readouterr()
    assert "no trusted key signed its ledger row" in shown.err
    assert "nothing that was sealed is missing" not in shown.out


def test_restore_is_refused_when_erasures_are_lost_unless_told_to_go_on(
    sealed: tuple[Company, Workplace], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Holds do not matter to a restore; `--incomplete-ledger` replays what is there."""
    company, place = sealed
    company.harm("DELETE FROM legal_hold")
    assert is_complete(place, "shop", incomplete_is_accepted=False)
    company.harm(*GONE[:2])
    with pytest.raises(ControlFailed, match="3 of 3 sealed erasures") as refused:
        is_complete(place, "shop", incomplete_is_accepted=False)
    assert "--incomplete-ledger" in refused.value.action
    assert not is_complete(place, "shop", incomplete_is_accepted=True)
    assert "the erasure ledger may be incomplete" in capsys.readouterr().err


def test_restore_needs_no_ledger_for_database_without_retention_rule_or_entry(
    sealed: tuple[Company, Workplace],
) -> None:
    """The state database and Airflow's are restored so, when the ledger is lost with them."""
    company, place = sealed
    company.harm(*GONE)
    assert is_complete(place, "books", incomplete_is_accepted=False)
    origin = replace(ORIGIN, database="books")
    with company.state.begin() as conn:
        intend(conn, KEYS, origin, [["1"]], transaction="1", server="s", at=START)
    with pytest.raises(ControlFailed, match="3 of 3 sealed erasures"):
        is_complete(place, "books", incomplete_is_accepted=False)
