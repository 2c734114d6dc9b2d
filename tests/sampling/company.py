"""A company whose access log is audited, with a state database and an evidence store.

Its runs do not need Airflow.
"""

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

from include.approvals.required_action import Answer
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
from include.sampling.seed_entry import ENTER, store_seed
from include.sampling.seed_entry import SEED as SEED_STEP
from include.service_container import Services
from include.services.clock import FixedClock
from include.services.connections import ConnectionSpec
from include.services.objectstore.directory import DirectoryStore
from include.state.tables import metadata
from include.workflow.run_context import RunContext, TaskState
from include.workflow.step import Step
from tests.policy.packs import write_pack
from tests.support.contexts import connection, step_record
from tests.support.databases import pooled, temporary_database
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
    """Return a complete population for audit.yaml.

    Args:
        name: id of the population.
        more: keys that replace the default keys.
    """
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
    """Return a population of the access log in which each branch is a stratum.

    Args:
        name: id of the population.
        more: keys that replace the default keys.
    """
    strata = {"en": "Branch", "zh-CN": "分公司"}
    fields: dict[str, Any] = {"sql": LOG.format(", l.branch AS stratum"), "strata": strata}
    return population(name, **fields | more)


def rules_of(*populations: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a complete audit.yaml with the given populations, or with two default populations.

    Args:
        populations: populations of audit.yaml.
        more: keys of audit.yaml that replace the default keys.
    """
    return {
        "auditors": {"accounts": [AUDITOR, OTHER_AUDITOR]},
        "seed": {"source": {"en": "Tomorrow's index", "zh-CN": "明日收盘指数"}},
        "populations": list(populations) or [population(), by_branch()],
    } | more


def pack_with(folder: Path, *populations: dict[str, Any]) -> PolicyPack:
    """Write the company's policy pack with the given populations, and load it."""
    audit = yaml.safe_dump(rules_of(*populations), allow_unicode=True)
    return load_pack(write_pack(folder, datamap__shop=MAP, audit=audit))


def _loaded(folder: Path) -> PolicyPack:
    return load_pack(folder) if (folder / "audit.yaml").exists() else pack_with(folder)


@dataclass
class Company:
    """The company, and the steps of its runs of `sample_audit`.

    Attributes:
        source: connection string of the company's database.
        state: connection string of the state database.
        root: folder of the evidence store.
        folder: folder of the policy pack; if missing, a pack with default populations is created.
        now: current time, which tests advance.
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

    def use_populations(self, *populations: dict[str, Any]) -> None:
        """Replace the populations of audit.yaml."""
        self.folder = self.folder.parent / f"pack-{uuid.uuid4().hex[:8]}"
        self.pack = pack_with(self.folder, *populations)

    def context(
        self, run: str = "r1", parameters: Mapping[str, Any] | None = None
    ) -> RunContext[AuditRules]:
        """Return the context of the run with the id ``run``."""
        rules = self.pack.section(AUDIT)
        assert rules is not None
        store = ConnectionSpec("evidence_store", "fs", extra={"path": str(self.root)})
        shop = self.pack.database("shop").connection
        specs = {shop: connection(shop, self.source), store.conn_id: store}
        services = Services(
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

    def run_step(
        self, step: Step[AuditRules, Any], run: str, part: str = "", **parameters: Any
    ) -> StepRecord:
        """Run a step and record its result."""
        return self.keep_record(step_record(step, self.context(run, parameters), part), run)

    def begin(self, run: str = "r1", quarter: str | None = None) -> StepRecord:
        return self.run_step(POPULATIONS, run, quarter=quarter)

    def freeze(self, name: str, run: str = "r1") -> StepRecord:
        return self.run_step(FREEZE, run, name)

    def commit(self, run: str = "r1") -> Commitment | None:
        """Run the step that seals the frozen populations; return None if there are none."""
        if not self.run_step(COMMIT, run).data["committed"]:
            return None
        return Commitment.model_validate_json(self.artifacts(run)[COMMITMENT_FILE])

    def seal_interim(
        self, run: str, workflow: str, _conclusion: Any, files: Mapping[str, bytes], **_: Any
    ) -> LedgerRow:
        sealed = self.seal_files(run, dict(files), workflow=workflow)
        with self.engine.connect() as conn:
            row = ledger.find_bundle(conn, sealed.path)
        assert row is not None
        return row

    def enter(self, seed: str = SEED, run: str = "r1", **more: Any) -> StepRecord:
        """Enter a seed as the auditor two hours later; it was published one hour before the entry.

        Args:
            seed: the seed.
            run: id of the run.
            more: fields of the form that replace the default fields, or ``user``, ``option`` and
                ``at``.
        """
        self.now += timedelta(hours=2)
        form = {"seed": seed, "source": "the exchange's page", "published_at": self.published_at()}
        user = more.pop("user", AUDITOR)
        option = more.pop("option", ENTER)
        at = more.pop("at", self.now)
        return self.keep_record(self.submit_answer(option, form | more, user, at, run), run)

    def submit_answer(
        self, option: str, form: dict[str, str], user: str | None, at: datetime, run: str = "r1"
    ) -> StepRecord:
        """Submit a user's answer to the seed form, and return the step record.

        Args:
            option: the chosen option.
            form: field name -> entered value.
            user: user id; None if nobody answered.
            at: time of the answer.
            run: id of the run.
        """
        form_digest = hashlib.sha256(self.artifacts(run).get(COMMITMENT_FILE, b"")).hexdigest()
        findings = StepFindings(SEED_STEP.name, SEED_STEP.clause)
        answer = Answer(option, "", user, at, texts=form, entered=form, content=form_digest)
        return findings.record(store_seed(self.context(run), findings, answer))

    def published_at(self, **before: int) -> str:
        """Return the current time minus a duration, by default one hour, as ISO 8601 text."""
        return (self.now - timedelta(**before or {"hours": 1})).isoformat()

    def draw(self, run: str = "r1") -> StepRecord:
        return self.run_step(DRAW, run)

    def run_to_commitment(self, run: str = "r1", quarter: str | None = None) -> Commitment:
        """Run all steps up to the commitment."""
        for name in self.begin(run, quarter).data["populations"]:
            self.freeze(name, run)
        commitment = self.commit(run)
        assert commitment is not None
        return commitment

    def run(self, run: str = "r1", seed: str = SEED, quarter: str | None = None) -> SealedBundle:
        """Run all steps and seal the evidence bundle."""
        self.run_to_commitment(run, quarter)
        self.enter(seed, run)
        self.draw(run)
        return self.seal(run)

    def seal(self, run: str = "r1") -> SealedBundle:
        """Seal the files of a run, without its report."""
        concluded = self.conclude(run)
        return self.seal_files(run, self.artifacts(run), dict(concluded.stored))

    def conclude(self, run: str = "r1") -> Any:
        """Return the report of a run."""
        context = self.context(run)
        return report.conclude(context, context.records())

    def seal_files(
        self,
        run: str,
        files: dict[str, bytes],
        stored: dict[str, str] | None = None,
        workflow: str = DAG,
    ) -> SealedBundle:
        """Write a signed evidence bundle with the given files.

        Args:
            run: id of the run.
            files: file name -> content.
            stored: file name -> SHA-256, for files that are already in the folder of the bundle.
            workflow: workflow id of the bundle.
        """
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

    def keep_record(self, record: StepRecord, run: str = "r1") -> StepRecord:
        """Store a step record as a task of Airflow does."""
        with self.engine.begin() as conn:
            record_step(conn, DAG, run, record, FixedClock(self.now))
        return record

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run SQL on the company's database."""
        with psycopg.connect(self.source, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def fill_log(self, items: int = 200, branches: int = 4) -> None:
        """Replace the access log by items of 2026Q3 and 90 items of 2026Q2.

        Args:
            items: number of items of 2026Q3.
            branches: number of branches, over which the items are distributed evenly.
        """
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

    def reset(self) -> None:
        """Reset both databases and the clock."""
        with self.engine.begin() as conn:
            conn.exec_driver_sql(emptying(metadata.tables))
        self.fill_log()
        self.now = NOW

    def state_rows(self) -> dict[str, list[Any]]:
        """Return all rows of the state database, by table."""
        with self.engine.connect() as conn:
            return {
                table.name: sorted(map(str, conn.execute(table.select())))
                for table in metadata.sorted_tables
            }

    # Methods for tests of frames

    def freeze_query(self, sql: str, *, strata: bool = False, quarter: str = "2026Q3") -> Frozen:
        """Freeze the result of a SELECT as the frame of a population.

        Args:
            sql: the SELECT statement.
            strata: whether the result has a column of strata.
            quarter: id of the quarter.
        """
        context = self.context()
        population = context.rules.population("branches" if strata else "openings")
        sink = io.BytesIO()
        frame = freeze(
            context.reader("shop"),
            context.database("shop"),
            population.model_copy(update={"sql": sql}),
            quarter_of(quarter, self.now, ZONE),
            sink,
        )
        assert frame.sha256 == hashlib.sha256(sink.getvalue()).hexdigest()
        return Frozen(frame, sink.getvalue())


@dataclass(frozen=True)
class Frozen:
    """A frame, and its content in bytes."""

    frame: Frame
    content: bytes

    @property
    def lines(self) -> list[str]:
        return self.content.decode().split("\n")[:-1]


def third_quarter() -> Quarter:
    return quarter_of("2026Q3", NOW, ZONE)


@contextmanager
def new_company(server: EmbeddedPostgres, migrated: str, folder: Path) -> Iterator[Company]:
    """Create the company's database and its state database, and drop both afterwards."""
    (folder / "evidence").mkdir()
    with temporary_database(server) as shop, temporary_database(server, migrated) as state:
        company = Company(
            server.conninfo(shop), server.conninfo(state), folder / "evidence", folder / "pack"
        )
        company.sql("CREATE TABLE log (id bigint PRIMARY KEY, branch text, seen_at timestamptz)")
        company.fill_log()
        yield company
        company.engine.dispose()
