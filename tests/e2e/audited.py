"""A sample database that is large enough for every kind of sampling plan, and its audit.

In the small database of the other tests, each sample would contain all items. The samples depend
only on the sampling frames and the seed. The seed is chosen so that the population with a two-stage
plan has one deviation in its first stage and none in its second.
"""

from __future__ import annotations

import io
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from include.local.profile import LocalProfile
from include.local.roles import COURIER
from include.policy import SHIPPED
from include.sample_company import load
from include.sample_company.answers import AnswerSheet
from include.sample_company.load import statements
from include.sampling import issue
from include.sampling.commitment import CommittedPopulation, plan_for
from include.sampling.frame import Quarter, freeze, quarter_of
from include.sampling.issue import IssuedWorkpapers
from include.sampling.rules import AUDIT
from include.sampling.samples import sample
from include.sampling.workpapers import form
from include.service_container import ROOT
from include.services.database import DatabaseAddress
from tests.sampling.workpapers.support import PEOPLE, edited, fill

if TYPE_CHECKING:
    from tests.e2e.conftest import Cli

NAME = "audited"
CUSTOMERS = 8_000
STAGED = "intake"
NO = "不符合 No"
# Deviations that an auditor finds, by population and attribute: rules of the sample's answer sheet.
PLANTED = {
    ("accesses", "approved"): ("access_without_approval", "access_after_approval"),
    ("accesses", "within_purpose"): ("access_out_of_purpose",),
    ("accesses", "trained"): ("access_by_untrained", "access_by_leaver"),
    ("shares", "consent"): ("share_without_basis",),
    ("shares", "partner_bound"): ("share_lapsed_nda",),
    ("shares", "minimum"): ("share_excess_fields",),
    ("intake", "reviewed"): ("no_reviewer", "reviewer_is_enterer"),
    ("deletions", "in_time"): ("contact_not_masked",),  # the others have an open complaint
}
Broken = dict[tuple[str, str], set[str]]
# Further deviations, because the number of planted ones in a quarter depends on the day.
MORE = {
    ("intake", "reviewed"): """
        UPDATE customer SET reviewed_by = NULL WHERE customer_id IN (
            SELECT customer_id FROM customer WHERE created_at >= %s AND created_at < %s
            ORDER BY customer_id LIMIT 6) RETURNING customer_id::text""",
    ("accesses", "within_purpose"): """
        UPDATE access_log SET purpose = 'private' WHERE access_id IN (
            SELECT access_id FROM access_log WHERE accessed_at >= %s AND accessed_at < %s
            ORDER BY access_id LIMIT 8) RETURNING access_id::text""",
}


@dataclass(frozen=True)
class Audited:
    """The audited database after its first conclusion.

    Attributes:
        environment: environment variables with which commands use this database.
        canaries: canary values of the database.
        broken: ids of the items that deviate, by population and attribute.
        audit: id of the audited quarter.
        seed: random seed of the draw.
        drawn: JSON result of the run of `sample_audit`.
        handed_in: JSON result of the command `sampling return`.
        concluded: JSON result of the run of `conclude_audit`.
    """

    environment: dict[str, str]
    canaries: tuple[str, ...]
    broken: Broken
    audit: str
    seed: str
    drawn: dict[str, Any]
    handed_in: dict[str, Any]
    concluded: dict[str, Any]

    def issued(self, cli: Cli) -> list[IssuedWorkpapers]:
        """Return the issued workpapers of the quarter, in the order of their stages."""
        with cli.services.state.connect() as conn:
            return issue.all_issued(conn, self.audit)


def broken(sheet: AnswerSheet) -> Broken:
    """Return the ids of all items that deviate on purpose, by population and attribute."""
    named = {"shares": "S{:010d}"}
    return {
        (population, attribute): {
            named.get(population, "{}").format(key)
            for rule in rules
            for key in sheet.planted[rule].keys()  # noqa: SIM118 - not a mapping
        }
        for (population, attribute), rules in PLANTED.items()
    }


def audit(cli: Cli, pack: Path) -> Audited:
    """Fill the database, draw a sample, submit its workpapers and conclude the audit.

    Args:
        cli: the command line.
        pack: folder for a new policy pack with a short due date for findings, so that their owners
            are reminded.
    """
    shutil.copytree(SHIPPED, pack)
    rules = (pack / "audit.yaml").read_text(encoding="utf-8")
    assert "mend_within: P30D" in rules
    (pack / "audit.yaml").write_text(rules.replace("mend_within: P30D", "mend_within: P5D"))
    quarter = quarter_of(None, cli.services.clock.now(), str(cli.services.pack.calendar.timezone))
    sheet, wrong = _filled(cli, quarter)
    canaries = tuple(canary.value for canary in sheet.canaries)
    passwords = LocalProfile(cli.services.home).passwords
    environment = {
        "PARCELSEAL_POLICY": str(pack),
        "AIRFLOW_CONN_CUSTOMER_DB": cli.uri(NAME, "courier_reader", passwords["courier_reader"]),
        "AIRFLOW_CONN_AUDIT_DB": cli.uri(NAME, "courier_audit", passwords["courier_audit"]),
    }
    seed = _seed(cli, quarter, wrong)
    words = ["--answer", f"seed=Enter:{seed}"]
    drawn = cli.json("run", "sample_audit", *words, **environment)
    audited = Audited(environment, canaries, wrong, quarter.id, seed, drawn, {}, {})
    (first,) = audited.issued(cli)
    file = pack.parent / "workpapers.xlsx"
    file.write_bytes(
        completed_workpapers(cli, audited, first, Path(drawn["bundle"]) / "workpapers.xlsx")
    )
    handed_in = cli.json("sampling", "return", str(file), "--by", "E00020", **environment)
    concluded = cli.json("run", "conclude_audit", code=1, **environment)
    return replace(audited, handed_in=handed_in, concluded=concluded)


def completed_workpapers(
    cli: Cli, audit_state: Audited, issued: IssuedWorkpapers, blank: Path
) -> bytes:
    """Return workpapers that are filled in as by an auditor who finds every deviation.

    Args:
        cli: the command line.
        audit_state: the audited database, with the items that deviate.
        issued: the workpapers as issued.
        blank: file with the empty workbook.
    """
    answers = {
        (paper.population, item.number, attribute.id): NO
        for paper in issued.workpapers.papers
        for item in paper.items
        for attribute in paper.attributes
        if item.key in audit_state.broken.get((paper.population, attribute.id), ())
    }
    notes = {(population, number): "seen" for population, number, _attribute in answers}
    today = cli.services.clock.now().astimezone(cli.services.pack.calendar.zone).date()
    people = PEOPLE | {form.PERFORMED_ON: today}
    return edited(
        blank.read_bytes(), lambda book: fill(book, issued.workpapers, answers, notes, people)
    )


def _filled(cli: Cli, quarter: Quarter) -> tuple[AnswerSheet, Broken]:
    with psycopg.connect(cli.postgres("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {NAME} OWNER courier_owner".encode())
    owner = LocalProfile(cli.services.home).passwords["courier_owner"]
    with psycopg.connect(
        LocalProfile(cli.services.home).postgres.conninfo(NAME, "courier_owner", owner)
    ) as conn:
        sheet = load(conn, customers=CUSTOMERS, as_of=cli.services.clock.now())
        for package in ("intake", "sampling"):
            for statement in statements(ROOT / f"include/{package}/sample_grants.sql"):
                conn.execute(statement)
        wrong = broken(sheet)
        for planted, change in MORE.items():
            changed = conn.execute(change.encode(), [quarter.starts, quarter.ends])
            wrong[planted] |= {key for (key,) in changed}
    return sheet, wrong


def _seed(cli: Cli, quarter: Quarter, wrong: Broken) -> str:
    """Return a seed with which the drawn sample has the deviations that the tests need.

    The population with a two-stage plan has one deviation in its first stage and none in its
    second. Some of the items that are drawn from the access log deviate.

    Args:
        cli: the command line.
        quarter: the audited quarter.
        wrong: ids of all items that deviate, by population and attribute.
    """
    policy = cli.services.pack
    database, frames = DatabaseAddress.from_conninfo(cli.postgres(NAME)), {}
    for audit_population in policy.require(AUDIT).populations:
        if audit_population.id not in (STAGED, "accesses"):
            continue
        sink = io.BytesIO()
        frame = freeze(database, policy.databases[COURIER], audit_population, quarter, sink)
        rates = audit_population.tolerable, audit_population.expected, audit_population.confidence
        plan = plan_for(audit_population.plan, *rates, frame.strata, stratified=True)
        assert audit_population.id != STAGED or plan.stages == 2
        committed = CommittedPopulation(
            population=audit_population.id,
            file="",
            sha256=frame.sha256,
            items=frame.items,
            strata=dict(frame.strata),
            stratified=True,
            tolerable=audit_population.tolerable,
            expected=audit_population.expected,
            confidence=audit_population.confidence,
            planned_as=audit_population.plan,
            plan=plan,
            attributes=(),
        )
        ids = set().union(*(ids for (name, _), ids in wrong.items() if name == audit_population.id))
        frames[audit_population.id] = committed, sink.getvalue(), ids

    def stages(seed: str, population: str) -> list[int]:
        committed, content, ids = frames[population]
        drawn = sample(seed, quarter.id, committed, io.BytesIO(content))
        bad = [item.stage for item in drawn.items if item.key in ids]
        return [bad.count(stage) for stage in range(1, committed.plan.stages + 1)]

    for seed in map(str, range(1000, 3000)):
        if stages(seed, STAGED) == [1, 0] and sum(stages(seed, "accesses")) > 1:
            return seed
    raise AssertionError
