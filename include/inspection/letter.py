"""The cover letter and the summary of an inspection pack, as PDF and Word files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from include.documents.model import Document, Entry, Form, Section
from include.documents.render import render_forms
from include.evidence.model import Outcome
from include.inspection.pack_findings import PackFinding
from include.inspection.packed_bundle import PackedBundle
from include.inspection.request import PackRequest
from include.messages import Message, _, listed, verbatim
from include.policy.company import Company
from include.policy.rules import Control
from include.reports import render as reports
from include.reports.letterhead import letterhead_of
from include.reports.model import Paragraph, Steps, Table, table_of

REMOVED_CONTROLS = _("Controls that the policy pack no longer assigns to these clauses")
NO_EVIDENCE = _("This pack contains no evidence of the period.")
FINDINGS = _("Findings about these clauses that were open during the period")
_SEVERITIES = {Outcome.ATTENTION: _("Needs attention"), Outcome.FAIL: _("Failed")}
LETTER, SUMMARY = "cover-letter", "summary"
MOST_NAMED = 200  # bundles that do not verify and that a letter names; the index names all


@dataclass
class WorkflowFacts:
    """The figures of a workflow in an inspection pack.

    Attributes:
        title: title of the workflow.
        bundles: number of bundles in the period, including those whose files were removed.
        outcomes: number of verified bundles by outcome.
        findings: number of findings in the verified bundles.
        not_verified: number of bundles that do not verify.
        removed: number of bundles whose files were removed at the end of their retention period.
    """

    title: Message
    bundles: int = 0
    outcomes: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    findings: int = 0
    not_verified: int = 0
    removed: int = 0

    def add(self, bundle: PackedBundle) -> None:
        """Count a bundle."""
        self.bundles += 1
        if bundle.is_removed:
            self.removed += 1
        elif bundle.problem is not None:
            self.not_verified += 1
        else:
            self.outcomes[Outcome(bundle.row.outcome)] += 1
            self.findings += bundle.findings or 0


@dataclass(frozen=True)
class PackFacts:
    """The content of an inspection pack, for its letter, summary, index and instructions.

    Attributes:
        request: clauses and period.
        company: company that hands over the pack; None if the policy pack does not state it.
        clauses: numbers and titles of the clauses.
        clauses_of: clauses of each control, of the policy pack and of the sealed bundles, by id of
            the control.
        clause_title: function that returns the number and title of a clause.
        controls: controls of the clauses in the policy pack.
        removed_controls: controls that sealed bundles assign to the clauses, but the policy pack no
            longer does.
        without_control: number of bundles in the pack that name no control, because the run could
            not run.
        reporters: number of bundles that are in the pack only because they reported findings about
            the clauses.
        findings: findings of the register about the clauses that were open in the period.
        packed: folders, in the evidence store, of the bundles whose files are in the pack.
        unindexed: number of bundles that the history index lacks.
        timezone: IANA name of the timezone in which times are shown.
        created_at: time of the pack.
        code_version: version of ParcelSeal.
        fingerprints: fingerprints of the public keys in the pack.
        workflows: figures of each workflow.
        not_verified: bundles that do not verify.
        left_out: titles of workflows whose bundles are left out, because the recipient may not read
            them.
        unreadable_rows: number of rows of the evidence ledger that are left out for this reason.
        missing_rows: number of rows that are missing in the evidence ledger.
        changed_rows: numbers of the rows whose signature is not valid.
        title_of: function that returns the title of a workflow by its name in the ledger.
    """

    request: PackRequest
    company: Company | None
    clauses: Sequence[Message]
    clauses_of: Mapping[str, frozenset[str]]
    clause_title: Callable[[str], Message]
    controls: Sequence[Control]
    removed_controls: Sequence[str]
    without_control: int
    reporters: int
    findings: Sequence[PackFinding]
    packed: Collection[str]
    unindexed: int
    timezone: str
    created_at: datetime
    code_version: str
    fingerprints: Sequence[str]
    workflows: Sequence[WorkflowFacts]
    not_verified: Sequence[PackedBundle]
    left_out: Sequence[Message]
    unreadable_rows: int
    missing_rows: int
    changed_rows: Sequence[int]
    title_of: Callable[[str], Message]

    def total(self, figure: Callable[[WorkflowFacts], int]) -> int:
        """Return the sum of a figure over all workflows."""
        return sum(map(figure, self.workflows))

    @property
    def verified(self) -> int:
        """The number of bundles in the pack that verify."""
        return self.total(lambda facts: sum(facts.outcomes.values()))

    @property
    def is_empty(self) -> bool:
        """Whether the pack contains no bundle."""
        return self.total(lambda facts: facts.bundles - facts.removed) == 0

    @property
    def period(self) -> Message:
        """The period in words."""
        return _(
            "{first_day} to {last_day}",
            first_day=self.request.first_day.isoformat(),
            last_day=self.request.last_day.isoformat(),
        )


def render_letters(facts: PackFacts) -> reports.Rendered:
    """Create the cover letter and the summary as PDF and Word files in both languages.

    If a PDF file cannot be created, the web page of the document replaces it, and the result states
    the reason.

    Args:
        facts: content of the pack.
    """
    rendered = reports.Rendered()
    for name, document in ((LETTER, cover_letter(facts)), (SUMMARY, summary(facts))):
        rendered.files.update(render_forms(document, facts.timezone, name, pdf=False).files)
    pages = {
        f"{file.removesuffix('.html')}.pdf": content.decode()
        for file, content in rendered.files.items()
        if file.endswith(".html")
    }
    if unavailable := reports.pdf_unavailable_reason():
        return reports.Rendered(rendered.files, dict.fromkeys(pages, unavailable))
    files, not_made = reports.render_pdfs(pages)  # one child process for all files
    for file in files:
        del rendered.files[f"{file.removesuffix('.pdf')}.html"]
    return reports.Rendered(rendered.files | files, not_made)


def cover_letter(facts: PackFacts) -> Document:
    """Return the letter that accompanies an inspection pack."""
    return Document(
        title=_("Cover letter of an inspection pack"),
        dated=facts.created_at,
        addressee=_("To the inspecting authority"),
        sender=facts.company and facts.company.name_message,
        sender_address=facts.company and facts.company.address_message,
        policy=_policy_of(facts),
        warning=warning_of(facts),
        sections=(
            Section(
                heading=_("Content"), blocks=(Paragraph(text=_opening(facts)), _figures(facts))
            ),
            *_problems(facts),
            Section(
                heading=_("Keys"),
                blocks=(
                    Paragraph(
                        text=_(
                            "The bundles are signed with the keys below. Compare these "
                            "fingerprints with those that the company published elsewhere, and "
                            "with those that the page verify.html shows."
                        )
                    ),
                    Form(
                        entries=tuple(
                            Entry(
                                label=_("SHA-256 fingerprint of key {number}", number=number),
                                value=verbatim(_in_groups(key)),
                            )
                            for number, key in enumerate(facts.fingerprints, 1)
                        )
                    ),
                ),
            ),
            Section(heading=_("How to check the pack"), blocks=(_checking(),)),
        ),
        signature=(
            Entry(label=_("Name"), required=False),
            Entry(label=_("Position"), required=False),
            Entry(label=_("Date"), required=False),
            Entry(label=_("Signature and company seal"), required=False),
        ),
        footer=_created_with(facts),
    )


def summary(facts: PackFacts) -> Document:
    """Return the summary of the bundles in an inspection pack."""
    return Document(
        title=_("Summary of an inspection pack"),
        dated=facts.created_at,
        sender=facts.company and facts.company.name_message,
        sender_address=facts.company and facts.company.address_message,
        policy=_policy_of(facts),
        warning=warning_of(facts),
        sections=(
            Section(
                heading=_("Content"), blocks=(Paragraph(text=_opening(facts)), _figures(facts))
            ),
            Section(heading=_("Controls"), blocks=(_controls(facts),)),
            Section(heading=_("Bundles by workflow"), blocks=(_by_workflow(facts),)),
            Section(heading=_("Findings"), blocks=tuple(_findings(facts))),
            *_problems(facts),
            Section(heading=_("What the pack does not prove"), blocks=(_limits(),)),
        ),
        footer=_created_with(facts),
    )


def _policy_of(facts: PackFacts) -> Message | None:
    letterhead = letterhead_of(facts.company)
    return None if letterhead is None else letterhead.policy


def _opening(facts: PackFacts) -> Message:
    if facts.workflows and facts.is_empty:
        return _(
            "The pack contains no evidence bundle: the files of all bundles of this period were "
            "removed at the end of their retention period. Only their signed rows of the evidence "
            "ledger are in the pack."
        )
    if facts.is_empty:
        return _(
            "The pack contains no evidence bundle: no run whose bundle is evidence for these "
            "clauses was sealed in this period. The rows of the evidence ledger in the pack show "
            "which bundles were sealed before, in and after the period."
        )
    return _(
        "The pack contains the evidence bundles that were sealed in this period and that are "
        "evidence for these clauses. Each bundle contains the report of one run, its figures and a "
        "signature. The files index.en.xlsx and index.zh-CN.xlsx list them."
    )


def warning_of(facts: PackFacts) -> Message | None:
    """Return the warning about bundles or ledger rows that do not verify, or about an empty pack.

    Args:
        facts: content of the pack.

    Returns:
        The warning, or None if the pack contains bundles and all of them and all rows verify.
    """
    if facts.not_verified:
        return _(
            "Bundles of this pack that do not verify: {count}. Evidence was changed or is missing.",
            count=len(facts.not_verified),
        )
    if facts.missing_rows or facts.changed_rows:
        return _("Rows of the evidence ledger were changed or deleted.")
    return NO_EVIDENCE if facts.is_empty else None


def _figures(facts: PackFacts) -> Form:
    entries = [
        Entry(label=_("Clauses"), value=tuple(facts.clauses)),
        Entry(label=_("Period"), value=facts.period),
        Entry(label=_("Bundles sealed in the period"), value=facts.total(lambda f: f.bundles)),
        Entry(label=_("Bundles that verify"), value=facts.verified),
        Entry(label=_("Number of bundles that do not verify"), value=len(facts.not_verified)),
        Entry(
            label=_("Bundles whose files were removed at the end of their retention period"),
            value=facts.total(lambda f: f.removed),
        ),
    ]
    if facts.removed_controls:
        removed = tuple(map(verbatim, facts.removed_controls))
        entries.append(Entry(label=REMOVED_CONTROLS, value=removed))
    if facts.without_control:
        label = _("Bundles of runs that name no control, such as runs that could not run")
        entries.append(Entry(label=label, value=facts.without_control))
    entries.append(Entry(label=FINDINGS, value=len(facts.findings)))
    if facts.reporters:
        label = _("Bundles of other clauses whose runs reported findings about these clauses")
        entries.append(Entry(label=label, value=facts.reporters))
    if facts.unindexed:
        label = _("Bundles that were not searched for removed controls")
        entries.append(Entry(label=label, value=facts.unindexed))
    if facts.left_out:
        entries.append(Entry(label=_("Workflows left out"), value=tuple(facts.left_out)))
    return Form(entries=tuple(entries))


def _problems(facts: PackFacts) -> list[Section]:
    sections = []
    if facts.not_verified:
        rows = facts.not_verified[:MOST_NAMED]
        note = _(
            "These bundles are in the pack as they are stored. Do not rely on them. The page "
            "verify.html and the index show them in red."
        )
        sections.append(
            Section(
                heading=_("Bundles that do not verify"),
                blocks=(
                    Paragraph(text=note),
                    table_of(
                        _("Bundles that do not verify"),
                        rows,
                        (
                            (_("Number"), "number", lambda bundle: bundle.row.seq),
                            (_("Folder"), "code", lambda bundle: bundle.folder),
                            (_("Problem"), "text", lambda bundle: bundle.problem),
                        ),
                    ),
                    *(
                        [Paragraph(text=_("The index names the other {count}.", count=more))]
                        if (more := len(facts.not_verified) - len(rows))
                        else []
                    ),
                ),
            )
        )
    if facts.missing_rows or facts.changed_rows:
        ledger = _(
            "In the part of the evidence ledger that belongs to the period, rows are wrong. "
            "Missing rows: {missing}. Rows that were changed after they were signed: {changed}.",
            missing=facts.missing_rows,
            changed=len(facts.changed_rows),
        )
        sections.append(Section(heading=_("Evidence ledger"), blocks=(Paragraph(text=ledger),)))
    if facts.left_out or facts.unreadable_rows:
        left_out = _(
            "The person who created the pack may not read all workflows. The bundles of other "
            "workflows are left out, and so are their rows of the evidence ledger ({count}). The "
            "chain of bundles cannot be checked across them, and the pack does not prove to which "
            "workflows these rows belong. A person who may read all workflows can create a "
            "complete pack.",
            count=facts.unreadable_rows,
        )
        sections.append(Section(heading=_("Left out"), blocks=(Paragraph(text=left_out),)))
    return sections


def _controls(facts: PackFacts) -> Table:
    return table_of(
        _("Controls of the clauses"),
        facts.controls,
        (
            (_("Clause"), "text", lambda control: facts.clause_title(control.clause)),
            (_("Control"), "text", lambda control: control.message),
            (_("Workflow"), "text", lambda control: facts.title_of(control.workflow)),
            (
                _("Legal sources"),
                "text",
                lambda control: listed(source.message for source in control.sources),
            ),
        ),
    )


def _by_workflow(facts: PackFacts) -> Table:
    return table_of(
        _("Bundles by workflow"),
        facts.workflows,
        (
            (_("Workflow"), "text", lambda row: row.title),
            (_("Bundles"), "number", lambda row: row.bundles),
            (_("Passed"), "number", lambda row: row.outcomes[Outcome.PASS]),
            (_("Needs attention"), "number", lambda row: row.outcomes[Outcome.ATTENTION]),
            (_("Failed"), "number", lambda row: row.outcomes[Outcome.FAIL]),
            (_("Findings"), "number", lambda row: row.findings),
            (_("Do not verify"), "number", lambda row: row.not_verified),
            (_("Files removed"), "number", lambda row: row.removed),
        ),
    )


def _findings(facts: PackFacts) -> Iterator[Paragraph | Form]:
    """Yield the findings about the clauses, with the bundles that reported them."""
    if not facts.findings:
        text = _("The register of findings has no finding about these clauses in the period.")
        yield Paragraph(text=text)
        return
    yield Paragraph(
        text=_(
            "The register of findings states these findings. It is not signed; the signed result "
            "of each bundle contains the findings of its run. Each finding has the bundles with "
            "its first and its newest report."
        )
    )
    shown = facts.findings[:MOST_NAMED]
    yield Form(
        entries=tuple(
            Entry(
                label=_("Finding {number}", number=finding.number),
                value=tuple(_finding_lines(facts, finding)),
            )
            for finding in shown
        )
    )
    if more := len(facts.findings) - len(shown):
        yield Paragraph(text=_("The index names the other {count}.", count=more))


def _finding_lines(facts: PackFacts, finding: PackFinding) -> Iterator[Message]:
    if finding.clause:
        clause = facts.clause_title(finding.clause)
        yield _("{subject}: {message}", subject=clause, message=finding.description)
    else:
        yield finding.description
    yield _("{severity}; {state}", severity=_SEVERITIES[finding.severity], state=finding.state)
    for report in finding.reports:
        number = "-" if report.number is None else report.number
        if report.bundle in facts.packed:
            yield _("Bundle {number} (in the pack): {folder}", number=number, folder=report.folder)
        else:
            yield _(
                "Bundle {number} (not in the pack): {folder}", number=number, folder=report.folder
            )


def _checking() -> Steps:
    return Steps(
        items=[
            _("Unpack the ZIP file, or keep it as it is."),
            _(
                "Open the page verify.html in Chrome, Edge or Firefox. The page needs no network "
                "and sends nothing."
            ),
            _(
                "Enter the fingerprint that the company published elsewhere. Then choose the "
                "unpacked folder or the ZIP file on this page."
            ),
            _(
                "To check without this page, use the commands in HOW-TO-CHECK.txt. They need only "
                "sha256sum and OpenSSL 3."
            ),
        ]
    )


def _limits() -> Steps:
    return Steps(
        items=[
            _(
                "The signature proves that a report is unchanged since its seal. It does not prove "
                "that the report is true."
            ),
            _("The times come from the clock of the company's servers."),
            _(
                "The letter, this summary and the index are not signed. Apart from the findings "
                "of the register, they repeat what the signed bundles and the signed rows of the "
                "evidence ledger contain."
            ),
            _(
                "The file manifest.json, which names the controls of the clauses, is not signed. "
                "Compare the controls with the policy and with earlier packs."
            ),
        ]
    )


def _created_with(facts: PackFacts) -> Message:
    return _(
        "Created by ParcelSeal, version {version}, from the evidence store.",
        version=facts.code_version,
    )


def _in_groups(fingerprint: str) -> str:
    return " ".join(fingerprint[start : start + 8] for start in range(0, len(fingerprint), 8))
