"""The human task of `sample_audit`: an auditor enters the seed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from include.approvals.form import Field
from include.approvals.people import is_among, members
from include.approvals.question import (
    LANGUAGES,
    Answer,
    AskAgain,
    Question,
    harmless,
    in_both,
    markdown_table,
    names,
)
from include.evidence.step_findings import StepFindings, StepResult
from include.messages import Message, _, verbatim
from include.policy import PolicyPack
from include.policy.rates import percent
from include.reports.i18n import Translator
from include.sampling import register, samples
from include.sampling.commitment import Commitment, Committed, Sealed, accepted_by, items_of
from include.sampling.freezing import kept_commitment
from include.sampling.register import Refusal
from include.sampling.rules import AUDIT, CLAUSE, SEED_RESPONSE, AuditRules
from include.services.errors import ControlFailed, UsageError
from include.workflow.run_context import RunContext
from include.workflow.step import HumanTask

MOST_NAMES = 10  # of those who may answer; the others are counted


def question(
    commitment: Commitment,
    sha256: str,
    sealed: Sealed,
    rules: AuditRules,
    auditors: Sequence[str],
    refused: Sequence[Refusal],
    timezone: str,
) -> Question:
    """Return the approval form for the seed.

    Args:
        commitment: of the run.
        sha256: hex digest of commitment.json.
        sealed: where it was sealed.
        rules: audit.yaml.
        auditors: user ids of those who may answer.
        refused: seeds of this run that were not taken, oldest first.
        timezone: of times that people read.
    """
    subject = in_both(
        _("Audit {audit}: enter another seed, the last one was refused", audit=commitment.audit)
        if refused
        else _("Audit {audit}: enter the seed", audit=commitment.audit)
    )
    parts = []
    for language, name in LANGUAGES.items():
        words = Translator(language, timezone)
        facts = _facts(sha256, sealed, rules, auditors, refused)
        parts.append(f"### {name}")
        parts.append("\n".join(f"- {words.text(fact)}" for fact in facts))
        parts.append(_table(commitment, rules, words))
    return Question(subject, "\n\n".join(parts) + "\n", list(auditors), sha256)


def _facts(
    sha256: str,
    sealed: Sealed,
    rules: AuditRules,
    auditors: Sequence[str],
    refused: Sequence[Refusal],
) -> list[Message]:
    shown, more = names(auditors[:MOST_NAMES]), len(auditors[MOST_NAMES:])
    facts = [
        _("The seed: {source}.", source=rules.seed.message),
        _(
            "It has to be published after {at}, when the commitment was sealed; a seed that was "
            "known before is refused.",
            at=sealed.sealed_at,
        ),
        _(
            "Commitment, SHA-256: {sha256}. Write it down before you look up the seed.",
            sha256=sha256,
        ),
        _("Only {people} and {more} more may answer", people=shown, more=more)
        if more
        else _("Only {people} may answer", people=shown),
        _(
            "Enter: the samples follow from the seed, and nobody can change them. Cancel: nothing "
            "is drawn, and the run is red."
        ),
    ]
    if refused:
        last = samples.Cause(refused[-1].cause)
        facts.insert(0, _("The seed entered last was refused: {why}.", why=samples.why(last)))
    return facts


def _table(commitment: Commitment, rules: AuditRules, words: Translator) -> str:
    def title(frame: Committed) -> str:
        return harmless(words.text(rules.population(frame.population).message))

    columns: list[tuple[Message, Callable[[Committed], str]]] = [
        (_("Population"), title),
        (_("Items"), lambda frame: words.value(frame.items)),
        (_("Tolerable rate"), lambda frame: percent(frame.tolerable)),
        (_("Expected rate"), lambda frame: percent(frame.expected)),
        (_("Confidence"), lambda frame: percent(frame.confidence)),
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
        _("Seed"),
        help=_("Exactly as published; every character counts."),
        longest=samples.LONGEST,
    ),
    Field(
        "source",
        _("Read at"),
        help=_("Where others can read it: page, date."),
        longest=samples.LONGEST,
    ),
    Field(
        "published_at",
        _("Published at"),
        help=verbatim("2026-10-08T15:00:00+08:00"),
        longest=40,
    ),
)


class SeedAnswer(StepResult):
    """The answer to the question for the seed.

    Attributes:
        seed: whether the run has its seed.
        decided_by: user id of the auditor; empty if nobody answered or was asked.
        entered_at: when the seed was entered; None without a seed.
    """

    seed: bool
    decided_by: str = ""
    entered_at: datetime | None = None


def response(pack: PolicyPack) -> timedelta:
    """Return how long a question waits for the auditor."""
    rules = pack.section(AUDIT)
    return (rules.seed.response if rules else SEED_RESPONSE).span


def ask_auditors(run: RunContext[AuditRules], findings: StepFindings) -> Question | SeedAnswer:
    """Ask an auditor for the seed; the form shows the commitment and the source of the seed."""
    del findings
    with run.state.connect() as conn:
        sealed = register.commitment_of(conn, run.run)
        seed = register.seed_of(conn, run.run)
        refused = register.refusals_of(conn, run.run)
    if seed is not None:
        return SeedAnswer(seed=True, decided_by=seed.entered_by, entered_at=seed.entered_at)
    if sealed is None:
        return SeedAnswer(seed=False)
    content = kept_commitment(run)
    return question(
        Commitment.model_validate_json(content),
        hashlib.sha256(content).hexdigest(),
        sealed,
        run.rules,
        auditors_of(run),
        refused,
        run.pack.calendar.timezone,
    )


def auditors_of(run: RunContext[AuditRules]) -> Sequence[str]:
    """Return the user ids of those who may enter the seed.

    Raises:
        UsageError: there are none; to Airflow an empty list means everybody.
    """
    rules = run.rules
    if rules.staff is None:
        auditors = members(None, None, None, rules.auditors)
    else:
        holder = run.pack.database_of(rules.staff.collection, rules.staff.database)
        # One transaction: a pooler may use another session for the next one.
        with (
            run.reader(holder.name).connect(autocommit=True) as connection,
            connection.transaction(),
        ):
            path = [holder.schema_name]
            connection.execute("SELECT set_config('search_path', quote_ident(%s), true)", path)
            auditors = members(connection, holder, rules.staff, rules.auditors)
    if not auditors:
        raise UsageError("Nobody may enter the seed.", "Name auditors in audit.yaml.")
    return auditors


def take_seed(run: RunContext[AuditRules], findings: StepFindings, answer: Answer) -> SeedAnswer:
    """Enter the seed, or keep why it is refused; a repeated answer changes nothing.

    Raises:
        AskAgain: the seed is refused, or the form showed another commitment than the run's. The
            page of the next question gives the reason of a refusal.
        ControlFailed: the run has no commitment, or another seed already.
    """
    user, content = answer.user, answer.content
    if user and content != hashlib.sha256(kept_commitment(run)).hexdigest():
        raise AskAgain(_("The commitment is not the one that the form showed."))
    is_stranger = user is not None and not is_among(user, auditors_of(run))
    if not user or (answer.option != ENTER and not is_stranger):
        findings.fail(
            "sampling.cancelled" if user else "sampling.no_seed",
            _("{who} cancelled the draw.", who=user)
            if user
            else _("No auditor entered a seed in time; nothing was drawn."),
            _("Start the workflow again, so that the quarter has its sample."),
        )
        return SeedAnswer(seed=False, decided_by=user or "")
    entered_at = answer.at or run.clock.now()
    seed = answer.given.get("seed", "").strip()
    source = " ".join(answer.given.get("source", "").split())
    published_at = samples.moment_of(answer.given.get("published_at", ""), run.now)
    with run.state.begin() as conn:
        sealed = register.commitment_of(conn, run.run)
        if sealed is None:
            raise ControlFailed("There is no commitment of this run.", "Start a new run.")
        earlier = register.seed_of(conn, run.run)
        if earlier is not None:
            if earlier.seed != seed:
                raise ControlFailed(
                    "This run has its seed, and another one was entered.",
                    "The first one stands; ask the auditor why.",
                )
            return SeedAnswer(
                seed=True, decided_by=earlier.entered_by, entered_at=earlier.entered_at
            )
        shown = samples.readable(seed)
        cause = (
            samples.Cause.STRANGER
            if is_stranger
            else samples.fault_of(
                seed,
                source,
                published_at,
                sealed_at=sealed.sealed_at,
                now=run.clock.now(),
                used=register.is_used(conn, shown, run.run),
            )
        )
        refused = register.keep_seed(
            conn,
            run.run,
            seed=shown[: samples.LONGEST],
            source=samples.readable(source)[: samples.LONGEST],
            published_at=published_at,
            entered_by=user,
            entered_at=entered_at,
            refused=cause,
        )
    if refused is not None:
        why = samples.why(samples.Cause(refused))
        raise AskAgain(_("The seed was refused: {why}.", why=why))
    return SeedAnswer(seed=True, decided_by=user, entered_at=entered_at)


SEED = HumanTask(
    name="seed",
    title=_("The seed"),
    question_title=_("The question for the seed"),
    clause=CLAUSE,
    result=SeedAnswer,
    ask=ask_auditors,
    take=take_seed,
    response=response,
    choices=(ENTER, CANCEL),
    form=FORM,
    in_advance=samples.in_advance,
)
