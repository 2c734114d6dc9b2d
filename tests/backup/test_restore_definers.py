"""Test that SECURITY DEFINER functions of a restored copy give no role additional rights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from include.backup.access import TargetAccess
from include.backup.restore import restore
from include.cli import backup
from include.encryption.recipients import Recipient
from include.evidence.signing import Signer
from include.services.database import DatabaseAddress
from include.services.objectstore.directory import DirectoryStore
from tests.backup.support import rows, run, take
from tests.backup.test_restore_command import BUYERS, Restoring, erase, restored
from tests.backup.test_restore_complete import as_user, role
from tests.support.holders import Holder

__all__ = ["restored", "role"]

# One function is kept from PUBLIC, one is not, and one needs the primary key: it comes last.
PHONES = """
CREATE TABLE customer (id int PRIMARY KEY, phone text);
INSERT INTO customer VALUES (1, '13800001111');
CREATE FUNCTION phone_of(int) RETURNS text LANGUAGE sql SECURITY DEFINER
    AS 'SELECT phone FROM public.customer WHERE id = $1';
CREATE PROCEDURE keep(int) LANGUAGE sql SECURITY DEFINER
    AS 'UPDATE public.customer SET phone = phone WHERE id = $1';
CREATE FUNCTION "All Phones"(int) RETURNS SETOF text LANGUAGE sql SECURITY DEFINER
    BEGIN ATOMIC SELECT phone FROM customer GROUP BY id; END;
REVOKE EXECUTE ON FUNCTION phone_of(int) FROM PUBLIC;
"""
CALLS = ("SELECT phone_of(1)", "CALL keep(1)", 'SELECT * FROM "All Phones"(1)')
PHONE_OF = """
CREATE FUNCTION phone_of(int) RETURNS text LANGUAGE sql SECURITY DEFINER
    AS 'SELECT phone FROM public.buyer WHERE id = $1';
"""
OWN = "CREATE FUNCTION own() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 7'"


def allowed(database: DatabaseAddress, user: str) -> list[bool]:
    """Return, for each function call, whether a role may execute it."""
    with as_user(database, user).connect(autocommit=True) as connection:
        answers = []
        for call in CALLS:
            try:
                connection.execute(call.encode())
                answers.append(True)
            except psycopg.errors.InsufficientPrivilege:
                answers.append(False)
    return answers


@pytest.mark.parametrize("owners", [False, True])
def test_other_roles_cannot_call_security_definer_functions_before_grants_are_restored(
    new_database: Callable[..., DatabaseAddress],
    target: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    signer: Signer,
    operations: Holder,
    role: Callable[..., str],
    owners: bool,
) -> None:
    origin = new_database(PHONES)
    anybody = role("LOGIN PASSWORD 'x'")
    assert allowed(origin, anybody) == [False, True, True]
    source = take(origin, store, recipients, signer).source(operations.opening)
    run(target, OWN)  # of a target in use; a restore does not touch its rights
    access = TargetAccess(target, owners=owners, is_new=False)
    restore(source, target, owners=owners, allow_content=True, prepare=access.close)
    assert allowed(target, anybody) == [False, False, False]
    access.open()
    assert allowed(target, anybody) == ([False, True, True] if owners else [False] * 3)
    assert rows(as_user(target, anybody), "SELECT own()") == [(7,)]


def test_security_definer_function_returns_no_erased_record_during_or_after_restore(
    restored: Restoring,
    state: Engine,
    target: DatabaseAddress,
    role: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The target is in use, so other roles can connect to it while it is restored.

    Until the replay of erasures, they cannot call the function. Then it finds no erased record.
    """
    erase(state, "2")
    anybody = role("LOGIN PASSWORD 'x'")
    refused: list[bool] = []
    replay = backup.replay_erasures

    def noted(*args: Any, **options: Any) -> Any:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            rows(as_user(target, anybody), "SELECT phone_of(2)")
        refused.append(True)
        return replay(*args, **options)

    monkeypatch.setattr(backup, "replay_erasures", noted)
    restored(BUYERS + PHONE_OF, into_existing=True, owners=True)
    assert refused == [True]
    assert rows(as_user(target, anybody), "SELECT phone_of(1), phone_of(2)") == [
        ("+86 139 0000 0001", None)
    ]
