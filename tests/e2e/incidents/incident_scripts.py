"""Scripts of incidents with their expected results, one for each incident type."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from tests.e2e.incidents.sample_queries import Affected, Sample

CAC, POSTAL = 0, 1  # authorities in the pack's order: map indices
DUTY = {
    "contain": "technical",
    "grade": "compliance",
    "report": "compliance",
    "impact": "customer_service",
    "decide": "management",
    "report_rest": "compliance",
    "close": "command",
    "review": "command",
    "summary": "compliance",
}
IMPACT = {
    "harm_en": "Fraudulent calls",
    "harm_zh": "可能接到诈骗电话",
    "measures_en": "Access was cut off at once",
    "measures_zh": "已立即切断访问",
    "self_help_en": "Hang up on callers who ask for codes",
    "self_help_zh": "凡索要验证码的来电请立即挂断",
    "next_steps_en": "Logs are looked through",
    "next_steps_zh": "正在排查日志",
}
LESSONS = "Scanners were never locked"
ACTION = "Lock every scanner after a minute"
TOLD_OTHERWISE, TAKEN_OFF = "told_otherwise", "taken_off"
WHY_TAKEN_OFF = "Knows whose account it is"
OTHERWISE = "By telephone and by a notice on the web site"


@dataclass(frozen=True)
class Move:
    """One answer of a person in a script.

    Attributes:
        task: task id of the step.
        option: the chosen option.
        entered: form fields that the person changes.
        index: map index of the authority; -1 for steps that are not mapped.
        duty: duty whose people answer; by default the duty of the step.
        after: kinds of timeline entries that must exist before the answer.
        shows: texts that the page contains.
        first: update that is entered before the answer: `TOLD_OTHERWISE` or `TAKEN_OFF`.
        without: user ids of people who are no longer assigned.
    """

    task: str
    option: str
    entered: Mapping[str, Any] = field(default_factory=dict)
    index: int = -1
    duty: str = ""
    after: tuple[str, ...] = ()
    shows: tuple[str, ...] = ()
    first: str = ""
    without: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, int]:
        """The task id and the map index."""
        return self.task, self.index


@dataclass(frozen=True)
class Script:
    """An incident with the answers of people and the expected results.

    Attributes:
        name: type of the incident.
        form: fields of the trigger form.
        affected: affected people and records in the sample database.
        moves: answers in order.
        timeline: kinds of timeline entries in order, without escalations.
        title: title of the incident type, in English and Chinese.
        cause: cause as a person enters it, in both languages. It identifies the notices of the
            incident.
        suspects: user ids of suspects, to whom no step is assigned.
        grade: grade that is confirmed.
        late: time limits that expire.
        tell: whether affected people are notified.
        reported: whether the reports to each authority are handed in.
        not_found: number of listed keys that do not exist.
        hasty: task id of the step that nobody answers in time.
        twice: whether the incident is triggered twice at once.
        partner: number of the partner whose security review is reopened.
        pdf: whether PDF files are created.
    """

    name: str
    form: Mapping[str, Any]
    affected: Affected
    moves: Sequence[Move]
    timeline: Sequence[str]
    title: tuple[str, str]
    cause: tuple[str, str]
    suspects: Sequence[str] = ()
    grade: str = "general"
    late: frozenset[str] = frozenset()
    tell: bool = True
    reported: tuple[bool, bool] = (True, True)
    not_found: int = 0
    hasty: str = ""
    twice: bool = False
    partner: str = ""
    pdf: bool = False

    @property
    def notices(self) -> Mapping[int, str]:
        """E-mail addresses of the people who get a notice, by customer number."""
        return self.affected.mail if self.tell else {}


def usual(checklist: Sequence[str], cause: tuple[str, str], *, tell: bool = True) -> list[Move]:
    """Return the moves of an incident in which every step is answered as expected.

    Args:
        checklist: names of the form fields that confirm the measures of containment.
        cause: cause of the incident in English and in Chinese.
        tell: whether affected people are notified.
    """
    impact = {**IMPACT, "cause_en": cause[0], "cause_zh": cause[1]}
    handed_in = {"receipt": "R-1"}
    decided = {"reason": "The risk is high", "list_looked_at": True}
    return [
        Move("contain", "Contained", dict.fromkeys(checklist, True),
             after=("preserved", "team_called")),
        Move("grade", "Confirm", {"grade": "general"}),
        Move("report", "Handed in", handed_in, CAC),
        Move("report", "Handed in", handed_in, POSTAL),
        Move("impact", "Assessed", impact),
        Move("decide", "Tell people" if tell else "Do not tell", decided),
        Move("report_rest", "Handed in", handed_in, CAC, after=("told",) if tell else ()),
        Move("report_rest", "Handed in", handed_in, POSTAL),
        Move("close", "Close", {"words": "Nothing was sold"},
             first=TOLD_OTHERWISE if tell else ""),
        Move("review", "Reviewed", {
            "lessons": LESSONS, "action_1": ACTION, "owner_1": "data_engineering", "days_1": 30,
        }),
        Move("summary", "Handed in or approved", {"receipt": "S-1"}),
    ]  # fmt: skip


def timeline(*, tell: bool = True) -> list[str]:
    """Return the kinds of timeline entries of an incident with the moves of `usual`.

    Args:
        tell: whether affected people are notified.
    """
    notification_kinds = ["queued", "told"] if tell else []
    return [
        *("opened", "scoped", "preserved", "contained", "graded"),
        *("reported", "reported", "impact", "decided", *notification_kinds, "reported", "reported"),
        *(["told_otherwise"] if tell else []),
        *("closed", "reviewed", "summarised"),
    ]


def changed(moves: Sequence[Move], task: str, index: int = -1, **change: Any) -> list[Move]:
    """Return the moves with changed attributes of one move.

    Args:
        moves: moves of a script.
        task: task id of the move to change.
        index: map index of the move to change; -1 for a step that is not mapped.
        change: new values of the attributes of this move.
    """
    return [replace(move, **change) if move.key == (task, index) else move for move in moves]


def before(moves: Sequence[Move], more: Move, **change: Any) -> list[Move]:
    """Return the moves with an extra move before the move of the same step.

    Args:
        moves: moves of a script.
        more: the extra move.
        change: changed attributes of the move of the same step.
    """
    index = [move.key for move in moves].index(more.key)
    return [*moves[:index], more, replace(moves[index], **change), *moves[index + 1 :]]


def inserted(kinds: Sequence[str], more: str, ahead_of: str) -> list[str]:
    """Return the kinds of timeline entries with an additional kind in front of another kind.

    Args:
        kinds: kinds of timeline entries in order.
        more: the additional kind.
        ahead_of: the kind in front of whose first entry the additional kind is inserted.
    """
    index = list(kinds).index(ahead_of)
    return [*kinds[:index], more, *kinds[index:]]


def lost_device(sample: Sample, now: datetime) -> Script:
    """Return a script about waybills of a branch; nobody answers `contain` in time."""
    cause = ("The scanner was not locked", "终端未锁屏")
    since = now - timedelta(days=120)
    moves = usual(["lock_device", "disable_accounts", "encryption", "report_loss"], cause)
    moves = changed(
        moves,
        "contain",
        duty="command",
        shows=("The time to answer this step ended 1 times without an answer",),
    )
    forgotten = Move("decide", "Tell people", {"reason": "", "list_looked_at": True})
    moves = before(moves, forgotten, shows=("The last answer", "was not accepted"))
    affected = sample.of_papers(
        "created_at >= %(since)s AND EXISTS (SELECT FROM customer c JOIN department d "
        "USING (department_id) WHERE c.customer_id IN (w.sender_id, w.receiver_id) "
        "AND d.name = '北京分公司')",
        {"since": since},
    )
    return Script(
        name="lost_device",
        form={
            "what": "A courier left a scanner in a taxi",
            "noticed_by": "The courier",
            "collections": ["courier.waybill"],
            "departments": ["北京分公司"],
            "since": since.isoformat(),
        },
        affected=affected,
        moves=moves,
        timeline=inserted(timeline(), "refused", "decided"),
        title=("Lost or stolen device", "设备丢失或被盗"),
        cause=cause,
        hasty="contain",
    )


def insider_export(sample: Sample, now: datetime) -> Script:
    """Return a script with two suspects, who would otherwise be asked to grade and to decide."""
    cause = ("Exports were not limited", "导出未设上限")
    del now
    team = sample.team()
    query = (
        "SELECT e.number FROM access_log a JOIN employee e USING (employee_id) "
        "WHERE e.number = ANY(%(team)s) GROUP BY 1 "
        "ORDER BY count(DISTINCT a.customer_id) DESC, 1 LIMIT 1"
    )
    ((boss,),) = sample.rows(query, {"team": team["management"]})
    accounts = [boss, team["compliance"][0]]
    affected = sample.of_people(
        "SELECT a.customer_id FROM access_log a JOIN employee e USING (employee_id) "
        "WHERE e.number = ANY(%(accounts)s)",
        {"accounts": accounts},
    )
    return Script(
        name="insider_export",
        form={"what": "A list of customers was copied to a stick", "accounts": accounts},
        affected=affected,
        moves=usual(["suspend_rights", "secure_copies", "keep_logs", "police"], cause),
        timeline=timeline(),
        title=("Export by an insider", "内部人员违规导出"),
        twice=True,
        cause=cause,
        suspects=accounts,
    )


def ransomware(sample: Sample, now: datetime) -> Script:
    """Return a script in which all customers are affected.

    Answers are entered late, because Airflow was down for six hours.
    """
    cause = ("An attachment was opened", "打开了邮件附件")
    aware = now - timedelta(hours=6)

    def after(hours: float) -> str:
        return (aware + timedelta(hours=hours)).isoformat()

    moves = usual(["isolate", "protect_backups", "change_secrets", "police"], cause)
    notes = "Nothing is to be restored yet"
    contained = {**moves[0].entered, "contained_at": after(3), "notes": notes}
    moves = changed(moves, "contain", entered=contained, shows=("OVERDUE", "已逾期"))
    moves = changed(
        moves,
        "grade",
        entered={"grade": "larger", "reason": "The press knows"},
        shows=("OVERDUE", "已逾期"),
    )
    for index, hours in ((CAC, 5), (POSTAL, 3.5)):
        entered = {"receipt": "R-1", "handed_in_at": after(hours)}
        moves = changed(moves, "report", index, entered=entered)
    return Script(
        name="ransomware",
        form={"what": "All screens ask for money", "aware_at": aware.isoformat()},
        affected=sample.of_people("SELECT customer_id FROM customer"),
        moves=moves,
        timeline=timeline(),
        title=("Ransomware or other destruction", "勒索软件或其他破坏"),
        cause=cause,
        grade="larger",
        late=frozenset({"plan_started", "team_called", "graded", "cac_first"}),
    )


def partner_breach(sample: Sample, now: datetime) -> Script:
    """Return a script about data shared with a partner; one authority needs no report."""
    cause = ("A portal had no log-in", "门户未设登录")
    del now
    query = (
        "SELECT partner_id::text FROM share_log GROUP BY 1 "
        "ORDER BY count(DISTINCT customer_id) DESC, 1 LIMIT 1"
    )
    ((partner,),) = sample.rows(query)
    moves = usual(["stop_sharing", "revoke_access", "written_account", "return_or_delete"], cause)
    silent = Move("report", "Not needed", {}, POSTAL)
    why = {"reason": "The partner is no courier"}
    shows = ("the reasons contain no text",)
    moves = before(moves, silent, option="Not needed", entered=why, shows=shows)
    moves = changed(moves, "report_rest", POSTAL, option="Not needed", entered=why)
    kinds = inserted(timeline(), "note", "scoped")
    at = kinds.index("reported") + 1
    return Script(
        name="partner_breach",
        form={"what": "A partner's portal was open to all", "partner": partner},
        affected=sample.of_people(
            "SELECT customer_id FROM share_log WHERE partner_id::text = %(partner)s",
            {"partner": partner},
        ),
        moves=moves,
        timeline=[*kinds[:at], "refused", *kinds[at:]],
        title=("Breach at a partner", "合作方泄露"),
        cause=cause,
        reported=(True, False),
        partner=partner,
    )


def misdelivery(sample: Sample, now: datetime) -> Script:
    """Return a script about three waybills that came back unread; nobody is notified."""
    cause = ("A bin was not locked", "废纸箱未上锁")
    del now
    numbers = [number for (number,) in sample.rows("SELECT number FROM waybill ORDER BY 1 LIMIT 3")]
    moves = usual(["recover_papers", "ask_holder", "list_numbers"], cause, tell=False)
    guessed = Move("grade", "Confirm", {"grade": "major"})
    return Script(
        name="misdelivery",
        form={
            "what": "Waybills were found in the paper bin",
            "keys_of": "courier.waybill",
            "keys": "\n".join(f"courier/{number}" for number in (*numbers, "no-such-waybill")),
        },
        affected=sample.of_papers("number = ANY(%(numbers)s)", {"numbers": numbers}),
        moves=before(moves, guessed, shows=("reasons are required", "was not accepted")),
        timeline=inserted(timeline(tell=False), "refused", "graded"),
        title=("Papers delivered or thrown away wrongly", "纸质面单错投或不当丢弃"),
        cause=cause,
        tell=False,
        not_found=1,
    )


def leaked_credentials(sample: Sample, now: datetime) -> Script:
    """Return a script about the leaked password of a team member.

    A member who was removed from the team answers nevertheless.
    """
    del now
    cause = ("A password stood in a public repository", "口令写在公开代码仓库中")
    team = sample.team()
    query = (
        "SELECT e.number FROM access_log a JOIN employee e USING (employee_id) "
        "WHERE e.number = ANY(%(some)s) GROUP BY 1 "
        "ORDER BY count(DISTINCT a.customer_id) DESC, 1 LIMIT 1"
    )
    candidates = [*team["command"], *team["management"], *team["customer_service"]]
    ((account,),) = sample.rows(query, {"some": candidates})
    taken_off = team["compliance"][0]
    moves = usual(["disable_accounts", "change_secrets", "block_sources", "find_traces"], cause)
    refused = Move("grade", "Confirm", {"grade": "general"}, first=TAKEN_OFF)
    moves = before(moves, refused, shows=("has no right to answer this step",))
    impact = next(move for move in moves if move.task == "impact")
    empty_text = replace(impact, entered={**impact.entered, "self_help_zh": "—"})
    moves = before(moves, empty_text, shows=("these fields contain no text", "以下栏目"))
    without = (taken_off,)
    compliance = {"report", "report_rest", "summary"}
    moves = [
        replace(move, without=without)
        if move.task in compliance or (move.task == "grade" and not move.first)
        else move
        for move in moves
    ]
    kinds = inserted(timeline(), "refused", "graded")
    kinds = inserted(inserted(kinds, "taken_off", "refused"), "refused", "impact")
    return Script(
        name="leaked_credentials",
        form={"what": "A password was found in a public repository", "accounts": [account]},
        affected=sample.of_people(
            "SELECT a.customer_id FROM access_log a JOIN employee e USING (employee_id) "
            "WHERE e.number = %(account)s",
            {"account": account},
        ),
        moves=moves,
        timeline=kinds,
        title=("Leaked credentials", "账号口令泄露"),
        cause=cause,
        suspects=(account,),
        pdf=True,
    )


IN_PROCESS: tuple[Callable[[Sample, datetime], Script], ...] = (
    lost_device,
    insider_export,
    ransomware,
    partner_breach,
    misdelivery,
)
