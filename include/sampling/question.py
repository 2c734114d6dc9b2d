"""The page on which an auditor enters the seed."""

from __future__ import annotations

from collections.abc import Sequence

from include.approvals.question import (
    LANGUAGES,
    Question,
    harmless,
    in_both,
    markdown_table,
    names,
)
from include.messages import Message, _
from include.policy.rates import percent
from include.reports.i18n import Translator
from include.sampling import seeds
from include.sampling.commitment import Commitment, Sealed
from include.sampling.plans_table import accepted_by, items_of
from include.sampling.register import Refusal
from include.sampling.rules import AuditRules

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
    """Make the page of a question.

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
        last = seeds.Cause(refused[-1].cause)
        facts.insert(0, _("The seed entered last was refused: {why}.", why=seeds.why(last)))
    return facts


def _table(commitment: Commitment, rules: AuditRules, words: Translator) -> str:
    head = [
        _("Population"),
        _("Items"),
        _("Tolerable rate"),
        _("Expected rate"),
        _("Confidence"),
        _("Items to draw"),
        _("Accepted deviations"),
    ]
    rows = []
    for frame in commitment.populations:
        title = rules.population(frame.population).message
        rows.append(
            [
                harmless(words.text(title)),
                words.value(frame.items),
                percent(frame.tolerable),
                percent(frame.expected),
                percent(frame.confidence),
                words.value(items_of(frame.plan)),
                words.value(accepted_by(frame.plan)),
            ]
        )
    return markdown_table([words.text(title) for title in head], rows)
