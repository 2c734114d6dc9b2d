"""Test that the command `restore` succeeds only if the restored copy contains no erased record."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from io import StringIO
from pathlib import Path
from threading import Timer
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from sqlalchemy import Engine, select

from include.backup import restore as restoring
from include.backup.access import CLOSED, sole_restore
from include.cli import backup, erasures_of_restore
from include.encryption.recipients import Recipient
from include.erasure.ledger import ErasureKeys, Origin, open_batch, settle_batches
from include.evidence.signing import Signer
from include.holds.registry import HoldKind
from include.registry import load_pack
from include.services.clock import SystemClock
from include.services.database import DatabaseAddress
from include.services.errors import ControlFailed, ServiceError, UsageError
from include.services.objectstore.directory import DirectoryStore
from include.state.tables import erasure_batch
from tests.backup.offsite_support import hold
from tests.backup.support import rows, run, take
from tests.cli.command_services import SHOP_RETENTION
from tests.policy.packs import write_pack
from tests.support.holders import NOW, Holder
from tests.support.registers import unguarded

KEYS = ErasureKeys({"1": b"k" * 32}, "1")
BUYERS = """
CREATE TABLE buyer (id int PRIMARY KEY, phone text, seen_at timestamptz);
INSERT INTO buyer SELECT n, '+86 139 0000 000' || n, now() FROM generate_series(1, 5) n;
CREATE MATERIALIZED VIEW phones AS SELECT id, phone FROM buyer;
"""
CONNECT = "SELECT has_database_privilege('public', current_database(), 'CONNECT')"
COMMENT = """
SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()
"""
REPLACED = "UPDATE erasure SET key_hmac = sha256(key_hmac) WHERE batch_id = %s"
PHONES = "SELECT id FROM phones ORDER BY 1"

Restoring = Callable[..., dict[str, Any]]


def erase(state: Engine, *keys: str, key_types: str | None = "whole number") -> None:
    """Record in the erasure ledger that buyers were erased.

    Args:
        state: state database.
        *keys: keys of the buyers.
        key_types: types of the key columns, as the ledger writes them; None if not recorded.
    """
    origin = Origin("shop", "buyer", "delete", "buyer", "r", "d", "r1", key_types)
    with state.begin() as conn:
        open_batch(conn, KEYS, origin, [[key] for key in keys], transaction="1", server="s", at=NOW)


@pytest.fixture
def restored(
    new_database: Callable[..., DatabaseAddress],
    target: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    signer: Signer,
    operations: Holder,
    state: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Restoring:
    """Return a function that fills and backs up a database, and restores it with the command."""

    def restore(
        fill: str = BUYERS,
        *,
        origin: DatabaseAddress | None = None,
        exit_code: int = 0,
        **options: object,
    ) -> dict[str, Any]:
        origin = origin or new_database(fill)
        take(origin, store, recipients, signer, database="shop")
        policy = write_pack(tmp_path / "pack", retention=SHOP_RETENTION)
        stub = SimpleNamespace(
            pack=load_pack(policy),
            state=state,
            clock=SystemClock(),
            trusted_for_manifests=[signer.public_pem],
            erasure_keys=KEYS,
            is_local=lambda _name: True,
            database=lambda _name: origin,
            store=lambda _name: store,
            require_complete_registers=lambda *_registers: None,  # no bundle sealed any
        )
        monkeypatch.setattr(backup, "command_services", lambda: stub)
        monkeypatch.setattr(backup, "local_stack", nullcontext)
        key = tmp_path / "operations.key"
        key.write_bytes(operations.private_pem)
        into = target.conninfo()
        args: dict[str, Any] = {"skip_erasures": False, "into_existing": False, "owners": False}
        code = backup.restore(
            "shop", into, str(key), point="latest", jobs=2, as_json=True, **{**args, **options}
        )
        assert code == exit_code
        output = json.loads(capsys.readouterr().out)
        assert isinstance(output, dict)
        return output

    return restore


def test_restore_deletes_records_that_were_entered_in_erasure_ledger_during_load(
    restored: Restoring, state: Engine, target: DatabaseAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger was empty when the restore began.

    The restored copy's materialized views are refreshed, and it is opened.
    """
    real = restoring.count_rows

    def meanwhile(*args: Any) -> dict[str, int]:
        erase(state, "2", "4")
        return real(*args)

    monkeypatch.setattr(restoring, "count_rows", meanwhile)
    assert restored()["erasures_replayed"] == 2
    assert rows(target, PHONES) == [(1,), (3,), (5,)]
    assert rows(target, CONNECT) == [(True,)]


def test_restored_copy_stays_closed_if_erased_records_remain(
    restored: Restoring, state: Engine, server: DatabaseAddress, target: DatabaseAddress
) -> None:
    """A history table has an erased record. The error names the table and its number of rows."""
    run(server, "DROP ROLE IF EXISTS seller_of_restore; CREATE ROLE seller_of_restore")
    erase(state, "2")
    grant = "GRANT SELECT ON ALL TABLES IN SCHEMA public TO seller_of_restore;"
    access = "SELECT relname::text FROM pg_class WHERE relacl::text LIKE '%seller_of_restore%'"
    history = BUYERS + "CREATE TABLE buyer_log AS SELECT id AS buyer_id, phone FROM buyer;" + grant
    try:
        with pytest.raises(ControlFailed, match=r"public\.buyer_log \(1 rows\)"):
            restored(history, owners=True)
        assert rows(target, access) == []
        assert rows(target, CONNECT) == [(False,)]
        run(target, "DROP TABLE buyer CASCADE; DROP TABLE buyer_log")
        restored(BUYERS + grant, owners=True)
        assert len(rows(target, access)) == 2
    finally:
        for address in (target, server):
            run(address, "DROP OWNED BY seller_of_restore CASCADE")


def test_restored_copy_stays_closed_if_replay_of_erasures_was_skipped(
    restored: Restoring, state: Engine, target: DatabaseAddress
) -> None:
    """The user has to erase the records by hand, and then to open the copy."""
    erase(state, "2")
    restored(skip_erasures=True)
    assert len(rows(target, PHONES)) == 5
    assert rows(target, CONNECT) == [(False,)]


def test_restored_copy_stays_closed_if_user_accepts_incomplete_erasure_ledger(
    restored: Restoring, state: Engine, target: DatabaseAddress
) -> None:
    """The live database was lost, so it is unknown whether the last deletion was committed.

    Therefore, the erasure ledger has an open batch for this deletion.
    """
    erase(state, "2")
    hold(state, HoldKind.SUBJECT, "shop/4")
    with pytest.raises(UsageError, match="not certain that all erasures") as error:
        restored()
    assert "--incomplete-ledger" in error.value.action
    report = restored(incomplete_ledger=True)
    assert (report["erasures_replayed"], report["opened"]) == (1, False)
    assert rows(target, CONNECT) == [(False,)]


@pytest.mark.parametrize("loss", ["DELETE FROM erasure WHERE batch_id = %s", REPLACED])
def test_restore_with_incomplete_ledger_option_replays_the_remaining_entries_of_erasure_ledger(
    restored: Restoring, state: Engine, target: DatabaseAddress, loss: str
) -> None:
    """The ledger has lost the entry of a batch, or has another entry instead.

    Without the option `--incomplete-ledger`, the restore is refused.
    """
    erase(state, "2")
    erase(state, "4")
    with state.begin() as conn:
        ids = list(conn.scalars(select(erasure_batch.c.id).order_by(erasure_batch.c.id)))
        settle_batches(conn, ids, NOW)
        with unguarded(conn, "erasure"):
            conn.exec_driver_sql(loss, (ids[0],))
    with pytest.raises(ControlFailed, match="erasure ledger") as error:
        restored()
    assert "--incomplete-ledger" in error.value.action
    assert restored(incomplete_ledger=True)["erasures_replayed"] == 1
    assert rows(target, PHONES) == [(1,), (2,), (3,), (5,)]
    assert rows(target, CONNECT) == [(False,)]


def test_restore_reopens_target_database_that_a_failed_restore_left_closed_to_connections(
    restored: Restoring, target: DatabaseAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first restore failed before it created anything. The database's own comment is kept."""
    run(target, f"COMMENT ON DATABASE {target.name} IS 'of the shop'")
    with monkeypatch.context() as failing:
        failing.setattr(restoring, "_pg_restore", fail)
        with pytest.raises(ServiceError, match="no space"):
            restored()
    assert rows(target, CONNECT) == [(False,)]
    assert rows(target, COMMENT) == [(f"{CLOSED} of the shop",)]
    restored()
    assert rows(target, CONNECT) == [(True,)]
    assert rows(target, COMMENT) == [("of the shop",)]


def fail(*_given: object) -> None:
    raise ServiceError("There is no space left.")


@pytest.mark.parametrize("into_existing", [True, False])
def test_restore_without_replay_of_erasures_prints_whether_other_roles_may_connect_to_copy(
    restored: Restoring,
    target: DatabaseAddress,
    monkeypatch: pytest.MonkeyPatch,
    into_existing: bool,
) -> None:
    """If the target is already in use, a restore does not revoke the right to connect to it."""
    said: list[str] = []
    monkeypatch.setattr(backup.errors, "print", lambda text, **_how: said.append(text))
    restored(skip_erasures=True, into_existing=into_existing)
    assert ("Other roles may not connect to it." in said[-1]) != into_existing
    assert ("Other roles may connect to it as before" in said[-1]) == into_existing
    assert rows(target, CONNECT) == [(into_existing,)]


@pytest.mark.parametrize(
    ("table", "types", "resolved"),
    [
        ("CREATE TABLE buyer (id int, phone text, seen_at timestamptz)", "whole number", True),
        ("CREATE TABLE buyer (id int, phone text, seen_at timestamptz)", None, True),
        ("CREATE TABLE buyer (id int, phone text PRIMARY KEY, seen_at date)", "whole number", True),
        (
            "CREATE TABLE buyer (id text, phone text PRIMARY KEY, seen_at date)",
            "whole number",
            False,
        ),
        ("CREATE TABLE buyer (nr int, phone text, seen_at timestamptz)", "whole number", False),
        ("CREATE TABLE buyer (nr int PRIMARY KEY, phone text)", "text", False),
    ],
)
def test_restore_leaves_no_erased_record_if_table_had_another_or_no_primary_key_at_time_of_backup(
    restored: Restoring,
    state: Engine,
    target: DatabaseAddress,
    table: str,
    types: str | None,
    *,
    resolved: bool,
) -> None:
    """If the table in the backup has the key columns of the data map, erased records are found.

    Otherwise, the restore is refused, and the error advises to restore a later restore point.
    """
    erase(state, "2", key_types=types)
    fill = f"{table}; INSERT INTO buyer SELECT n, n FROM generate_series(1, 3) n"
    if resolved:
        assert restored(fill)["erasures_replayed"] == 1
        assert rows(target, "SELECT id FROM buyer ORDER BY 1") == [(1,), (3,)]
    else:
        with pytest.raises(ControlFailed, match=r"buyer \(1\).*Nothing was loaded") as error:
            restored(fill)
        assert "Restore a later point" in error.value.action
        assert rows(target, "SELECT FROM pg_class WHERE relname = 'buyer'") == []
        assert rows(target, CONNECT) == [(True,)]


def test_restore_raises_usage_error_while_another_restore_loads_the_same_target_database(
    restored: Restoring, target: DatabaseAddress
) -> None:
    """The second restore would open the target before the first has replayed the erasure ledger."""
    with sole_restore(target), pytest.raises(UsageError, match="Another restore"):
        restored()
    assert rows(target, "SELECT to_regclass('buyer')") == [(None,)]


def test_restore_prints_that_only_granted_roles_may_connect_if_public_had_no_connect_right(
    restored: Restoring, target: DatabaseAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = StringIO()
    monkeypatch.setattr(backup, "errors", Console(file=text, width=200))
    run(target, f"REVOKE CONNECT ON DATABASE {target.name} FROM PUBLIC")
    restored()
    assert "only roles with their own grant may connect" in text.getvalue()


def test_restore_waits_until_running_deletion_ends_if_records_are_on_legal_hold(
    restored: Restoring, state: Engine, target: DatabaseAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the restore waits, the deletion ends, and its batch in the erasure ledger is settled.

    Until then, it is unknown whether records were deleted. The replay might delete a record on
    hold.
    """
    real = restoring.count_rows

    def begin_deletion(*arguments: Any) -> dict[str, int]:
        hold(state, HoldKind.SUBJECT, "5")
        erase(state, "2")
        return real(*arguments)

    def end_deletion() -> None:
        with state.begin() as conn:
            settle_batches(conn, list(conn.scalars(select(erasure_batch.c.id))), NOW)

    def on_message(text: str) -> None:
        if text.startswith("waiting until running deletions end"):
            Timer(0.5, end_deletion).start()

    monkeypatch.setattr(restoring, "count_rows", begin_deletion)
    monkeypatch.setattr(erasures_of_restore, "tell", on_message)
    assert restored()["erasures_replayed"] == 1
    assert rows(target, PHONES) == [(1,), (3,), (4,), (5,)]
