"""The check refuses wrong requests before their approval, and attaches one run to a request."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from include.disclosure.content import UsePlan
from include.disclosure.extract_store import STORE
from include.disclosure.use_check import CHECK, CheckedRequest
from include.services.connections import ConnectionSpec
from include.services.errors import CouldNotRun, UsageError
from tests.disclosure.use_fixtures import RULES, UseCompany, content, erase, new_pack


def plan_of(company: UseCompany, **more: Any) -> UsePlan:
    """Return the plan of a prepared request."""
    return company.request(**more).plan


def form(**more: Any) -> dict[str, Any]:
    """Return the parameters of a run that Airflow's form would pass."""
    return {
        "action": "request",
        "purpose": "delivery",
        "collection": "shop.customer",
        "fields": ["shop.customer.customer_id", "shop.customer.name"],
        "code_column": "shop.customer.status",
        "codes": ["active"],
        "days": 2,
        "case": "C-9",
        "form": "xlsx",
    } | more


def test_check_stores_the_request_of_the_form(company: UseCompany) -> None:
    run = company.start(by="clerk", **form())
    result = CheckedRequest.model_validate(run.step(CHECK).data)
    assert (result.plan.records, result.plan.people, result.plan.minors) == (5, 5, 0)
    assert result.content.requester == "clerk"
    assert not result.plan.needs_second_approval


def test_repeated_check_keeps_the_request(company: UseCompany) -> None:
    run = company.start(by="clerk", **form())
    first, second = run.step(CHECK), run.step(CHECK)
    assert first.data["request"] == second.data["request"]
    with company.state.connect() as conn:
        assert conn.scalar(text("SELECT count(*) FROM use_request")) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"purpose": None}, "“Purpose” is empty"),
        ({"fields": []}, "“Fields” is empty"),
        ({"case": " "}, "“Case reference” is empty"),
        ({"days": 8}, "at most 7 days"),
        ({"days": 0}, "days: "),
        ({"fields": ["shop.customer.religion"]}, "not one of the options"),
        ({"code_column": None}, "No selection of records"),
        ({"codes": []}, "The selection by status is wrong"),
        ({"date_column": "shop.customer.created_at", "date_from": "2026-13-01"}, "wrong"),
        (
            {"date_column": "shop.customer.created_at", "date_from": "2026-12-02",
             "date_to": "2026-12-01"},
            "ends before it starts",
        ),
        ({"number_column": "shop.customer.weight", "number_from": "NaN"}, "not a number"),
        ({"unmasked": ["shop.customer.id_number"]}, "Unmasked fields that were not requested"),
        ({"form": "age"}, "needs its age key"),
        ({"codes": ["nobody"]}, "matches no record"),
        ({"fields": ["shop.customer.birth_date"]}, "does not need these fields: birth_date"),
        ({"key_column": "shop.customer.customer_id"}, "no keys were entered"),
    ],
)  # fmt: skip
def test_check_refuses_wrong_form(
    company: UseCompany, change: dict[str, Any], message: str
) -> None:
    run = company.start(by="clerk", **form(**change))
    with pytest.raises(CouldNotRun, match=message):
        run.step(CHECK)


@pytest.mark.parametrize(
    ("person", "message"),
    [
        ("novice", "no valid training"),
        ("leaver", "not an active employee"),
        ("stranger", "not an active employee"),
        ("boss", "no active supervisor"),
    ],
)
def test_check_refuses_requester(company: UseCompany, person: str, message: str) -> None:
    with pytest.raises(CouldNotRun, match=message):
        company.start(by=person, **form()).step(CHECK)


def test_check_refuses_run_that_nobody_triggered(company: UseCompany) -> None:
    with pytest.raises(CouldNotRun, match="No person triggered"):
        company.start(by=None, **form()).step(CHECK)


def test_check_refuses_prepared_request_of_another_person(company: UseCompany) -> None:
    number = company.request().id
    with pytest.raises(CouldNotRun, match="belongs to another employee"):
        company.start(by="lead", request=number).step(CHECK)


def test_check_refuses_second_run_for_one_request(company: UseCompany) -> None:
    number = company.request().id
    company.start(request=number).step(CHECK)
    with pytest.raises(CouldNotRun, match="Another run already asks"):
        company.start(request=number).step(CHECK)


def test_check_refuses_request_if_the_pack_changed_its_masks(company: UseCompany) -> None:
    number = company.request().id
    collection = RULES.collections[0].model_copy(update={"masks": {"name": "show"}})
    company.pack = new_pack(RULES.model_copy(update={"collections": (collection,)}))
    with pytest.raises(CouldNotRun, match="changed since the request was prepared"):
        company.start(request=number).step(CHECK)


def test_check_refuses_without_extract_store(company: UseCompany) -> None:
    company.extract_spec = None
    with pytest.raises(CouldNotRun, match="Extracts are not configured"):
        company.start(by="clerk", **form()).step(CHECK)


def test_check_refuses_store_without_password_key(company: UseCompany) -> None:
    company.extract_spec = ConnectionSpec(STORE, "fs", extra={"path": str(company.folder)})
    with pytest.raises(CouldNotRun, match="no secret for the passwords"):
        company.start(by="clerk", **form()).step(CHECK)


def test_plan_counts_minors_and_asks_for_second_approval(company: UseCompany) -> None:
    company.add_customers(2, birth_date="2015-01-01")
    plan = plan_of(company)
    assert (plan.records, plan.minors, plan.needs_second_approval) == (7, 2, True)


def test_plan_without_rule_for_minors_needs_second_approval(company: UseCompany) -> None:
    collection = RULES.collections[0].model_copy(update={"minor": None})
    company.pack = new_pack(RULES.model_copy(update={"collections": (collection,)}))
    plan = plan_of(company)
    assert (plan.minors, plan.needs_second_approval) == (None, True)


def test_plan_counts_unknown_keys_and_ignores_other_text(company: UseCompany) -> None:
    keys = frozenset({"1", "2", "99", "x'; DROP TABLE customer; --", "=1+1", "9" * 30})
    plan = plan_of(company, keys=keys)
    assert (plan.records, plan.unknown_keys) == (2, 4)


def test_plan_leaves_out_people_with_an_open_erasure_request(company: UseCompany) -> None:
    erase(company, "3")
    plan = plan_of(company)
    assert (plan.records, plan.people, plan.excluded) == (4, 4, 1)


def test_request_content_refuses_changed_list_of_keys(company: UseCompany) -> None:
    from include.disclosure.use_check import prepare_request

    keys = frozenset({"1"})
    with company.state.begin() as conn, pytest.raises(UsageError, match="keys changed"):
        prepare_request(
            company.context(), conn, content(keys=keys), frozenset({"2"}), company.clock.now()
        )


def test_check_refuses_workbook_with_more_records_than_excel_files_may_have(
    company: UseCompany, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("include.disclosure.planning.MAX_XLSX_ROWS", 4)
    with pytest.raises(CouldNotRun, match="Choose the ZIP file"):
        company.start(by="clerk", **form()).step(CHECK)
    company.start(by="clerk", **form(form="zip")).step(CHECK)
