"""A shop whose log is audited, with a state database, an evidence store and no Airflow."""

from __future__ import annotations

import hashlib
import io
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import yaml
from sqlalchemy import Engine

from include.approvals.question import Answer
from include.evidence import ledger
from include.evidence.bundle import SealedBundle, seal
from include.evidence.folder import bundle_path
from include.evidence.ledger import LedgerRow
from include.evidence.model import Outcome, Result, StepRecord
from include.evidence.model import RunContext as EvidenceContext
from include.evidence.signing import Signer, generate_key
from include.evidence.step_findings import StepFindings, artifacts_of, record_step
from include.local.postgres import EmbeddedPostgres
from include.notify.outbox import Run
from include.policy.model import PolicyPack
from include.registry import load_pack
from include.sampling import report
from include.sampling.commitment import Commitment
from include.sampling.drawing import DRAW
from include.sampling.frame import Frame, Quarter, freeze, quarter_of
from include.sampling.freezing import COMMIT, FREEZE, POPULATIONS
from include.sampling.rules import AUDIT, COMMITMENT_FILE, AuditRules
from include.sampling.seed_entry import ENTER, take_seed
from include.sampling.seed_entry import SEED as SEED_STEP
from include.services.clock import FixedClock
from include.services.connections import ConnectionSpec
from include.services.objectstore.directory import DirectoryStore
from include.state.tables import metadata
from include.workflow.run_context import RunContext, TaskState
from include.workflow.step import Step
from include.workplace import Workplace
from tests.policy.packs import write_pack
from tests.support.contexts import connection, step_record
from tests.support.databases import fresh, pooled
from tests.support.registers import emptying

DAG = "sample_audit"
NOW = datetime(2026, 10, 5, 0, tzinfo=UTC)  # 08:00 in the shop's timezone
ZONE = "Asia/Shanghai"
SEED = "3391.76 3400.01"
AUDITOR, OTHER_AUDITOR = "E00007", "E00009"
MAP = """\
fides_key: shop
collections:
  - name: log
    fields:
      - {name: id, fides_meta: {primary_key: true}}
      - {name: branch}
      - {name: seen_at}
  - name: staff
    fields:
      - {name: id, fides_meta: {primary_key: true}}
      - {name: login}
"""
LOG = (
    "SELECT l.id{} FROM period, log l WHERE l.seen_at >= period.starts AND l.seen_at < period.ends"
)
SIGNER = Signer.from_pem(generate_key())


def population(name: str = "openings", **more: Any) -> dict[str, Any]:
    """A whole population of audit.yaml."""
    return {
        "id": name,
        "title": {"en": name.capitalize(), "zh-CN": "查阅记录"},
        "owner": "management",
        "database": "shop",
        "sql": LOG.format(""),
        "tolerable": "20%",
        "attributes": [
            {
                "id": "approved",
                "question": {"en": "Approved?", "zh-CN": "是否批准？"},
                "basis": "business",
            }
        ],
    } | more


def by_branch(name: str = "branches", **more: Any) -> dict[str, Any]:
    """The same log with the branch as a stratum."""
    strata = {"en": "Branch", "zh-CN": "分公司"}
    given: dict[str, Any] = {"sql": LOG.format(", l.branch AS stratum"), "strata": strata}
    return population(name, **given | more)


def rules_of(*populations: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A whole audit.yaml."""
    return {
        "auditors": {"accounts": [AUDITOR, OTHER_AUDITOR]},
        "seed": {"source": {"en": "Tomorrow's index", "zh-CN": "明日收盘指数"}},
        "populations": list(populations) or [population(), by_branch()],
    } | more


def pack_with(folder: Path, *populations: dict[str, Any]) -> PolicyPack:
    """The shop's pack with these populations."""
    audit = yaml.safe_dump(rules_of(*populations), allow_unicode=True)
    return load_pack(write_pack(folder, datamap__shop=MAP, audit=audit))


def _loaded(folder: Path) -> PolicyPack:
    return load_pack(folder) if (folder / "audit.yaml").exists() else pack_with(folder)


@dataclass
class Rig:
    """The shop, its runs, and what they leave.

    Attributes:
        source: connection string of the shop.
        state: of the state database.
        root: of the evidence store.
        folder: of the shop's pack; one with usual populations is made where there is none.
        now: the moment, which tests move on.
    """

    source: str
    state: str
    root: Path
    folder: Path
    now: datetime = NOW
    pack: PolicyPack = field(init=False)
    engine: Engine = field(init=False)

    def __post_init__(self) -> None:
        self.engine = pooled(self.state)
        self.pack = _loaded(self.folder)

    def audit(self, *populations: dict[str, Any]) -> None:
        """Audit other populations."""
        self.folder = self.folder.parent / f"pack-{uuid.uuid4().hex[:8]}"
        self.pack = pack_with(self.folder, *populations)

    def context(
        self, run: str = "r1", parameters: Mapping[str, Any] | None = None
    ) -> RunContext[AuditRules]:
        """The context of a run."""
        rules = self.pack.section(AUDIT)
        assert rules is not None
        store = ConnectionSpec("evidence_store", "fs", extra={"path": str(self.root)})
        shop = self.pack.database("shop").connection
        specs = {shop: connection(shop, self.source), store.conn_id: store}
        services = Workplace(
            Path("/nonexistent"), self.folder, specs.get, FixedClock(self.now),
            load=lambda _: self.pack, open_state=self.engine,
        )  # fmt: skip
        vars(services)["code_version"] = "abc"
        return RunContext(
            services,
            rules,
            Run(DAG, run),
            parameters=dict(parameters or {}),
            task=TaskState(started_at=NOW, seal_interim=partial(self.seal_interim, run)),
        )

    def done(
        self, step: Step[AuditRules, Any], run: str, part: str = "", **parameters: Any
    ) -> StepRecord:
        """Do a step and keep its record."""
        return self.kept(step_record(step, self.context(run, parameters), part), run)

    def begin(self, run: str = "r1", asked: str | None = None) -> StepRecord:
        return self.done(POPULATIONS, run, quarter=asked)

    def freeze(self, name: str, run: str = "r1") -> StepRecord:
        return self.done(FREEZE, run, name)

    def commit(self, run: str = "r1") -> Commitment | None:
        """Seal what was frozen; a minute later, as the ledger's clock has it."""
        if not self.done(COMMIT, run).data["committed"]:
            return None
        return Commitment.model_validate_json(self.artifacts(run)[COMMITMENT_FILE])

    def seal_interim(
        self, run: str, workflow: str, _conclusion: Any, files: Mapping[str, bytes], **_: Any
    ) -> LedgerRow:
        sealed = self.sealed(run, dict(files), workflow=workflow)
        with self.engine.connect() as conn:
            row = ledger.find_bundle(conn, sealed.path)
        assert row is not None
        return row

    def enter(self, seed: str = SEED, run: str = "r1", **more: Any) -> StepRecord:
        """Answer as the auditor; ``published_at`` is an hour after the commitment."""
        self.now += timedelta(hours=2)
        given = {"seed": seed, "source": "the exchange's page", "published_at": self.published()}
        user = more.pop("user", AUDITOR)
        option = more.pop("option", ENTER)
        at = more.pop("at", self.now)
        return self.kept(self.take(option, given | more, user, at, run), run)

    def take(
        self, option: str, given: dict[str, str], user: str | None, at: datetime, run: str = "r1"
    ) -> StepRecord:
        """Take an answer, whoever gave it."""
        shown = hashlib.sha256(self.artifacts(run).get(COMMITMENT_FILE, b"")).hexdigest()
        findings = StepFindings(SEED_STEP.name, SEED_STEP.clause)
        answer = Answer(option, "", user, at, given=given, entered=given, content=shown)
        return findings.record(take_seed(self.context(run), findings, answer))

    def published(self, **before: int) -> str:
        """A moment so long ago; an hour where nothing is said."""
        return (self.now - timedelta(**before or {"hours": 1})).isoformat()

    def draw(self, run: str = "r1") -> StepRecord:
        return self.done(DRAW, run)

    def committed(self, run: str = "r1", asked: str | None = None) -> Commitment:
        """A run up to its commitment."""
        for name in self.begin(run, asked).data["populations"]:
            self.freeze(name, run)
        made = self.commit(run)
        assert made is not None
        return made

    def run(self, run: str = "r1", seed: str = SEED, asked: str | None = None) -> SealedBundle:
        """A whole run that nothing disturbs."""
        self.committed(run, asked)
        self.enter(seed, run)
        self.draw(run)
        return self.seal(run)

    def seal(self, run: str = "r1") -> SealedBundle:
        """Seal what a run left, without its report."""
        concluded = self.conclude(run)
        return self.sealed(run, self.artifacts(run), dict(concluded.stored))

    def conclude(self, run: str = "r1") -> Any:
        """The conclusion of a run."""
        context = self.context(run)
        return report.conclude(context, context.records())

    def sealed(
        self,
        run: str,
        files: dict[str, bytes],
        stored: dict[str, str] | None = None,
        workflow: str = DAG,
    ) -> SealedBundle:
        """Write a signed bundle of these files."""
        result = Result(
            run=EvidenceContext(
                dag_id=workflow,
                run_id=run,
                started_at=NOW,
                code_version="abc",
                policy_hash=self.pack.sha256,
                policy_name="shop",
                clock_source="fixed clock",
            ),
            controls=[],
            outcome=Outcome.PASS,
            finished_at=self.now,
            metrics=[],
            findings=[],
        )
        with self.engine.connect() as conn:
            return seal(
                DirectoryStore(self.root),
                conn,
                SIGNER,
                result=result,
                files=files,
                stored=stored or {},
                clock=FixedClock(self.now),
            )

    def artifacts(self, run: str = "r1") -> dict[str, bytes]:
        with self.engine.connect() as conn:
            return artifacts_of(conn, DAG, run)

    def frame_path(self, name: str, run: str = "r1") -> Path:
        return self.root / bundle_path(DAG, run, NOW) / f"frames/{name}.tsv"

    def kept(self, record: StepRecord, run: str = "r1") -> StepRecord:
        """Keep a record as a task does."""
        with self.engine.begin() as conn:
            record_step(conn, DAG, run, record, FixedClock(self.now))
        return record

    def sql(self, statement: str, *given: Any) -> list[tuple[Any, ...]]:
        """Run SQL on the shop."""
        with psycopg.connect(self.source, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), given or None)
            return cursor.fetchall() if cursor.description else []

    def fill(self, items: int = 200, branches: int = 4) -> None:
        """Give the log items of the third quarter of 2026, and 90 of the second."""
        self.sql("TRUNCATE log")
        for first, count, start in ((0, items, "2026-07-01"), (100_000, 90, "2026-05-01")):
            self.sql(
                "INSERT INTO log SELECT %s + i, 'branch ' || i %% %s, %s::timestamptz "
                "+ i * interval '10 minutes' FROM generate_series(1, %s) AS i",
                first,
                branches,
                f"{start} 00:00+08",
                count,
            )

    def empty(self) -> None:
        """Bring both databases back to their beginning."""
        with self.engine.begin() as conn:
            conn.exec_driver_sql(emptying(metadata.tables))
        self.fill()
        self.now = NOW

    def state_of(self) -> dict[str, list[Any]]:
        """Every row of the state database."""
        with self.engine.connect() as conn:
            return {
                one.name: sorted(map(str, conn.execute(one.select())))
                for one in metadata.sorted_tables
            }

    # of frames alone

    def frame(self, sql: str, *, strata: bool = False, quarter: str = "2026Q3") -> Frozen:
        """Freeze what a SELECT gives."""
        context = self.context()
        made = context.rules.population("branches" if strata else "openings")
        sink = io.BytesIO()
        found = freeze(
            context.reader("shop"),
            context.database("shop"),
            made.model_copy(update={"sql": sql}),
            quarter_of(quarter, self.now, ZONE),
            sink,
        )
        assert found.sha256 == hashlib.sha256(sink.getvalue()).hexdigest()
        return Frozen(found, sink.getvalue())


@dataclass(frozen=True)
class Frozen:
    """A frame and its bytes."""

    frame: Frame
    content: bytes

    @property
    def lines(self) -> list[str]:
        return self.content.decode().split("\n")[:-1]


def third_quarter() -> Quarter:
    return quarter_of("2026Q3", NOW, ZONE)


@contextmanager
def new_rig(server: EmbeddedPostgres, migrated: str, folder: Path) -> Iterator[Rig]:
    """Make both databases of a rig, and drop them afterwards."""
    (folder / "evidence").mkdir()
    with fresh(server) as shop, fresh(server, migrated) as state:
        made = Rig(
            server.conninfo(shop), server.conninfo(state), folder / "evidence", folder / "pack"
        )
        made.sql("CREATE TABLE log (id bigint PRIMARY KEY, branch text, seen_at timestamptz)")
        made.fill()
        yield made
        made.engine.dispose()
