"""Report faults of the records that training.yaml names, and breaches of the training policy."""

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
from include.training.rules import TrainingRules, is_beyond
from include.training.sources import Sources, telling
from include.training.standing import TOPICS, Standing
from include.training.waivers import Waived
from include.workflow.run_context import RunContext

_NAMED = 20  # of a kind, in a finding
_ATTENTION, _FAIL = Outcome.ATTENTION, Outcome.FAIL


class _Check(NamedTuple):
    """A fault of the records.

    Attributes:
        query: returns each fault as a text ``what``; people by staff number.
        severity: of the finding.
        message: with ``{count}``, the number of faults, and ``{first}``, the first of them.
        action: for the person who corrects the records.
    """

    query: str
    severity: Outcome
    message: Message
    action: Message


_UNCOUNTED = {"count": 0, "first": ""}  # `check` fills them in
_CHECKS: Mapping[str, _Check] = {
    "training.twice": _Check(
        """
        SELECT person AS what FROM {people} AS p
        WHERE joined_on <= %(day)s AND coalesce(left_on, 'infinity') >= %(day)s AND person <> ''
        GROUP BY person HAVING count(*) > 1""",
        _ATTENTION,
        _("Twice in the roster: {count} people ({first}).", **_UNCOUNTED),
        _("Correct the roster; until then the entry that joined last counts."),
    ),
    "training.nameless": _Check(
        """
        SELECT coalesce(department, '?') AS what FROM {people} AS p
        WHERE person IS NULL OR person = ''""",
        _FAIL,
        _("Entries of the roster without a staff number: {count} ({first}).", **_UNCOUNTED),
        _("Give them one: nobody of them is reminded."),
    ),
    "training.undated": _Check(
        """
        SELECT person AS what FROM {people} AS p
        WHERE person <> '' AND (joined_on IS NULL OR joined_on < '1900-01-01'
            OR left_on < joined_on
            OR leave_until < leave_from OR (leave_from IS NULL AND leave_until IS NOT NULL))""",
        _FAIL,
        _("Entries of the roster with impossible dates: {count} ({first}).", **_UNCOUNTED),
        _("Correct the days of joining, leaving and leave: whoever has none is not reminded."),
    ),
    "training.no_department": _Check(
        """
        SELECT person AS what FROM {people} AS p
        WHERE coalesce(department, '') = '' AND person <> '' AND joined_on <= %(day)s
            AND coalesce(left_on, 'infinity') >= %(day)s""",
        _ATTENTION,
        _("People without a department: {count} ({first}).", **_UNCOUNTED),
        _("Give them one: no head is told of them."),
    ),
    "training.access_unclear": _Check(
        """
        SELECT person AS what FROM {people} AS p
        WHERE access IS NULL AND person <> '' AND coalesce(left_on, 'infinity') >= %(day)s""",
        _FAIL,
        _(
            "The roster does not say whether {count} people may open customer records: {first}.",
            **_UNCOUNTED,
        ),
        _("Enter whether they may; until then they count as if they might."),
    ),
    "training.access_not_employed": _Check(
        """
        SELECT person AS what FROM {people} AS p GROUP BY person
        HAVING person <> '' AND bool_or(access) AND NOT coalesce(bool_or(joined_on <= %(day)s
            AND coalesce(left_on, 'infinity') >= %(day)s), false)""",
        _FAIL,
        _(
            "{count} people may open customer records and have left, or have not begun yet: "
            "{first}.",
            **_UNCOUNTED,
        ),
        _("Take their access away."),
    ),
    "training.ahead": _Check(
        """
        SELECT person || ' ' || course AS what FROM {completions} AS t
        WHERE completed_on > %(day)s""",
        _ATTENTION,
        _("Completions in the future: {count} ({first}).", **_UNCOUNTED),
        _("Correct their days; until they are over they do not count."),
    ),
    "training.of_no_course": _Check(
        """
        SELECT DISTINCT course AS what FROM {completions} AS t
        WHERE NOT EXISTS (SELECT FROM {courses} AS c WHERE c.course = t.course)""",
        _ATTENTION,
        _("Completions of courses that do not exist: {count} courses ({first}).", **_UNCOUNTED),
        _(
            "Was a course deleted that people still have to take? Put it back, or archive "
            "its completions."
        ),
    ),
    "training.no_such_version": _Check(
        """
        SELECT DISTINCT t.course || ' ' || coalesce(t.version::text, '?') AS what
        FROM {completions} AS t WHERE EXISTS (SELECT FROM {courses} AS c WHERE c.course = t.course)
            AND NOT EXISTS (SELECT FROM {courses} AS c WHERE c.course = t.course
                AND c.version >= t.version)""",
        _ATTENTION,
        _("Completions of versions that do not exist: {count} ({first}).", **_UNCOUNTED),
        _("Correct them, or enter the version among the courses."),
    ),
    "training.of_nobody": _Check(
        """
        SELECT DISTINCT person AS what FROM {completions} AS t
        WHERE completed_on > %(day)s::date - 90 AND person NOT IN (
            SELECT person FROM {people} AS p WHERE person IS NOT NULL)""",
        _ATTENTION,
        _(
            "People with completions of the last 90 days who are in no roster: {count} ({first}).",
            **_UNCOUNTED,
        ),
        _("Correct the staff number (was a leading zero lost?); until then nobody has them."),
    ),
    "training.no_such_supervisor": _Check(
        """
        SELECT DISTINCT supervisor AS what FROM {people} AS p
        WHERE supervisor <> '' AND coalesce(left_on, 'infinity') >= %(day)s
            AND supervisor NOT IN (SELECT person FROM {people} AS s WHERE person IS NOT NULL)""",
        _ATTENTION,
        _("Supervisors who are in no roster: {count} ({first}).", **_UNCOUNTED),
        _("Correct them; until then the next one above, or a head, is told."),
    ),
    "training.faulty": _Check(
        """
        SELECT DISTINCT coalesce(course, '?') AS what FROM {courses} AS c WHERE {faulty}""",
        _FAIL,
        _("Courses that cannot be used: {count} ({first}).", **_UNCOUNTED),
        _("See docs/training.md for what a course needs; until then nobody is reminded of these."),
    ),
}

_COUNTED = SQL("""
WITH found AS MATERIALIZED ({})
SELECT count(*) AS n, (SELECT string_agg(what, ', ' ORDER BY what)
    FROM (SELECT what FROM found ORDER BY what LIMIT %(most)s) AS named) AS first
FROM found""")


def check(findings: StepFindings, sources: Sources, day: date) -> dict[str, int]:
    """Report faults of the records.

    Args:
        findings: of the step.
        sources: people, courses, completions.
        day: the day.

    Returns:
        The number of faults by the code of their finding.
    """
    counts = {}
    for code, fault in _CHECKS.items():
        counts[code], first = _count(sources, fault.query, day)
        if counts[code]:
            values = {"count": counts[code], "first": first}
            message = fault.message.model_copy(update={"values": values})
            findings.find(code, fault.severity, message, fault.action, subject="training.yaml")
    return counts


def _count(sources: Sources, query: str, day: date) -> tuple[int, str]:
    """Return the number of faults and the first of them."""
    parts = {**sources.relations, "faulty": FAULTY}
    whole = _COUNTED.format(SQL(query).format(**parts))
    with telling("sources"), sources.connection.cursor(row_factory=dict_row) as rows:
        row = rows.execute(whole, {"day": day, "most": _NAMED}).fetchone()
    assert row is not None
    count = int(row["n"])
    return count, str(row["first"] or "") + (" …" if count > _NAMED else "")


_AHEAD = timedelta(days=60)  # in which make-up days have to be known


# With these, people or courses are missing in the figures of the controls: nobody shows them then.
_INCOMPLETE = ("training.nameless", "training.undated", "training.faulty")


def judge(
    findings: StepFindings,
    run: RunContext[TrainingRules],
    found: Standing,
    late: Sequence[Due],
    faults: Mapping[str, int],
) -> bool:
    """Note figures and findings.

    Args:
        findings: they go here.
        run: of the run.
        found: how training stands.
        late: overdue obligations.
        faults: of the records, counted by the code of their finding.

    Returns:
        Whether the figures are of everybody and every topic; those of the controls are noted only
        then.
    """
    beyond = [due for due in late if is_beyond(run.rules.ladder, due.due_on, run.today)]
    people = sorted({due.person for due in beyond})
    faulty = any(map(faults.get, _INCOMPLETE))
    whole = found.people > 0 and not _absent(run, found) and not faulty
    untrained = len(found.untrained) + faults["training.access_not_employed"]
    findings.measure("training_coverage", found.coverage if whole else None, "ratio")
    findings.measure("people_with_access_untrained", untrained if whole else None, "1")
    findings.measure("people_overdue_beyond_ladder", len(people) if whole else None, "1")
    findings.measure("training.people", found.people, "1")
    findings.measure("training.overdue", len(late), "1")
    owner = run.rules.owner
    if not found.people:
        findings.fail(
            "training.nobody",
            _("The roster has nobody who has to be trained: nobody would ever be reminded."),
            _("See what training.yaml's query of people gives, or upload the roster again."),
            subject="training.yaml",
        )
    if found.untrained:
        findings.fail(
            "training.access_untrained",
            _(
                "{count} people may open customer records without valid training: {people}.",
                count=len(found.untrained),
                people=_named([person.person for person in found.untrained]),
            ),
            _("Have them trained, or take their access away until they are."),
            subject=owner,
        )
    if people:
        findings.fail(
            "training.beyond_ladder",
            _(
                "{count} people are overdue by more than {days} days: {people}.",
                count=len(people),
                days=run.rules.ladder.overdue[-1],
                people=_named(people),
            ),
            _("Speak with them and their supervisors: reminders alone did not help."),
            subject=owner,
        )
    _topics(findings, run, found)
    years = sorted({run.today.year, (run.today + _AHEAD).year})
    for year in [one for one in years if not run.workdays.is_announced(one)]:
        findings.warn(
            "training.year_not_announced",
            _("The make-up workdays of {year} are not known yet.", year=str(year)),
            _("Update ParcelSeal, or write them into calendar.yaml: opened, closed, announced."),
            subject="calendar.yaml",
        )
    return whole


def waivers_of_nothing(findings: StepFindings, unknown: Sequence[Waived]) -> None:
    """Note waivers of people or courses that do not exist: a mistyped one waives nothing."""
    if not unknown:
        return
    findings.warn(
        "training.waiver_of_nothing",
        _(
            "Waivers of people or courses that do not exist: {waivers}.",
            waivers=_named([f"{waiver.person} {waiver.course}" for waiver in unknown]),
        ),
        _("End them and grant them again as they are meant: `training unwaive`, `waive`."),
        subject="training.yaml",
    )


def shrunk(findings: StepFindings, people: int, before: int | None) -> None:
    """Note a roster that lost more than half of its people since the last run."""
    if before is None or people * 2 >= before:
        return
    findings.fail(
        "training.shrunk",
        _(
            "The roster has {people} people who have to be trained; the last run had {before}.",
            people=people,
            before=before,
        ),
        _("See whether its query or its file is cut: whoever is missing is not reminded."),
        subject="training.yaml",
    )


def _topics(findings: StepFindings, run: RunContext[TrainingRules], found: Standing) -> None:
    """Say which topics of the policy no course covers as it should."""
    if absent := _absent(run, found):
        findings.fail(
            "training.topic_missing",
            _(
                "No course in force covers: {topics}.",
                topics=listed([TOPICS.get(name) or verbatim(name) for name in absent]),
            ),
            _("Publish one; law, protection and emergency have to be repeated (policy 6.2)."),
            subject="training.yaml",
        )


def _absent(run: RunContext[TrainingRules], found: Standing) -> list[str]:
    """Topics without a course in force, or where they have to be repeated without such a one."""
    have = {topic.name: topic for topic in found.topics}
    absent: list[str] = [
        topic for topic in run.rules.topics if topic not in have or not have[topic].repeated
    ]
    return absent if "onboarding" in have else [*absent, "onboarding"]


def _named(people: Sequence[str]) -> str:
    return ", ".join(people[:_NAMED]) + ("…" if len(people) > _NAMED else "")
