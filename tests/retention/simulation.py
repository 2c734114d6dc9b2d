"""Execute random actions on a database and on a model, and compare both after each action."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Any

import psycopg

from include.evidence.model import StepRecord
from include.holds.registry import HoldKind
from include.services.errors import ServiceError
from tests.retention.actions import (
    Action,
    Event,
    Execute,
    Hold,
    Insert,
    Plan,
    Release,
    Request,
    Rotate,
    Touch,
)
from tests.retention.kills import Killed, OpenConnections, record_connections
from tests.retention.linked_schemas import LINKED, LINKED_RULES
from tests.retention.model import LINKS, Model, Name, Row, more_than
from tests.retention.runner import (
    NAME,
    OLD,
    ROTATED,
    RULES,
    YEARS,
    YOUNG,
    RetentionRunner,
    disposition,
    make_partitions,
    mapped,
)

WORLDS = {
    "family": ("parcel", "scan", "detail", "tag", "note"),
    "cycles": ("node", "ring_a", "ring_b"),
    "years": ("event", "remark"),
    "people": ("person",),
    "links": LINKED,
}
EDGE = datetime(2025, 1, 1, tzinfo=UTC)  # exactly a year before AS_OF, so not expired
OVER = datetime(2024, 12, 31, 23, 59, 59, tzinfo=UTC)
AGES: tuple[datetime | None, ...] = (OLD, OVER, OLD, YOUNG, EDGE, None)
PEOPLE = ("a", "b", "c")
UUIDS = {name: f"{name}0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11" for name in PEOPLE}  # of links
STAGES = ("changed", "intended", "confirmed", "committed", "settled")


class Simulation:
    """A sequence of actions on a runner and on the model of its schedule.

    Args:
        connection: connection to the mapped database, in autocommit and UTC.
        state: connection to the state database, in autocommit.
    """

    def __init__(
        self,
        runner: RetentionRunner,
        world: str,
        connection: psycopg.Connection[Any],
        state: psycopg.Connection[Any],
    ) -> None:
        self.tables = WORLDS[world]
        self.runner = runner.but(
            rules=[rule for rule in (*RULES, *LINKED_RULES) if rule.collection in self.tables],
            database=mapped(self.tables),
            rules_of_disposition=disposition(batch={"rows": 2, "lock_timeout_ms": 300}),
        )
        self.connection, self.state = connection, state
        self.model = Model()
        self.numbers = 0
        self.runs = 0
        self.planned: StepRecord | None = None
        self.done: Counter[str] = Counter()  # erased records of the newest run
        self.asked: set[str] = set()  # data subjects with a request before the newest plan
        self.later: set[str] = set()  # data subjects with a request after the newest plan

    def act(self, action: Action) -> None:
        """Execute an action, then compare database and model."""
        match action:
            case Plan():
                self.plan()
            case Execute():
                self.execute(action)
            case Rotate():
                self.runner = self.runner.but(keys=ROTATED)
            case _:
                self.happen(action)
        self.compare()

    def happen(self, event: Event) -> None:
        """Execute an event of the application or of staff."""
        match event:
            case Insert():
                self._insert(event)
            case Touch():
                self._touch(event)
            case Hold():
                kind = (HoldKind.SUBJECT, HoldKind.CLASS, HoldKind.DATABASE)[event.kind % 3]
                classes = [rule.record_class for rule in self.runner.rules]
                value = {
                    HoldKind.SUBJECT: PEOPLE[event.value % len(PEOPLE)],
                    HoldKind.CLASS: classes[event.value % len(classes)],
                }.get(kind, NAME)
                typed = self._typed(value, event.value) if value in PEOPLE else value
                self.model.holds[self.runner.hold(kind, typed).id] = (str(kind), value)
            case Release():
                if self.model.holds:
                    holds = sorted(self.model.holds)
                    hold = holds[event.which % len(holds)]
                    self.runner.release(hold)
                    del self.model.holds[hold]
            case Request():
                person = PEOPLE[event.who % len(PEOPLE)]
                self.runner.request(self._typed(person, event.who))
                self.model.asked.add(person)

    def plan(self) -> None:
        """Make a plan, and check that its numbers equal those of the model."""
        self.runs += 1
        self.done.clear()
        self.asked = set(self.model.asked)
        self.model.remember(self.model.asked)
        self.planned = self.runner.plan(f"r{self.runs}")
        assert self._allowed() == dict(self.model.going())

    def execute(self, how: Execute) -> None:
        """Execute the newest plan.

        Requests that were entered after the plan wait for the next plan.
        """
        if self.planned is None:
            self.plan()
        later = self.model.asked - self.asked
        self.model.remember(self.model.asked)
        self.later = later
        self.model.asked -= later
        self._execute(how)
        self.model.asked |= later
        self.later = set()

    def _execute(self, how: Execute) -> None:
        """Execute the plan, and check the records that wait for the next plan."""
        assert self.planned is not None
        allowed = self._allowed()
        more = more_than(self.model.going() + self.done, allowed)
        waiting = {name: count - allowed.get(name, 0) for name, count in more.items()}
        reached: Counter[str] = Counter()
        killed = disturbed = False
        try:
            with record_connections(self.runner.engine) as opened:
                run, progress = f"r{self.runs}", self._progress(how, opened, reached)
                executed = self.runner.execute(self.planned, run, progress)
        except (Killed, ServiceError):  # closing a cursor may raise that the connection is lost
            assert opened.killed
            opened.wait_until_closed(self.connection)
            killed = True
        disturbed = how.meanwhile is not None and reached[how.stage] >= how.number
        self.compare(finished=not killed)
        if not killed:
            assert executed.data["waiting"] == waiting
        if not killed and not disturbed:
            self._compare_left(waiting)

    def _compare_left(self, waiting: Collection[str]) -> None:
        """Check that all permitted records were erased.

        Two kinds of records may remain: records of a record class with more permitted records than
        planned, and records to which these records refer. A foreign-key cycle with more permitted
        records than planned may be kept as a whole.
        """
        allowed = self._allowed()
        stopped = {name for name in waiting if self.done[name] == allowed.get(name, 0)}
        for cycle in ({"node"}, {"ring_a", "ring_b"}):
            if cycle.intersection(waiting):
                stopped |= cycle
        for link in LINKS * len(LINKS):
            if link.child in stopped:
                stopped.add(link.parent)
        assert set(self.model.going()) <= stopped

    def converge(self) -> None:
        """Plan and execute, and check that only records with a reason to stay remain."""
        self.act(Plan())
        self.act(Execute())
        assert not self.model.going()
        assert self.planned is not None
        if self.numbers % 3 == 0:  # only sometimes, since the verification is slow
            counted = self.runner.verify(self.planned, None, f"r{self.runs}")
            assert counted.data["unexplained"] == 0
            assert counted.data["orphans"] == []

    def compare(self, *, finished: bool = False) -> None:
        """Check that only permitted records are erased, and that the ledger has exactly these."""
        self.model.remember(self.model.asked | self.later)
        deletable, maskable = self.model.to_delete(), self.model.to_mask()
        live = self._live()
        for name in [row for row in self.model.rows if row not in live]:
            assert name in deletable, f"{name} was deleted"
            self.model.remove(name)
            self.done[name[0]] += 1
        for name, (refs, masked) in live.items():
            row = self.model.rows[name]
            if masked and not row.masked:
                assert name in maskable, f"{name} was masked"
                row.masked = True
                self.done[name[0]] += 1
            assert refs == {key: row.refs.get(key) for key in refs}, name
            assert masked == row.masked, name
        if self.planned is not None:
            assert not more_than(self.done, self._allowed())
        self._compare_ledger(finished)

    def _compare_ledger(self, finished: bool) -> None:
        query = (
            "SELECT e.key_hmac, e.action, b.settled_at IS NOT NULL "
            "FROM erasure e JOIN erasure_batch b ON b.id = e.batch_id"
        )
        entered = Counter[tuple[bytes, str]]()
        settled = set()
        for digest, action, is_settled in self.state.execute(query):
            entered[bytes(digest), action] += 1
            if is_settled:
                settled.add((bytes(digest), action))
            assert is_settled or not finished, "a batch is open after an execution that ended"
        for name, row in {**self.model.gone, **self.model.rows}.items():
            action = "mask" if row.table == "person" else "delete"
            is_erased = row.masked or name in self.model.gone
            names = [(digest, action) for digest in self._digests(row)]
            if is_erased:
                assert sum(entered[name] for name in names) == 1, f"{name} in the ledger"
            else:
                assert not settled.intersection(names), f"{name} is there, and in the ledger"

    def _digests(self, row: Row) -> list[bytes]:
        return [ROTATED.digest(key, NAME, row.table, row.key) for key in ROTATED.keys]

    def _allowed(self) -> dict[str, int]:
        assert self.planned is not None
        planned = {
            each["collection"]: each["to_delete"] + each["to_mask"]
            for each in self.planned.data["classes"]
            if each["name"] != "claim"
        }
        return {name: count for name, count in planned.items() if count}

    def _progress(
        self, how: Execute, opened: OpenConnections, reached: Counter[str]
    ) -> Callable[[str], None]:
        def progress(stage: str) -> None:
            reached[stage] += 1
            if stage != how.stage or reached[stage] != how.number:
                return
            if how.meanwhile is not None and stage in ("committed", "settled"):
                self.compare()
                self.happen(how.meanwhile)
            if how.kill:
                opened.kill(self.runner.source, commit=how.commit and stage == "confirmed")

        return progress

    def _live(self) -> dict[Name, tuple[dict[str, int | None], bool]]:
        live = {}
        for table in self.tables:
            links = {link.name: _column(link.name) for link in LINKS if link.child == table}
            number = "no" if table in ("parcel", "event") else "id"
            masked = "masked_at IS NOT NULL" if table == "person" else "false"
            columns = ", ".join([number, masked, *links.values()])
            for row in self.connection.execute(f"SELECT {columns} FROM {table}".encode()):
                live[table, row[0]] = (dict(zip(links, row[2:], strict=True)), row[1])
        return live

    def _insert(self, event: Insert) -> None:
        table = self.tables[event.table % len(self.tables)]
        self.numbers += 1
        at = AGES[event.age % len(AGES)]
        if table in LINKED and event.age % 4:
            at = YOUNG  # an expired record would be erased without a request
        if table == "event":
            at = datetime(YEARS[event.age % len(YEARS)], 6, 1, tzinfo=UTC)
            make_partitions(self.connection)
        row = Row(table, self.numbers, at, PEOPLE[event.who % len(PEOPLE)], event.open)
        values: dict[str, Any] = {"at": at, "who": self._key(row.who)}
        values["no" if table in ("parcel", "event") else "id"] = row.number
        values |= {"open": row.open} if table in ("parcel", "scan") else {}
        values |= {"region": "n"} if table == "parcel" else {}
        values |= {"name": "Wang Fang", "phone": "13800138000"} if table == "person" else {}
        parent: Row | None = None
        for link in (link for link in LINKS if link.child == table):
            parents = [row for row in self.model.rows.values() if row.table == link.parent]
            parents += [row] if link.parent == table and event.close else []
            if table == "client":  # all clients of a home belong to one person
                parents = [each for each in parents if self.model.subject(each) in (None, row.who)]
            parent = parents[event.parent % len(parents)] if parents else None
            row.refs[link.name] = parent.number if parent else None
            if table in ("scan", "remark") and parent:
                values |= {"region": "n"} if table == "scan" else {"event_at": parent.at}
            values[_column(link.name)] = row.refs[link.name]
        if table in ("client", "letter"):
            clients = [row for row in self.model.rows.values() if row.table == "client"]
            takes = clients and table == "letter"
            row.mail = clients[event.parent % len(clients)].mail if takes else row.number
            values["mail"] = row.mail
        self.model.rows[table, row.number] = row
        names = ", ".join(values)
        placeholders = ", ".join(["%s"] * len(values))
        self.connection.execute(
            f"INSERT INTO {table} ({names}) VALUES ({placeholders})".encode(), list(values.values())
        )
        if event.close and parent:
            self._close(row, parent)

    def _close(self, row: Row, parent: Row) -> None:
        back = {"node": "up", "ring_b": "b", "ring_a": "a"}.get(row.table)
        if back and parent is not row:
            self.connection.execute(
                f"UPDATE {parent.table} SET {back} = %s WHERE id = %s".encode(),
                [row.number, parent.number],
            )
            parent.refs[back] = row.number

    def _key(self, person: str) -> str:
        """Return the key of a person in the tables."""
        return UUIDS[person] if "client" in self.tables else person

    def _typed(self, person: str, spelling: int) -> str:
        """Return the key of a person as typed in holds and requests, sometimes in capitals."""
        is_typed_otherwise = "client" in self.tables and spelling % 2
        return self._key(person).upper() if is_typed_otherwise else self._key(person)

    def _touch(self, event: Touch) -> None:
        rows = [row for row in self.model.rows.values() if row.table != "event"]
        if not rows:
            return
        row = rows[event.which % len(rows)]
        row.at = AGES[event.age % len(AGES)]
        number = "no" if row.table == "parcel" else "id"
        query = f"UPDATE {row.table} SET at = %s WHERE {number} = %s"
        self.connection.execute(query.encode(), [row.at, row.number])
        if row.table in ("parcel", "scan"):
            row.open = event.open
            query = f"UPDATE {row.table} SET open = %s WHERE {number} = %s"
            self.connection.execute(query.encode(), [row.open, row.number])


def _column(link: str) -> str:
    return {"parcel": "no", "event": "no"}.get(link, link)
