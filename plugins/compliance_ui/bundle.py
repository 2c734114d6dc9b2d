"""One bundle: what it says, whether it holds, its files, and how anyone checks it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from fastapi import APIRouter, Request
from fastapi.responses import Response

from include.approvals.registry import APPROVE, REJECT
from include.evidence.check import Refused, SignedSums
from include.evidence.folder import LARGEST_SIGNATURE, SIGNATURE, SUMS, check_commands
from include.evidence.ledger import LedgerRow
from include.evidence.model import Result
from include.evidence.shelf import BundleCheck
from include.evidence.verify import link_before
from include.messages import _
from include.orchestration.access.permissions import Page
from include.reports.i18n import CONTROL_STATES, LOCALES, language_tag
from plugins.compliance_ui.files import Number, Reader, in_turn, row_of
from plugins.compliance_ui.language import locale_of
from plugins.compliance_ui.names import dag_of, title_of
from plugins.compliance_ui.rendering import LANGUAGES, show
from plugins.compliance_ui.services import services

router = APIRouter()

_DECISIONS = {APPROVE: _("approved"), REJECT: _("rejected")}


@dataclass(frozen=True)
class FileShown:
    """A file of a bundle.

    Attributes:
        name: relative to the bundle.
        sha256: as SHA256SUMS has it; empty for that file and its signature.
        size: bytes.
    """

    name: str
    sha256: str
    size: int


@router.get("/evidence/{number}")
def one_bundle(request: Request, who: Reader, number: Number) -> Response:
    """Show a bundle, after every file of it was held against what was sealed."""
    here = services()
    row = row_of(here, who, number)
    with here.reading() as conn:
        pruned = row.seq <= here.shelf.pruned_up_to(conn)
        previous = link_before(conn, row)
    signed: SignedSums | None = None
    checked: BundleCheck | None = None
    result: Result | None = None
    files: list[FileShown] = []
    sizes: dict[str, int] = {}
    if not pruned:
        sizes = here.shelf.sizes(row)
        with in_turn():
            checked = here.shelf.check(row, previous)
        if checked.is_waiting:
            sizes[SIGNATURE] = LARGEST_SIGNATURE
        try:
            signed = here.shelf.signed(row)
            result = here.shelf.result(row)
        except Refused as refusal:
            checked = BundleCheck(checked.problem or refusal.message)
        else:
            known = {**signed.sums.files, SUMS: signed.sha256, SIGNATURE: ""}
            files = [FileShown(name, known[name], sizes.get(name, -1)) for name in sorted(known)]
    reports = [
        (language_tag(one), kind)
        for one in LOCALES
        for kind in ("html", "pdf")
        if signed and f"report.{language_tag(one)}.{kind}" in signed.sums.files
    ]
    return show(
        request,
        here,
        who,
        Page.EVIDENCE,
        "bundle.html.j2",
        title=title_of(row.dag_id),
        row=row,
        dag=dag_of(row.dag_id),
        pruned=pruned,
        signed=signed,
        checked=checked,
        commands=_commands(row, here.shelf.keys.fingerprints),
        result=result,
        files=files,
        decisions=_DECISIONS,
        control_states=CONTROL_STATES,
        languages=LANGUAGES,
        reports=sorted(reports, key=lambda one: one[0] != language_tag(locale_of(request))),
        added=sorted(sizes.keys() - {one.name for one in files}) if signed else [],
    )


def _commands(row: LedgerRow, fingerprints: Iterable[str]) -> list[str]:
    """The lines that check the ZIP of a bundle, wherever it was sealed."""
    packed = f"{PurePosixPath(row.bundle).name}.zip"
    lines = check_commands(row.bundle, fingerprints, previous_at_hand=False)
    return [f"unzip {shlex.quote(packed)}", *lines]
