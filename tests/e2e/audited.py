"""A sample database that is large enough for every kind of plan, drawn, looked at and concluded.

It is a database of its own on the same server: the other tests' is so small that each sample of it
would be a census. Frames follow from the database, samples from frames and seed: so a seed can be
looked for with which the staged population deviates once in its first stage and not in its second.
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
from include.sampling.commitment import Committed, plan_for
from include.sampling.frame import Quarter, freeze, quarter_of
from include.sampling.issue import Issued
from include.sampling.rules import AUDIT
from include.sampling.samples import sample
from include.sampling.workpapers import form
from include.services.database import DatabaseAddress
from include.workplace import ROOT
from tests.sampling.workpapers.support import PEOPLE, edited, fill

if TYPE_CHECKING:
    from tests.e2e.conftest import Cli

NAME = "audited"
CUSTOMERS = 8_000
STAGED = "intake"
NO = "不符合 No"
# What an auditor finds, by population and attribute: rules of the sample's answer sheet.
PLANTED = {
    ("accesses", "approved"): ("access_without_approval", "access_after_approval"),
    ("accesses", "within_purpose"): ("access_out_of_purpose",),
    ("accesses", "trained"): ("access_by_untrained", "access_by_leaver"),
    ("shares", "consent"): ("share_without_basis",),
    ("shares", "partner_bound"): ("share_lapsed_nda",),
    ("shares", "minimum"): ("share_excess_fields",),
    ("intake", "reviewed"): ("no_reviewer", "reviewer_is_enterer"),
    ("deletions", "in_time"): ("contact_not_masked",),  # an open complaint keeps the others
}
Broken = dict[tuple[str, str], set[str]]
# How many the sample plants in a quarter depends on the day; these come on top.
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
    """The database after its first conclusion.

    Attributes:
        environment: points every command at it.
        canaries: its marked values.
        broken: ids of what an auditor finds to deviate, by population and attribute.
        audit: the quarter.
        seed: with which it was drawn.
        drawn: the run of `sample_audit`.
        handed_in: what `sampling return` said.
        concluded: the run of `conclude_audit`.
    """

    environment: dict[str, str]
    canaries: tuple[str, ...]
    broken: Broken
    audit: str
    seed: str
    drawn: dict[str, Any]
    handed_in: dict[str, Any]
    concluded: dict[str, Any]

    def issued(self, cli: Cli) -> list[Issued]:
        """The workpapers of the quarter, stage by stage."""
        with cli.place.state.connect() as conn:
            return issue.all_issued(conn, self.audit)


def broken(sheet: AnswerSheet) -> Broken:
    """Say what an auditor finds who looks at everything."""
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
    """Fill the database, draw, look at what was drawn, hand it in and conclude.

    Args:
        cli: of the home.
        pack: folder for a policy pack whose findings are so soon due that owners are reminded.
    """
    shutil.copytree(SHIPPED, pack)
    rules = (pack / "audit.yaml").read_text(encoding="utf-8")
    assert "mend_within: P30D" in rules
    (pack / "audit.yaml").write_text(rules.replace("mend_within: P30D", "mend_within: P5D"))
    quarter = quarter_of(None, cli.place.clock.now(), str(cli.place.pack.calendar.timezone))
    sheet, wrong = _filled(cli, quarter)
    canaries = tuple(one.value for one in sheet.canaries)
    passwords = LocalProfile(cli.place.home).passwords
    environment = {
        "PARCELSEAL_POLICY": str(pack),
        "AIRFLOW_CONN_CUSTOMER_DB": cli.uri(NAME, "courier_reader", passwords["courier_reader"]),
        "AIRFLOW_CONN_AUDIT_DB": cli.uri(NAME, "courier_audit", passwords["courier_audit"]),
    }
    seed = _seed(cli, quarter, wrong)
    words = ["--answer", f"seed=Enter:{seed}"]
    drawn = cli.json("run", "sample_audit", *words, **environment)
    made = Audited(environment, canaries, wrong, quarter.id, seed, drawn, {}, {})
    (first,) = made.issued(cli)
    file = pack.parent / "workpapers.xlsx"
    file.write_bytes(looked_at(cli, made, first, Path(drawn["bundle"]) / "workpapers.xlsx"))
    handed_in = cli.json("sampling", "return", str(file), "--by", "E00020", **environment)
    concluded = cli.json("run", "conclude_audit", code=1, **environment)
    return replace(made, handed_in=handed_in, concluded=concluded)


def looked_at(cli: Cli, made: Audited, issued: Issued, blank: Path) -> bytes:
    """Fill workpapers in as an auditor who sees everything."""
    answers = {
        (paper.population, item.number, attribute.id): NO
        for paper in issued.workpapers.papers
        for item in paper.items
        for attribute in paper.attributes
        if item.key in made.broken.get((paper.population, attribute.id), ())
    }
    notes = {(population, number): "seen" for population, number, _attribute in answers}
    today = cli.place.clock.now().astimezone(cli.place.pack.calendar.zone).date()
    people = PEOPLE | {form.PERFORMED_ON: today}
    return edited(
        blank.read_bytes(), lambda book: fill(book, issued.workpapers, answers, notes, people)
    )


def _filled(cli: Cli, quarter: Quarter) -> tuple[AnswerSheet, Broken]:
    with psycopg.connect(cli.postgres("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {NAME} OWNER courier_owner".encode())
    owner = LocalProfile(cli.place.home).passwords["courier_owner"]
    with psycopg.connect(
        LocalProfile(cli.place.home).postgres.conninfo(NAME, "courier_owner", owner)
    ) as conn:
        sheet = load(conn, customers=CUSTOMERS, as_of=cli.place.clock.now())
        for package in ("intake", "sampling"):
            for statement in statements(ROOT / f"include/{package}/sample_grants.sql"):
                conn.execute(statement)
        wrong = broken(sheet)
        for planted, change in MORE.items():
            changed = conn.execute(change.encode(), [quarter.starts, quarter.ends])
            wrong[planted] |= {key for (key,) in changed}
    return sheet, wrong


def _seed(cli: Cli, quarter: Quarter, wrong: Broken) -> str:
    """Find a seed: one deviation in the first stage, none in the second, some among accesses."""
    policy = cli.place.pack
    database, frames = DatabaseAddress.from_conninfo(cli.postgres(NAME)), {}
    for one in policy.require(AUDIT).populations:
        if one.id not in (STAGED, "accesses"):
            continue
        sink = io.BytesIO()
        frame = freeze(database, policy.databases[COURIER], one, quarter, sink)
        rates = one.tolerable, one.expected, one.confidence
        plan = plan_for(one.plan, *rates, frame.strata, stratified=True)
        assert one.id != STAGED or plan.stages == 2
        committed = Committed(
            population=one.id,
            file="",
            sha256=frame.sha256,
            items=frame.items,
            strata=dict(frame.strata),
            stratified=True,
            tolerable=one.tolerable,
            expected=one.expected,
            confidence=one.confidence,
            planned_as=one.plan,
            plan=plan,
            attributes=(),
        )
        ids = set().union(*(ids for (name, _), ids in wrong.items() if name == one.id))
        frames[one.id] = committed, sink.getvalue(), ids

    def stages(seed: str, population: str) -> list[int]:
        committed, content, ids = frames[population]
        drawn = sample(seed, quarter.id, committed, io.BytesIO(content))
        bad = [item.stage for item in drawn.items if item.key in ids]
        return [bad.count(stage) for stage in range(1, committed.plan.stages + 1)]

    for seed in map(str, range(1000, 3000)):
        if stages(seed, STAGED) == [1, 0] and sum(stages(seed, "accesses")) > 1:
            return seed
    raise AssertionError
