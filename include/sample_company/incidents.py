"""Whom some incidents would affect, by what the generator knows, in plain Python.

Written for the answer sheet and used by nothing else: what the workflow counts in SQL is held
against it. What a selection means stands in docs/incidents.md; grades are those of the shipped
incident.yaml.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from include.sample_company.answers import IncidentAnswer
from include.sample_company.chance import Ints, Mask
from include.sample_company.columns import DAY, chunks
from include.sample_company.complaints import complainers
from include.sample_company.customers import branches_of, consents_of
from include.sample_company.governance import openings, sharings
from include.sample_company.people import has_second_address
from include.sample_company.staff import DEPARTMENTS
from include.sample_company.waybills import canary_waybills, contacts, created_at
from include.sample_company.world import World

COLLECTIONS = ("customer", "address", "consent", "waybill", "complaint")
_BRANCH = 9  # 北京分公司
_PARTNER = 3
_LEAKED_DAYS, _PAPER_DAYS = 90, 3
_MOST_LISTED = 200
# Data subjects, of whom sensitive, and under 14, from which on a grade is reached; least first.
_GRADES: tuple[tuple[str, tuple[int | None, int | None, int | None]], ...] = (
    ("larger", (1_000_000, 100_000, 10_000)),
    ("major", (10_000_000, None, None)),
    ("especially_major", (100_000_000, None, None)),
)


@dataclass
class _Case:
    """An incident on its way: who is affected, customer by customer, and by which records.

    Attributes:
        people: whether each customer is affected, by number.
        all_records: whether all records of these people are, else the waybills counted here.
        waybills: that were counted.
    """

    name: str
    selection: dict[str, Any]
    people: Mask
    all_records: bool = True
    waybills: int = 0
    log_rows: int = 0
    not_found: int = 0


def incidents(world: World) -> tuple[IncidentAnswer, ...]:
    """Say whom each of some incidents affects; none where there are no customers.

    Args:
        world: the sample, its staff known.
    """
    if not world.customers:
        return ()
    cases = [*_by_log(world), *_by_paper(world), *_by_key(world)]
    everything = _case(world, "everything", {})
    everything.people[1:] = True
    return tuple(_counted(world, [*cases, everything]))


def _case(world: World, name: str, selection: dict[str, Any]) -> _Case:
    return _Case(name, selection, np.zeros(world.customers + 1, np.bool_))


def _by_log(world: World) -> Iterator[_Case]:
    """An account that leaked, and a partner that did."""
    since, until = world.now - _LEAKED_DAYS * DAY, world.now
    opened = [
        (employee[mine], customer[mine])
        for employee, customer, moment in openings(world)
        for mine in ((moment >= since) & (moment < until),)
    ]
    opened.append((np.array([], np.int64), np.array([], np.int64)))  # for there may be none
    employees = np.concatenate([one for one, _ in opened])
    account = int(np.argmax(np.bincount(employees, minlength=2)))  # who opened most
    leaked = _case(
        world,
        "account",
        {"accounts": [f"E{account:05d}"], "since": _iso(since), "until": _iso(until)},
    )
    mine = employees == account
    leaked.people[np.concatenate([one for _, one in opened])[mine]] = True
    leaked.log_rows = int(mine.sum())
    yield leaked
    given = _case(world, "partner", {"partner": str(_PARTNER)})
    for partner, customer, _moment in sharings(world):
        mine = partner == _PARTNER
        given.people[customer[mine]] = True
        given.log_rows += int(mine.sum())
    yield given


def _by_paper(world: World) -> Iterator[_Case]:
    """The papers of one branch and some days, and a few that were found."""
    since = world.now - _PAPER_DAYS * DAY
    papers = _case(
        world,
        "papers",
        {
            "collections": ["courier.waybill"],
            "departments": [DEPARTMENTS[_BRANCH - 1][0]],
            "since": _iso(since),
        },
    )
    papers.all_records = False
    places = sorted({world.waybills * part // 7 + 1 for part in range(6)})[: world.waybills]
    found = _case(
        world,
        "found_papers",
        {
            "keys_of": "courier.waybill",
            "keys": [*(f"courier/{place}" for place in places), f"courier/{world.waybills + 1}"],
        },
    )
    found.all_records, found.waybills, found.not_found = False, len(places), 1
    marked = canary_waybills(world)
    for ids in chunks(1, world.waybills):
        created = created_at(world, ids)
        sender, receiver = contacts(world, ids, created, marked)
        answering = (branches_of(world, sender) == _BRANCH) | (
            branches_of(world, receiver) == _BRANCH
        )
        for case, mine in ((papers, answering & (created >= since)), (found, np.isin(ids, places))):
            case.people[sender[mine]] = case.people[receiver[mine]] = True
        papers.waybills += int((answering & (created >= since)).sum())
    yield from (papers, found)


def _by_key(world: World) -> Iterator[_Case]:
    """The first minors, by their keys."""
    listed: list[int] = []
    for ids in chunks(1, world.customers):
        listed += ids[_minor(world, ids)].tolist()
        if len(listed) >= _MOST_LISTED:
            break
    listed = listed[:_MOST_LISTED]
    minors = _case(world, "minors", {"databases": ["courier"], "keys": [*map(str, listed), "0"]})
    minors.people[listed] = True
    minors.not_found = 1
    yield minors


def _counted(world: World, cases: list[_Case]) -> Iterator[IncidentAnswer]:
    records = [dict.fromkeys(COLLECTIONS, 0) for _ in cases]
    marked = canary_waybills(world)
    figures = [[0, 0, 0] for _ in cases]  # sensitive, minors, unknown age
    plan = world.customer_plan
    for ids in chunks(1, world.customers):
        kinds = world.kinds(ids)
        # Who has no ID number has no religion either: each customer is planted with one thing.
        sensitive = kinds != plan.code("missing_id_number")
        minor, unborn = _minor(world, ids), kinds == plan.code("invalid_id_birth_date")
        addresses, consents = 1 + has_second_address(world, ids), consents_of(world, ids)
        for case, found, figure in zip(cases, records, figures, strict=True):
            mine = case.people[ids]
            if case.all_records:
                found["customer"] += int(mine.sum())
                found["address"] += int(addresses[mine].sum())
                found["consent"] += int(consents[mine].sum())
            whole = sensitive if case.all_records else np.zeros_like(sensitive)
            figure[0] += int(((whole | minor) & mine).sum())
            figure[1] += int((minor & mine).sum())
            figure[2] += int((unborn & mine).sum())
    for ids in chunks(1, world.waybills):
        sender, receiver = contacts(world, ids, created_at(world, ids), marked)
        for case, found in zip(cases, records, strict=True):
            if case.all_records:
                found["waybill"] += int((case.people[sender] | case.people[receiver]).sum())
    for customer, _moment in complainers(world):
        for case, found in zip(cases, records, strict=True):
            if case.all_records:
                found["complaint"] += int(case.people[customer].sum())
    for case, found, (sensitive_of, minors, unknown) in zip(cases, records, figures, strict=True):
        if not case.all_records:
            found["waybill"] = case.waybills
        subjects = int(case.people.sum())
        yield IncidentAnswer(
            name=case.name,
            selection=case.selection,
            subjects=subjects,
            records=found,
            sensitive=sensitive_of,
            minors=minors,
            age_unknown=unknown,
            grade=_grade(subjects, sensitive_of, minors),
            log_rows=case.log_rows,
            not_found=case.not_found,
        )


def _grade(*figures: int) -> str:
    reached = "general"
    for name, limits in _GRADES:
        for figure, limit in zip(figures, limits, strict=True):
            if limit is not None and figure >= limit:
                reached = name
    return reached


def _minor(world: World, ids: Ints) -> Mask:
    plan = world.customer_plan
    kinds = [plan.code("minor"), plan.code("minor_without_guardian_consent")]
    return np.isin(world.kinds(ids), kinds)


def _iso(seconds: int) -> str:
    """A moment as somebody in Shanghai would enter it."""
    return datetime.fromtimestamp(seconds, ZoneInfo("Asia/Shanghai")).isoformat()
