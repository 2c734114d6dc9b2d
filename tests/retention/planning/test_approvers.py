"""Who may approve a plan: never an owner of the schedule, nor who started the run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from include.local.postgres import EmbeddedPostgres
from include.policy.retention import Approval
from include.retention.planning.approval import People, people_of
from tests.retention.yard import Yard, yard

STAFF = """
CREATE TABLE "staff %" (number text, "duty %" text, away boolean);
INSERT INTO "staff %" VALUES ('ana', 'owner', false), ('bo', 'checker', false),
  ('chen', 'checker', true), ('dai', 'checker', NULL), (NULL, 'checker', false),
  ('eva', 'checker', false), ('eva', 'clerk', false),
  ('fu', 'checker', false), ('fu', 'checker', false);
"""


@pytest.fixture(scope="module")
def place(postgres: EmbeddedPostgres) -> Iterator[Yard]:
    with yard(postgres, STAFF, mapped={"employee": "staff %"}) as made:
        yield made


def asked(place: Yard, starter: str | None = None, **rule: Any) -> People:
    made = Approval.model_validate(
        {"staff": {"collection": "employee", "account": "number"}, **rule}
    )
    return people_of(place.connection, place.database, made, [starter] if starter else [])


CHECKERS = {"where": """p."duty %" = 'checker' AND NOT p.away"""}
OWNERS = {"where": """p."duty %" LIKE 'own%'"""}


def test_groups_are_read_from_the_staff_table(place: Yard) -> None:
    """An unknown is no yes, and an account that two people have is nobody's."""
    found = asked(place, owners=OWNERS, approvers=CHECKERS)
    assert found == People(("ana",), ("bo",))


def test_accounts_and_a_condition_add_up(place: Yard) -> None:
    """Each once, those that are named first."""
    found = asked(place, owners=OWNERS, approvers={**CHECKERS, "accounts": ["zoe", "bo"]})
    assert found.approvers == ("zoe", "bo")


def test_an_owner_in_another_spelling_may_not_approve(place: Yard) -> None:
    """Nor one who started the run under it, nor an account that two rows spell in two ways."""
    both = {"accounts": ["ANA", "bo", "Ｃho"]}
    found = asked(place, "cho", owners={"accounts": ["ana"]}, approvers=both)
    assert found.approvers == ("bo",)
    place.connection.execute("""INSERT INTO "staff %" VALUES ('BO', 'clerk', false)""")
    try:
        assert asked(place, owners=OWNERS, approvers=CHECKERS).approvers == ()
    finally:
        place.connection.execute("""DELETE FROM "staff %" WHERE number = 'BO'""")


def test_who_is_of_both_groups_or_started_the_run_may_not_approve(place: Yard) -> None:
    """Four eyes."""
    both = {"accounts": ["ana", "bo", "cho"]}
    found = asked(place, "cho", owners={"accounts": ["ana"]}, approvers=both)
    assert found == People(("ana", "cho"), ("bo",))
    assert asked(place, "ana", owners={}, approvers={"accounts": ["ana"]}) == People(("ana",), ())


def test_an_owner_on_leave_is_an_owner_still(place: Yard) -> None:
    """The shipped pack's condition of owners does not ask; ours here neither."""
    place.run("UPDATE \"staff %\" SET away = true WHERE number = 'ana'")
    found = asked(place, owners=OWNERS, approvers={"accounts": ["ana", "bo"]})
    assert found == People(("ana",), ("bo",))


def test_an_owner_with_two_rows_is_an_owner_still(place: Yard) -> None:
    """Who is left out in doubt may not approve; who is left out of the owners could."""
    place.run("""
    INSERT INTO "staff %" VALUES ('gao', 'owner', false), ('gao', 'checker', false),
        ('hu', 'owner', false), ('hu', 'owner', false);
    """)
    found = asked(place, owners=OWNERS, approvers={"accounts": ["gao", "hu", "bo"]})
    assert found == People(("ana", "gao", "hu"), ("bo",))


def test_without_a_staff_table_only_accounts_count() -> None:
    """As in a pack that names them."""
    rule = Approval.model_validate({"owners": {"accounts": "ana"}, "approvers": {"accounts": "bo"}})
    assert people_of(None, None, rule, ()) == People(("ana",), ("bo",))
    assert people_of(None, None, Approval(), ["ana"]) == People(("ana",), ())
