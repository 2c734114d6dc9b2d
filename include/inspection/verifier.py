"""The page verify.html of an inspection pack, which checks the pack in a browser without a network.

The page contains its scripts, styles and texts. It is the same in every pack of a version.
"""

from __future__ import annotations

import base64
import json
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from include.inspection.letter import NO_EVIDENCE
from include.messages import _
from include.reports.i18n import LOCALES, Translator, language_tag

VERIFIER = "verify.html"
_ASSETS = Path(__file__).parent / "assets"
_SCRIPTS = ("sha256.js", "sources.js", "check.js", "page.js")

FILLED_IN_PAGE = ""  # the script of the page replaces the field

# Texts of the page by key. The scripts in `assets/` use the keys.
TEXTS = {
    "title": _("Check an inspection pack"),
    "intro": _(
        "This page checks that the files of an inspection pack are unchanged since they were "
        "sealed, and that no bundle is missing."
    ),
    "private": _(
        "The page needs no network. It reads the files on this computer and sends nothing."
    ),
    "enter": _("1. Enter the fingerprint"),
    "expected": _(
        "Fingerprint of the key that the company published or gave you (several fingerprints are "
        "possible)"
    ),
    "choose": _("2. Choose the pack"),
    "choose_folder": _("Choose the unpacked folder"),
    "choose_archive": _("Or choose the ZIP file"),
    "drop": _(
        "You can also drop the ZIP file or the folder here. If the browser asks whether to upload "
        "files, it means that this page may read them; nothing is uploaded."
    ),
    "outdated": _(
        "The fingerprint was changed. The page checks the same files again when you leave the "
        "field, or as soon as the fingerprint is complete."
    ),
    "working": _("Checking ..."),
    "progress": _("Checked {count} of {total} files", count=FILLED_IN_PAGE, total=FILLED_IN_PAGE),
    "verdict_good": _("All checks passed. The files are unchanged and complete."),
    "verdict_empty": NO_EVIDENCE,
    "verdict_compare": _(
        "Everything in the pack matches, but you still have to compare the fingerprint with the "
        "one that the company published. Without this comparison, the pack only proves that its "
        "files belong together: a forger could have signed everything with another key."
    ),
    "verdict_gap": _("All files are unchanged, but the pack does not contain the complete chain."),
    "verdict_open": _(
        "All files are unchanged, but no signed row after the period shows that its last bundles "
        "are complete."
    ),
    "verdict_clauses": _(
        "All files are unchanged, but the pack has no signed result for the clauses {clauses}. "
        "Compare the controls below with the policy: bundles of other controls may belong to these "
        "clauses.",
        clauses=FILLED_IN_PAGE,
    ),
    "verdict_bad": _("Do not rely on this pack. Problems: {count}.", count=FILLED_IN_PAGE),
    "counts": _(
        "Checked files: {files}; bundles: {bundles}; signed rows of the evidence ledger: {rows}; "
        "links between successive bundles: {links}.",
        files=FILLED_IN_PAGE,
        bundles=FILLED_IN_PAGE,
        rows=FILLED_IN_PAGE,
        links=FILLED_IN_PAGE,
    ),
    "scope": _(
        "Clauses {clauses}, period {first_day} to {last_day}, timezone {timezone}.",
        clauses=FILLED_IN_PAGE,
        first_day=FILLED_IN_PAGE,
        last_day=FILLED_IN_PAGE,
        timezone=FILLED_IN_PAGE,
    ),
    "scope_controls": _("Controls of these clauses: {controls}.", controls=FILLED_IN_PAGE),
    "scope_unsigned": _(
        "Compare clauses, period and controls with your request. They are stated in manifest.json, "
        "which is not signed."
    ),
    "fingerprint": _(
        "SHA-256 fingerprint of a key of the pack (signatures made with this key: {count}):",
        count=FILLED_IN_PAGE,
    ),
    "file": _("File"),
    "problem": _("Problem"),
    "more": _("Further problems that are not shown: {count}.", count=FILLED_IN_PAGE),
    "changed": _("The file was changed."),
    "missing": _("The file is missing."),
    "added": _("The file was added; it does not belong to the pack."),
    "unreadable": _("The file cannot be read."),
    "unsafe_name": _("The name of the file is not safe. The file was not checked."),
    "twice": _("The ZIP file contains this name twice."),
    "not_a_key": _("The file is not an Ed25519 public key."),
    "other_key": _(
        "The file contains another key than its name says. The key in the file has the "
        "fingerprint {fingerprint}.",
        fingerprint=FILLED_IN_PAGE,
    ),
    "unexpected_key": _(
        "The key is not the key whose fingerprint you entered. The key in the file has the "
        "fingerprint {fingerprint}.",
        fingerprint=FILLED_IN_PAGE,
    ),
    "further_key": _(
        "The pack also has the key {file}. Ask the company whether it published this key as well.",
        file=FILLED_IN_PAGE,
    ),
    "no_key": _("The pack contains no key."),
    "bad_fingerprint": _(
        "The text that you entered is not a fingerprint. A fingerprint has 64 characters from 0 to "
        "9 and from a to f."
    ),
    "foreign_signature": _(
        "The signature was made with a key whose fingerprint you did not enter: {fingerprint}.",
        fingerprint=FILLED_IN_PAGE,
    ),
    "foreign_row": _(
        "Row {number} of the evidence ledger (bundle {bundle}) was signed with a key whose "
        "fingerprint you did not enter: {fingerprint}.",
        number=FILLED_IN_PAGE,
        bundle=FILLED_IN_PAGE,
        fingerprint=FILLED_IN_PAGE,
    ),
    "period_differs": _(
        "The moments since and until are not the beginning and the end of the stated days."
    ),
    "not_a_manifest": _("The file does not have the format of a manifest."),
    "bad_line": _("The file has a line that ParcelSeal did not write."),
    "checkpoint_changed": _(
        "The statement about removed bundles was not signed with a key of the pack."
    ),
    "row_changed": _(
        "Row {number} of the evidence ledger (bundle {bundle}) was not signed with a key of the "
        "pack, or it was changed.",
        number=FILLED_IN_PAGE,
        bundle=FILLED_IN_PAGE,
    ),
    "chain_broken": _(
        "The chain is broken: row {number} (bundle {bundle}) does not contain the digest of the "
        "row before.",
        number=FILLED_IN_PAGE,
        bundle=FILLED_IN_PAGE,
    ),
    "wrong_order": _(
        "Row {number} of the evidence ledger is not in its place.", number=FILLED_IN_PAGE
    ),
    "rows_missing": _(
        "Rows {first} to {last} of the evidence ledger are missing.",
        first=FILLED_IN_PAGE,
        last=FILLED_IN_PAGE,
    ),
    "rows_before_missing": _(
        "The rows of the evidence ledger before number {number} are missing.", number=FILLED_IN_PAGE
    ),
    "no_rows": _("The pack has no row of the evidence ledger, so it proves nothing."),
    "gap_differs": _(
        "Rows that are missing: {count}. According to manifest.json, {declared} rows are left out.",
        count=FILLED_IN_PAGE,
        declared=FILLED_IN_PAGE,
    ),
    "gap_unnamed": _(
        "Rows of the evidence ledger are left out ({count}), but no workflow is named to which "
        "they belong.",
        count=FILLED_IN_PAGE,
    ),
    "left_out_present": _(
        "Row {number} (bundle {bundle}) belongs to a workflow whose rows are said to be left out.",
        number=FILLED_IN_PAGE,
        bundle=FILLED_IN_PAGE,
    ),
    "left_out_other": _(
        "The bundle before it in the chain, {bundle}, was left out, but its workflow is not named "
        "as left out.",
        bundle=FILLED_IN_PAGE,
    ),
    "open_end": _(
        "The last row of the evidence ledger in the pack is number {number}, sealed at {moment}. "
        "The pack cannot show whether a later bundle of the period exists.",
        number=FILLED_IN_PAGE,
        moment=FILLED_IN_PAGE,
    ),
    "gaps": _(
        "Rows of the evidence ledger that are not in the pack: {count}. The person who created it "
        "may not read all workflows. The chain was not checked across these rows. They are said to "
        "belong to these workflows: {workflows}. The pack does not prove this: bundles of any "
        "workflow could be left out. Workflows with bundles for these clauses that were left out: "
        "{others}.",
        count=FILLED_IN_PAGE,
        workflows=FILLED_IN_PAGE,
        others=FILLED_IN_PAGE,
    ),
    "other_controls": _(
        "Bundles of the period that are not for these clauses, according to manifest.json: "
        "{count}. Controls in their signed rows: {controls}.",
        count=FILLED_IN_PAGE,
        controls=FILLED_IN_PAGE,
    ),
    "further_bundles": _(
        "Bundles of the period in the pack that are not for these clauses: {count}. They may be in "
        "the pack because their runs reported findings about these clauses. Their files were "
        "checked, but the page cannot show whether there are more of them.",
        count=FILLED_IN_PAGE,
    ),
    "removed_up_to": _(
        "The company removed the files of the bundles up to number {number} at the end of their "
        "retention period, according to a signed statement.",
        number=FILLED_IN_PAGE,
    ),
    "removed": _(
        "Bundles of the period that were removed at the end of their retention period: {count}.",
        count=FILLED_IN_PAGE,
    ),
    "no_bundles": _(
        "The pack contains no bundle. According to the rows of the evidence ledger, no bundle for "
        "these clauses was sealed in the period."
    ),
    "declared_bad": _(
        "Bundles that did not verify when the pack was created, according to manifest.json: "
        "{count}.",
        count=FILLED_IN_PAGE,
    ),
    "not_signed": _("The list of files was changed, or it was not signed with a key of the pack."),
    "other_signer": _("The bundle was not signed with the key that is recorded for it."),
    "swapped": _("The folder contains another bundle, that of {bundle}.", bundle=FILLED_IN_PAGE),
    "differs_from_row": _("The list of files differs from the signed row of the evidence ledger."),
    "no_row": _("The evidence ledger in the pack has no row for this bundle."),
    "link_broken": _("The bundle does not contain the digest of the bundle before it."),
    "result_differs": _("The result differs from the signed row of the evidence ledger."),
    "missing_bundle": _("The bundle is missing. The signed evidence ledger lists it."),
    "no_webcrypto": _(
        "Nothing was checked: this browser gives the page no access to its cryptography. Open the "
        "file verify.html from a disk in a current version of Chrome, Edge or Firefox, or use the "
        "commands in HOW-TO-CHECK.txt."
    ),
    "no_ed25519": _(
        "Nothing was checked: this browser cannot check Ed25519 signatures. Chrome and Edge can "
        "from version 137 on, Firefox from version 129 on. Update the browser, or use the commands "
        "in HOW-TO-CHECK.txt."
    ),
    "no_sha256": _(
        "Nothing was checked: this page and the browser compute different SHA-256 values. Use "
        "another browser, or the commands in HOW-TO-CHECK.txt."
    ),
    "not_a_pack": _(
        "Nothing was checked: this is not an inspection pack. Choose the folder that contains "
        "verify.html, or the ZIP file."
    ),
    "failed": _("Nothing was checked: the files could not be read. Copy the pack to a local disk."),
    "use_button": _("This browser cannot read a dropped folder. Use the button instead."),
    "meaning": _("What the page checks"),
    "meaning_files": _(
        "Files: the SHA-256 of each file of a bundle equals the one in the bundle's list "
        "SHA256SUMS, and no file is missing or was added."
    ),
    "meaning_signature": _(
        "Signatures: each list, and each row of the evidence ledger, was signed with a key of the "
        "folder keys. If you entered fingerprints, only signatures of these keys count."
    ),
    "meaning_chain": _(
        "Chain: each row of the evidence ledger contains the digest of the bundle before it, of "
        "all workflows. So no bundle can be replaced, removed or inserted without a trace."
    ),
    "meaning_complete": _(
        "Completeness: each bundle that the signed rows list for these clauses and this period is "
        "in the pack. The clauses' controls and the period are stated in manifest.json, which is "
        "not signed; compare them with your request. A control counts also if a signed result in "
        "the pack assigns it to these clauses."
    ),
    "limit_page": _(
        "This page is part of the pack. If you do not trust the pack, use verify.html of another "
        "source, or the commands in HOW-TO-CHECK.txt."
    ),
    "limit_truth": _(
        "The checks do not prove that a report is true, or that every run took place."
    ),
    "limit_size": _(
        "Files up to 64 MiB are read at once, larger files in pieces. There is no largest size. "
        "The list of the evidence ledger may have at most 512 MiB."
    ),
    "limit_names": _(
        "Windows cannot store some file names, such as names with a colon. If files are then "
        "reported as missing, choose the ZIP file instead of the folder."
    ),
}


@lru_cache
def render_verifier() -> bytes:
    """Return the content of verify.html."""
    page = _read("verify.html")
    style = _read("verify.css")
    script = "\n".join(['"use strict";', *map(_read, _SCRIPTS)])
    texts = {
        language_tag(locale): {
            key: Translator(locale).gettext(message.text) for key, message in TEXTS.items()
        }
        for locale in LOCALES
    }
    # "</script>" inside the data would end the element.
    data = json.dumps(texts, ensure_ascii=False, indent=0).replace("<", "\\u003c")
    parts = {
        "@@SCRIPT_HASH@@": _hash(script),
        "@@STYLE_HASH@@": _hash(style),
        "@@STYLE@@": style,
        "@@TEXTS@@": data,
        "@@SCRIPT@@": script,
    }
    for mark, part in parts.items():
        page = page.replace(mark, part)
    return page.encode()


def _read(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(content.encode()).digest()).decode()}'"
