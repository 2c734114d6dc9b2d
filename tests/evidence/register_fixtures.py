"""A sample company for tests of register figures, and its sealed bundles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from itertools import count
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Connection, Engine, text

from include.composition import build_services
from include.erasure import requests
from include.erasure.ledger import ErasureKeys, Origin, open_batch, settle_batches, withdraw_batch
from include.evidence.bundle import seal
from include.evidence.model import Finding, RegisterState
from include.evidence.registers import EvidenceReader
from include.evidence.signing import Signer, generate_key
from include.findings import register
from include.holds import registry
from include.holds.registry import HoldKind
from include.messages import Message
from include.service_container import Services
from include.services.clock import FixedClock
from include.services.connections import ConnectionSpec
from include.services.objectstore.directory import DirectoryStore
from include.state.connect import engine
from tests.cli.command_services import SHOP_RETENTION
from tests.evidence.support import START, Evidence, result_of
from tests.policy.packs import SHOP, write_pack
from tests.support.registers import UNGUARDED

KEYS = ErasureKeys({"1": b"k" * 32}, "1")
ORIGIN = Origin("shop", "buyer", "delete", "buyer", "r", "enforce_retention", "r1")


class Company:
    """A sample company: functions of ParcelSeal write rows to its registers, and seal bundles."""

    def __init__(self, evidence: Evidence, state: Engine) -> None:
        self.evidence, self.state = evidence, state
        self.numbers = count(1)
        self.day = START

    @property
    def clock(self) -> FixedClock:
        self.day += timedelta(minutes=1)
        return FixedClock(self.day)

    @property
    def reader(self) -> EvidenceReader:
        keys = [self.evidence.signer.public_pem]
        workflows = {"backup_offsite", "enforce_retention"}
        return EvidenceReader(self.evidence.store, self.state, keys, workflows)

    def seal(self, dag_id: str = "backup_offsite") -> tuple[RegisterState, list[Finding]]:
        """Seal a bundle with the current figures of the registers."""
        state, findings = self.reader.state_to_seal(self.clock)
        result = result_of(dag_id, 0)
        run = result.run.model_copy(update={"run_id": f"r{next(self.numbers)}"})
        result = result.model_copy(update={"run": run, "registers": state})
        with self.state.connect() as conn:
            seal(
                self.evidence.store,
                conn,
                self.evidence.signer,
                result=result,
                files={},
                clock=self.clock,
                workflows=self.reader.workflows,
            )
        return state, findings

    def require(self) -> None:
        self.reader.require_complete(self.clock.now())

    def lost(self) -> set[str]:
        reader = self.reader
        losses = reader.losses(reader.sealed_states(self.clock.now()))
        return {loss.register.name for loss in losses}

    def do(self, work: Callable[[Connection], object]) -> None:
        with self.state.begin() as conn:
            work(conn)

    def erase(self, *, settled: bool = True) -> None:
        number = next(self.numbers)

        def work(conn: Connection) -> None:
            keys = [[f"{number}/{at}"] for at in range(3)]
            batch = open_batch(
                conn, KEYS, ORIGIN, keys, transaction="1", server="s", at=self.clock.now()
            )
            if settled:
                settle_batches(conn, [batch], self.clock.now())

        self.do(work)

    def hold(self) -> None:
        self.do(
            lambda conn: registry.add(
                conn,
                self.clock,
                kind=HoldKind.SUBJECT,
                value=f"shop/{next(self.numbers)}",
                reason="claim",
                owner="legal",
                case_ref="C-1",
                review_on=date(2027, 6, 1),
            )
        )

    def request(self) -> None:
        self.do(
            lambda conn: requests.add(
                conn,
                self.clock,
                database="shop",
                subject=str(next(self.numbers)),
                reference="R-1",
                received_on=date(2026, 11, 20),
                entered_by="privacy",
            )
        )

    def finding(self) -> None:
        def work(conn: Connection) -> None:
            number = register.open_finding(
                conn,
                kind="audit",
                reference=str(next(self.numbers)),
                description=Message(text="Nobody approved it"),
                owner="management",
                opened_at=self.clock.now(),
                due_on=date(2026, 12, 20),
            )
            register.answer(
                conn, number, cause="No form", action="A form", by="owner", at=self.clock.now()
            )

        self.do(work)

    def end(self, statement: str, work: Callable[[Connection, int], object]) -> None:
        """Select an id with an SQL statement, and pass it to a function.

        Do nothing if there is none.

        Args:
            statement: SQL statement that returns the id of a row.
            work: function that takes a connection and the id, such as a function that closes the
                row.
        """

        def first(conn: Connection) -> None:
            row_id = conn.scalar(text(statement))
            if row_id is not None:
                work(conn, int(row_id))

        self.do(first)

    def release(self) -> None:
        self.end(
            "SELECT max(id) FROM legal_hold WHERE released_at IS NULL",
            lambda conn, row_id: registry.release(
                conn, self.clock, row_id, released_by="counsel", reason="settled"
            ),
        )

    def close_request(self) -> None:
        self.end(
            "SELECT min(id) FROM erasure_request WHERE closed_at IS NULL",
            lambda conn, row_id: requests.close(
                conn, self.clock, row_id, closed_by="privacy", because="erased"
            ),
        )

    def find_request(self) -> None:
        self.end(
            "SELECT max(id) FROM erasure_request",
            lambda conn, row_id: requests.mark_found(conn, self.clock, [row_id]),
        )

    def close_finding(self) -> None:
        self.end(
            "SELECT min(id) FROM finding WHERE closed_at IS NULL",
            lambda conn, row_id: register.retest(
                conn, row_id, met=True, by="tester", at=self.clock.now()
            ),
        )

    def settle_batches(self) -> None:
        self.end(
            "SELECT min(id) FROM erasure_batch WHERE settled_at IS NULL",
            lambda conn, row_id: settle_batches(conn, [row_id], self.clock.now()),
        )

    def withdraw_batch(self) -> None:
        self.end("SELECT max(id) FROM erasure_batch WHERE settled_at IS NULL", withdraw_batch)

    def harm(self, *statements: str) -> None:
        """Run SQL statements without triggers and foreign keys.

        The owner of the tables has the rights to do the same.
        """
        with self.state.begin() as conn:
            conn.exec_driver_sql(UNGUARDED)
            for statement in statements:
                conn.exec_driver_sql(statement)


@contextmanager
def sealed_company(database: str, folder: Path) -> Iterator[tuple[Company, Services]]:
    """Yield a company, and the services that reach its stores and state database.

    Three erased records, a legal hold, an erasure request and a finding are sealed in one bundle.

    Args:
        database: connection string of a migrated state database without rows.
        folder: folder for the stores and the policy pack.
    """
    pem = generate_key()
    stores = {name: folder / name for name in ("evidence_store", "offsite_store")}
    for path in stores.values():
        path.mkdir()
    state, parts = engine(database), conninfo_to_dict(database)
    specs = {
        name: ConnectionSpec(
            name, "fs", extra={"path": str(path), "signing_key": pem.decode(), "recipients": []}
        )
        for name, path in stores.items()
    }
    specs["state_db"] = ConnectionSpec(
        "state_db",
        "postgres",
        host=str(parts["host"]),
        login=str(parts["user"]),
        password=str(parts["password"]),
        schema=str(parts["dbname"]),
        extra={"erasure_keys": {"current": "1", "keys": {"1": "k" * 32}}},
    )
    maps = {
        "datamap__shop": SHOP,
        "datamap__books": SHOP.replace("fides_key: shop", "fides_key: books"),
    }
    pack = write_pack(folder / "pack", retention=SHOP_RETENTION, **maps)
    root = stores["evidence_store"]
    with state.connect() as conn:
        evidence = Evidence(DirectoryStore(root), root, state, conn, Signer.from_pem(pem), database)
        company = Company(evidence, state)
        for change in (company.erase, company.hold, company.request, company.finding):
            change()
        company.seal()
        clock = FixedClock(START + timedelta(days=1))
        yield company, build_services(folder, pack, specs.get, clock, use_local_profile=False)
    state.dispose()
