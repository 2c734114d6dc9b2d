"""The page of an evidence bundle: result, verification, files, and commands to verify the files."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from fastapi import APIRouter, Request
from fastapi.responses import Response

from include.approvals.registry import APPROVE, REJECT
from include.evidence.bundle_reader import BundleCheck
from include.evidence.check import EvidenceRefused, SignedSums
from include.evidence.folder import LARGEST_SIGNATURE, SIGNATURE, SUMS, check_commands
from include.evidence.ledger import LedgerRow
from include.evidence.model import Approval, Result
from include.evidence.report_number import report_number
from include.evidence.verify import link_before
from include.messages import Message, _, verbatim
from include.orchestration.access.permissions import Page
from include.reports.html import COULD_NOT_RUN_VERDICT, headline
from include.reports.i18n import CONTROL_STATES, LOCALES, language_tag
from plugins.compliance_ui.files import Number, Reader, limited_turn, row_of
from plugins.compliance_ui.language import locale_of
from plugins.compliance_ui.page_services import page_services
from plugins.compliance_ui.rendering import LANGUAGES, render_navigation_page
from plugins.compliance_ui.workflow_names import dag_of, title_of

router = APIRouter()

_DECISIONS = {APPROVE: _("approved"), REJECT: _("rejected")}
# Titles of approval requests, by their kind in the state database.


def _number(subject: str) -> Message:
    """Return the subject of an approval of use, such as ``request 17``, for readers."""
    return _("request {number}", number=subject.rpartition(" ")[2])


_REQUESTS = {
    "intake": lambda subject: _("Incoming batch {subject}", subject=subject),
    "retention": lambda subject: _("Disposition plan of {subject}", subject=subject),
    "use.supervisor": lambda subject: _(
        "Supervisor's decision on {subject}", subject=_number(subject)
    ),
    "use.second": lambda subject: _("Second decision on {subject}", subject=_number(subject)),
    "incident.notices": lambda subject: _("Notices of incident {subject}", subject=subject),
}


@dataclass(frozen=True)
class FileView:
    """A file of an evidence bundle, as the page of the bundle lists it.

    Attributes:
        name: path of the file relative to the bundle.
        sha256: hexadecimal SHA-256 digest of the file; empty for the signature file.
        size: size of the file in bytes; -1 if the file is missing in the store.
    """

    name: str
    sha256: str
    size: int


@router.get("/evidence/{number}")
def show_bundle(request: Request, visitor: Reader, number: Number) -> Response:
    """Verify the files of an evidence bundle, and show the bundle with the result.

    The digest of each file is compared with the sealed digest. If the files were deleted because
    their retention period ended, nothing is compared.

    Args:
        request: request of the visitor.
        visitor: the visitor.
        number: sequence number of the bundle in the evidence ledger.
    """
    services = page_services()
    row = row_of(services, visitor, number)
    with services.read_connection() as conn:
        pruned = row.seq <= services.bundle_reader.pruned_up_to(conn)
        previous = link_before(conn, row)
    signed: SignedSums | None = None
    checked: BundleCheck | None = None
    result: Result | None = None
    files: list[FileView] = []
    sizes: dict[str, int] = {}
    if not pruned:
        sizes = services.bundle_reader.sizes(row)
        with limited_turn():
            checked = services.bundle_reader.check(row, previous)
        if checked.has_pending_signature:
            sizes[SIGNATURE] = LARGEST_SIGNATURE
        try:
            signed = services.bundle_reader.signed(row)
            result = services.bundle_reader.result(row)
        except EvidenceRefused as refusal:
            checked = BundleCheck(checked.problem or refusal.message)
        else:
            digests = {**signed.sums.files, SUMS: signed.sha256, SIGNATURE: ""}
            files = [
                FileView(name, digest, sizes.get(name, -1))
                for name, digest in sorted(digests.items())
            ]
    reports = [
        (language_tag(locale), kind)
        for locale in LOCALES
        for kind in ("html", "pdf")
        if signed and f"report.{language_tag(locale)}.{kind}" in signed.sums.files
    ]
    return render_navigation_page(
        request,
        services,
        visitor,
        Page.EVIDENCE,
        "bundle.html.j2",
        title=title_of(row.dag_id),
        row=row,
        dag=dag_of(row.dag_id),
        pruned=pruned,
        signed=signed,
        checked=checked,
        commands=_commands(row, services.bundle_reader.keys.fingerprints),
        result=result,
        headline=_headline(result) if result else None,
        could_not_run=result is not None and result.could_not_run,
        files=files,
        decisions=_DECISIONS,
        subject_of=_subject_of,
        content_of=content_of,
        report_number=report_number,
        clause_name=services.pack.clause_message,
        control_states=CONTROL_STATES,
        languages=LANGUAGES,
        reports=sorted(reports, key=lambda report: report[0] != language_tag(locale_of(request))),
        added=sorted(sizes.keys() - {file.name for file in files}) if signed else [],
    )


def _headline(result: Result) -> Message:
    if result.could_not_run:
        return COULD_NOT_RUN_VERDICT
    return headline(result.outcome, {control.state for control in result.controls})


_CONTENTS = (  # pattern of the file name -> content of the file
    ("result.json", _("result for programs")),
    ("report.en.*", _("report in English")),
    ("report.zh-CN.*", _("report in Chinese")),
    ("SHA256SUMS", _("list of the files with their SHA-256")),
    ("SHA256SUMS.sig", _("signature of the list of files")),
    ("signer.pem", _("public key of the signature")),
    ("manifest.*.json", _("manifest of the backup")),
    ("plan-*.json", _("disposition plan")),
    ("datadocs.*.html", _("results of the quality check in detail")),
    ("overdue.csv", _("overdue courses")),
    ("commitment.json", _("commitment of the audit sample")),
    ("seed.json", _("random seed")),
    ("frames/*", _("sampling frame")),
    ("samples/*", _("audit sample")),
    ("workpapers*.xlsx", _("audit workpapers")),
    ("answers-*.json", _("answers of the auditors")),
    ("verdicts-*.json", _("evaluation of the audit sample")),
    ("extract.*.json", _("extract of a log")),
    ("timeline.jsonl", _("timeline of the incident")),
    ("*.docx", _("document (Word)")),
    ("*.pdf", _("document (PDF)")),
    ("*.html", _("document (web page)")),
)


def content_of(name: str) -> Message:
    """Return the content of a file of an evidence bundle in words, such as "random seed".

    Args:
        name: path of the file relative to the bundle.
    """
    return next((title for pattern, title in _CONTENTS if fnmatchcase(name, pattern)), _("data"))


def _subject_of(approval: Approval) -> Message:
    """Return the title under which the page shows an approval request.

    The step of an approval has the form ``kind:subject``, for example ``intake:B-17``. The kind
    decides which title is used. Without a title for the kind, the step itself is returned.
    """
    kind, _separator, subject = approval.step.partition(":")
    title = _REQUESTS.get(kind)
    return title(subject) if title else verbatim(approval.step)


def _commands(row: LedgerRow, fingerprints: Iterable[str]) -> list[str]:
    """Return the shell commands that verify the downloaded ZIP file of a bundle on any computer.

    Args:
        row: row of the bundle in the evidence ledger.
        fingerprints: fingerprints of the trusted keys, which the commands show for comparison with
            the key in the bundle.
    """
    archive = f"{PurePosixPath(row.bundle).name}.zip"
    commands = check_commands(row.bundle, fingerprints, previous_at_hand=False)
    return [f"unzip {shlex.quote(archive)}", *commands]
