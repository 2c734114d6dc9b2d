"""The lines that check a bundle without ParcelSeal."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from include.evidence.names import SIGNATURE, SIGNER, SUMS
from include.services.objectstore.base import ObjectStore


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
