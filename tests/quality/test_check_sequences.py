"""Random sequences of changes and checks, compared with a model in Python."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import psycopg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from include.evidence.model import Outcome
from tests.quality.support import Company, untraced

# SQL that finds the records that break each rule, independent of the checked code.
BROKEN = {
    "named": "coalesce(name, '') = ''",
    "phone": "phone !~ '^139[0-9]{8}$'",
    "twin": "EXISTS (SELECT FROM person o"
    " WHERE (o.name, o.phone) = (p.name, p.phone) AND o.id < p.id)",
    "recent": "seen_at < '2026-01-01'",
    "consent": "subscribed AND NOT EXISTS (SELECT FROM consent c WHERE c.person_id = p.id"
    " AND c.purpose = 'marketing')",
    "unique_phone": "(SELECT count(*) FROM person o WHERE o.phone = p.phone) > 1",
}
COMPARING = {"twin", "unique_phone"}
MOMENT = "2026-02-01"  # change values count from this time, in seconds
CHANGES = (
    "name = ''",
    "name = 'Ada'",
    "phone = 'none'",
    "phone = '139' || lpad(id::text, 8, '0')",
    "phone = '13900000001'",
    "subscribed = NOT subscribed",
    "seen_at = '2025-06-01'",
    "seen_at = '2026-02-28'",
)
PERSONS = st.integers(1, 12)


class Checks(RuleBasedStateMachine):
    """A company whose records are changed, with or without a new value in the change column.

    After each check, its results are compared with a model in Python, which has the expected
    watermark and the expected quarantine entries.
    """

    company: ClassVar[Company]

    @initialize()
    def begin(self) -> None:
        """Create records that meet all expectations, and make a full check."""
        self.company.do(
            "TRUNCATE person, consent",
            "INSERT INTO person SELECT n, 'Person ' || n, '139' || lpad(n::text, 8, '0'),"
            " NULL, NULL, NULL, 1, '2026-02-01', false,"
            f" timestamptz '{MOMENT}' - n * interval '1 day'"
            " FROM generate_series(1, 60) n",
        )
        self.clock = 0
        self.expected: dict[str, set[str]] = {}
        self.watermark: datetime | None = None
        self.sealed = True
        self.check(full=True, sealed=True)

    @rule(change=st.sampled_from(CHANGES), person=PERSONS)
    def change(self, change: str, person: int) -> None:
        """Change a record, and write a new value in its change column."""
        self.clock += 10
        self._change(change, person, self.clock)

    @rule(change=st.sampled_from(CHANGES), person=PERSONS)
    def change_without_a_trace(self, change: str, person: int) -> None:
        """Change a record, but not its change column."""
        untraced(self.company, f"UPDATE person SET {change} WHERE id = {person}")

    @rule(change=st.sampled_from(CHANGES), person=PERSONS, late=st.integers(0, 30))
    def change_late(self, change: str, person: int, late: int) -> None:
        """Change a record, and write a time some seconds in the past into its change column.

        The time may be earlier than the margin for late arrivals allows.
        """
        self._change(change, person, self.clock - late)

    @rule(change=st.sampled_from(CHANGES), person=PERSONS, moment=st.sampled_from([None, 10**9]))
    def change_with_a_wrong_moment(self, change: str, person: int, moment: int | None) -> None:
        """Change a record, and write null or a time in the future in its change column."""
        self._change(change, person, moment)

    @rule(person=PERSONS)
    def consent(self, person: int) -> None:
        """Add a consent of a person, which is a record of another collection."""
        key = "(SELECT coalesce(max(id), 0) + 1 FROM consent)"
        self.company.do(
            f"INSERT INTO consent SELECT {key}, id, 'marketing' FROM person WHERE id = {person}"
        )

    @rule(person=PERSONS)
    def delete(self, person: int) -> None:
        """Delete a record and its consents."""
        self.company.do(
            f"DELETE FROM consent WHERE person_id = {person}",
            f"DELETE FROM person WHERE id = {person}",
        )

    @rule(
        full=st.sampled_from([False, False, False, True]),
        sealed=st.sampled_from([True, True, False]),
    )
    def check(self, full: bool, sealed: bool) -> None:
        """Make a check, and compare the quarantine register with the model.

        Args:
            full: whether a full check is requested.
            sealed: whether the evidence of the check is sealed.
        """
        truth, newest = self._truth()
        since = None if self.watermark is None else self.watermark - timedelta(seconds=1)
        is_behind = newest is None or (self.watermark is not None and newest < self.watermark)
        full = full or since is None or not self.sealed or is_behind
        checked = self.company.check(full=full, sealed=sealed, days=0)
        figures = self.company.collection(checked)
        if figures["whole"] and not full:  # more than a fifth of the records changed
            assert len(self._examinable(since)) > figures["rows"] / 5
        assert figures["whole"] or not full
        if figures["whole"]:
            self.expected = {rule: set(keys) for rule, keys in truth.items()}
        else:
            assert datetime.fromisoformat(figures["incremental"]["since"]) == since
            for rule in BROKEN.keys() - COMPARING:
                examinable = self._examinable(since)
                self.expected[rule] = self.expected[rule] - examinable | truth[rule] & examinable
        assert self.company.open() == {
            rule: {f'["{key}"]' for key in keys} for rule, keys in self.expected.items() if keys
        }
        self._require_outcomes(figures)
        self.watermark, self.sealed = newest, sealed

    def _require_outcomes(self, figures: dict[str, Any]) -> None:
        """Assert that no expectation passed that more records break than its tolerance allows."""
        for result in figures["rules"]:
            broken = len(self.expected[result["rule"]])
            assert result["broken"] == broken
            tolerated = 0.1 * result["rows"] if result["rule"] == "phone" else 0
            assert (result["outcome"] in {Outcome.FAIL, Outcome.ATTENTION}) or broken <= tolerated

    def _change(self, change: str, person: int, moment: int | None) -> None:
        at = (
            "NULL" if moment is None else f"timestamptz '{MOMENT}' + {moment} * interval '1 second'"
        )
        untraced(self.company, f"UPDATE person SET {change}, updated_at = {at} WHERE id = {person}")

    def _truth(self) -> tuple[dict[str, set[str]], datetime | None]:
        """Return the expected quarantine entries, and the current watermark.

        The entries are the primary keys of the records that break each expectation, by expectation.
        """
        with psycopg.connect(self.company.conninfo) as connection:
            broken = {
                rule: {
                    row[0]
                    for row in connection.execute(
                        f"SELECT id::text FROM person p WHERE {condition}".encode()
                    )
                }
                for rule, condition in BROKEN.items()
            }
            row = connection.execute(
                "SELECT max(updated_at) FROM person WHERE updated_at <= now()"
            ).fetchone()
        assert row is not None
        return broken, row[0]

    def _examinable(self, since: datetime | None) -> set[str]:
        with psycopg.connect(self.company.conninfo) as connection:
            rows = connection.execute(
                "SELECT id::text FROM person WHERE updated_at >= %s OR updated_at IS NULL", [since]
            )
            return {row[0] for row in rows}


def test_quarantine_register_equals_a_simple_model_after_random_changes_and_checks(
    company: Company,
) -> None:
    """Between full checks, the quarantine register keeps old entries and adds changed records."""
    company.at = datetime(2026, 3, 1, 5, tzinfo=UTC)
    machine = type("Company'sChecks", (Checks,), {"company": company})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=8,
            stateful_step_count=12,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
