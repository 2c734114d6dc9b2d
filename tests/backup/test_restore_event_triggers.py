"""Test that event triggers of a backed-up database do not fire during restores and drills."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from sqlalchemy import Engine

from include.backup.drill import DrillTarget
from include.encryption.recipients import Recipient
from include.erasure.replay import ReplayRules
from include.evidence.model import Outcome
from include.evidence.signing import Signer
from include.services.database import DatabaseAddress
from include.services.errors import ServiceError
from include.services.objectstore.directory import DirectoryStore
from tests.backup.drill_rig import Rig
from tests.backup.support import SEEN, take
from tests.backup.test_drill import COURIER
from tests.backup.test_restore_command import BUYERS, Restoring, erase, restored
from tests.support.holders import Holder

__all__ = ["restored"]

LOGS = """
CREATE TABLE event_log (at timestamptz, tag text);
CREATE FUNCTION logged() RETURNS event_trigger LANGUAGE plpgsql
    AS $$ BEGIN INSERT INTO public.event_log VALUES (now(), tg_tag); END $$;
CREATE EVENT TRIGGER log_changes ON ddl_command_end EXECUTE FUNCTION logged();
CREATE EVENT TRIGGER log_logins ON login EXECUTE FUNCTION logged();
"""
FORBIDS = """
CREATE FUNCTION forbidden() RETURNS event_trigger LANGUAGE plpgsql
    AS $$ BEGIN IF current_database() !~ '^b_' THEN RAISE 'not from here'; END IF; END $$;
CREATE EVENT TRIGGER forbid_logins ON login EXECUTE FUNCTION forbidden();
"""
ALLOWS = "DROP EVENT TRIGGER IF EXISTS forbid_logins"
ENABLED = "SELECT evtname::text FROM pg_event_trigger WHERE evtenabled = 'O' ORDER BY 1"


def test_event_triggers_do_not_fire_during_restore_and_are_enabled_afterwards(
    restored: Restoring, state: Engine, target: DatabaseAddress
) -> None:
    erase(state, "2")
    report = restored(BUYERS + LOGS + FORBIDS, owners=True)
    assert (report["matches_manifest"], report["erasures_replayed"]) == (True, 1)
    with pytest.raises(ServiceError, match="not from here"):
        target.connect()
    quiet = "-c event_triggers=off"
    parameters = {**target.parameters, "options": quiet}
    with psycopg.connect(**parameters, password=target.password) as connection:
        names = [name for (name,) in connection.execute(ENABLED)]
        assert names == ["forbid_logins", "log_changes", "log_logins"]
        connection.execute(ALLOWS)


def test_event_triggers_do_not_fire_during_restore_drill(
    new_database: Callable[..., DatabaseAddress],
    store: DirectoryStore,
    recipients: list[Recipient],
    signer: Signer,
    operations: Holder,
    server: DatabaseAddress,
    state: Engine,
) -> None:
    live = new_database(COURIER + LOGS + "CREATE MATERIALIZED VIEW logged_tags AS TABLE event_log;")
    source = take(live, store, recipients, signer, columns=[SEEN]).source(operations.opening)
    target = DrillTarget(server, ReplayRules())
    record = Rig(source, target, server, live, state).drill()
    assert [finding.code for finding in record.findings] == []
    assert record.outcome is Outcome.PASS
