"""The human task of `sample_audit` in which an auditor enters the random seed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from include.approvals.approvers import group_members, is_among
from include.approvals.form import Field
from include.approvals.required_action import (
    LANGUAGES,
    Answer,
    InvalidAnswer,
    RequiredAction,
    escape_text,
    format_accounts,
    in_both_languages,
    markdown_table,
)
from include.evidence.step_findings import StepFindings, StepResult
from include.messages import Message, _, verbatim
from include.policy import PolicyPack
from include.policy.rates import percent_text
from include.reports.i18n import Translator
from include.sampling import register, samples
from include.sampling.commitment import (
    Commitment,
    CommitmentLocation,
    CommittedPopulation,
    accepted_by,
    items_of,
)
from include.sampling.freezing import stored_commitment
from include.sampling.quarter_texts import quarter_text
from include.sampling.register import SeedRefusal
from include.sampling.rules import AUDIT, CLAUSE, SEED_RESPONSE, AuditRules
from include.services.errors import ControlFailed, UsageError
from include.workflow.run_context import RunContext
from include.workflow.step import HumanTask

MOST_NAMES = 10  # names of auditors in the form; the others are counted


def seed_form(
    commitment: Commitment,
    sha256: str,
    sealed: CommitmentLocation,
    rules: AuditRules,
    auditors: Sequence[str],
    refused: Sequence[SeedRefusal],
    timezone: str,
) -> RequiredAction:
    """Return the required action in which an auditor enters the random seed.

    Args:
        commitment: commitment of the run.
        sha256: hex digest of commitment.json.
        sealed: location of the sealed commitment.
        rules: audit.yaml.
        auditors: user ids of the auditors who may answer.
        refused: refused seeds of this run, oldest first.
        timezone: timezone of the times that the form shows.
    """
    subject = in_both_languages(
        _(
            "Enter another random seed for the audit of the {quarter}: the last seed was refused",
            quarter=quarter_text(commitment.audit),
        )
        if refused
        else _(
            "Enter the random seed for the audit of the {quarter}",
            quarter=quarter_text(commitment.audit),
        )
    )
    parts = []
    for language, name in LANGUAGES.items():
        words = Translator(language, timezone)
        facts = _facts(sha256, sealed, rules, auditors, refused)
        parts.append(f"### {name}")
        parts.append("\n".join(f"- {words.text(fact)}" for fact in facts))
        parts.append(_table(commitment, rules, words))
    return RequiredAction(subject, "\n\n".join(parts) + "\n", list(auditors), sha256)


def _facts(
    sha256: str,
    sealed: CommitmentLocation,
    rules: AuditRules,
    auditors: Sequence[str],
    refused: Sequence[SeedRefusal],
) -> list[Message]:
    people, more = format_accounts(auditors[:MOST_NAMES]), len(auditors[MOST_NAMES:])
    facts = [
        _("Source of the random seed: {source}.", source=rules.seed.message),
        _(
            "The random seed must be published after {time}, when the commitment was sealed. A "
            "seed that was published earlier is refused.",
            time=sealed.sealed_at,
        ),
        _(
            "SHA-256 of the commitment: {sha256}. Note it before you look up the random seed.",
            sha256=sha256,
        ),
        _("Only {people} and {more} more people may decide", people=people, more=more)
        if more
        else _("Only {people} may decide", people=people),
        _(
            "Enter: the samples are drawn with this random seed and cannot be changed "
            "afterwards. Cancel: no sample is drawn, and the run fails."
        ),
    ]
    if refused:
        last = samples.SeedRefusalCause(refused[-1].cause)
        facts.insert(
            0,
            _("The last random seed was refused: {reason}.", reason=samples.refusal_message(last)),
        )
    return facts


def _table(commitment: Commitment, rules: AuditRules, words: Translator) -> str:
    def title(frame: CommittedPopulation) -> str:
        return escape_text(words.text(rules.population(frame.population).message))

    columns: list[tuple[Message, Callable[[CommittedPopulation], str]]] = [
        (_("Population"), title),
        (_("Items"), lambda frame: words.value(frame.items)),
        (_("Tolerable rate"), lambda frame: percent_text(frame.tolerable)),
        (_("Expected rate"), lambda frame: percent_text(frame.expected)),
        (_("Confidence"), lambda frame: percent_text(frame.confidence)),
        (_("Items to draw"), lambda frame: words.value(items_of(frame.plan))),
        (_("Accepted deviations"), lambda frame: words.value(accepted_by(frame.plan))),
    ]
    head = [words.text(label) for label, _cell in columns]
    rows = [[cell(frame) for _label, cell in columns] for frame in commitment.populations]
    return markdown_table(head, rows)


ENTER, CANCEL = "Enter", "Cancel"
FORM = (
    Field(
        "seed",
        _("Random seed"),
        help=_("Enter the seed exactly as published; every character counts."),
        max_length=samples.LONGEST,
    ),
    Field(
        "source",
        _("Place of publication"),
        help=_(
            "Public source of the random seed, for example the address and the date of a web page."
        ),
        max_length=samples.LONGEST,
    ),
    Field(
        "published_at",
        _("Published at"),
        help=verbatim("2026-10-08T15:00:00+08:00"),
        max_length=40,
    ),
)


class SeedAnswer(StepResult):
    """The result of the human task in which an auditor enters the random seed.

    Attributes:
        seed: whether the run has an accepted seed.
        decided_by: user id of the auditor; empty if nobody answered.
        entered_at: time at which the auditor entered the seed; None if the run has no seed.
    """

    seed: bool
    decided_by: str = ""
    entered_at: datetime | None = None


def response(pack: PolicyPack) -> timedelta:
    """Return how long the human task waits for an auditor: the value `response` of audit.yaml."""
    rules = pack.section(AUDIT)
    return (rules.seed.response if rules else SEED_RESPONSE).span


def ask_auditors(
    run: RunContext[AuditRules], findings: StepFindings
) -> RequiredAction | SeedAnswer:
    """Return the required action that asks an auditor for the random seed.

    The required action shows the commitment and the public source of the seed. If the run already
    has a seed, or has no commitment, the function returns the result of the task instead of a
    required action.
    """
    del findings
    with run.state.connect() as conn:
        sealed = register.commitment_of(conn, run.run)
        seed = register.seed_of(conn, run.run)
        refused = register.refusals_of(conn, run.run)
    if seed is not None:
        return SeedAnswer(seed=True, decided_by=seed.entered_by, entered_at=seed.entered_at)
    if sealed is None:
        return SeedAnswer(seed=False)
    content = stored_commitment(run)
    return seed_form(
        Commitment.model_validate_json(content),
        hashlib.sha256(content).hexdigest(),
        sealed,
        run.rules,
        auditors_of(run),
        refused,
        run.pack.calendar.timezone,
    )


def auditors_of(run: RunContext[AuditRules]) -> Sequence[str]:
    """Return the user ids of the auditors who may enter the random seed.

    Raises:
        UsageError: audit.yaml names no auditor. With an empty list, Airflow would let everybody
            answer.
    """
    rules = run.rules
    if rules.staff is None:
        auditors = group_members(None, None, None, rules.auditors)
    else:
        holder = run.pack.database_of(rules.staff.collection, rules.staff.database)
        # One transaction, because a connection pooler may run the next one in another session.
        with (
            run.reader(holder.name).connect(autocommit=True) as connection,
            connection.transaction(),
        ):
            path = [holder.schema_name]
            connection.execute("SELECT set_config('search_path', quote_ident(%s), true)", path)
            auditors = group_members(connection, holder, rules.staff, rules.auditors)
    if not auditors:
        raise UsageError(
            "No auditor may enter the seed: the group auditors of audit.yaml is empty.",
            "Name auditors in audit.yaml.",
        )
    return auditors


def store_seed(run: RunContext[AuditRules], findings: StepFindings, answer: Answer) -> SeedAnswer:
    """Record the seed that an auditor entered, or why it was refused.

    If no person answered in time, or if an auditor cancelled the draw, a finding is added and the
    run gets no seed. If the same answer is received again, nothing changes.

    Raises:
        InvalidAnswer: the seed is refused, or the answered form showed another commitment than that
            of the run. If the seed is refused, the next form gives the reason.
        ControlFailed: the run has no commitment, or already has another seed.
    """
    user, content = answer.user, answer.content
    if user and content != hashlib.sha256(stored_commitment(run)).hexdigest():
        raise InvalidAnswer(
            _("The form showed a commitment that differs from the commitment of this run.")
        )
    is_stranger = user is not None and not is_among(user, auditors_of(run))
    start_again = _("Start the workflow again to draw the samples of the quarter.")
    if not user:
        findings.fail(
            "sampling.no_seed",
            _("No auditor entered a random seed in time, so no sample was drawn."),
            start_again,
        )
        return SeedAnswer(seed=False)
    if answer.option != ENTER and not is_stranger:
        findings.fail(
            "sampling.cancelled", _("{account} cancelled the draw.", account=user), start_again
        )
        return SeedAnswer(seed=False, decided_by=user)
    entered_at = answer.at or run.clock.now()
    seed = answer.texts.get("seed", "").strip()
    source = " ".join(answer.texts.get("source", "").split())
    published_at = samples.moment_of(answer.texts.get("published_at", ""), run.now)
    with run.state.begin() as conn:
        sealed = register.commitment_of(conn, run.run)
        if sealed is None:
            raise ControlFailed("This run has no commitment.", "Start a new run.")
        earlier = register.seed_of(conn, run.run)
        if earlier is not None:
            if earlier.seed != seed:
                raise ControlFailed(
                    "This run already has a seed, and another seed was entered.",
                    "The first seed remains valid. Ask the auditor for the reason.",
                )
            return SeedAnswer(
                seed=True, decided_by=earlier.entered_by, entered_at=earlier.entered_at
            )
        readable_seed = samples.readable(seed)
        cause = (
            samples.SeedRefusalCause.NOT_AN_AUDITOR
            if is_stranger
            else samples.seed_refusal_cause(
                seed,
                source,
                published_at,
                sealed_at=sealed.sealed_at,
                now=run.clock.now(),
                used=register.is_used(conn, readable_seed, run.run),
            )
        )
        refused = register.record_seed(
            conn,
            run.run,
            seed=readable_seed[: samples.LONGEST],
            source=samples.readable(source)[: samples.LONGEST],
            published_at=published_at,
            entered_by=user,
            entered_at=entered_at,
            refused=cause,
        )
    if refused is not None:
        why = samples.refusal_message(samples.SeedRefusalCause(refused))
        raise InvalidAnswer(_("The random seed was refused: {reason}.", reason=why))
    return SeedAnswer(seed=True, decided_by=user, entered_at=entered_at)


SEED = HumanTask(
    name="seed",
    title=_("The random seed"),
    request_title=_("Request for the random seed"),
    clause=CLAUSE,
    result=SeedAnswer,
    ask=ask_auditors,
    store_answer=store_seed,
    response=response,
    choices=(ENTER, CANCEL),
    form=FORM,
    command_form=samples.demonstration_answer,
)
