"""The quality report states which records were examined, and shows no outdated count as current."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from include.evidence.model import StepRecord
from include.messages import in_english
from include.quality import report
from include.registry import load_pack
from include.reports.conclusion import Conclusion
from include.reports.model import Table
from include.workflow.run_records import RunRecords
from tests.policy.packs import write_pack
from tests.quality.support import MAP, SUITE, Checked, Company


def concluded(company: Company, record: StepRecord) -> Conclusion:
    """Return the conclusion of a run that has the given step record."""
    run: Any = SimpleNamespace(pack=company.pack, state=company.state, requested_databases=["shop"])
    return report.conclude(run, RunRecords([record]))


def captions(conclusion: Conclusion) -> list[str]:
    """Return the English captions of the expectation tables, with placeholders for values."""
    blocks = [block for section in conclusion.sections for block in section.blocks]
    return [block.caption.text for block in blocks if isinstance(block, Table) and block.caption]


def check_locked(company: Company, database: str) -> Checked:
    """Check the company's database while another session locks the records."""
    with psycopg.connect(database, autocommit=True) as admin:
        user, name = admin.info.user, admin.info.dbname
        admin.execute(f'ALTER ROLE "{user}" IN DATABASE "{name}" SET lock_timeout = 300'.encode())
    with psycopg.connect(database) as other_session:
        other_session.execute("LOCK person")
        return company.check()


def test_report_shows_no_counts_for_collection_that_was_not_examined(
    company: Company, database: str
) -> None:
    """It shows no partial sum, no department of an earlier check and no number of records."""
    company.do("UPDATE person SET name = '' WHERE id < 3")
    assert len(company.collection(company.check())["parts"]) == 2
    checked = check_locked(company, database)
    assert company.collection(checked)["parts"] == []
    (broken,) = [
        metric.value for metric in checked.record.metrics if metric.name == "quality.broken"
    ]
    assert broken is None
    conclusion = concluded(company, checked.record)
    assert captions(conclusion) == ["{collection}: not examined"]
    (examined,) = [fact for fact in conclusion.facts if fact.label.text == "Records examined"]
    assert examined.note
    assert (
        in_english(examined.note)
        == "of 0 records; the records of these collections could not be counted: person"
    )


def test_report_of_incremental_check_lists_types_of_changes_that_the_check_cannot_detect(
    company: Company,
) -> None:
    """The report states the due date of the next full check, and the SQL condition for changes."""
    company.check()
    assert not unseen_changes(concluded(company, company.check(full=True).record))
    checked = company.check()
    conclusion = concluded(company, checked.record)
    (caption,) = captions(conclusion)
    assert caption.startswith("{collection}: incremental check of {examined} changed records")
    blocks = unseen_changes(conclusion)
    assert blocks["paragraph"].text.values["due"] == (company.at + timedelta(days=6)).date()
    items = [item.text for item in blocks["steps"].items]
    assert any(item.startswith("new breaches of expectations that compare") for item in items)
    assert any(item.startswith("records that were loaded late") for item in items)
    assert any(item.startswith("records whose primary key was changed") for item in items)
    # This login can see open transactions.
    assert not any("open transactions" in item for item in items)
    assert blocks["code"].lines[0].startswith("updated_at >= 2026-01-02 15:59:59")
    table = next(
        block
        for section in conclusion.sections
        for block in section.blocks
        if isinstance(block, Table) and block.caption
    )
    examined = {in_english(row[0]): row[3].text for row in table.rows}
    assert examined["Named"] == "changed records"
    assert examined["Once"] == "records as of the last full check"


def test_report_does_not_mention_open_transactions_if_change_column_is_a_number(
    database: str, state: str, tmp_path: Path
) -> None:
    """The margin of such a column is a number, so open transactions do not matter."""
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
        item.text
        for item in unseen_changes(concluded(company, company.check().record))["steps"].items
    ]
    assert not any("transaction" in item for item in items)
    assert items[-1].startswith("records that were committed after the last check")


@pytest.mark.parametrize(("kind", "is_named"), [("timestamp", True), ("timestamptz", False)])
def test_report_warns_about_other_timezones_if_change_column_is_timestamp_without_timezone(
    company: Company, kind: str, is_named: bool
) -> None:
    """An open transaction limits the watermark correctly only for UTC and the server's timezone."""
    company.do(f"ALTER TABLE person ALTER updated_at TYPE {kind}")
    company.check()
    items = unseen_changes(concluded(company, company.check().record))["steps"].items
    assert any("in a timezone other than" in item.text for item in items) is is_named


def unseen_changes(conclusion: Conclusion) -> dict[str, Any]:
    """Return the report blocks about changes that the check cannot see, by kind of block."""
    blocks = [block for section in conclusion.sections for block in section.blocks]
    for at, block in enumerate(blocks):
        if block.kind == "paragraph" and "was incremental" in block.text.text:
            return {block.kind: block for block in blocks[at : at + 3]}
    return {}


def test_report_can_be_built_from_step_record_of_earlier_program_version(company: Company) -> None:
    """A run that started before an upgrade may be sealed after it."""
    company.check()
    record = company.check().record
    for collection in record.data["collections"]:
        for new_field in ("whole_because", "incremental"):
            del collection[new_field]
        for rule in collection["rules"]:
            del rule["examined"]
    assert captions(concluded(company, record)) != []
    full_record = company.check(full=True).record
    for collection in full_record.data["collections"]:
        del collection["whole_because"]
    assert captions(concluded(company, full_record)) == ["{collection}: all {rows} records"]


def test_report_omits_incoming_collection_from_list_of_collections_without_expectations(
    company: Company, tmp_path: Path
) -> None:
    """The workflow `review_intake` checks the expectations for incoming collections."""
    incoming = SUITE.replace("collection: person", "collection: consent\n  incoming: true", 1)
    lines = incoming.splitlines()
    incoming = "\n".join(
        line
        for line in lines
        if not any(word in line for word in ("breakdown", "changed"))
        and ("kwargs" not in line or "named" in line)
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
    conclusion = concluded(company, company.check().record)
    texts = [
        in_english(block.text)
        for section in conclusion.sections
        for block in section.blocks
        if hasattr(block, "text")
        and block.text.text.startswith("The policy pack has no expectations")
    ]
    (text,) = texts
    assert text.endswith("their records were not checked: branch.")


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
