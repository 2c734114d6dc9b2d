"""What a run of `backup_offsite` adds up to, for machines and for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from include.backup.manifest import Manifest
from include.backup.preflight import CLAUSE
from include.backup.prune import Reason
from include.evidence.model import Finding, Metric, Outcome, StepRecord
from include.messages import Message, _, verbatim
from include.policy.datamap import MappedDatabase
from include.reports.conclusion import Conclusion, by_step, missing_record, not_asked_for, worst
from include.reports.model import (
    Column,
    Fact,
    Paragraph,
    Section,
    Steps,
    Table,
    TrendChart,
    TrendPoint,
    table_of,
)

TITLE = _("Off-site backup")
MOST_TABLES = 15  # rows of the table list in a report; the manifest has them all


def conclude(
    records: Sequence[StepRecord],
    databases: Sequence[MappedDatabase],
    manifests: Mapping[str, Manifest],
    *,
    asked: Sequence[str],
) -> Conclusion:
    """Judge a run: every database it was asked for needs a verified restore point from this run.

    A record that is missing fails, and so does a run that was asked for nothing or for a database
    that nobody mapped.

    Args:
        records: what the steps left.
        databases: all that the data map names.
        manifests: restore points of this run, by database.
        asked: names the run was asked for; the rest is noted, so that nobody takes it for done.
    """
    steps = by_step(records)
    left_out = [one for one in databases if one.name not in asked]
    databases = [one for one in databases if one.name in asked]
    findings = [finding for record in records for finding in record.findings]
    if ("preflight", "") not in steps:
        findings.append(
            missing_record(_("The preflight"), "backup_offsite", "backup.no_preflight", CLAUSE)
        )
    for database in databases:
        findings += _missing(steps, database.name, manifests)
    for name in sorted({*asked} - {one.name for one in databases}) if asked else ["backup_offsite"]:
        findings.append(missing_record(_("The backup"), name, "backup.missing", CLAUSE))
    findings += [not_asked_for(one.name, "backup.left_out", CLAUSE) for one in left_out]
    made = [name for name in (database.name for database in databases) if name in manifests]
    outcome = worst(records, findings)
    return Conclusion(
        title=TITLE,
        summary=_summary(len(made), len(databases), len(left_out), outcome),
        outcome=outcome,
        findings=findings,
        metrics=[
            *(metric for record in records for metric in record.metrics),
            *_indicators(databases, made, left_out, steps),
        ],
        facts=_facts(databases, manifests, steps),
        sections=[
            _points(databases, manifests, steps),
            *[_tables(manifests[name]) for name in made],
            *_keys(manifests, made),
            *[_history(steps[("prune", name)]) for name in made if _has_data(steps, name)],
            *([_meaning()] if made else []),
        ],
    )


def _indicators(
    databases: Sequence[MappedDatabase],
    made: Sequence[str],
    left_out: Sequence[MappedDatabase],
    steps: Mapping[tuple[str, str], StepRecord],
) -> list[Metric]:
    """Return the figures by which controls.yaml judges a backup; None where nobody can tell."""
    without = len(databases) - len(made)
    all_asked = bool(databases) and not left_out
    preflight = steps.get(("preflight", ""))
    sites = preflight.data.get("at_primary_site", {}) if preflight else {}
    at_primary = [sites.get(name) for name in made]
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
    steps: Mapping[tuple[str, str], StepRecord], database: str, manifests: Mapping[str, Manifest]
) -> list[Finding]:
    record = steps.get(("backup", database))
    if record is None:
        return [missing_record(_("The backup"), database, "backup.missing", CLAUSE)]
    if database not in manifests and record.outcome is not Outcome.FAIL:
        return [missing_record(_("The backup"), database, "backup.unsigned", CLAUSE)]
    if ("prune", database) not in steps and record.outcome is not Outcome.FAIL:
        return [
            missing_record(
                _("The pruning of old restore points"), database, "prune.missing", CLAUSE
            )
        ]
    return []


def _summary(made: int, wanted: int, left_out: int, outcome: Outcome) -> Message:
    values = {"made": made, "wanted": wanted}
    if made < wanted:
        return _(
            "Only {made} of {wanted} databases have a verified encrypted backup from this run.",
            **values,
        )
    if left_out:
        return _(
            "This run was asked for {made} of {mapped} databases; those have a verified backup.",
            made=made,
            mapped=wanted + left_out,
        )
    if outcome is Outcome.FAIL:
        return _("Every database was backed up, but something else is wrong: see the findings.")
    if outcome is Outcome.ATTENTION:
        return _(
            "Every mapped database has a verified encrypted backup; something needs attention."
        )
    return _("Every mapped database has a verified encrypted backup at another site.")


def _facts(
    databases: Sequence[MappedDatabase],
    manifests: Mapping[str, Manifest],
    steps: Mapping[tuple[str, str], StepRecord],
) -> list[Fact]:
    preflight = steps.get(("preflight", ""))
    manifests = {one.name: manifests[one.name] for one in databases if one.name in manifests}
    taken = [manifest.taken_at for manifest in manifests.values()]
    all_made = len(manifests) == len(databases)
    return [
        Fact(
            label=_("Databases backed up"),
            value=_("{made} of {wanted}", made=len(manifests), wanted=len(databases)),
            status=Outcome.PASS if all_made else Outcome.FAIL,
        ),
        Fact(label=_("State of the data"), value=min(taken) if taken else None),
        Fact(
            label=_("Rows"),
            value=sum(manifest.rows for manifest in manifests.values()) if manifests else None,
            unit="rows",
        ),
        Fact(
            label=_("Encrypted size"),
            value=sum(one.dump.size for one in manifests.values()) if manifests else None,
            unit="bytes",
        ),
        Fact(
            label=_("Off-site store"),
            value=_store_kind(preflight) if preflight and preflight.data else None,
            note=verbatim(str(preflight.data["store"])) if preflight and preflight.data else None,
            status=preflight.outcome if preflight and preflight.data else None,
        ),
        Fact(
            label=_("Sites, as declared"),
            value=_sites(databases, preflight),
        ),
    ]


def _sites(databases: Sequence[MappedDatabase], preflight: StepRecord | None) -> Message | None:
    if not preflight or not preflight.data:
        return None
    store = preflight.data.get("sites", {}).get("store")
    primary = sorted({one.site for one in databases if one.site})
    if not store or not primary:
        return _("not declared")
    return _("{primary}; backups at {store}", primary=", ".join(primary), store=store)


def _store_kind(preflight: StepRecord) -> Message:
    return _("S3 bucket") if preflight.data.get("store_kind") == "s3" else _("directory")


def _points(
    databases: Sequence[MappedDatabase],
    manifests: Mapping[str, Manifest],
    steps: Mapping[tuple[str, str], StepRecord],
) -> Section:
    rows: list[list[object]] = []
    for database in databases:
        manifest = manifests.get(database.name)
        record = steps.get(("backup", database.name))
        outcome = record.outcome if record and manifest else Outcome.FAIL
        if manifest is None:
            rows.append([database.title, None, None, None, None, None, outcome])
            continue
        rows.append(
            [
                database.title,
                manifest.id,
                manifest.taken_at,
                manifest.rows,
                manifest.dump.size,
                record.data["seconds"] if record else None,
                outcome,
            ]
        )
    return Section(
        heading=_("Restore points of this run"),
        blocks=[
            Table(
                caption=_("One row per mapped database"),
                columns=[
                    Column(label=_("Database")),
                    Column(label=_("Restore point"), kind="code"),
                    Column(label=_("State of the data"), kind="datetime"),
                    Column(label=_("Rows"), kind="number"),
                    Column(label=_("Encrypted size"), kind="bytes"),
                    Column(label=_("Took"), kind="duration"),
                    Column(label=_("Outcome"), kind="outcome"),
                ],
                rows=rows,
            )
        ],
    )


def _tables(manifest: Manifest) -> Section:
    shown = sorted(manifest.tables, key=lambda table: (-table.rows, table.label))[:MOST_TABLES]
    blocks: list[Paragraph | Table] = [
        table_of(
            _("The {shown} largest of {all} tables", shown=len(shown), all=len(manifest.tables)),
            shown,
            [
                (_("Table"), "code", lambda table: table.label),
                (_("Rows"), "number", lambda table: table.rows),
                (_("Size in the dump"), "bytes", lambda table: table.bytes),
                (_("Checksum (start)"), "code", lambda table: table.sha256[:12]),
            ],
        ),
        Paragraph(
            text=_(
                "Rows were counted in the same snapshot that was dumped. All tables with full "
                "checksums are in the manifest that lies beside this report."
            )
        ),
    ]
    return Section(heading=_("What {database} contains", database=manifest.database), blocks=blocks)


def _keys(manifests: Mapping[str, Manifest], made: Sequence[str]) -> list[Section]:
    if not made:
        return []
    recipients = manifests[made[0]].recipients
    return [
        Section(
            heading=_("Who can open these backups"),
            blocks=[
                table_of(
                    _("Holders of a key; each of them alone can open a backup"),
                    recipients,
                    [
                        (_("Recipient"), "text", lambda recipient: recipient.name),
                        (_("Kind"), "code", lambda recipient: recipient.kind),
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


def _has_data(steps: Mapping[tuple[str, str], StepRecord], database: str) -> bool:
    record = steps.get(("prune", database))
    return record is not None and "kept" in record.data  # a prune that failed has none


def _history(record: StepRecord) -> Section:
    history = record.data["history"]
    kept, removed = dict(record.data["kept"]), record.data["removed"]
    kept |= dict.fromkeys(record.data.get("refused", ()), Reason.LOCKED)
    rows: list[list[object]] = [
        [point, _("kept"), Reason(reason).message] for point, reason in kept.items()
    ]
    rows += [[point, _("removed"), Reason(reason).message] for point, reason in removed.items()]
    return Section(
        heading=_("Restore points of {database} kept", database=record.part),
        blocks=[
            TrendChart(
                caption=_("Encrypted size of each restore point"),
                unit="bytes",
                points=[
                    TrendPoint(at=datetime.fromisoformat(moment), value=size)
                    for moment, size in history
                ],
            ),
            Table(
                caption=_("Decisions of pruning"),
                columns=[
                    Column(label=_("Restore point"), kind="code"),
                    Column(label=_("Decision")),
                    Column(label=_("Reason")),
                ],
                rows=rows,
            ),
        ],
    )


def _meaning() -> Section:
    return Section(
        heading=_("What this report proves, and what it does not"),
        blocks=[
            Steps(
                items=[
                    _("Each restore point above comes from one consistent snapshot, encrypted."),
                    _(
                        "The store confirmed the checksum of its stored object; "
                        "a directory is read again."
                    ),
                    _("That it can be restored is proven by the restore drill, not here."),
                ]
            )
        ],
    )
