"""Tests that triggers cannot make a run delete or change records that it did not record.

Hypothesis generates triggers that delete, change or empty other mapped tables, in sequences with
kills, retries, holds and changes. `Simulation` compares the deleted records with model and ledger.
This test also requires that each remaining record is unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.retention.actions import Action, Execute, Plan
from tests.retention.runner import RetentionRunner, make_partitions
from tests.retention.simulation import WORLDS, Simulation
from tests.retention.test_interleavings import LONGER, USED, between, holds, hurt, inserts
from tests.retention.test_interleavings import sessions as sessions
from tests.support.registers import emptying

NUMBER = int(LONGER or 15)
WITH_PERSONS = [world for world in WORLDS if world != "links"]  # tables with columns who and at
EFFECTS = (
    "DELETE FROM {target} WHERE {number} % 3 = {which}",
    "UPDATE {target} SET who = 'changed' WHERE {number} % 3 = {which}",
    "UPDATE {target} SET at = NULL WHERE who = 'a'",
    "TRUNCATE {target}",
    "INSERT INTO history SELECT 1",
)


@dataclass(frozen=True)
class Trigger:
    """A trigger on one table of the simulation, and its effect on another table."""

    source: int
    target: int
    effect: int
    which: int
    event: str
    timing: str


triggers = st.builds(
    Trigger,
    st.integers(0, 5),
    st.integers(0, 5),
    st.integers(0, len(EFFECTS) - 1),
    st.integers(0, 2),
    st.sampled_from(["DELETE", "DELETE", "UPDATE"]),
    st.sampled_from(["BEFORE", "AFTER", "DEFERRED"]),
)
orders: st.SearchStrategy[list[Action]] = st.builds(
    lambda first, hurt, then: [*first, hurt, *then, Plan(), Execute()],
    st.lists(st.one_of(holds, between), max_size=3),
    hurt,
    st.lists(st.one_of(holds, between, st.builds(Execute)), max_size=2),
)


class SimulationWithTriggers(Simulation):
    """A simulation in which triggers prevent the deletion of some records."""

    def create(self, triggers: list[Trigger]) -> None:
        """Create triggers as an application would."""
        for number, trigger in enumerate(triggers):
            source = self.tables[trigger.source % len(self.tables)]
            target = self.tables[trigger.target % len(self.tables)]
            key = "no" if target in ("parcel", "event") else "id"
            effect = EFFECTS[trigger.effect].format(target=target, number=key, which=trigger.which)
            kind, timing, later = "", trigger.timing, ""
            if trigger.timing == "DEFERRED":
                kind, timing, later = "CONSTRAINT", "AFTER", "DEFERRABLE INITIALLY DEFERRED"
            returns = "OLD" if trigger.event == "DELETE" else "NEW"
            self.connection.execute(
                f"""
                CREATE FUNCTION app_{number}() RETURNS trigger LANGUAGE plpgsql AS
                $$BEGIN
                    IF pg_trigger_depth() = 1
                        AND current_setting('application_name') <> 'application' THEN
                        {effect};
                    END IF;
                    RETURN {returns};
                END$$;
                CREATE {kind} TRIGGER app_{number} {timing} {trigger.event} ON {source} {later}
                    FOR EACH ROW EXECUTE FUNCTION app_{number}();
                """.encode()
            )

    def drop(self) -> None:
        """Drop the triggers and their functions."""
        for (name,) in self.connection.execute(
            "SELECT proname::text FROM pg_proc WHERE proname LIKE 'app\\_%'"
        ).fetchall():
            self.connection.execute(f"DROP FUNCTION {name} CASCADE".encode())

    def compare(self, *, finished: bool = False) -> None:
        """Compare the database with the model, including the values of remaining records."""
        super().compare(finished=finished)
        for table in self.tables:
            number = "no" if table in ("parcel", "event") else "id"
            query = f"SELECT {number}, who, at FROM {table}"
            for key, who, at in self.connection.execute(query.encode()):
                row = self.model.rows[table, key]
                assert (who, at) == (row.who, row.at), f"{table} {key} was changed"

    def _compare_left(self, waiting: object) -> None:
        """Do nothing, since the model does not know which deletions are prevented by triggers."""


@pytest.mark.timeout(0 if LONGER else 900)
@settings(
    max_examples=NUMBER,
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink] if LONGER else [Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    world=st.sampled_from(WITH_PERSONS),
    records=st.lists(inserts, min_size=5, max_size=12),
    drawn=st.lists(triggers, min_size=1, max_size=2),
    order=orders,
)
def test_run_with_random_triggers_deletes_only_records_that_have_an_erasure_ledger_entry(
    sessions: tuple[RetentionRunner, psycopg.Connection, psycopg.Connection],
    world: str,
    records: list[object],
    drawn: list[Trigger],
    order: list[Action],
) -> None:
    runner, connection, state = sessions
    state.execute(emptying(USED).encode())
    connection.execute(f"TRUNCATE {', '.join(WORLDS[world])} CASCADE".encode())
    connection.execute("CREATE TABLE IF NOT EXISTS history (id int)")
    connection.execute("SET application_name = 'application'")
    make_partitions(connection)
    simulation = SimulationWithTriggers(runner, world, connection, state)
    for record in records:
        simulation.happen(record)  # type: ignore[arg-type]
    simulation.create(drawn)
    try:
        for action in order:
            simulation.act(action)
    finally:
        simulation.drop()
