"""What of a run of `remind_training` is not as the policy asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.messages import _, listed, verbatim
from include.training.keys import TOPICS
from include.training.obligations import Due
from include.training.rules import TrainingRules, is_beyond
from include.training.standing import Standing
from include.training.waivers import Waived
from include.workflow.run_context import RunContext

_NAMED = 20  # people in a finding
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
