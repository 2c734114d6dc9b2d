"""The report says what was looked at, and shows no figure of another moment as today's."""

# ruff: noqa: E501 - an expectation is easier to read in one line

from __future__ import annotations

from pathlib import Path

import psycopg

from include.evidence.model import StepRecord
from include.policy import load_pack
from include.quality import report
from include.quality.check import Checked
from include.reports.conclusion import Conclusion
from include.reports.model import Table
from tests.policy.packs import write_pack
from tests.quality.support import MAP, SUITE, Company

LISTED = (
    SUITE
    + """\
    - {id: branch, type: expect_column_values_to_exist_in, kwargs: {column: branch_id, collection: branch, field: id}, severity: fail, clause: "4.1", title: {en: Branch, zh-CN: 分部}}
"""
)


def concluded(company: Company, record: StepRecord) -> Conclusion:
    """The conclusion of a run that left this record."""
    suites = {
        "shop": [
            *company.pack.suites_of("shop"),
            *company.pack.suites_of("shop", incoming=True),
        ]
    }
    return report.conclude([record], [company.pack.database("shop")], suites, {}, asked=["shop"])


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
    assert captions(found) == ["{collection}: it was not looked at"]
    (looked,) = [one for one in found.facts if one.label.text == "Records looked at"]
    assert looked.note
    assert looked.note.values["names"] == "person"


def test_a_rule_that_was_held_against_all_records_is_named(
    database: str, state: str, tmp_path: Path
) -> None:
    """Beside how few records the others looked at."""
    company = Company.make(database, state, tmp_path / "p", quality__person=LISTED)
    company.check()
    company.do("UPDATE branch SET name = 'West' WHERE id = 1")
    done = company.check()
    assert company.collection(done)["looked_at"] == 0
    assert company.collection(done)["always"] == ["unique_phone", "branch"]
    (caption,) = captions(concluded(company, done.record))
    assert caption == "{what}; held against all of them: {rules}"


def test_a_record_of_an_earlier_version_is_summarised(company: Company) -> None:
    """A run that was begun before an upgrade is sealed after it."""
    company.check()
    record = company.check().record
    for one in record.data["collections"]:
        for new in ("counted", "whole_because", "always"):
            del one[new]
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
        one for one in lines if "breakdown" not in one and ("kwargs" not in one or "named" in one)
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
