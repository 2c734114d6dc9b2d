"""Test drills of copies with another schema or with tables whose row-level security is forced."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from include.backup.compare import Definitions
from include.backup.drill import DrillTarget, RestoreDrill
from include.encryption.recipients import Recipient
from include.evidence.model import Outcome
from include.evidence.signing import Signer
from include.evidence.step_findings import result_of
from include.services.database import DatabaseAddress
from include.services.objectstore.directory import DirectoryStore
from tests.backup.drill_rig import Rig
from tests.backup.support import SEEN, run, take
from tests.backup.test_drill import COURIER, codes, courier, harm, point, rig
from tests.support.holders import Holder

__all__ = ["courier", "point", "rig"]  # fixtures


def test_schema_findings_list_each_missing_added_and_changed_definition(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    """Each kind of difference has its own finding.

    The server versions are equal and not mentioned.
    """
    harm(
        monkeypatch,
        "CREATE INDEX added ON customer (name); DROP TRIGGER keep ON waybill;"
        "ALTER TABLE customer ALTER name SET DEFAULT 'x'",
    )
    record = rig.drill()
    assert codes(record) == {"drill.schema": Outcome.ATTENTION}
    lacks, added, changed = (str(finding.message) for finding in record.findings)
    assert "TRIGGER public.waybill keep" in lacks
    assert "INDEX public.added" in added
    assert "TABLE public.customer" in changed
    assert "same version" in str(record.findings[2].for_engineers)
    drilled = result_of(record, RestoreDrill)
    assert drilled is not None
    assert drilled.definitions == Definitions(
        missing=("TRIGGER public.waybill keep",),
        added=("INDEX public.added",),
        changed=("TABLE public.customer",),
    )


def test_schema_finding_contains_server_version_of_original_if_versions_differ(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    """Another version may print a definition differently."""
    harm(monkeypatch, "ALTER TABLE customer ALTER name SET DEFAULT 'x'")
    record = rig.drill(manifest=rig.source.manifest.model_copy(update={"server_version": "9.6"}))
    (finding,) = record.findings
    assert finding.for_engineers is not None
    assert finding.for_engineers.values["original"] == "9.6"


def test_restore_drill_passes_with_forced_row_level_security_if_role_owns_the_copy(
    new_database: Callable[..., DatabaseAddress],
    server: DatabaseAddress,
    state: Engine,
    store: DirectoryStore,
    recipients: list[Recipient],
    signer: Signer,
    operations: Holder,
) -> None:
    """The role of the drill owns the copy, and policies hide rows from it."""
    origin = new_database(
        f"""{COURIER}
        ALTER TABLE customer ENABLE ROW LEVEL SECURITY;
        ALTER TABLE customer FORCE ROW LEVEL SECURITY;
        CREATE POLICY mine ON customer USING (id < 3);
        DELETE FROM waybill WHERE id = 5;"""
    )
    point = take(origin, store, recipients, signer, columns=[SEEN])
    run(server, "CREATE ROLE drill_owner LOGIN CREATEDB PASSWORD 'x'")
    parameters = {**server.parameters, "user": "drill_owner"}
    rig = Rig(
        point.source(operations.opening),
        DrillTarget(DatabaseAddress(parameters, "x")),
        server,
        origin,
        state,
    )
    try:
        rig.erase("customer", "5")
        record = rig.drill()
        assert (record.outcome, record.findings) == (Outcome.PASS, [])
        assert (record.data["replayed"], record.data["remaining"]) == (1, 0)
        assert rig.scratch_left() == []
    finally:
        run(server, "DROP ROLE drill_owner")
