"""The data of a company for the pages: bundles, holds, findings, incidents and restore points.

Every text that a person or a database could supply contains a script or misleading characters.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy import Connection, Engine

from include.backup import manifest as manifests
from include.backup.manifest import LargeObjectsRecord, Manifest, TableRecord
from include.backup.point_folder import ObjectRecord
from include.disclosure.access_list import list_requests
from include.encryption.crypto import EncryptionRecord
from include.evidence import ledger
from include.evidence.bundle import seal
from include.evidence.bundle_reader import BundleReader
from include.evidence.model import (
    Approval,
    Finding,
    Metric,
    Outcome,
    Result,
    RunContext,
    StepSummary,
    judge,
)
from include.evidence.signing import Signer, generate_key
from include.findings import register as findings
from include.findings.run_findings import follow_ledger
from include.holds import registry as holds
from include.holds.registry import HoldKind
from include.incident import form, register
from include.incident.rule_checks import INCIDENT
from include.local.postgres import EmbeddedPostgres
from include.messages import _, verbatim
from include.notify.outbox import Run
from include.orchestration.finding_register import entry_rules
from include.policy import SHIPPED, PolicyPack
from include.registry import load_pack, pages_tables
from include.reports.model import Report
from include.reports.render import render_all
from include.services.clock import FixedClock
from include.services.objectstore.directory import DirectoryStore
from include.state.connect import engine
from include.state.reading import grant_pages
from tests.plugins.use_data import UseData, openings_of
from tests.support.databases import temporary_database

XSS = "<script>document.title='taken'</script>\"'><img src=x onerror=alert(1)>\u202e"
HOSTILE_FILE = "a\"'><img src=x onerror=alert(1)> %2e%2e&amp;;filename=b.html"
ROLE, PASSWORD = "pages_of_tests", "only for tests"
NOW = datetime.now(UTC).replace(microsecond=0)  # noqa: TID251 - the server's own clock is real
PACK: PolicyPack = load_pack(SHIPPED)

# Name in the ledger, DAG whose readers may read the bundle, and outcome; the newest bundle is last.
# The DAG is written by hand, since the pages compute it.
SEALED = (
    ("backup_offsite", "backup_offsite", Outcome.FAIL),
    ("backup_offsite", "backup_offsite", Outcome.PASS),
    ("drill_restore", "drill_restore", Outcome.PASS),
    ("drill_restore", "drill_restore", Outcome.FAIL),
    ("check_quality", "check_quality", Outcome.FAIL),
    ("enforce_retention", "enforce_retention", Outcome.ATTENTION),
    ("remind_training", "remind_training", Outcome.PASS),
    ("review_partners", "review_partners", Outcome.PASS),
    ("sample_commitment", "sample_audit", Outcome.PASS),
    ("sample_audit", "sample_audit", Outcome.PASS),
    ("conclude_audit", "conclude_audit", Outcome.PASS),
    ("respond_to_incident.report-1a2b", "respond_to_incident", Outcome.PASS),
    ("respond_to_incident", "respond_to_incident", Outcome.ATTENTION),
    ("a_workflow_of_yesterday", "a_workflow_of_yesterday", Outcome.PASS),
)
# Weeks ago and outcome of older bundles, for the pictures of the past. The oldest bundle is first.
PAST = (
    *(("check_quality", weeks, Outcome.FAIL if weeks in (15, 9) else Outcome.PASS)
      for weeks in range(30, 2, -3)),
    *(("review_partners", weeks, Outcome.PASS) for weeks in (10, 9, 8)),
)  # fmt: skip
DAG_OF = {name: dag for name, dag, _outcome in SEALED}
REGISTERS = {"audit": "conclude_audit", "incident": "respond_to_incident"}  # DAG by kind of finding


@dataclass
class Company:
    """The stores and the state database whose content the pages show.

    Attributes:
        root: folder that contains the stores.
        state: engine of the state database, with the login of its owner.
        conninfo: connection string of the state database, with the login of its owner.
        environment: environment variables for an API server that shows this data with read-only
            logins.
        signer: key that signs the bundles.
    """

    root: Path
    state: Engine
    conninfo: str
    environment: Mapping[str, str]
    signer: Signer

    @property
    def evidence(self) -> DirectoryStore:
        """The evidence store."""
        return DirectoryStore(self.root / "evidence")

    @property
    def use(self) -> UseData:
        """The requests for customer information, and the extract store."""
        return UseData(self.state, DirectoryStore(self.root / "extracts"), NOW, XSS)

    def openings(self, number: int) -> list[tuple[str, str]]:
        """Return person and channel of each opening of an extract."""
        with self.state.connect() as conn:
            return openings_of(conn, number)

    def requesters(self) -> dict[int, str]:
        """Return the account of the requester, by the number of the request."""
        with self.state.connect() as conn:
            listed = list_requests(conn, NOW)
        return {entry.request.id: entry.request.requester for entry in listed}

    def rows(self) -> list[ledger.LedgerRow]:
        """Return all rows of the evidence ledger."""
        with self.state.connect() as conn:
            return ledger.rows(conn)

    def newest(self, workflow: str) -> ledger.LedgerRow:
        """Return the ledger row of a workflow's newest bundle."""
        return next(row for row in reversed(self.rows()) if row.dag_id == workflow)

    def findings(self) -> dict[int, findings.Finding]:
        """Return the open findings of the register, by number."""
        with self.state.connect() as conn:
            return {finding.id: finding for finding in findings.list_findings(conn)}

    def seal(
        self, workflow: str, outcome: Outcome, at: datetime, files: Mapping[str, bytes]
    ) -> None:
        """Seal an evidence bundle of a workflow.

        Args:
            workflow: id of the workflow.
            outcome: outcome of the run. All indicators meet their targets, except if the outcome is
                failed.
            at: time of the run and of the seal.
            files: content of further files by name.
        """
        controls = PACK.controls_of(workflow)
        figure = 0 if outcome is not Outcome.FAIL else 3
        metrics = [
            Metric(name=control.indicator.name, value=figure, unit="1") for control in controls
        ]
        run = RunContext(
            dag_id=workflow, run_id=f"manual__{at.isoformat()} {XSS}", started_at=at,
            code_version=XSS, policy_hash=PACK.sha256, policy_name=XSS, clock_source="test",
        )  # fmt: skip
        findings = [] if outcome is Outcome.PASS else [_finding(outcome, controls)]
        judged = judge(controls, metrics)
        report = Report(
            title=_("Off-site backup"), summary=verbatim(XSS), run=run, outcome=outcome,
            finished_at=at, controls=judged, findings=findings,
        )  # fmt: skip
        pdf = workflow == "backup_offsite" and outcome is Outcome.PASS
        result = Result(
            run=run, controls=judged, outcome=outcome, finished_at=at, metrics=metrics,
            findings=findings, approvals=[_approval(at)],
            steps=_drilled(outcome) if workflow == "drill_restore" else [],
        )  # fmt: skip
        with self.state.connect() as conn:
            seal(
                self.evidence, conn, self.signer, result=result, clock=FixedClock(at),
                files={**render_all(report, pdf=pdf).files, **files},
                pack_controls=[control.id for control in PACK.controls],
            )  # fmt: skip


def _finding(outcome: Outcome, controls: object) -> Finding:
    clause = next((control.clause for control in controls), "")  # type: ignore[attr-defined]  # a list
    return Finding(
        code="test.finding", severity=outcome, subject=XSS, message=verbatim(XSS),
        action=verbatim(XSS), clause=clause, for_engineers=verbatim(f"`{XSS}`"),
    )  # fmt: skip


def _drilled(outcome: Outcome) -> list[StepSummary]:
    """Return the step records of a restore drill.

    In the drill, the older of two restore points passes, and the newer is damaged.

    Args:
        outcome: outcome of the drill.
    """
    failed = outcome is Outcome.FAIL
    data = {"restore_point": point_of(0 if failed else 1)}
    return [
        StepSummary(step="choose", part="courier", outcome=Outcome.PASS, data=data),
        StepSummary(step="refusals", part="courier", outcome=Outcome.PASS, data=data),
        StepSummary(step="drill", part="courier", outcome=outcome, data={} if failed else data),
    ]


def point_of(days: int) -> str:
    """Return the id of the restore point that was made the given number of days ago."""
    return manifests.new_id(NOW - timedelta(days=days, hours=3), "abc")


def _approval(at: datetime) -> Approval:
    return Approval(step=XSS, decision="Approve", decided_by=XSS, decided_at=at, sha256="ab" * 32)


@contextmanager
def company(server: EmbeddedPostgres, migrated: str, root: Path) -> Iterator[Company]:
    """Create the stores and the state database of the company, and drop the database afterwards.

    Args:
        server: the embedded PostgreSQL server.
        migrated: name of a migrated state database to copy.
        root: empty folder for the stores.
    """
    signer = Signer.from_pem(generate_key())
    public = root / "evidence.pub"
    public.write_bytes(signer.public_pem)
    with temporary_database(server, migrated) as name:
        _let_read(server, name)
        conninfo = server.conninfo(name)
        stores = {
            kind: {
                "conn_type": "fs",
                "extra": {"path": str(root / kind), "trusted_keys": [str(public)]},
            }
            for kind in ("evidence", "offsite")
        }
        extracts = {"conn_type": "fs", "extra": {"path": str(root / "extracts")}}
        pages = {
            "conn_type": "postgres", "host": str(server.socket_folder), "login": ROLE,
            "password": PASSWORD, "schema": name,
        }  # fmt: skip
        environment = {
            "AIRFLOW_CONN_PAGES_DB": json.dumps(pages),
            "AIRFLOW_CONN_EVIDENCE_STORE": json.dumps(stores["evidence"]),
            "AIRFLOW_CONN_OFFSITE_STORE": json.dumps(stores["offsite"]),
            "AIRFLOW_CONN_EXTRACT_STORE": json.dumps(extracts),
        }
        state = engine(conninfo)
        built = Company(root, state, conninfo, environment, signer)
        (root / "evidence").mkdir()
        (root / "offsite").mkdir()
        (root / "extracts").mkdir()
        _fill(built)
        yield built


def _let_read(server: EmbeddedPostgres, database: str) -> None:
    role = sql.Identifier(ROLE)
    with psycopg.connect(server.conninfo(database), autocommit=True) as admin:
        admin.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(role))
        admin.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(PASSWORD))
        )
    with engine(server.conninfo(database)).begin() as conn:
        grant_pages(conn, ROLE, pages_tables())


def _fill(company: Company) -> None:
    for workflow, weeks, outcome in sorted(PAST, key=lambda bundle: -bundle[1]):
        company.seal(workflow, outcome, NOW - timedelta(weeks=weeks), {})
    for number, (workflow, _dag, outcome) in enumerate(SEALED):
        at = NOW - timedelta(minutes=10 * (len(SEALED) - number))
        files = {HOSTILE_FILE: b"<script>alert(1)</script>", "plan.csv": "编号,1\n".encode()}
        company.seal(workflow, outcome, at, files)
    with company.state.begin() as conn:
        _hold(conn)
        _find(conn)
        _open(conn)
    company.use.fill()
    _restore_points(company, "courier")
    reader = BundleReader(company.evidence, [company.signer.public_pem])
    follow_ledger(company.state, reader, entry_rules(PACK))


def _hold(conn: Connection) -> None:
    for day in (-3, 30):
        holds.add(
            conn, FixedClock(NOW - timedelta(days=9)), kind=HoldKind.CASE, value="C-1",
            reason=XSS, owner=XSS, case_ref=XSS, review_on=NOW.date() + timedelta(days=day),
        )  # fmt: skip


def _find(conn: Connection) -> None:
    for kind, owner, due in (
        ("audit", "compliance", NOW.date() - timedelta(days=2)),
        ("incident", XSS, NOW.date() + timedelta(days=20)),
    ):
        number = findings.open_finding(
            conn, kind=kind, reference=f"{kind} {XSS}", description=verbatim(f"{kind} {XSS}"),
            owner=owner, opened_at=NOW - timedelta(days=9), due_on=due,
        )  # fmt: skip
        findings.answer(conn, number, cause=XSS, action=XSS, by=XSS, at=NOW)


def _open(conn: Connection) -> None:
    rules = PACK.require(INCIDENT)
    values = {"type": "lost_device", "what": f"A scanner was left {XSS}"}
    register.open_incident(
        conn, form.read_trigger_form(values, rules, NOW, PACK.calendar.zone), rules,
        Run("respond_to_incident", f"manual__1 {XSS}"), by="E00001", clock=FixedClock(NOW),
        zone=PACK.calendar.zone, year=NOW.year,
    )  # fmt: skip


def _restore_points(company: Company, database: str) -> None:
    store = DirectoryStore(company.root / "offsite")
    for days in (1, 0):
        taken = NOW - timedelta(days=days, hours=3)
        point = point_of(days)
        content = f"dump of {point}".encode()
        stored = store.put(f"{database}/{point}/{manifests.DUMP_NAME}", content)
        sha256 = hashlib.sha256(content).hexdigest()
        dump = ObjectRecord(key=stored.key, size=stored.size, sha256=sha256, checksum="")
        manifest = manifest_of(database, point, taken, dump)
        manifests.publish(store, manifest, company.signer, None)
    bad = f"{database}/{manifests.new_id(NOW - timedelta(days=3), 'bad')}"
    store.put(f"{bad}/manifest.json", b"{}")
    store.put(f"{bad}/manifest.json.sig", b"x" * 64)


def manifest_of(database: str, point: str, taken: datetime, dump: ObjectRecord) -> Manifest:
    """Return the manifest of a restore point that contains one table.

    Args:
        database: name of the database in the data map.
        point: id of the restore point.
        taken: time of the backup.
        dump: record of the dump.
    """
    return Manifest(
        id=point, database=database, taken_at=taken, lsn="0/0", server_version="18",
        timezone="UTC", tools={}, schema_sha256=dump.sha256, newest=(), recipients=(),
        tables=(_table(dump.sha256),), large_objects=LargeObjectsRecord(count=0, bytes=0, sum="0"),
        dump=dump, dump_bytes=100, compression="zstd", expires_at=taken + timedelta(days=90),
        encryption=EncryptionRecord(
            suite="test", frame_bytes=1, wrapping="test", provider="test", context={}
        ),
    )  # fmt: skip


def _table(sha256: str) -> TableRecord:
    return TableRecord(schema_name="public", name=XSS, rows=12, bytes=3, sha256=sha256)
