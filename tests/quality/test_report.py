"""The report says what was looked at, and shows no figure of another moment as today's."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from include.evidence.model import StepRecord
from include.quality import report
from include.registry import load_pack
from include.reports.conclusion import Conclusion
from include.reports.model import Table
from include.workflow.run_records import RunRecords
from tests.policy.packs import write_pack
from tests.quality.support import MAP, SUITE, Checked, Company


def concluded(company: Company, record: StepRecord) -> Conclusion:
    """The conclusion of a run that left this record."""
    run: Any = SimpleNamespace(pack=company.pack, state=company.state, wanted_databases=["shop"])
    return report.conclude(run, RunRecords([record]))


def captions(found: Conclusion) -> list[str]:
    """Of the tables of rules, in English, without what they quote."""
    blocks = [block for section in found.sections for block in section.blocks]
    return [block.caption.text for block in blocks if isinstance(block, Table) and block.caption]


def unread(company: Company, database: str) -> Checked:
    """A check of records that somebody has locked."""
    with psycopg.connect(database, autocommit=True) as admin:
        user, name = admin.info.user, admin.info.dbname
        admin.execute(f'ALTER ROLE "{user}" IN DATABASE "{name}" SET lock_timeout = 300'.encode())
    with psycopg.connect(database) as somebody:
        somebody.execute("LOCK person")
        return company.check()


def test_what_was_not_looked_at_has_no_figures(company: Company, database: str) -> None:
    """No sum of some rules, no departments of an earlier check, no number of records."""
    company.do("UPDATE person SET name = '' WHERE id < 3")
    assert len(company.collection(company.check())["parts"]) == 2
    done = unread(company, database)
    assert company.collection(done)["parts"] == []
    (broken,) = [one.value for one in done.record.metrics if one.name == "quality.broken"]
    assert broken is None
    found = concluded(company, done.record)
    assert captions(found) == ["{collection}: it was not examined"]
    (looked,) = [one for one in found.facts if one.label.text == "Records looked at"]
    assert looked.note
    assert looked.note.values["names"] == "person"


def test_an_incremental_check_states_what_it_does_not_see(company: Company) -> None:
    """When the next full check is due, which expectations wait for it, and what was read."""
    company.check()
    assert not not_seen(concluded(company, company.check(full=True).record))
    done = company.check()
    found = concluded(company, done.record)
    (caption,) = captions(found)
    assert caption.startswith("{collection}: incremental check of {looked} changed records")
    blocks = not_seen(found)
    assert blocks["paragraph"].text.values["due"] == (company.at + timedelta(days=6)).date()
    items = [item.text for item in blocks["steps"].items]
    assert any(item.startswith("new breaches of expectations that compare") for item in items)
    assert any(item.startswith("records that were loaded late") for item in items)
    assert any(item.startswith("that a primary key changed") for item in items)
    assert not any("open transactions" in item for item in items)  # this reader sees them
    assert blocks["code"].lines[0].startswith("updated_at >= 2026-01-02 15:59:59")
    table = next(
        block
        for section in found.sections
        for block in section.blocks
        if isinstance(block, Table) and block.caption
    )
    examined = {row[1]: row[3].text for row in table.rows}
    assert examined["named"] == "changed records"
    assert examined["twin"] == "by the last full check"


def test_column_of_numbers_is_not_said_to_hide_transactions(
    database: str, state: str, tmp_path: Path
) -> None:
    """Its margin is a number, and the rights of the reader change nothing."""
    company = Company.make(
        database,
        state,
        tmp_path / "p",
        datamap__shop=MAP.replace("updated_at, fides", "version, fides"),
        quality__person=SUITE.replace("updated_at", "version").replace("PT1S", "3"),
    )
    company.do(
        "ALTER TABLE person ADD version bigint",
        "UPDATE person SET version = id",
        "CREATE INDEX ON person (version)",
    )
    company.check()
    items = [
        item.text for item in not_seen(concluded(company, company.check().record))["steps"].items
    ]
    assert not any("transaction" in item for item in items)
    assert items[-1].startswith("records that were committed after the last check")


@pytest.mark.parametrize(("kind", "is_named"), [("timestamp", True), ("timestamptz", False)])
def test_report_names_other_timezones_of_a_column_without_timezone(
    company: Company, kind: str, is_named: bool
) -> None:
    """The start of an open transaction limits the watermark in these two timezones only."""
    company.do(f"ALTER TABLE person ALTER updated_at TYPE {kind}")
    company.check()
    items = not_seen(concluded(company, company.check().record))["steps"].items
    assert any("in another timezone" in item.text for item in items) is is_named


def not_seen(found: Conclusion) -> dict[str, Any]:
    """The blocks of the statement, by kind."""
    blocks = [block for section in found.sections for block in section.blocks]
    for at, block in enumerate(blocks):
        if block.kind == "paragraph" and "was incremental" in block.text.text:
            return {one.kind: one for one in blocks[at : at + 3]}
    return {}


def test_a_record_of_an_earlier_version_is_summarised(company: Company) -> None:
    """A run that was begun before an upgrade is sealed after it."""
    company.check()
    record = company.check().record
    for one in record.data["collections"]:
        for new in ("whole_because", "incremental"):
            del one[new]
        for rule in one["rules"]:
            del rule["examined"]
    assert captions(concluded(company, record)) != []
    whole = company.check(full=True).record
    for one in whole.data["collections"]:
        del one["whole_because"]
    assert captions(concluded(company, whole)) == ["{collection}: all {rows} records"]


def test_incoming_collections_are_not_called_unexpected(company: Company, tmp_path: Path) -> None:
    """They have expectations, which `review_intake` checks."""
    incoming = SUITE.replace("collection: person", "collection: consent\n  incoming: true", 1)
    lines = incoming.splitlines()
    incoming = "\n".join(
        one
        for one in lines
        if not any(word in one for word in ("breakdown", "changed"))
        and ("kwargs" not in one or "named" in one)
    ).replace("column: name", "column: purpose")
    company.pack = load_pack(
        write_pack(
            tmp_path / "q",
            datamap__shop=MAP,
            quality__person=SUITE,
            quality__consent=incoming,
            intake=INTAKE,
        )
    )
    found = concluded(company, company.check().record)
    texts = [
        block.text.values
        for section in found.sections
        for block in section.blocks
        if hasattr(block, "text") and block.text.text.startswith("The policy pack expects nothing")
    ]
    assert [one["names"] for one in texts] == ["branch"]


INTAKE = """\
- id: forms
  collection: consent
  batch: purpose
  state: {column: purpose, pending: new, promoted: in, rejected: out}
  entered: {by: purpose, at: purpose}
  reviewed: {by: purpose, at: purpose}
  back_reference: {column: person_id, key: new}
  people: {collection: branch, key: id, account: name, reviewers: "true"}
  sample: {fields: [purpose]}
  targets: [{collection: person, keys: {new: id}, columns: {id: i.new}}]
"""
