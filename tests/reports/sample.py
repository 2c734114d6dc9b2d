"""Two realistic reports: a backup that passed and a backup that failed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from include.evidence.model import ControlState, ControlStatus, Finding, Outcome, RunContext
from include.messages import _
from include.reports.model import (
    Bar,
    BarChart,
    Code,
    Column,
    Fact,
    Paragraph,
    Report,
    Section,
    Steps,
    Table,
    Target,
    TrendChart,
    TrendPoint,
)

FINISHED = datetime(2026, 11, 23, 18, 4, 31, tzinfo=UTC)
TABLES = [
    ("public.access_log", 1_204_331, 183_500_800, "2f1d"),
    ("public.addresses", 48_112, 9_437_184, "77ab"),
    ("public.complaints", 1_920, 1_310_720, "90cc"),
    ("public.consents", 61_004, 7_340_032, "01f0"),
    ("public.customers", 40_000, 14_680_064, "c3d9"),
    ("public.delivery_proofs", 310_442, 402_653_184, "5e6b"),
    ("public.departments", 14, 16_384, "ae10"),
    ("public.employees", 386, 131_072, "4410"),
    ("public.partners", 0, 8_192, "e3b0"),
    ("public.share_log", 8_701, 2_097_152, "6d0f"),
    ("public.training_completions", 2_214, 524_288, "1b88"),
    ("public.waybills", 933_870, 524_288_000, "d41d"),
]
RUN = RunContext(
    dag_id="backup_offsite",
    run_id="scheduled__2026-11-23T18:00:00+00:00",
    started_at=FINISHED - timedelta(minutes=4, seconds=29),
    period_start=FINISHED - timedelta(days=1),
    period_end=FINISHED,
    code_version="6edf40a91c2b7d5e8f0a4b6c3d2e1f0a9b8c7d6e",
    policy_hash="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    policy_name="sample-courier",
    clock_source="system clock, NTP synchronised",
)


def control(outcome: Outcome) -> ControlStatus:
    """Return the control for which the sample reports are evidence."""
    held = outcome is not Outcome.FAIL
    return ControlStatus(
        id="BK-01",
        clause="4.2",
        title=_("Customer data is backed up every day, encrypted and apart from the primary site"),
        indicator="databases_without_restore_point",
        target="= 0",
        value=0 if held else 1,
        state=ControlState.PASSED if held else ControlState.FAILED,
    )


def passed() -> Report:
    """Return the report of a passed backup of twelve tables, with two charts."""
    return _backup(Outcome.PASS, [310, 290, 302, None, 287, 269], [])


def failed() -> Report:
    """Return the report of a failed backup with two findings and one unmeasured value."""
    findings = [
        Finding(
            code="backup.recipient.expiring",
            severity=Outcome.ATTENTION,
            subject="escrow-2025",
            message=_("The recipient key expires in {days} days.", days=12),
            action=_("Make a new escrow key and add it to the policy pack before it expires."),
            clause="4.2",
        ),
        Finding(
            code="backup.upload.checksum",
            severity=Outcome.FAIL,
            subject="courier/2026/11/24/full.dump.zst.enc",
            message=_(
                "The store holds {held:bytes} of {sent:bytes}; the checksum differs.",
                held=1_048_576_000,
                sent=1_147_183_104,
            ),
            action=_("Run the backup again; if it fails twice, tell the storage team."),
            clause="4.2",
        ),
    ]
    return _backup(Outcome.FAIL, [310, 290, 302, 700, 1260, None], findings)


def _backup(outcome: Outcome, seconds: list[float | None], findings: list[Finding]) -> Report:
    held = outcome is Outcome.PASS
    points = [
        TrendPoint(
            at=FINISHED - timedelta(days=len(seconds) - 1 - index),
            value=value,
            status=None if value is None else Outcome.PASS if value < 900 else Outcome.FAIL,
        )
        for index, value in enumerate(seconds)
    ]
    return Report(
        title=_("Off-site backup"),
        summary=_("One of one databases has a verified restore point from this run.")
        if held
        else _("The database {name} has no verified restore point from this run.", name="courier"),
        run=RUN,
        outcome=outcome,
        finished_at=FINISHED,
        controls=[control(outcome)],
        facts=[
            Fact(
                label=_("Last restore point"),
                value=FINISHED - timedelta(days=0 if held else 2),
                status=outcome,
                note=_("at most {age:duration} old", age=86400),
            ),
            Fact(
                label=_("Databases backed up"),
                value=_("{done} of {all}", done=1 if held else 0, all=1),
                status=outcome,
            ),
            Fact(label=_("Rows"), value=2_610_994 if held else None, unit="rows"),
            Fact(label=_("Stored"), value=1_147_183_104 if held else None, unit="bytes"),
            Fact(
                label=_("Apart from the primary site"),
                value=True,
                status=Outcome.PASS,
                note=_("{primary} and {offsite}", primary="cn-shanghai", offsite="cn-beijing"),
            ),
            Fact(label=_("Recipients"), value=2, status=Outcome.PASS, note=_("at least 2")),
        ],
        findings=findings,
        sections=[
            Section(
                heading=_("What was backed up"),
                blocks=[
                    Paragraph(
                        text=_(
                            "All tables were read from one snapshot taken at {at}.",
                            at=FINISHED - timedelta(minutes=4),
                        )
                    ),
                    Table(
                        caption=_("Tables in the restore point"),
                        columns=[
                            Column(label=_("Table"), kind="code"),
                            Column(label=_("Rows"), kind="number"),
                            Column(label=_("Size"), kind="bytes"),
                            Column(label=_("Content hash"), kind="code"),
                            Column(label=_("Outcome"), kind="outcome"),
                        ],
                        rows=[
                            [name, rows, size, digest * 4, Outcome.PASS if held or rows else None]
                            for name, rows, size, digest in TABLES
                        ],
                    ),
                ],
            ),
            Section(
                heading=_("How it went over time"),
                blocks=[
                    TrendChart(
                        caption=_("Time from start to verified restore point"),
                        unit="seconds",
                        points=points,
                        target=Target(value=900, label=_("Target, at most")),
                    ),
                    BarChart(
                        caption=_("Training coverage by department"),
                        category=_("Department"),
                        unit="percent",
                        bars=[
                            Bar(label="客户服务部", value=0.98, status=Outcome.PASS),
                            Bar(
                                label="华东转运中心第二分拣作业部夜班组",
                                value=0.71,
                                status=Outcome.FAIL,
                            ),
                            Bar(label="信息管理部", value=0.93, status=Outcome.ATTENTION),
                            Bar(label="仓储部", value=None),
                        ],
                        target=Target(value=0.95, label=_("Target, at least")),
                    ),
                ],
            ),
            Section(
                heading=_("Restoring it"),
                blocks=[
                    Steps(
                        items=[
                            _("Fetch the escrow key from the safe; two people sign for it."),
                            _("Run the command below on a machine that reaches the new server."),
                            _("Compare the printed row counts with the table above."),
                        ]
                    ),
                    Code(
                        caption=_("Command"),
                        lines=[
                            "./parcelseal restore --database courier --point latest \\",
                            "    --into postgresql://restore@db.example/courier --key escrow.pem",
                        ],
                    ),
                ],
            ),
        ],
    )
