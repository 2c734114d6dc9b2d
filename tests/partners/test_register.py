"""Tests of reading a partner register with faulty values."""

from __future__ import annotations

from datetime import date

import pytest
from sqlalchemy import text

from include.partners import register
from include.partners.rules import PartnerRules
from include.services.database import DatabaseAddress
from include.services.errors import ServiceError, UsageError
from tests.partners.partner_fixtures import PartnersCompany

MOBILE = "13800138000"


def fault_codes(register_read: register.Register) -> list[tuple[str, str]]:
    return [(fault.partner, fault.code) for fault in register_read.faults]


def test_load_register_reads_each_column_of_the_query_into_its_attribute(
    company: PartnersCompany,
) -> None:
    company.add_partner("A-7", grade="2", secrecy_to="2027-02-28", connected=False)
    register_read = company.register()
    (partner,) = register_read.partners.values()
    assert (partner.number, partner.name, partner.tier, partner.mail) == (
        "A-7", "Company A-7", 2, "privacy@A-7.example")  # fmt: skip
    assert (partner.nda_from, partner.nda_until) == (date(2020, 1, 1), date(2027, 2, 28))
    assert (partner.live, partner.is_unambiguous, register_read.faults, register_read.unnamed) == (
        False,
        True,
        [],
        0,
    )


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"secrecy_to": "2026-02-30"}, "partners.no_day", "nda_until"),
        ({"deal_to": "infinity"}, "partners.no_day", "agreement_until"),
        ({"deal_to": "31.12.2026"}, "partners.no_day", "agreement_until"),
        ({"secrecy_from": "next year"}, "partners.no_day", "nda_until"),
        ({"seen_on": "yesterday"}, "partners.no_day", "last_review_on"),
        ({"seen_on": "2026-06-02"}, "partners.reviewed_in_future", "last_review_on"),
        ({"secrecy_to": "2019-12-31"}, "partners.nda_backwards", "nda_until"),
        ({"grade": "3"}, "partners.unknown_tier", "tier"),
        ({"grade": None}, "partners.unknown_tier", "tier"),
        ({"grade": "-1"}, "partners.unknown_tier", "tier"),
    ],
)
def test_malformed_register_value_is_read_as_missing_and_reported(
    company: PartnersCompany, change: dict[str, str | None], code: str, field: str
) -> None:
    company.add_partner("1", **change)
    register_read = company.register()
    assert fault_codes(register_read) == [("1", code)]
    assert getattr(register_read.partners["1"], field) is None


def test_missing_date_in_partner_register_is_not_reported_as_a_fault(
    company: PartnersCompany,
) -> None:
    company.add_partner("1", secrecy_from=None, secrecy_to=None, deal_to="", seen_on=None)
    register_read = company.register()
    assert register_read.faults == []
    assert register_read.partners["1"].nda_until is None


def test_agreement_without_start_date_is_valid_and_reported(company: PartnersCompany) -> None:
    company.add_partner("1", secrecy_from=None)
    register_read = company.register()
    assert fault_codes(register_read) == [("1", "partners.nda_from_missing")]
    assert register_read.partners["1"].nda_until == date(2029, 12, 31)
    assert company.status("1").is_allowed


def test_partner_whose_access_value_is_missing_counts_as_having_access(
    company: PartnersCompany,
) -> None:
    company.add_partner("1", connected=None)
    register_read = company.register()
    assert fault_codes(register_read) == [("1", "partners.access_unclear")]
    assert register_read.partners["1"].live


def test_partner_with_several_register_rows_is_ambiguous_and_is_reported_once(
    company: PartnersCompany,
) -> None:
    company.add_partner("1", connected=False)
    company.add_partner("1", deal_to="nonsense")
    company.add_partner("1")
    company.add_partner("2")
    register_read = company.register()
    assert fault_codes(register_read) == [("1", "partners.twice")]
    assert (register_read.partners["1"].is_unambiguous, register_read.partners["1"].live) == (
        False,
        True,
    )
    assert register_read.partners["2"].is_unambiguous


@pytest.mark.parametrize(
    "code", [None, "", "  ", "a b", "1/2", "7#1", "x" * 65, "a\r\nb", "a\x85b"]
)
def test_register_row_without_valid_partner_number_is_counted_and_not_returned_as_partner(
    company: PartnersCompany, code: str | None
) -> None:
    company.add_partner(code or "0")
    company.sql("UPDATE ally SET code = %s", [code])
    register_read = company.register()
    assert (register_read.partners, register_read.unnamed) == ({}, 1)


def test_partner_name_with_line_breaks_becomes_single_line(company: PartnersCompany) -> None:
    company.add_partner("1", company="Nord\r\nBcc: all@evil.example\u2028\u202eX")
    register_read = company.register()
    assert register_read.partners["1"].name == "Nord Bcc: all@evil.example X"
    assert fault_codes(register_read) == [("1", "partners.name")]


def test_partner_name_with_mobile_number_is_not_stored(company: PartnersCompany) -> None:
    company.add_partner("1", company=f"Zhang {MOBILE}")
    register_read = company.register()
    assert (register_read.partners["1"].name, fault_codes(register_read)) == (
        "",
        [("1", "partners.name")],
    )
    assert MOBILE not in repr(register_read.faults)


def test_wide_spaces_in_partner_name_become_single_spaces(company: PartnersCompany) -> None:
    company.add_partner("1", company="Nord  und　Süd")
    register_read = company.register()
    assert (register_read.partners["1"].name, register_read.faults) == ("Nord und Süd", [])


def read_with_sql(company: PartnersCompany, sql: str) -> register.Register:
    run = company.context
    source = run.rules.source.model_copy(update={"sql": sql})
    rules: PartnerRules = run.rules.model_copy(update={"source": source})
    return register.read_register(run.reader("shop"), run.database("shop"), rules, run.today)


def test_error_about_register_query_contains_names_of_missing_columns(
    company: PartnersCompany,
) -> None:
    with pytest.raises(UsageError, match="lacks the columns name, tier, mail"):
        read_with_sql(company, "SELECT code AS partner FROM ally")


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1 FROM nowhere", 'relation "nowhere" does not exist'),
        ("SELECT FROM", "syntax error"),
        ("DELETE FROM ally RETURNING *", "syntax error"),
    ],
)
def test_error_about_failed_register_query_contains_the_reason(
    company: PartnersCompany, sql: str, expected: str
) -> None:
    with pytest.raises(UsageError, match="cannot be read") as error:
        read_with_sql(company, sql)
    assert expected in error.value.message


def test_error_about_failed_register_query_contains_no_database_value(
    company: PartnersCompany,
) -> None:
    """The message of the server itself would quote the value."""
    company.add_partner("1", company="Secret Ltd")
    sql = str(company.context.rules.source.sql).replace("grade AS tier", "company::int AS tier")
    with pytest.raises(UsageError, match="SQLSTATE 22P02") as error:
        read_with_sql(company, sql)
    assert "Secret" not in str(error.value)


def test_unreachable_database_of_register_raises_service_error(company: PartnersCompany) -> None:
    run = company.context
    nowhere = DatabaseAddress.from_conninfo("host=127.0.0.1 port=1 dbname=x user=x")
    with pytest.raises(ServiceError):
        register.read_register(nowhere, run.database("shop"), run.rules, run.today)


def test_register_query_runs_in_read_only_session(company: PartnersCompany) -> None:
    company.add_partner("1")
    company.sql("CREATE OR REPLACE FUNCTION w() RETURNS text LANGUAGE sql AS "
            "$$ DELETE FROM ally; SELECT '1' $$")  # fmt: skip
    sql = str(company.context.rules.source.sql).replace("code AS partner", "w() AS partner")
    with pytest.raises(UsageError, match="SQLSTATE 25006"):
        read_with_sql(company, sql)
    with company.state.connect() as conn:
        assert conn.scalar(text("SELECT count(*) FROM partner_review")) == 0
    assert company.register().partners
