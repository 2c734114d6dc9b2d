"""What `review_partners` says to compliance staff."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from include.evidence.model import Metric, Outcome, StepRecord
from include.messages import Message, _
from include.notify.report import messages
from include.partners.names import CLAUSE_BOUND, STEP_LOOK, UNBOUND, UNREVIEWED
from include.partners.terms import State, What
from include.reports.conclusion import Conclusion, by_step, missing_record, worst
from include.reports.model import (
    Bar,
    BarChart,
    Block,
    Cell,
    Column,
    Fact,
    Paragraph,
    Section,
    Table,
)

_TITLE = _("Partner reviews")
_NOBODY_SAYS = _("not known")
_REVIEWS = {What.FAILED: _("failed"), What.REOPENED: _("opened again")}


def conclude(records: Sequence[StepRecord], *, send: str) -> Conclusion:
    """Judge a run from what its steps left.

    Args:
        records: of the run.
        send: name of the step that sends.
    """
    found = by_step(records)
    look, sent = found.get((STEP_LOOK, "")), found.get((send, ""))
    told = [one for record in records for one in record.findings]
    if not any(one.outcome is Outcome.FAIL for one in records):
        steps = {STEP_LOOK: _("The search"), send: _("The sending")}
        told += [
            missing_record(title, step, f"partners.{step}.missing", CLAUSE_BOUND)
            for step, title in steps.items()
            if (step, "") not in found
        ]
    data = look.data if look is not None and "partners" in look.data else None
    metrics = [one for record in records for one in record.metrics]
    return Conclusion(
        title=_TITLE,
        summary=_summary(data, metrics),
        outcome=worst(records, told),
        findings=told,
        metrics=metrics,
        facts=_facts(metrics),
        sections=[*(_sections(data) if data else ()), *([messages(sent)] if sent else ())],
    )


def nothing_to_review(records: Sequence[StepRecord]) -> Conclusion:
    """Say that the pack has no partners.yaml: nothing was done, and nothing is shown."""
    return Conclusion(
        title=_TITLE,
        summary=_("The policy pack has no partners.yaml: no partner is looked at."),
        outcome=worst(records, []),
        findings=[one for record in records for one in record.findings],
        metrics=[],
    )


def _figure(metrics: Sequence[Metric], name: str) -> int | None:
    value = next((one.value for one in metrics if one.name == name and not one.subject), None)
    return None if value is None else int(value)


def _summary(data: Mapping[str, Any] | None, metrics: Sequence[Metric]) -> Message:
    blocked, live = (_figure(metrics, f"partners.{one}") for one in ("live_blocked", "live"))
    if data is None or live is None:
        return _("Nobody could see which partners are bound and reviewed.")
    if data["unnamed"]:
        return _(
            "{blocked} of {live} partners with access may be given nothing; {unnamed} rows of the "
            "register cannot be told apart.",
            blocked=blocked,
            live=live,
            unnamed=data["unnamed"],
        )
    if blocked:
        return _(
            "{blocked} of {live} partners with access may be given nothing: an agreement has "
            "lapsed, or their review does not hold.",
            blocked=blocked,
            live=live,
        )
    if not data["partners"]:
        return _("The register has no partner: nobody could see whether partners are bound.")
    if not live:
        return _("By the register no partner has access: there was none to look at.")
    return _("All {live} partners with access are bound and reviewed.", live=live)


def _facts(metrics: Sequence[Metric]) -> list[Fact]:
    return [
        Fact(label=_("Partners with access"), value=_figure(metrics, "partners.live")),
        _counted(_("Without agreement in force"), _figure(metrics, UNBOUND)),
        _counted(_("Without review that holds"), _figure(metrics, UNREVIEWED)),
        Fact(label=_("Reminders queued by this run"), value=_figure(metrics, "partners.reminders")),
    ]


def _counted(label: Message, value: int | None) -> Fact:
    status = None if value is None else (Outcome.FAIL if value else Outcome.PASS)
    return Fact(label=label, value=value, status=status, note=_("with access"))


def _sections(data: Mapping[str, Any]) -> list[Section]:
    partners, reviews = sorted(data["partners"], key=_urgency), data["reviews"]
    blocks: list[Block] = [_chart(partners, data["soon_days"]), _table(partners)]
    if not partners:
        blocks = [Paragraph(text=_("The register has no partner."))]
    found = [Section(heading=_("Partners"), blocks=blocks)]
    if reviews:
        found.append(Section(heading=_("Reviews that are open"), blocks=[_open(reviews)]))
    if data["sub_processors"]:
        found.append(
            Section(
                heading=_("Who processes for partners"),
                blocks=[
                    Paragraph(
                        text=_(
                            "As partners with access named them in the last review that passed. "
                            "The company's consent to each, which the Personal Information "
                            "Protection Law (2021-11-01) 21 asks for, is to be kept with the "
                            "agreement; it is not recorded here."
                        )
                    ),
                    _others(data["sub_processors"]),
                ],
            )
        )
    return found


def _urgency(one: Mapping[str, Any]) -> tuple[bool, bool, bool, int]:
    """Sorts refused ones first, then what ends soon, then the rest; without access last."""
    ends_in = one["ends_in"] if one["live"] and one["allowed"] else None
    return (not one["live"], one["allowed"], ends_in is None, ends_in or 0)


def _chart(partners: Sequence[Mapping[str, Any]], days: int) -> BarChart:
    live = [one for one in partners if one["live"]]
    blocked = sum(not one["allowed"] for one in live)
    soon = sum(one["allowed"] and one["ends_in"] is not None for one in live)
    return BarChart(
        caption=_("Partners by what binds them"),
        category=_("State"),
        bars=[
            Bar(
                label=_("Sharing is refused"),
                value=blocked,
                status=Outcome.FAIL if blocked else Outcome.PASS,
            ),
            Bar(label=_("Something ends within {days} days", days=days), value=soon),
            Bar(label=_("In order for longer"), value=len(live) - blocked - soon),
            Bar(label=_("Without access"), value=len(partners) - len(live)),
        ],
    )


def _table(partners: Sequence[Mapping[str, Any]]) -> Table:
    rows: list[list[Cell]] = [
        [
            one["partner"],
            one["name"],
            _NOBODY_SAYS if one["tier"] is None else one["tier"],
            one["live"],
            *(_term(one[term]) for term in ("nda", "agreement", "review")),
            _verdict(one),
        ]
        for one in partners
    ]
    return Table(
        caption=_("What binds each partner"),
        columns=[
            Column(label=_("Partner"), kind="code"),
            Column(label=_("Company")),
            Column(label=_("Tier"), kind="number"),
            Column(label=_("Access")),
            Column(label=_("Confidentiality agreement")),
            Column(label=_("Data-processing agreement")),
            Column(label=_("Security review")),
            Column(label=_("Sharing")),
        ],
        rows=rows,
    )


def _verdict(one: Mapping[str, Any]) -> Cell:
    if not one["live"]:
        return _("no access")
    if not one["allowed"]:
        return _("refused")
    match one["ends_in"]:
        case None:
            return _("allowed")
        case 0:
            return _("allowed, ends today")
        case 1:
            return _("allowed, ends tomorrow")
        case days:
            return _("allowed, ends in {days} days", days=days)


def _term(term: Mapping[str, Any] | None) -> Cell:
    if term is None:
        return _NOBODY_SAYS
    if (what := What(term["what"])) in _REVIEWS:
        return _REVIEWS[what]
    state = State(term["state"])
    if term["until"] is None:
        return _NOBODY_SAYS
    if state is State.NOT_YET:
        return _("from {day} on", day=date.fromisoformat(term["begins"]))
    day = date.fromisoformat(term["until"])
    return _("until {day}", day=day) if state is State.VALID else _("lapsed, {day}", day=day)


def _open(reviews: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        caption=_("Not decided on yet"),
        columns=[
            Column(label=_("Review no."), kind="number"),
            Column(label=_("Partner"), kind="code"),
            Column(label=_("Company")),
            Column(label=_("Why")),
            Column(label=_("Opened"), kind="datetime"),
            Column(label=_("Questionnaire issued"), kind="datetime"),
            Column(label=_("Answers back"), kind="datetime"),
            Column(label=_("Score")),
        ],
        rows=[
            [
                one["id"],
                one["partner"],
                one["name"],
                one["because"] or _("its turn came"),
                datetime.fromisoformat(one["opened_at"]),
                _at(one["issued_at"]),
                _at(one["returned_at"]),
                _score(one),
            ]
            for one in reviews
        ],
    )


def _at(moment: str | None) -> Cell:
    return datetime.fromisoformat(moment) if moment else _("not yet")


def _score(one: Mapping[str, Any]) -> Cell:
    if one["score"] is None:
        return _("not yet")
    if one["passes"]:
        return _("{score}, passes", score=one["score"])
    return _("{score}, does not pass", score=one["score"])


def _others(named: Sequence[Mapping[str, str]]) -> Table:
    return Table(
        caption=_("Sub-processors"),
        columns=[
            Column(label=_("Partner"), kind="code"),
            Column(label=_("Sub-processor")),
            Column(label=_("Country or region")),
            Column(label=_("What they process")),
        ],
        rows=[[one["partner"], one["name"], one["country"], one["what_for"]] for one in named],
    )
