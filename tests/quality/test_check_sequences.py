"""Random changes and checks, compared with a model."""

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

# Independent SQL for the records that break each rule.
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
MOMENT = "2026-02-01"  # moments of changes are counted from here, in seconds
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
    """A company whose records change between checks, with and without new change values.

    The model has the expected watermark and the expected register after each check.
    """

    company: ClassVar[Company]

    @initialize()
    def begin(self) -> None:
        """Create good records, and make a full check."""
        self.company.do(
            "TRUNCATE person, consent",
            "INSERT INTO person SELECT n, 'Person ' || n, '139' || lpad(n::text, 8, '0'),"
            " NULL, NULL, NULL, 1, '2026-02-01', false,"
            f" timestamptz '{MOMENT}' - n * interval '1 day'"
            " FROM generate_series(1, 60) n",
        )
        self.clock = 0
        self.known: dict[str, set[str]] = {}
        self.watermark: datetime | None = None
        self.sealed = True
        self.check(full=True, sealed=True)

    @rule(change=st.sampled_from(CHANGES), person=PERSONS)
    def change(self, change: str, person: int) -> None:
        """Change a record and its change value."""
        self.clock += 10
        self._change(change, person, self.clock)

    @rule(change=st.sampled_from(CHANGES), person=PERSONS)
    def change_without_a_trace(self, change: str, person: int) -> None:
        """Change a record without its change value."""
        untraced(self.company, f"UPDATE person SET {change} WHERE id = {person}")

    @rule(change=st.sampled_from(CHANGES), person=PERSONS, late=st.integers(0, 30))
    def change_late(self, change: str, person: int, late: int) -> None:
        """Write a change value of some seconds ago, within the margin or outside of it."""
        self._change(change, person, self.clock - late)

    @rule(change=st.sampled_from(CHANGES), person=PERSONS, moment=st.sampled_from([None, 10**9]))
    def change_with_a_wrong_moment(self, change: str, person: int, moment: int | None) -> None:
        """Write null or a moment in the future as change value."""
        self._change(change, person, moment)

    @rule(person=PERSONS)
    def consent(self, person: int) -> None:
        """Add a consent, which is in another collection."""
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
        """Make a check, and compare the register with the model."""
        truth, marked = self._truth()
        since = None if self.watermark is None else self.watermark - timedelta(seconds=1)
        is_behind = marked is None or (self.watermark is not None and marked < self.watermark)
        full = full or since is None or not self.sealed or is_behind
        done = self.company.check(full=full, sealed=sealed, days=0)
        figures = self.company.collection(done)
        if figures["whole"] and not full:  # more than a fifth of them
            assert len(self._in_sight(since)) > figures["rows"] / 5
        assert figures["whole"] or not full
        if figures["whole"]:
            self.known = {rule: set(keys) for rule, keys in truth.items()}
        else:
            assert datetime.fromisoformat(figures["incremental"]["since"]) == since
            for rule in BROKEN.keys() - COMPARING:
                in_sight = self._in_sight(since)
                self.known[rule] = self.known[rule] - in_sight | truth[rule] & in_sight
        assert self.company.open() == {
            rule: {f'["{key}"]' for key in keys} for rule, keys in self.known.items() if keys
        }
        self._require_outcomes(figures)
        self.watermark, self.sealed = marked, sealed

    def _require_outcomes(self, figures: dict[str, Any]) -> None:
        """Require that no rule with more broken records than tolerated has passed."""
        for result in figures["rules"]:
            broken = len(self.known[result["rule"]])
            assert result["broken"] == broken
            tolerated = 0.1 * result["rows"] if result["rule"] == "phone" else 0
            assert (result["outcome"] in {Outcome.FAIL, Outcome.ATTENTION}) or broken <= tolerated

    def _change(self, change: str, person: int, moment: int | None) -> None:
        at = (
            "NULL" if moment is None else f"timestamptz '{MOMENT}' + {moment} * interval '1 second'"
        )
        untraced(self.company, f"UPDATE person SET {change}, updated_at = {at} WHERE id = {person}")

    def _truth(self) -> tuple[dict[str, set[str]], datetime | None]:
        """Return the records that break each rule now, and the present watermark."""
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

    def _in_sight(self, since: datetime | None) -> set[str]:
        with psycopg.connect(self.company.conninfo) as connection:
            rows = connection.execute(
                "SELECT id::text FROM person WHERE updated_at >= %s OR updated_at IS NULL", [since]
            )
            return {row[0] for row in rows}


def test_random_sequences_of_checks_agree_with_the_model(company: Company) -> None:
    """Between two full checks the register keeps old entries and gains those of changed records."""
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
