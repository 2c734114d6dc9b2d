"""If a register of the state database lacks sealed rows, the next run reports the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import text

from include.evidence import ledger
from include.evidence.folder import RESULT, SIGNATURE
from include.evidence.register_figures import ERASURES, HOLDS, REGISTERS, Register, take_figures
from include.evidence.registers import accept_losses
from include.evidence.signing import Signer, generate_key
from include.local.postgres import EmbeddedPostgres
from include.services.errors import ControlFailed, UsageError
from include.state.connect import engine
from include.state.tables import evidence_intent
from tests.evidence.register_fixtures import Company
from tests.evidence.support import START, Evidence
from tests.support.databases import pooled, temporary_database

UNSEALED = {"erasure_request": {"found_at", "oversized_at", "restricted_at"}}
TABLES = ("erasure", "erasure_batch", "erasure_request", "finding", "finding_event", "legal_hold")


@pytest.fixture
def company(evidence: Evidence) -> Company:
    """Return a company with three sealed erasures, two holds, a request and a finding."""
    sealed_company = Company(evidence, evidence.engine)
    sealed_company.erase()
    sealed_company.hold()
    sealed_company.hold()
    sealed_company.request()
    sealed_company.finding()
    sealed_company.seal()
    return sealed_company


GONE = ("DELETE FROM erasure WHERE batch_id = 1", "DELETE FROM erasure_batch WHERE id = 1")
HARM = {
    "erasure": GONE,
    "legal_hold": ("DELETE FROM legal_hold WHERE id = 2",),
    "erasure_request": ("DELETE FROM erasure_request",),
    "finding": ("DELETE FROM finding",),
    "finding_event": ("DELETE FROM finding_event",),
}


@pytest.mark.parametrize("name", HARM)
def test_require_complete_raises_control_failed_if_sealed_register_rows_are_missing(
    company: Company, name: str
) -> None:
    """The state database itself does not show that rows are missing. Sealed bundles show it."""
    company.require()
    company.harm(*HARM[name])
    with pytest.raises(ControlFailed, match=r"The state database is not complete: \d of \d"):
        company.require()
    assert company.lost() == {name}


def test_error_about_lost_erasures_contains_number_of_records_and_not_of_batches(
    company: Company,
) -> None:
    company.harm(*GONE)
    with pytest.raises(
        ControlFailed,
        match="3 of 3 entries of the erasure ledger are missing",
    ) as it:
        company.require()
    assert "--accept-losses" in it.value.action


def test_require_complete_with_list_of_registers_ignores_lost_rows_of_registers_outside_the_list(
    company: Company,
) -> None:
    company.harm(*HARM["legal_hold"])
    reader, now = company.reader, company.clock.now()
    reader.require_complete(now, [ERASURES])
    with pytest.raises(ControlFailed, match="1 of 2 legal holds"):
        reader.require_complete(now, [ERASURES, HOLDS])


@pytest.mark.parametrize("name", ["result.json", "SHA256SUMS", "SHA256SUMS.sig"])
def test_require_complete_raises_control_failed_if_newest_bundle_lacks_a_file(
    company: Company, name: str
) -> None:
    """Without the figures of the bundle, nothing shows that the registers are complete."""
    (row,) = ledger.rows(company.evidence.conn)
    (company.evidence.root / row.bundle / name).unlink()
    with pytest.raises(ControlFailed, match="failed verification"):
        company.require()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE legal_hold SET value = 'shop/999' WHERE id = 1",
        "UPDATE erasure_batch SET database = 'other'",
        "UPDATE erasure_batch SET settled_at = NULL",
        "UPDATE erasure_request SET subject = '999'",
        "UPDATE finding SET due_on = due_on + 1",
    ],
)
def test_require_complete_raises_control_failed_if_sealed_register_rows_were_changed(
    company: Company, statement: str
) -> None:
    company.harm(statement)
    with pytest.raises(ControlFailed, match="replaced by other entries with the same numbers"):
        company.require()


def test_change_of_released_by_in_sealed_legal_hold_is_detected(company: Company) -> None:
    """The release of a hold is sealed, so a later change of it is detected."""
    company.release()
    company.require()
    company.seal()
    company.require()
    company.harm("UPDATE legal_hold SET released_by = 'x' WHERE id = 2")
    assert company.lost() == {"legal_hold"}


def test_require_complete_raises_control_failed_after_restore_of_older_state_database(
    company: Company, postgres: EmbeddedPostgres
) -> None:
    """The ledger of the older state database lacks the newer bundles, but the store has them."""
    company.evidence.conn.close()  # nobody may be connected to what is copied
    company.state.dispose()
    source = conninfo_to_dict(company.evidence.database)["dbname"]
    with temporary_database(postgres, str(source)) as name:
        old = engine(postgres.conninfo(name))
        company.require()
        company.erase()
        company.hold()
        company.seal("enforce_retention")
        company.seal()
        company.require()
        company.state = old
        with pytest.raises(
            ControlFailed, match=r"3 of 6 entries of the erasure ledger .* 1 of 3 legal holds"
        ):
            company.require()
        company.hold()  # the same number as one that is lost
        with pytest.raises(ControlFailed, match="legal holds were changed"):
            company.require()
        company.seal("check_quality")  # enters the newer bundles; the loss is not forgotten
        company.seal("check_quality")
        assert company.lost() == {"erasure", "legal_hold"}


def test_every_seal_after_loss_of_register_rows_returns_finding_about_the_loss(
    company: Company,
) -> None:
    """The loss is known even if many bundles without the lost rows follow."""
    company.harm(*GONE)
    for _ in range(5):
        state, findings = company.seal()
        assert [finding.code for finding in findings] == ["evidence.register_lost"]
        assert set(state.lost) == {"erasure"}
        assert state.figures["erasure"].entries == 0
    with pytest.raises(ControlFailed, match="3 of 3 entries of the erasure ledger"):
        company.require()


def test_accepted_loss_of_register_rows_allows_runs_and_is_reported_by_one_seal_only(
    company: Company,
) -> None:
    company.harm(*GONE)
    company.seal()
    reader, signer = company.reader, company.evidence.signer
    for by, because in ((" ", "the disk burnt"), ("counsel", " ")):
        with pytest.raises(UsageError):
            accept_losses(reader, signer, company.clock, by=by, because=because)
    accepted = accept_losses(
        reader, signer, company.clock, by="counsel", because="the disk burnt, no backup"
    )
    assert accepted is not None
    assert set(accepted.lost) == {"erasure"}
    company.require()
    assert accept_losses(reader, signer, company.clock, by="x", because="no backup") is None
    company.harm("DELETE FROM legal_hold WHERE id = 1")  # what is left is watched from then on
    assert company.lost() == {"legal_hold"}
    state, findings = company.seal()
    assert state.accepted == accepted
    assert [finding.code for finding in findings] == [
        "evidence.register_lost",
        "evidence.register_loss_accepted",
    ]
    _, findings = company.seal()
    assert [finding.code for finding in findings] == ["evidence.register_lost"]


def test_acceptance_of_loss_is_ignored_if_untrusted_key_signed_it(company: Company) -> None:
    company.harm(*GONE)
    clock, stranger = company.clock, Signer.from_pem(generate_key())
    accept_losses(company.reader, stranger, clock, by="mallory", because="no backup")
    assert company.lost() == {"erasure"}
    accept_losses(company.reader, company.evidence.signer, clock, by="c", because="no backup")
    company.harm("DELETE FROM legal_hold WHERE id = 1")
    accept_losses(company.reader, stranger, company.clock, by="mallory", because="no backup")
    assert company.lost() == {"legal_hold"}


def test_register_figures_in_bundle_signed_with_untrusted_key_are_ignored(
    company: Company, migrated_database: str
) -> None:
    """Write access to the store must not be enough to stop restores with forged figures."""
    theirs = engine(migrated_database)
    with theirs.connect() as conn:
        signer = Signer.from_pem(generate_key())
        forged = replace(company.evidence, engine=theirs, conn=conn, signer=signer)
        mallory = Company(forged, theirs)
        mallory.numbers = count(900)
        mallory.hold()
        mallory.seal()
    assert len(list(company.evidence.root.glob("**/SHA256SUMS.sig"))) == 2
    company.require()


def test_require_complete_raises_control_failed_if_result_json_of_newest_bundle_was_changed(
    company: Company,
) -> None:
    """The figures of the bundle are unknown, so nothing shows that the registers are complete."""
    company.seal()
    (file,) = company.evidence.root.glob(f"**/r{next(company.numbers) - 1}/{RESULT}")
    file.chmod(0o600)
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ControlFailed, match="failed verification"):
        company.require()
    _, findings = company.seal()
    assert [finding.code for finding in findings] == ["evidence.register_unread"]


def test_register_figures_are_read_from_bundle_if_its_signature_is_only_in_state_database(
    company: Company,
) -> None:
    """A seal was killed, or is still running, between its ledger row and its signature."""
    with company.state.begin() as conn:
        row = ledger.head(conn)
        assert row is not None
        key = f"{row.bundle}/{SIGNATURE}"
        signature = company.evidence.store.get(key)
        company.evidence.store.delete(key)
        intent = {"bundle": row.bundle, "started_at": START, "signature": signature}
        conn.execute(evidence_intent.insert().values(intent))
    company.require()
    state, findings = company.reader.state_to_seal(company.clock)
    assert findings == []
    assert state.lost == {}


def test_take_figures_returns_figures_of_last_seal_while_a_transaction_writes_to_the_register(
    company: Company,
) -> None:
    """Rows of an open transaction may have lower ids than rows that were committed after them."""
    sealed, _ = company.seal()
    with company.state.connect() as conn, conn.begin():
        conn.execute(text("UPDATE erasure_batch SET records = records WHERE false"))
        figures = take_figures(company.state, sealed.figures, patience=0.2)
        assert figures["erasure"] == sealed.figures["erasure"]
        assert "erasure" not in take_figures(company.state, {}, patience=0)
        assert set(take_figures(company.state, {}, patience=0)) == set(HARM) - {"erasure"}


def test_bundle_without_register_figures_is_not_compared_with_registers(evidence: Evidence) -> None:
    """The comparison begins with the first bundle that has figures."""
    evidence.seal(1)
    company = Company(evidence, evidence.engine)
    company.hold()
    company.require()
    company.seal()
    company.harm("DELETE FROM legal_hold")
    assert company.lost() == {"legal_hold"}


def test_register_figures_stay_equal_if_timezone_and_date_style_of_database_change(
    company: Company,
) -> None:
    """Another database server may have another timezone and output format."""
    name = conninfo_to_dict(company.evidence.database)["dbname"]
    company.harm(
        f"ALTER DATABASE {name} SET TimeZone = 'America/Caracas'",
        f"ALTER DATABASE {name} SET bytea_output = 'escape'",
        f"ALTER DATABASE {name} SET DateStyle = 'ISO, DMY'",
    )
    try:
        company.require()
    finally:
        company.harm(f"ALTER DATABASE {name} RESET ALL")


def test_register_figures_stay_equal_if_a_table_column_is_added(company: Company) -> None:
    """A later version may add columns that earlier bundles lack."""
    company.harm("ALTER TABLE legal_hold ADD COLUMN later_version text DEFAULT 'x'")
    try:
        company.require()
    finally:
        company.harm("ALTER TABLE legal_hold DROP COLUMN later_version")


@pytest.mark.parametrize("register", REGISTERS, ids=lambda register: register.name)
def test_every_register_column_is_in_the_digest_or_listed_as_unsealed(register: Register) -> None:
    """Add a new column to UNSEALED: figures that are already sealed do not cover it."""
    columns = {column.name for column in register.table.c}
    assert columns == {
        *(*register.fixed, *register.added, *register.later),
        *UNSEALED.get(register.name, ()),
    }


CHANGES = (
    Company.erase,
    lambda it: it.erase(settled=False),
    Company.settle_batches,
    Company.withdraw_batch,
    Company.hold,
    Company.release,
    Company.request,
    Company.find_request,
    Company.close_request,
    Company.finding,
    Company.close_finding,
    lambda it: it.seal(),
)


@pytest.fixture(scope="module")
def shared_evidence(
    migrated: str, signer: Signer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Company]]:
    from tests.evidence.conftest import open_evidence

    state = pooled(migrated)

    def make() -> Company:
        root = tmp_path_factory.mktemp("registers")
        with open_evidence(migrated, signer, root) as made:
            made.conn.rollback()
            return Company(made, state)

    yield make
    state.dispose()


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=8)
@given(
    changes=st.lists(st.sampled_from(CHANGES), min_size=3, max_size=14),
    later=st.lists(st.sampled_from(CHANGES[:-1]), max_size=5),
    table=st.sampled_from(TABLES[1:]),
)
def test_deleted_register_row_is_reported_as_loss_and_random_allowed_changes_are_not(
    shared_evidence: Callable[[], Company],
    changes: list[Callable[[Company], object]],
    later: list[Callable[[Company], object]],
    table: str,
) -> None:
    company = shared_evidence()
    for change in changes:
        change(company)
    _, findings = company.seal()
    assert findings == []
    settled = "settled_at IS NOT NULL" if table == "erasure_batch" else "true"
    with company.state.connect() as conn:
        ids = list(conn.scalars(text(f"SELECT id FROM {table} WHERE {settled} ORDER BY id")))
    for change in later:
        change(company)
    assert company.lost() == set()
    if ids:
        company.harm(f"DELETE FROM {table} WHERE id = {ids[len(ids) // 2]}")
        name = "erasure" if table == "erasure_batch" else table
        assert company.lost() == {name}
