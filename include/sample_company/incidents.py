"""Compute the scopes of the sample incidents from the generator's own data, in plain Python.

Only the answer sheet uses this module. Tests compare these scopes with those that the incident
workflow counts in SQL. docs/explanation/incident-scope.md explains how a scope is described. The
grades follow the incident.yaml of the shipped policy pack.
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
from include.sample_company.identities import has_second_address
from include.sample_company.staff import DEPARTMENTS
from include.sample_company.waybills import canary_waybills, contacts, created_at
from include.sample_company.world import World

COLLECTIONS = ("customer", "address", "consent", "waybill", "complaint")
_BRANCH = 9  # 北京分公司
_PARTNER = 3
_LEAKED_DAYS, _PAPER_DAYS = 90, 3
_MOST_LISTED = 200
# The grades with their lowest numbers of data subjects, sensitive subjects and subjects under 14.
_GRADES: tuple[tuple[str, tuple[int | None, int | None, int | None]], ...] = (
    ("larger", (1_000_000, 100_000, 10_000)),
    ("major", (10_000_000, None, None)),
    ("especially_major", (100_000_000, None, None)),
)


@dataclass
class _Case:
    """A sample incident while its scope is computed.

    Attributes:
        name: name of the incident.
        selection: what a person enters to describe the scope, such as accounts, times or keys.
        people: whether each customer is affected; the index is the customer number.
        all_records: True if all records of the affected customers are affected, False if only
            waybills are affected.
        waybills: number of affected waybills; only used if ``all_records`` is False.
        log_rows: number of log entries that name affected customers.
        not_found: number of keys in ``selection`` that do not exist in the database.
    """

    name: str
    selection: dict[str, Any]
    people: Mask
    all_records: bool = True
    waybills: int = 0
    log_rows: int = 0
    not_found: int = 0


def incidents(world: World) -> tuple[IncidentAnswer, ...]:
    """Return the expected scopes of the sample incidents.

    The result is empty if the sample has no customers.

    Args:
        world: settings of the sample database. Its employees must already be generated.
    """
    if not world.customers:
        return ()
    cases = [*_log_incidents(world), *_waybill_incidents(world), *_key_list_incident(world)]
    everything = _case(world, "everything", {})
    everything.people[1:] = True
    return tuple(_counted(world, [*cases, everything]))


def _case(world: World, name: str, selection: dict[str, Any]) -> _Case:
    return _Case(name, selection, np.zeros(world.customers + 1, np.bool_))


def _log_incidents(world: World) -> Iterator[_Case]:
    """Yield two incidents whose scope is read from logs.

    The first incident affects the customers whose records one employee opened in the last 90 days.
    The second incident affects the customers whose data was shared with one partner.
    """
    since, until = world.now - _LEAKED_DAYS * DAY, world.now
    accesses = [
        (employee[in_period], customer[in_period])
        for employee, customer, moment in openings(world)
        for in_period in ((moment >= since) & (moment < until),)
    ]
    # The sample may have no access.
    accesses.append((np.array([], np.int64), np.array([], np.int64)))
    employees = np.concatenate([employee for employee, _ in accesses])
    account = int(np.argmax(np.bincount(employees, minlength=2)))  # employee with most accesses
    leaked = _case(
        world,
        "account",
        {"accounts": [f"E{account:05d}"], "since": _iso(since), "until": _iso(until)},
    )
    by_account = employees == account
    leaked.people[np.concatenate([customer for _, customer in accesses])[by_account]] = True
    leaked.log_rows = int(by_account.sum())
    yield leaked
    shared = _case(world, "partner", {"partner": str(_PARTNER)})
    for partner, customer, _moment in sharings(world):
        to_partner = partner == _PARTNER
        shared.people[customer[to_partner]] = True
        shared.log_rows += int(to_partner.sum())
    yield shared


def _waybill_incidents(world: World) -> Iterator[_Case]:
    """Yield two incidents about printed waybills.

    The first incident affects all waybills of a branch in the last three days. The second incident
    affects a list of up to six waybills.
    """
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
    numbers = sorted({world.waybills * part // 7 + 1 for part in range(6)})[: world.waybills]
    listed = _case(
        world,
        "found_papers",
        {
            "keys_of": "courier.waybill",
            "keys": [*(f"courier/{number}" for number in numbers), f"courier/{world.waybills + 1}"],
        },
    )
    listed.all_records, listed.waybills, listed.not_found = False, len(numbers), 1
    marked = canary_waybills(world)
    for ids in chunks(1, world.waybills):
        created = created_at(world, ids)
        sender, receiver = contacts(world, ids, created, marked)
        of_branch = (branches_of(world, sender) == _BRANCH) | (
            branches_of(world, receiver) == _BRANCH
        )
        lost = of_branch & (created >= since)
        for case, affected in ((papers, lost), (listed, np.isin(ids, numbers))):
            case.people[sender[affected]] = case.people[receiver[affected]] = True
        papers.waybills += int(lost.sum())
    yield from (papers, listed)


def _key_list_incident(world: World) -> Iterator[_Case]:
    """Yield an incident whose scope is a list of customer numbers.

    They are the numbers of up to 200 customers who are under 14.
    """
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
    figures = [[0, 0, 0] for _ in cases]  # numbers of sensitive subjects, minors and unknown ages
    plan = world.customer_plan
    for ids in chunks(1, world.customers):
        variants = world.variants(ids)
        # A customer has at most one planted variant. A religion is a variant, and a missing ID
        # number is another, so a customer without an ID number has no religion either.
        sensitive = variants != plan.code("missing_id_number")
        minor, without_birth_date = (
            _minor(world, ids),
            variants == plan.code("invalid_id_birth_date"),
        )
        addresses, consents = 1 + has_second_address(world, ids), consents_of(world, ids)
        for case, counts, figure in zip(cases, records, figures, strict=True):
            affected = case.people[ids]
            if case.all_records:
                counts["customer"] += int(affected.sum())
                counts["address"] += int(addresses[affected].sum())
                counts["consent"] += int(consents[affected].sum())
            by_record = sensitive if case.all_records else np.zeros_like(sensitive)
            figure[0] += int(((by_record | minor) & affected).sum())
            figure[1] += int((minor & affected).sum())
            figure[2] += int((without_birth_date & affected).sum())
    for ids in chunks(1, world.waybills):
        sender, receiver = contacts(world, ids, created_at(world, ids), marked)
        for case, counts in zip(cases, records, strict=True):
            if case.all_records:
                counts["waybill"] += int((case.people[sender] | case.people[receiver]).sum())
    for customer, _moment in complainers(world):
        for case, counts in zip(cases, records, strict=True):
            if case.all_records:
                counts["complaint"] += int(case.people[customer].sum())
    for case, counts, (sensitive_of, minors, unknown) in zip(cases, records, figures, strict=True):
        if not case.all_records:
            counts["waybill"] = case.waybills
        subjects = int(case.people.sum())
        yield IncidentAnswer(
            name=case.name,
            selection=case.selection,
            subjects=subjects,
            records=counts,
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
    variants = [plan.code("minor"), plan.code("minor_without_guardian_consent")]
    return np.isin(world.variants(ids), variants)


def _iso(seconds: int) -> str:
    """Convert seconds since 1970 to an ISO text in the timezone Asia/Shanghai."""
    return datetime.fromtimestamp(seconds, ZoneInfo("Asia/Shanghai")).isoformat()
