"""Check people, courses and completions for faults, and report breaches of the training policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import NamedTuple

from psycopg.rows import dict_row
from psycopg.sql import SQL

from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.messages import Message, _, listed, verbatim
from include.training.obligations import FAULTY, Due
from include.training.rules import TrainingRules, is_past_last_overdue_stage
from include.training.sources import Sources, report_query_faults
from include.training.training_status import TOPICS, TrainingStatus
from include.training.waivers import GrantedWaiver
from include.workflow.run_context import RunContext

_MAX_NAMED = 20  # faults named in a finding
_ATTENTION, _FAIL = Outcome.ATTENTION, Outcome.FAIL


class _Check(NamedTuple):
    """A check that finds one type of fault in the training records.

    Attributes:
        query: SELECT with one row for each fault. The column ``what`` describes the fault, and
            names people by staff number.
        severity: outcome of a finding about these faults: ``ATTENTION`` or ``FAIL``.
        message: message of the finding, with the placeholders ``{count}`` for the number of faults
            and ``{names}`` for the descriptions of the first faults.
        action: corrective action.
        for_engineers: text that names the file or query to correct; None if engineers have nothing
            to correct.
    """

    query: str
    severity: Outcome
    message: Message
    action: Message
    for_engineers: Message | None = None


_PLACEHOLDERS = {"count": 0, "names": ""}  # replaced by `check_records`
_CHECKS: Mapping[str, _Check] = {
    "training.twice": _Check(
        """
        SELECT person AS what FROM {people} AS p
        WHERE joined_on <= %(day)s AND coalesce(left_on, 'infinity') >= %(day)s AND person <> ''
        GROUP BY person HAVING count(*) > 1""",
        _ATTENTION,
        _("{count} people appear more than once in the roster: {names}.", **_PLACEHOLDERS),
        _(
            "Correct the roster. Until then, the entry with the latest joining date counts for "
            "each of these people."
        ),
    ),
    "training.nameless": _Check(
        """
        SELECT coalesce(department, '?') AS what FROM {people} AS p
        WHERE person IS NULL OR person = ''""",
        _FAIL,
        _(
            "{count} entries of the roster have no staff number; their departments are: {names}.",
            **_PLACEHOLDERS,
        ),
        _(
            "Enter the staff numbers in the roster. People without a staff number receive no "
            "reminders."
        ),
    ),
    "training.undated": _Check(
        """
        SELECT person AS what FROM {people} AS p
        WHERE person <> '' AND (joined_on IS NULL OR joined_on < '1900-01-01'
            OR left_on < joined_on
            OR leave_until < leave_from OR (leave_from IS NULL AND leave_until IS NOT NULL))""",
        _FAIL,
        _(
            "{count} people have missing or impossible dates in the roster: {names}.",
            **_PLACEHOLDERS,
        ),
        _(
            "Correct the joining, leaving or absence dates of these people in the roster. "
            "People without a joining date receive no reminders."
        ),
    ),
    "training.no_department": _Check(
        """
        SELECT person AS what FROM {people} AS p
        WHERE coalesce(department, '') = '' AND person <> '' AND joined_on <= %(day)s
            AND coalesce(left_on, 'infinity') >= %(day)s""",
        _ATTENTION,
        _("{count} people have no department in the roster: {names}.", **_PLACEHOLDERS),
        _(
            "Enter the departments of these people in the roster. Until then, no department "
            "head is notified about them."
        ),
    ),
    "training.access_unclear": _Check(
        """
        SELECT person AS what FROM {people} AS p
        WHERE access IS NULL AND person <> '' AND coalesce(left_on, 'infinity') >= %(day)s""",
        _FAIL,
        _(
            "The roster does not state whether {count} people have access to customer records: "
            "{names}.",
            **_PLACEHOLDERS,
        ),
        _(
            "Enter in the roster whether these people have access to customer records. Until "
            "then, they count as people with access."
        ),
    ),
    "training.access_not_employed": _Check(
        """
        SELECT person AS what FROM {people} AS p GROUP BY person
        HAVING person <> '' AND bool_or(access) AND NOT coalesce(bool_or(joined_on <= %(day)s
            AND coalesce(left_on, 'infinity') >= %(day)s), false)""",
        _FAIL,
        _(
            "{count} people have access to customer records, but have left or have not joined "
            "yet: {names}.",
            **_PLACEHOLDERS,
        ),
        _("Withdraw the access of these people to customer records."),
    ),
    "training.ahead": _Check(
        """
        SELECT person || ' ' || course AS what FROM {completions} AS t
        WHERE completed_on > %(day)s""",
        _ATTENTION,
        _("{count} course completions are dated in the future: {names}.", **_PLACEHOLDERS),
        _("Correct the dates of these completions. A completion does not count before its date."),
    ),
    "training.of_no_course": _Check(
        """
        SELECT DISTINCT course AS what FROM {completions} AS t
        WHERE NOT EXISTS (SELECT FROM {courses} AS c WHERE c.course = t.course)""",
        _ATTENTION,
        _(
            "The records of completed training name {count} courses that do not exist: {names}.",
            **_PLACEHOLDERS,
        ),
        _(
            "If a course was deleted by mistake, restore it. Otherwise move the completions of "
            "the deleted course to an archive."
        ),
    ),
    "training.no_such_version": _Check(
        """
        SELECT DISTINCT t.course || ' ' || coalesce(t.version::text, '?') AS what
        FROM {completions} AS t WHERE EXISTS (SELECT FROM {courses} AS c WHERE c.course = t.course)
            AND NOT EXISTS (SELECT FROM {courses} AS c WHERE c.course = t.course
                AND c.version >= t.version)""",
        _ATTENTION,
        _(
            "The records of completed training name {count} course versions that do not exist: "
            "{names}.",
            **_PLACEHOLDERS,
        ),
        _("Correct these records of completions, or add the missing versions to the courses."),
    ),
    "training.of_nobody": _Check(
        """
        SELECT DISTINCT person AS what FROM {completions} AS t
        WHERE completed_on > %(day)s::date - 90 AND person NOT IN (
            SELECT person FROM {people} AS p WHERE person IS NOT NULL)""",
        _ATTENTION,
        _(
            "{count} staff numbers with course completions in the last 90 days are not in the "
            "roster: {names}.",
            **_PLACEHOLDERS,
        ),
        _(
            "Correct the staff numbers in the completions, for example if a leading zero is "
            "missing. Until then, these completions count for no person."
        ),
    ),
    "training.no_such_supervisor": _Check(
        """
        SELECT DISTINCT supervisor AS what FROM {people} AS p
        WHERE supervisor <> '' AND coalesce(left_on, 'infinity') >= %(day)s
            AND supervisor NOT IN (SELECT person FROM {people} AS s WHERE person IS NOT NULL)""",
        _ATTENTION,
        _("{count} supervisors are not in the roster: {names}.", **_PLACEHOLDERS),
        _(
            "Correct the supervisors in the roster. Until then, the next superior or a "
            "department head is notified instead."
        ),
    ),
    "training.faulty": _Check(
        """
        SELECT DISTINCT coalesce(course, '?') AS what FROM {courses} AS c WHERE {faulty}""",
        _FAIL,
        _("{count} courses have faulty data and cannot be used: {names}.", **_PLACEHOLDERS),
        _(
            "Correct the data of these courses. Until then, no reminders about these courses are "
            "sent."
        ),
        _("`docs/explanation/training.md` describes the fields that a course needs."),
    ),
}

_COUNT_FAULTS = SQL("""
WITH faults AS MATERIALIZED ({})
SELECT count(*) AS n, ARRAY(SELECT what FROM faults ORDER BY what LIMIT %(most)s) AS first
FROM faults""")


def check_records(findings: StepFindings, sources: Sources, day: date) -> dict[str, int]:
    """Report faults in the records of people, courses and completions.

    Args:
        findings: findings of the step.
        sources: relations with people, courses and completions.
        day: today.

    Returns:
        Code of a finding -> number of faults of its type; 0 if the records have no such fault.
    """
    counts = {}
    for code, fault in _CHECKS.items():
        counts[code], names = _count(sources, fault.query, day)
        if counts[code]:
            values = {"count": counts[code], "names": _list_first(names, counts[code])}
            message = fault.message.model_copy(update={"values": values})
            findings.find(
                code,
                fault.severity,
                message,
                fault.action,
                subject="training.yaml",
                for_engineers=fault.for_engineers,
            )
    return counts


def _count(sources: Sources, query: str, day: date) -> tuple[int, list[str]]:
    """Return the number of faults that a query finds, and the descriptions of the first faults.

    Args:
        sources: relations with people, courses and completions.
        query: query of a `_Check`.
        day: today.
    """
    parts = {**sources.relations, "faulty": FAULTY}
    query_text = _COUNT_FAULTS.format(SQL(query).format(**parts))
    with report_query_faults("sources"), sources.connection.cursor(row_factory=dict_row) as rows:
        row = rows.execute(query_text, {"day": day, "most": _MAX_NAMED}).fetchone()
    assert row is not None
    return int(row["n"]), ["?" if name is None else str(name) for name in row["first"]]


SUBJECT_TITLES: dict[str, Message] = {
    "training.yaml": _("Training data"),
    "calendar.yaml": _("Work calendar"),
}
"""Display names of the files that findings are about."""

_CALENDAR_NOTICE = timedelta(days=60)  # before a year, in which its workdays have to be known


# With these faults, the metrics of the controls would omit people or courses
_INCOMPLETE = ("training.nameless", "training.undated", "training.faulty")


def report_breaches(
    findings: StepFindings,
    run: RunContext[TrainingRules],
    status: TrainingStatus,
    overdue: Sequence[Due],
    faults: Mapping[str, int],
) -> bool:
    """Measure the metrics of the training controls, and report breaches of the training policy.

    Args:
        findings: findings of the step.
        run: context of the run.
        status: today's training obligations and coverage.
        overdue: obligations that are overdue today.
        faults: result of `check_records`.

    Returns:
        Whether the training records are complete. If they are not, the metrics of the controls are
        stored as not measured.
    """
    beyond = [
        due
        for due in overdue
        if is_past_last_overdue_stage(run.rules.ladder, due.due_on, run.today)
    ]
    people = sorted({due.person for due in beyond})
    faulty = any(map(faults.get, _INCOMPLETE))
    is_complete = status.people > 0 and not _missing_topics(run, status) and not faulty
    untrained = len(status.untrained) + faults["training.access_not_employed"]
    findings.measure("training_coverage", status.coverage if is_complete else None, "ratio")
    findings.measure("people_with_access_untrained", untrained if is_complete else None, "1")
    findings.measure("people_overdue_beyond_ladder", len(people) if is_complete else None, "1")
    findings.measure("training.people", status.people, "1")
    findings.measure("training.overdue", len(overdue), "1")
    owner = run.rules.owner
    if not status.people:
        findings.fail(
            "training.nobody",
            _("The roster has no people who need training, so no reminders are sent."),
            _("Check the query that reads the roster of people, or upload the roster again."),
            subject="training.yaml",
            for_engineers=_("The query that reads the roster is `people` in `training.yaml`."),
        )
    if status.untrained:
        findings.fail(
            "training.access_untrained",
            _(
                "{count} people can access customer records although they have no valid "
                "training: {people}.",
                count=len(status.untrained),
                people=_list_first(
                    [person.person for person in status.untrained], len(status.untrained)
                ),
            ),
            _("Train these people, or withdraw their access until they are trained."),
            subject=owner,
        )
    if people:
        findings.fail(
            "training.beyond_ladder",
            _(
                "{count} people have courses that are overdue by more than {days} days: {people}.",
                count=len(people),
                days=run.rules.ladder.overdue[-1],
                people=_list_first(people, len(people)),
            ),
            _("Talk to these people and their supervisors, because the reminders had no effect."),
            subject=owner,
        )
    _report_missing_topics(findings, run, status)
    years = sorted({run.today.year, (run.today + _CALENDAR_NOTICE).year})
    for year in [year for year in years if not run.workdays.is_announced(year)]:
        findings.warn(
            "training.year_not_announced",
            _(
                "The work calendar does not contain the holidays and make-up workdays of {year} "
                "yet.",
                year=str(year),
            ),
            _(
                "Enter the holidays and make-up workdays of {year} in the work calendar.",
                year=str(year),
            ),
            subject="calendar.yaml",
            for_engineers=_(
                "Update ParcelSeal, or write `opened`, `closed` and `announced` in `calendar.yaml`."
            ),
        )
    return is_complete


def report_unknown_waivers(findings: StepFindings, unknown: Sequence[GrantedWaiver]) -> None:
    """Report waivers that name an unknown person or course, for example because of a typo."""
    if not unknown:
        return
    findings.warn(
        "training.waiver_of_nothing",
        _(
            "{count} waivers name a person or a course that does not exist: {waivers}.",
            count=len(unknown),
            waivers=_list_first(
                [f"{waiver.person} {waiver.course}" for waiver in unknown], len(unknown)
            ),
        ),
        _("End these waivers, and grant them again with the right person and course."),
        subject="training.yaml",
        for_engineers=_(
            "`./parcelseal training unwaive` ends a waiver, `./parcelseal training waive` grants a "
            "waiver."
        ),
    )


def report_shrunk_roster(findings: StepFindings, people: int, before: int | None) -> None:
    """Report if less than half as many people need training today as in the last run.

    Args:
        findings: findings of the step.
        people: number of people who need training today.
        before: number of people who needed training in the last run; None if this is the first run.
    """
    if before is None or people * 2 >= before:
        return
    findings.fail(
        "training.shrunk",
        _(
            "The roster has {people} people who need training; at the last run it had {before}.",
            people=people,
            before=before,
        ),
        _(
            "Check whether the query or the uploaded file of the roster is incomplete. People "
            "who are missing in the roster receive no reminders."
        ),
        subject="training.yaml",
    )


def _report_missing_topics(
    findings: StepFindings, run: RunContext[TrainingRules], status: TrainingStatus
) -> None:
    """Report the required topics that have no suitable course in force."""
    if missing := _missing_topics(run, status):
        findings.fail(
            "training.topic_missing",
            _(
                "These topics have no suitable course in force: {topics}.",
                topics=listed([TOPICS.get(name) or verbatim(name) for name in missing]),
            ),
            _(
                "Publish a course for each of these topics. Courses on law, protection skills "
                "and emergency handling have to be repeated regularly (policy 6.2)."
            ),
            subject="training.yaml",
        )


def _missing_topics(run: RunContext[TrainingRules], status: TrainingStatus) -> list[str]:
    """Return the required topics that have no suitable course in force.

    Each topic of training.yaml needs a course in force that people have to repeat. The topic
    *onboarding* needs any course in force.
    """
    topics = {topic.name: topic for topic in status.topics}
    missing: list[str] = [
        topic for topic in run.rules.topics if topic not in topics or not topics[topic].repeated
    ]
    return missing if "onboarding" in topics else [*missing, "onboarding"]


def _list_first(names: Sequence[str], count: int) -> Message:
    more = ["…"] if count > _MAX_NAMED else []
    return listed([*names[:_MAX_NAMED], *more])
