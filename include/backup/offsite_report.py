"""Decide the outcome of a run of `backup_offsite`, and write its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from include.backup.manifest import Manifest
from include.backup.offsite import (
    BACKUP,
    MANIFEST_PREFIX,
    PREFLIGHT,
    PRUNE,
    Preflight,
    Pruning,
)
from include.backup.offsite_findings import CLAUSE
from include.backup.prune import Reason
from include.evidence.model import Finding, Metric, Outcome
from include.messages import Message, _, listed
from include.policy.datamap import MappedDatabase
from include.reports.conclusion import Conclusion, missing_record
from include.reports.model import (
    Block,
    Code,
    Fact,
    Paragraph,
    Section,
    Steps,
    TrendChart,
    TrendPoint,
    must_be_zero,
    table_of,
)
from include.workflow.databases import select_databases
from include.workflow.run_context import RunContext
from include.workflow.run_records import RunRecords

TITLE = _("Off-site backup")
MOST_TABLES = 15  # rows of the table list in a report; the manifest has them all


def conclude(run: RunContext[None], records: RunRecords) -> Conclusion:
    """Decide the outcome of a run of `backup_offsite`, and write its report.

    The control passes only if every requested database has a verified restore point from this run.
    The run fails if the step record of a database is missing, if there is no database to back up,
    or if a requested database is not in the data map. The report names mapped databases that were
    not requested.
    """
    requested = run.requested_databases
    manifests = {
        name.removeprefix(MANIFEST_PREFIX).removesuffix(".json"): Manifest.model_validate_json(file)
        for name, file in records.artifacts.items()
        if name.startswith(MANIFEST_PREFIX)
    }
    databases, left_out = select_databases(
        run.pack.databases.values(), requested, "backup.left_out", CLAUSE
    )
    findings: list[Finding] = []
    if records.find(PREFLIGHT.name) is None:
        findings.append(
            missing_record(
                _("The preflight"),
                "backup_offsite",
                "backup.no_preflight",
                CLAUSE,
                show_subject=False,
            )
        )
    for database in databases:
        findings += _missing(records, database.name, manifests)
    unmapped = sorted({*requested} - {database.name for database in databases})
    for name in unmapped if requested else ["backup_offsite"]:
        findings.append(missing_record(_("The backup"), name, "backup.missing", CLAUSE))
    findings += left_out
    backed_up = [database.name for database in databases if database.name in manifests]
    prunings = records.results(PRUNE)
    return records.conclude(
        TITLE,
        _summary(len(backed_up), len(databases), len(left_out), records.outcome(findings)),
        findings=findings,
        metrics=_indicators(
            databases,
            backed_up,
            records.result(PREFLIGHT),
            all_asked=bool(databases) and not left_out,
        ),
        facts=_facts(databases, manifests, records),
        sections=[
            _points(databases, manifests, records),
            *[_tables(manifests[name], run.pack.databases[name]) for name in backed_up],
            *_keys(manifests, backed_up),
            *[
                _history(run.pack.databases[name], prunings[name])
                for name in backed_up
                if name in prunings
            ],
            *([_meaning()] if backed_up else []),
        ],
    )


def _indicators(
    databases: Sequence[MappedDatabase],
    backed_up: Sequence[str],
    preflight: Preflight | None,
    *,
    all_asked: bool,
) -> list[Metric]:
    """Return those metrics of the run for which controls.yaml defines a target.

    The value of a metric is None if it is unknown.

    Args:
        databases: requested databases.
        backed_up: names of the databases with a restore point from this run.
        preflight: result of the preflight, which states whether backups would be at the primary
            site; None if the preflight did not finish.
        all_asked: whether all mapped databases were requested.
    """
    without = len(databases) - len(backed_up)
    sites = preflight.at_primary_site if preflight else {}
    at_primary = [sites.get(name) for name in backed_up]
    all_known = all_asked and not without and None not in at_primary
    return [
        Metric(
            name="databases_without_restore_point",
            value=without if without or all_asked else None,
            unit="1",
        ),
        Metric(
            name="databases_backed_up_at_primary_site",
            value=sum(map(bool, at_primary)) if all_known or any(at_primary) else None,
            unit="1",
        ),
    ]


def _missing(
    records: RunRecords, database: str, manifests: Mapping[str, Manifest]
) -> list[Finding]:
    record = records.find(BACKUP.name, database)
    if record is None:
        return [missing_record(_("The backup"), database, "backup.missing", CLAUSE)]
    if record.outcome is Outcome.FAIL:
        return []
    if database not in manifests:
        return [missing_record(_("The backup"), database, "backup.unsigned", CLAUSE)]
    if records.find(PRUNE.name, database) is None:
        title = _("The pruning of old restore points")
        return [missing_record(title, database, "prune.missing", CLAUSE)]
    return []


def _summary(backed_up: int, requested: int, left_out: int, outcome: Outcome) -> Message:
    if backed_up < requested:
        return _(
            "Only {count} of {requested} databases have a verified encrypted backup from this run.",
            count=backed_up,
            requested=requested,
        )
    if left_out:
        return _(
            "This run was started for only {count} of {mapped} mapped databases. Each of these "
            "{count} databases has a verified backup.",
            count=backed_up,
            mapped=requested + left_out,
        )
    if outcome is Outcome.FAIL:
        return _("Every database was backed up, but the run has other failures: see the findings.")
    if outcome is Outcome.ATTENTION:
        return _(
            "Every mapped database has a verified encrypted backup; some findings need attention."
        )
    return _("Every mapped database has a verified encrypted backup at another site.")


def _facts(
    databases: Sequence[MappedDatabase],
    manifests: Mapping[str, Manifest],
    records: RunRecords,
) -> list[Fact]:
    checked, preflight = records.find(PREFLIGHT.name), records.result(PREFLIGHT)
    names = {database.name for database in databases}
    manifests = {name: manifest for name, manifest in manifests.items() if name in names}
    taken = [manifest.taken_at for manifest in manifests.values()]
    return [
        Fact(
            label=_("Databases backed up"),
            value=_("{count} of {total}", count=len(manifests), total=len(databases)),
            status=must_be_zero(len(databases) - len(manifests)),
        ),
        Fact(label=_("Data as of"), value=min(taken) if taken else None),
        Fact(
            label=_("Rows"),
            value=sum(manifest.rows for manifest in manifests.values()) if manifests else None,
            unit="rows",
        ),
        Fact(
            label=_("Encrypted size"),
            value=sum(m.dump.size for m in manifests.values()) if manifests else None,
            unit="bytes",
        ),
        Fact(
            label=_("Off-site store"),
            value=_STORE_KINDS[preflight.store_kind] if preflight else None,
            status=checked.outcome if checked and preflight else None,
        ),
        Fact(
            label=_("Sites of the database and of the backups, as declared"),
            value=_sites(databases, preflight) if preflight else None,
        ),
    ]


def _sites(databases: Sequence[MappedDatabase], preflight: Preflight) -> Message:
    store = preflight.sites.get("store")
    primary = sorted({database.site for database in databases if database.site})
    if not store or not primary:
        return _("not declared")
    return _(
        "database at {primary}; backups at {store}",
        primary=listed(primary),
        store=store,
    )


_RECIPIENTS = {  # names of the recipients in the local profile
    "operations": _("operations"),
    "escrow": _("escrow (kept offline)"),
    "drill": _("restore drill"),
}
_KEY_KINDS = {"rsa": _("RSA key pair"), "kms": _("key of a key management service")}
_STORE_KINDS = {"s3": _("S3 bucket"), "directory": _("directory")}


def _points(
    databases: Sequence[MappedDatabase],
    manifests: Mapping[str, Manifest],
    records: RunRecords,
) -> Section:
    def seconds(database: MappedDatabase) -> float | None:
        backup = records.result(BACKUP, database.name)
        return backup.seconds if backup else None

    def outcome(database: MappedDatabase) -> Outcome:
        record = records.find(BACKUP.name, database.name)
        return record.outcome if record else Outcome.FAIL

    table = table_of(
        _("Backups by database"),
        [(database, manifests.get(database.name)) for database in databases],
        [
            (_("Database"), "text", lambda row: row[0].title),
            (_("Restore point"), "code", lambda row: row[1].id if row[1] else None),
            (_("Data as of"), "datetime", lambda row: row[1].taken_at if row[1] else None),
            (_("Rows"), "number", lambda row: row[1].rows if row[1] else None),
            (_("Encrypted size"), "bytes", lambda row: row[1].dump.size if row[1] else None),
            (_("Duration"), "duration", lambda row: seconds(row[0]) if row[1] else None),
            (_("Outcome"), "outcome", lambda row: outcome(row[0]) if row[1] else Outcome.FAIL),
        ],
    )
    address = (
        [Code(caption=_("For engineers: address of the off-site store"), lines=[preflight.store])]
        if (preflight := records.result(PREFLIGHT))
        else []
    )
    return Section(heading=_("Restore points of this run"), blocks=[table, *address])


def _tables(manifest: Manifest, database: MappedDatabase) -> Section:
    shown = sorted(manifest.tables, key=lambda table: (-table.rows, table.label))[:MOST_TABLES]
    blocks: list[Block] = [
        table_of(
            _(
                "For engineers: the {shown} largest of {total} tables",
                shown=len(shown),
                total=len(manifest.tables),
            ),
            shown,
            [
                (_("Table"), "code", lambda table: table.label),
                (_("Rows"), "number", lambda table: table.rows),
                (_("Size in the backup"), "bytes", lambda table: table.bytes),
                (_("Checksum (first characters)"), "code", lambda table: table.sha256[:12]),
            ],
        ),
        Paragraph(
            text=_(
                "The rows were counted in the same database snapshot from which the backup was "
                "made. The manifest of the backup, which is stored with this report, lists all "
                "tables with their complete checksums."
            )
        ),
    ]
    return Section(heading=_("Content of {database}", database=database.title), blocks=blocks)


def _keys(manifests: Mapping[str, Manifest], backed_up: Sequence[str]) -> list[Section]:
    if not backed_up:
        return []
    recipients = manifests[backed_up[0]].recipients
    return [
        Section(
            heading=_("Recipients who can decrypt these backups"),
            blocks=[
                table_of(
                    _("Any one of these recipients can decrypt a backup without the others"),
                    recipients,
                    [
                        (
                            _("Recipient"),
                            "text",
                            lambda recipient: _RECIPIENTS.get(recipient.name, recipient.name),
                        ),
                        (_("Kind"), "text", lambda recipient: _KEY_KINDS[recipient.kind]),
                        (_("Key"), "code", lambda recipient: recipient.key_id[:24]),
                        (
                            _("Valid until"),
                            "datetime",
                            lambda recipient: recipient.expires_at or _("no expiry"),
                        ),
                    ],
                )
            ],
        )
    ]


def _history(database: MappedDatabase, pruning: Pruning) -> Section:
    kept = {**pruning.kept, **dict.fromkeys(pruning.refused, Reason.LOCKED)}
    decisions = [(point, _("kept"), reason) for point, reason in kept.items()]
    decisions += [(point, _("removed"), reason) for point, reason in pruning.removed.items()]
    return Section(
        heading=_("Restore points of {database}", database=database.title),
        blocks=[
            TrendChart(
                caption=_("Encrypted size of each restore point"),
                unit="bytes",
                points=[TrendPoint(at=moment, value=size) for moment, size in pruning.history],
            ),
            table_of(
                _("Restore points kept and removed"),
                decisions,
                [
                    (_("Restore point"), "code", lambda decision: decision[0]),
                    (_("Decision"), "text", lambda decision: decision[1]),
                    (_("Reason"), "text", lambda decision: decision[2].message),
                ],
            ),
        ],
    )


def _meaning() -> Section:
    return Section(
        heading=_("Scope and limits of this report"),
        blocks=[
            Steps(
                items=[
                    _("Each restore point above is one consistent snapshot, and is encrypted."),
                    _(
                        "The off-site store confirmed the checksum of each stored object. If "
                        "the off-site store is a directory, the run read each object again and "
                        "compared it instead."
                    ),
                    _(
                        "This report does not prove that a backup can be restored. Only a "
                        "restore drill proves this."
                    ),
                ]
            )
        ],
    )
