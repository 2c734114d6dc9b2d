"""Report faults of the records that training.yaml names, and breaches of the training policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

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

# Each query gives what it found as text, sorted; people by staff number.
_QUERIES: Mapping[str, str] = {
    "training.twice": """
        SELECT person AS what FROM {people} AS p
        WHERE joined_on <= %(day)s AND coalesce(left_on, 'infinity') >= %(day)s AND person <> ''
        GROUP BY person HAVING count(*) > 1""",
    "training.nameless": """
        SELECT coalesce(department, '?') AS what FROM {people} AS p
        WHERE person IS NULL OR person = ''""",
    "training.undated": """
        SELECT person AS what FROM {people} AS p
        WHERE person <> '' AND (joined_on IS NULL OR joined_on < '1900-01-01'
            OR left_on < joined_on
            OR leave_until < leave_from OR (leave_from IS NULL AND leave_until IS NOT NULL))""",
    "training.no_department": """
        SELECT person AS what FROM {people} AS p
        WHERE coalesce(department, '') = '' AND person <> '' AND joined_on <= %(day)s
            AND coalesce(left_on, 'infinity') >= %(day)s""",
    "training.access_unclear": """
        SELECT person AS what FROM {people} AS p
        WHERE access IS NULL AND person <> '' AND coalesce(left_on, 'infinity') >= %(day)s""",
    "training.access_not_employed": """
        SELECT person AS what FROM {people} AS p GROUP BY person
        HAVING person <> '' AND bool_or(access) AND NOT coalesce(bool_or(joined_on <= %(day)s
            AND coalesce(left_on, 'infinity') >= %(day)s), false)""",
    "training.ahead": """
        SELECT person || ' ' || course AS what FROM {completions} AS t
        WHERE completed_on > %(day)s""",
    "training.of_no_course": """
        SELECT DISTINCT course AS what FROM {completions} AS t
        WHERE NOT EXISTS (SELECT FROM {courses} AS c WHERE c.course = t.course)""",
    "training.no_such_version": """
        SELECT DISTINCT t.course || ' ' || coalesce(t.version::text, '?') AS what
        FROM {completions} AS t WHERE EXISTS (SELECT FROM {courses} AS c WHERE c.course = t.course)
            AND NOT EXISTS (SELECT FROM {courses} AS c WHERE c.course = t.course
                AND c.version >= t.version)""",
    "training.of_nobody": """
        SELECT DISTINCT person AS what FROM {completions} AS t
        WHERE completed_on > %(day)s::date - 90 AND person NOT IN (
            SELECT person FROM {people} AS p WHERE person IS NOT NULL)""",
    "training.no_such_supervisor": """
        SELECT DISTINCT supervisor AS what FROM {people} AS p
        WHERE supervisor <> '' AND coalesce(left_on, 'infinity') >= %(day)s
            AND supervisor NOT IN (SELECT person FROM {people} AS s WHERE person IS NOT NULL)""",
    "training.faulty": """
        SELECT DISTINCT coalesce(course, '?') AS what FROM {courses} AS c WHERE {faulty}""",
}

_COUNTED = SQL("""
WITH found AS MATERIALIZED ({})
SELECT count(*) AS n, (SELECT string_agg(what, ', ' ORDER BY what)
    FROM (SELECT what FROM found ORDER BY what LIMIT %(most)s) AS named) AS first
FROM found""")


def check(seen: StepFindings, sources: Sources, day: date) -> dict[str, int]:
    """Look for what a run could stumble over, and note it.

    Args:
        seen: findings go here.
        sources: people, courses, completions.
        day: the day.

    Returns:
        How many there are of each, by the code of its finding.
    """
    found = {name: _found(sources, query, day) for name, query in _QUERIES.items()}
    for name, (severity, message, action) in _told(found).items():
        if found[name][0]:
            seen.find(name, severity, message, action, subject="training.yaml")
    return {name: count for name, (count, _first) in found.items()}


def _found(sources: Sources, query: str, day: date) -> tuple[int, str]:
    """How many there are, and the first of them."""
    parts = {**sources.relations, "faulty": FAULTY}
    whole = _COUNTED.format(SQL(query).format(**parts))
    with telling("sources"), sources.connection.cursor(row_factory=dict_row) as rows:
        row = rows.execute(whole, {"day": day, "most": _NAMED}).fetchone()
    assert row is not None
    return int(row["n"]), str(row["first"] or "")


def _told(found: Mapping[str, tuple[int, str]]) -> dict[str, tuple[Outcome, Message, Message]]:
    def said(name: str) -> dict[str, Any]:
        count, first = found[name]
        return {"count": count, "first": first + (" …" if count > _NAMED else "")}

    return {
        "training.twice": (
            _ATTENTION,
            _("Twice in the roster: {count} people ({first}).", **said("training.twice")),
            _("Correct the roster; until then the entry that joined last counts."),
        ),
        "training.nameless": (
            _FAIL,
            _(
                "Entries of the roster without a staff number: {count} ({first}).",
                **said("training.nameless"),
            ),
            _("Give them one: nobody of them is reminded."),
        ),
        "training.undated": (
            _FAIL,
            _(
                "Entries of the roster with impossible dates: {count} ({first}).",
                **said("training.undated"),
            ),
            _("Correct the days of joining, leaving and leave: whoever has none is not reminded."),
        ),
        "training.no_department": (
            _ATTENTION,
            _("People without a department: {count} ({first}).", **said("training.no_department")),
            _("Give them one: no head is told of them."),
        ),
        "training.access_unclear": (
            _FAIL,
            _(
                "The roster does not say whether {count} people may open customer records: "
                "{first}.",
                **said("training.access_unclear"),
            ),
            _("Enter whether they may; until then they count as if they might."),
        ),
        "training.access_not_employed": (
            _FAIL,
            _(
                "{count} people may open customer records and have left, or have not begun yet: "
                "{first}.",
                **said("training.access_not_employed"),
            ),
            _("Take their access away."),
        ),
        "training.ahead": (
            _ATTENTION,
            _("Completions in the future: {count} ({first}).", **said("training.ahead")),
            _("Correct their days; until they are over they do not count."),
        ),
        "training.of_no_course": (
            _ATTENTION,
            _(
                "Completions of courses that do not exist: {count} courses ({first}).",
                **said("training.of_no_course"),
            ),
            _(
                "Was a course deleted that people still have to take? Put it back, or archive "
                "its completions."
            ),
        ),
        "training.no_such_version": (
            _ATTENTION,
            _(
                "Completions of versions that do not exist: {count} ({first}).",
                **said("training.no_such_version"),
            ),
            _("Correct them, or enter the version among the courses."),
        ),
        "training.of_nobody": (
            _ATTENTION,
            _(
                "People with completions of the last 90 days who are in no roster: {count} "
                "({first}).",
                **said("training.of_nobody"),
            ),
            _("Correct the staff number (was a leading zero lost?); until then nobody has them."),
        ),
        "training.no_such_supervisor": (
            _ATTENTION,
            _(
                "Supervisors who are in no roster: {count} ({first}).",
                **said("training.no_such_supervisor"),
            ),
            _("Correct them; until then the next one above, or a head, is told."),
        ),
        "training.faulty": (
            _FAIL,
            _("Courses that cannot be used: {count} ({first}).", **said("training.faulty")),
            _(
                "See docs/training.md for what a course needs; until then nobody is reminded of "
                "these."
            ),
        ),
    }


_AHEAD = timedelta(days=60)  # in which make-up days have to be known


# With these, people or courses are missing in the figures of the controls: nobody shows them then.
_INCOMPLETE = ("training.nameless", "training.undated", "training.faulty")


def judge(
    seen: StepFindings,
    run: RunContext[TrainingRules],
    found: Standing,
    late: Sequence[Due],
    faults: Mapping[str, int],
) -> bool:
    """Note figures and findings.

    Args:
        seen: they go here.
        run: of the run.
        found: how training stands.
        late: overdue obligations.
        faults: of the records, counted by the code of their finding.

    Returns:
        Whether the figures are of everybody and every topic; those of the controls are noted only
        then.
    """
    beyond = [one for one in late if is_beyond(run.rules.ladder, one.due_on, run.today)]
    people = sorted({one.person for one in beyond})
    faulty = any(map(faults.get, _INCOMPLETE))
    whole = found.people > 0 and not _absent(run, found) and not faulty
    untrained = len(found.untrained) + faults["training.access_not_employed"]
    seen.measure("training_coverage", found.coverage if whole else None, "ratio")
    seen.measure("people_with_access_untrained", untrained if whole else None, "1")
    seen.measure("people_overdue_beyond_ladder", len(people) if whole else None, "1")
    seen.measure("training.people", found.people, "1")
    seen.measure("training.overdue", len(late), "1")
    owner = run.rules.owner
    if not found.people:
        seen.find(
            "training.nobody",
            Outcome.FAIL,
            _("The roster has nobody who has to be trained: nobody would ever be reminded."),
            _("See what training.yaml's query of people gives, or upload the roster again."),
            subject="training.yaml",
        )
    if found.untrained:
        seen.find(
            "training.access_untrained",
            Outcome.FAIL,
            _(
                "{count} people may open customer records without valid training: {people}.",
                count=len(found.untrained),
                people=_named([one.person for one in found.untrained]),
            ),
            _("Have them trained, or take their access away until they are."),
            subject=owner,
        )
    if people:
        seen.find(
            "training.beyond_ladder",
            Outcome.FAIL,
            _(
                "{count} people are overdue by more than {days} days: {people}.",
                count=len(people),
                days=run.rules.ladder.overdue[-1],
                people=_named(people),
            ),
            _("Speak with them and their supervisors: reminders alone did not help."),
            subject=owner,
        )
    _topics(seen, run, found)
    years = sorted({run.today.year, (run.today + _AHEAD).year})
    for year in [one for one in years if not run.workdays.is_announced(one)]:
        seen.find(
            "training.year_not_announced",
            Outcome.ATTENTION,
            _("The make-up workdays of {year} are not known yet.", year=str(year)),
            _("Update ParcelSeal, or write them into calendar.yaml: opened, closed, announced."),
            subject="calendar.yaml",
        )
    return whole


def waivers_of_nothing(seen: StepFindings, unknown: Sequence[Waived]) -> None:
    """Note waivers of people or courses that do not exist: a mistyped one waives nothing."""
    if not unknown:
        return
    seen.find(
        "training.waiver_of_nothing",
        Outcome.ATTENTION,
        _(
            "Waivers of people or courses that do not exist: {waivers}.",
            waivers=_named([f"{one.person} {one.course}" for one in unknown]),
        ),
        _("End them and grant them again as they are meant: `training unwaive`, `waive`."),
        subject="training.yaml",
    )


def shrunk(seen: StepFindings, people: int, before: int | None) -> None:
    """Note a roster that lost more than half of its people since the last run."""
    if before is None or people * 2 >= before:
        return
    seen.find(
        "training.shrunk",
        Outcome.FAIL,
        _(
            "The roster has {people} people who have to be trained; the last run had {before}.",
            people=people,
            before=before,
        ),
        _("See whether its query or its file is cut: whoever is missing is not reminded."),
        subject="training.yaml",
    )


def _topics(seen: StepFindings, run: RunContext[TrainingRules], found: Standing) -> None:
    """Say which topics of the policy no course covers as it should."""
    if absent := _absent(run, found):
        seen.find(
            "training.topic_missing",
            Outcome.FAIL,
            _(
                "No course in force covers: {topics}.",
                topics=listed([TOPICS.get(one) or verbatim(one) for one in absent]),
            ),
            _("Publish one; law, protection and emergency have to be repeated (policy 6.2)."),
            subject="training.yaml",
        )


def _absent(run: RunContext[TrainingRules], found: Standing) -> list[str]:
    """Topics without a course in force, or where they have to be repeated without such a one."""
    have = {one.name: one for one in found.topics}
    absent: list[str] = [
        one for one in run.rules.topics if one not in have or not have[one].repeated
    ]
    return absent if "onboarding" in have else [*absent, "onboarding"]


def _named(people: Sequence[str]) -> str:
    return ", ".join(people[:_NAMED]) + ("…" if len(people) > _NAMED else "")
