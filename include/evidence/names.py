"""Paths of bundles, names of their files, and the lines that check a bundle by hand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import PurePosixPath

from include.services.errors import UsageError
from include.services.objectstore.base import ObjectStore
from include.services.objectstore.keys import MAX_NAME_BYTES, is_own_name

RESULT = "result.json"
SIGNER = "signer.pem"
SUMS = "SHA256SUMS"
SIGNATURE = "SHA256SUMS.sig"
RESERVED = {RESULT, SIGNER, SUMS, SIGNATURE}

DEPTH = 4  # <workflow>/<yyyy>/<mm>/<run id>
LONGEST_NAME = 120  # characters of a folder's name
LONGEST_FILE = 400  # bytes of a file's whole name; the store's key holds the folder too
MOST_FILES = 10_000  # of a bundle, those that the seal writes included

# An attacker with write access to a store chooses the content of its files. Readers therefore
# refuse a file that is larger, in bytes, than a seal writes, before they read all of it.
LARGEST_SUMS = (MOST_FILES + 1) * (64 + 2 + LONGEST_FILE + 1)  # digest, spaces, name, line's end
LARGEST_SIGNATURE = 64  # Ed25519
LARGEST_KEY = 4096
LARGEST_RESULT = 64 * 1024 * 1024
MOST_LISTED = MOST_FILES + 3  # names that are listed of a folder: a bundle has fewer

_PLAIN = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{LONGEST_NAME - 1}}}")
_MOMENT = re.compile(r"T(\d\d):(\d\d):(\d\d)(\.\d+)?\+00:00", re.ASCII)
_SHORT_MOMENT = re.compile(r"T(\d\d)(\d\d)(\d\d)(\.\d+)?Z", re.ASCII)


def folder_name(identifier: str) -> str:
    """Return a readable folder name for a run id or DAG id; no two identifiers share one.

    ``manual__2026-11-24T14:10:19+00:00`` becomes ``manual__2026-11-24T141019Z``. A name that does
    not lead back to its identifier gets a hash after a ``~``, which no other name contains.
    """
    short = _MOMENT.sub(lambda m: f"T{m[1]}{m[2]}{m[3]}{m[4] or ''}Z", identifier)
    back = _SHORT_MOMENT.sub(lambda m: f"T{m[1]}:{m[2]}:{m[3]}{m[4] or ''}+00:00", short)
    if back == identifier and _PLAIN.fullmatch(short) and not short.endswith("."):
        return short
    digest = sha256(identifier.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", short).strip("-.")[: LONGEST_NAME - 20]
    return f"{readable}~{digest}"


def bundle_path(dag_id: str, run_id: str, started_at: datetime) -> str:
    """Return the bundle's folder, relative to the store; year and month are UTC."""
    started = started_at.astimezone(UTC)
    return f"{folder_name(dag_id)}/{started:%Y/%m}/{folder_name(run_id)}"


def link_to(bundle: str) -> str:
    """Return the relative path from inside any bundle to another bundle's SHA256SUMS."""
    return "../" * DEPTH + f"{bundle}/{SUMS}"


def linked_bundle(name: str) -> str | None:
    """Return the bundle that a line of SHA256SUMS links to, None for a file of the bundle."""
    match = re.fullmatch(r"(?:\.\./){4}([^/]+/\d{4}/\d\d/[^/]+)/SHA256SUMS", name)
    return match[1] if match else None


def is_bundle_path(name: str) -> bool:
    """Say whether a text is the folder of a bundle, relative to the store."""
    return linked_bundle(link_to(name)) == name and ".." not in name.split("/")


def check_file_names(names: Iterable[str]) -> None:
    """Refuse names that would not survive ``sha256sum -c``, another disk or a browser.

    Raises:
        UsageError: names the first bad name, or there are too many for a bundle.
    """
    every = set(names)
    if len(every) > MOST_FILES - len(RESERVED):
        raise UsageError(
            f"A bundle of evidence holds at most {MOST_FILES} files, and this run left "
            f"{len(every)}.",
            "Leave fewer files, or pack them into one.",
        )
    for name in sorted(every):
        problem = _problem_of(name)
        if not problem and name in RESERVED:
            problem = "is written by the seal itself"
        folders = {str(folder) for folder in PurePosixPath(name).parents}
        if not problem and folders & (every | RESERVED):
            problem = "uses another file as a folder"
        if problem:
            raise UsageError(f"The evidence file name {name!r} {problem}.")


def is_file_name(name: str) -> bool:
    """Say whether a line of SHA256SUMS may name this file of its own bundle."""
    return not _problem_of(name) and name not in {SUMS, SIGNATURE}


def _problem_of(name: str) -> str:
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "is not a plain relative path"
    if not name.isprintable() or "\\" in name:
        return "has a control character or backslash"
    if any(part != part.strip() or part.startswith("-") or is_own_name(part) for part in parts):
        return "begins or ends with a space, begins with a dash, or is one of the store's own"
    if len(name.encode()) > LONGEST_FILE or any(len(p.encode()) > MAX_NAME_BYTES for p in parts):
        return "is too long"
    return ""


def check_commands(
    folder: str, fingerprints: Iterable[str], *, previous_at_hand: bool = True
) -> list[str]:
    """Return lines for a POSIX shell that check a bundle with coreutils and OpenSSL 3 alone.

    Args:
        folder: the bundle's folder on a disk.
        fingerprints: trusted ones, shown beside the line that prints the bundle's own.
        previous_at_hand: False leaves out the link to the bundle before, whose folder is elsewhere.
    """
    expected = " or ".join(fingerprints)
    link = r"\.\./"
    return [
        f"cd {shlex.quote(folder)}",
        f"sha256sum -c {SUMS}"
        if previous_at_hand
        else f"grep -v '  {link}' {SUMS} | sha256sum -c -",
        f"openssl pkeyutl -verify -pubin -inkey {SIGNER} -rawin -in {SUMS} -sigfile {SIGNATURE}",
        f"openssl pkey -pubin -in {SIGNER} -outform DER | sha256sum"
        + (f"  # {expected}" if expected else ""),
    ]


def commands_for(store: ObjectStore, bundle: str, fingerprints: Iterable[str]) -> list[str]:
    """Return the lines that check a bundle of a store; of S3, a copy of it."""
    if store.kind == "directory":
        return check_commands(f"{store.description}/{bundle}", fingerprints)
    url, _, service = store.description.partition(" at ")
    source = f"{url.rstrip('/')}/{bundle}"
    copy = f"aws s3 cp --recursive {shlex.quote(source)} {shlex.quote(bundle)}"
    if service:
        copy += f"  # with the --endpoint-url of {service}"
    return [copy, *check_commands(bundle, fingerprints, previous_at_hand=False)]
