"""Names of what a restore leaves out, for the person who restores."""

from __future__ import annotations

from collections.abc import Iterable

from include.backup.archive_entry import Entry
from include.backup.manifest import Manifest

ALWAYS = {"DATABASE PROPERTIES"}  # ALTER DATABASE ... SET names the original database
WITHOUT_OWNERS = {"PUBLICATION", "SUBSCRIPTION"}


def left_out(entries: Iterable[Entry], manifest: Manifest, *, owners: bool) -> tuple[str, ...]:
    """Return sorted labels of the objects and options that a restore leaves out.

    Owners and grants, which a restore without ``owners`` leaves out for every object, are not
    listed. Neither is what no backup holds: roles, tablespaces, settings of the server.

    Args:
        entries: of the archive's table of contents.
        manifest: names what the backup's role could not read.
        owners: whether owners and grants are restored, and publications and subscriptions too.
    """
    kinds = ALWAYS if owners else ALWAYS | WITHOUT_OWNERS
    labels = {entry.label for entry in entries if entry.kind in kinds}
    mappings = {f"options of USER MAPPING {name}" for name in manifest.mappings_without_options}
    return tuple(sorted(labels | mappings))
