"""Create an inspection pack: one ZIP file with all evidence for clauses and a period.

The pack is created in one pass. Each bundle is verified by the bytes that were put into the pack,
so the letter, summary and index describe exactly the packed files.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from include.evidence.checkpoint import Checkpoint, newest_checkpoint
from include.evidence.signing import TrustedKeys, fingerprint
from include.inspection.index_file import render_index
from include.inspection.instructions import INSTRUCTIONS, render_instructions
from include.inspection.letter import PackFacts, WorkflowFacts, render_letters
from include.inspection.pack_findings import (
    PackFinding,
    finding_entry,
    read_findings,
    reporting_bundles,
)
from include.inspection.packed_bundle import BundlePacker, PackedBundle
from include.inspection.period import (
    Connect,
    PeriodRow,
    Selection,
    read_period,
    read_selection,
)
from include.inspection.request import PackRequest
from include.inspection.verifier import VERIFIER, render_verifier
from include.inspection.zip_stream import ZipStream
from include.messages import Message, in_english
from include.policy import PolicyPack
from include.reports.i18n import LOCALES, Translator, language_tag
from include.services.errors import ServiceError, UsageError
from include.services.objectstore.base import ObjectStore
from include.services.objectstore.keys import partial_name

FORMAT = "parcelseal-inspection-pack/1"
MANIFEST, SUMS_OF_PACK = "manifest.json", "pack.sha256"
LEDGER = "chain/ledger.txt"


@dataclass(frozen=True)
class PackSources:
    """The stores and texts from which an inspection pack is created.

    Attributes:
        store: the evidence store.
        connect: function that opens a connection to the state database for a ``with`` block.
        trusted: public keys (PEM) whose seals are accepted.
        policy: the policy pack, which names the company, the clauses and their controls.
        title_of: function that returns the title of a workflow by its name in the ledger.
        may_read: function that takes a workflow name of the ledger, and returns whether the
            recipient may read the bundles of the workflow.
        pending: function that takes the folder of a bundle. It returns the signature of the bundle
            if the signature may be in the state database only, otherwise None.
        created_at: time of the pack.
        code_version: version of ParcelSeal.
    """

    store: ObjectStore
    connect: Connect
    trusted: list[bytes]
    policy: PolicyPack
    title_of: Callable[[str], Message]
    may_read: Callable[[str], bool]
    pending: Callable[[str], bytes | None]
    created_at: datetime
    code_version: str


@dataclass
class InspectionPack:
    """An inspection pack that is created while its chunks are read.

    Attributes:
        request: clauses and period.
        sources: stores and texts.
        bundles: the bundles of the pack, in the order of their seals. The list is complete after
            the last chunk.
    """

    request: PackRequest
    sources: PackSources
    bundles: list[PackedBundle] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._keys = TrustedKeys(self.sources.trusted)
        self._checkpoint: Checkpoint | None = None
        self._selection = Selection(self.request.controls, {}, frozenset(), 0)
        self._findings: list[PackFinding] = []
        self._first_row: int | None = None
        self._last_row: int | None = None
        self._left_out: dict[str, None] = {}
        self._left_out_rows: dict[str, None] = {}
        self._unreadable_rows = 0
        self._missing_rows = 0
        self._changed_rows: list[int] = []
        self._not_made: dict[str, str] = {}

    @property
    def not_verified(self) -> list[str]:
        """The folders of the bundles that do not verify, relative to the evidence store."""
        return [bundle.row.bundle for bundle in self.bundles if bundle.problem is not None]

    @property
    def not_created(self) -> dict[str, str]:
        """The reasons why PDF files of the pack could not be created, by file name."""
        return dict(self._not_made)

    def chunks(self) -> Generator[bytes]:
        """Return the ZIP file in chunks.

        The memory that the method uses does not depend on the size of the files.

        Raises:
            StoreError: the evidence store cannot be read.
        """
        archive = ZipStream(self.sources.created_at.astimezone(self.request.zone))
        try:
            yield from self._write(archive)
        finally:
            archive.abandon()

    def _write(self, archive: ZipStream) -> Iterator[bytes]:
        yield from archive.add(VERIFIER, render_verifier())
        for pem in self.sources.trusted:
            yield from archive.add(f"keys/{fingerprint(pem)}.pem", pem)
        selected: list[PeriodRow] = []
        yield from archive.add_pieces(LEDGER, self._ledger_lines(selected), 0)
        packer = BundlePacker(self.sources.store, self._keys, self.sources.pending)
        for entry in selected:
            if self._checkpoint and entry.row.seq <= self._checkpoint.up_to_seq:
                self.bundles.append(PackedBundle(entry.row, is_removed=True))
                continue
            packing = packer.pack(
                archive, entry.row, entry.previous, is_authentic=entry.is_authentic
            )
            with closing(packing):
                for part in packing:
                    if isinstance(part, PackedBundle):
                        self.bundles.append(part)
                    else:
                        yield part
        facts = self._facts()
        for name, content in render_index(facts, self.bundles).items():
            yield from archive.add(name, content)
        letters = render_letters(facts)
        self._not_made = letters.not_made
        for name, content in letters.files.items():
            yield from archive.add(name, content)
        yield from archive.add(INSTRUCTIONS, render_instructions(facts))
        manifest = json.dumps(self._manifest(), ensure_ascii=False, indent=1) + "\n"
        yield from archive.add(MANIFEST, manifest.encode())
        sums = "".join(f"{digest}  {name}\n" for name, digest in sorted(archive.digests.items()))
        yield from archive.add(SUMS_OF_PACK, sums.encode())
        yield from archive.finish()

    def _ledger_lines(self, selected: list[PeriodRow]) -> Iterator[bytes]:
        """Yield the signed rows of the ledger as lines, and collect the rows of the pack.

        Each line contains the signature in Base64, a tab, and the signed content of a row. The
        first line is the checkpoint of removed bundles, if there is one.

        Args:
            selected: receives the rows of the bundles that belong to the pack.
        """
        with self.sources.connect() as conn:
            self._checkpoint = newest_checkpoint(conn, self._keys)
            pruned = self._checkpoint.up_to_seq if self._checkpoint else 0
            selection = read_selection(conn, self.sources.policy, self.request, pruned)
            self._findings = read_findings(
                conn, self.request, selection.workflows, self.sources.may_read
            )
        self._selection = replace(selection, reporting=reporting_bundles(self._findings))
        if self._checkpoint:
            yield _line(self._checkpoint.signature, self._checkpoint.signed_content())
        for entry in read_period(
            self.sources.connect,
            self.request,
            self._selection,
            self._keys,
            self.sources.may_read,
        ):
            self._first_row = self._first_row or entry.row.seq
            self._last_row = entry.row.seq
            if entry.row.seq - 1 > pruned:  # rows of removed bundles may be missing
                self._missing_rows += min(entry.missing_before, entry.row.seq - 1 - pruned)
            if not entry.is_readable:
                self._unreadable_rows += 1
                for name in (entry.row.dag_id, entry.row.bundle.partition("/")[0]):
                    if not self.sources.may_read(name):
                        self._left_out_rows[name] = None
                if entry.is_selected:
                    self._left_out[entry.row.dag_id] = None
                continue
            yield _line(entry.row.row_signature, entry.row.signed_content())
            if not entry.is_authentic:
                self._changed_rows.append(entry.row.seq)
            if entry.is_selected:
                selected.append(entry)

    def _facts(self) -> PackFacts:
        by_workflow: dict[str, WorkflowFacts] = {}
        for bundle in self.bundles:
            name = bundle.row.dag_id
            facts = by_workflow.setdefault(name, WorkflowFacts(self.sources.title_of(name)))
            facts.add(bundle)
        policy = self.sources.policy
        return PackFacts(
            request=self.request,
            company=policy.company,
            clauses=[policy.clause_message(clause) for clause in self.request.clauses],
            clauses_of=self._selection.clauses_of,
            clause_title=policy.clause_message,
            controls=[
                control for control in policy.controls if control.id in self.request.controls
            ],
            removed_controls=self._removed_controls(),
            without_control=self._without_control(),
            reporters=sum(self._selection.is_reporter(bundle.row) for bundle in self.bundles),
            findings=self._findings,
            packed=self._packed(),
            unindexed=self._selection.unindexed,
            timezone=policy.calendar.timezone,
            created_at=self.sources.created_at,
            code_version=self.sources.code_version,
            fingerprints=self._keys.fingerprints,
            workflows=list(by_workflow.values()),
            not_verified=[bundle for bundle in self.bundles if bundle.problem is not None],
            left_out=[self.sources.title_of(name) for name in self._left_out],
            unreadable_rows=self._unreadable_rows,
            missing_rows=self._missing_rows,
            changed_rows=self._changed_rows,
            title_of=self.sources.title_of,
        )

    def _removed_controls(self) -> list[str]:
        """Return the controls of the clauses that the policy pack no longer assigns to them."""
        return sorted(self._selection.controls - self.request.controls)

    def _without_control(self) -> int:
        """Return how many bundles of the pack name no control, because they could not run."""
        return sum(self._selection.is_without_control(bundle.row) for bundle in self.bundles)

    def _packed(self) -> frozenset[str]:
        """Return the folders, in the evidence store, of the bundles whose files are in the pack."""
        return frozenset(bundle.row.bundle for bundle in self.bundles if not bundle.is_removed)

    def _manifest(self) -> dict[str, Any]:
        request, sources = self.request, self.sources
        company = sources.policy.company
        return {
            "format": FORMAT,
            "created_at": sources.created_at.isoformat(),
            "code_version": sources.code_version,
            "company": company and company.name,
            "policy_sha256": sources.policy.sha256,
            "clauses": list(request.clauses),
            "controls": sorted(self._selection.controls),
            "controls_removed": self._removed_controls(),
            "control_details": [
                {
                    "id": control.id,
                    "clause": control.clause,
                    "title": _in_each_language(control.message),
                }
                for control in sources.policy.controls
                if control.id in self._selection.controls
            ],
            "workflows": sorted(self._selection.workflows),
            "first_day": request.first_day.isoformat(),
            "last_day": request.last_day.isoformat(),
            "timezone": sources.policy.calendar.timezone,
            "since": request.since.isoformat(),
            "until": request.until.isoformat(),
            "keys": self._keys.fingerprints,
            "workflows_left_out": self._named(self._left_out),
            "ledger_first": self._first_row,
            "ledger_last": self._last_row,
            "ledger_rows_left_out": self._unreadable_rows,
            "ledger_workflows_left_out": self._named(self._left_out_rows),
            "ledger_rows_missing": self._missing_rows,
            "ledger_rows_changed": self._changed_rows,
            "not_created": self._not_made,
            "bundles": [_bundle_entry(bundle) for bundle in self.bundles],
            "findings": [finding_entry(finding, self._packed()) for finding in self._findings],
        }

    def _named(self, workflows: Iterable[str]) -> list[dict[str, Any]]:
        titles = {name: self.sources.title_of(name) for name in workflows}
        return [{"name": name, "title": _in_each_language(title)} for name, title in titles.items()]


def _in_each_language(message: Message) -> dict[str, str]:
    return {language_tag(locale): Translator(locale).text(message) for locale in LOCALES}


def _bundle_entry(bundle: PackedBundle) -> dict[str, Any]:
    row = bundle.row
    return {
        "number": row.seq,
        "folder": None if bundle.is_removed else bundle.folder,
        "workflow": row.dag_id,
        "run": row.run_id,
        "outcome": row.outcome,
        "controls": row.controls,
        "sealed_at": row.sealed_at.isoformat(),
        "sums_sha256": row.sums_sha256,
        "findings": bundle.findings,
        "verified": None if bundle.is_removed else bundle.verified,
        "problem": bundle.problem and in_english(bundle.problem),
        "removed_after_retention": bundle.is_removed,
        "files": bundle.files,
        "bytes": bundle.size,
        "files_left_out": bundle.left_out,
    }


def _line(signature: bytes, content: bytes) -> bytes:
    return base64.b64encode(signature) + b"\t" + content + b"\n"


def write_pack(pack: InspectionPack, path: Path) -> None:
    """Write an inspection pack to a file. The file appears only when it is complete.

    Args:
        pack: the pack.
        path: the file. An existing file is replaced.

    Raises:
        UsageError: the file cannot be written in its folder.
        ServiceError: the disk failed, or the evidence store cannot be read.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder.", "Name a file, such as pack.zip.")
    partial = path.with_name(partial_name(path.name))
    try:
        file = partial.open("xb")
    except OSError as error:
        raise UsageError(
            f"The file {path} cannot be written: {error.strerror}.",
            "Choose a folder that exists and that you may write.",
        ) from error
    try:
        with file:
            for chunk in pack.chunks():
                _write(file, chunk, path)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _write(file: Any, chunk: bytes, path: Path) -> None:
    try:
        file.write(chunk)
    except OSError as error:
        raise ServiceError(
            f"The file {path} cannot be written: {error.strerror}.",
            "Check the disk and its free space, then repeat the command.",
        ) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
