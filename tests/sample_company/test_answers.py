"""Tests that independent SQL queries return the rows that the answer sheet lists."""

# ruff: noqa: E501 - a rule is easier to check against the sheet when it is not cut up

from __future__ import annotations

import pytest

from include.sample_company.rules import RULES
from tests.sample_company.conftest import CUSTOMERS, Sample

# The weights 7 9 10 5 ... are computed here as 2^17, 2^16, ... modulo 11.
FUNCTIONS = """
CREATE FUNCTION pg_temp.id_check(t text) RETURNS text LANGUAGE sql AS $$
  SELECT substr('10X98765432', (sum(substr(t, i, 1)::int * (2 ^ (18 - i))::int) % 11)::int + 1, 1)
  FROM generate_series(1, 17) i $$;
CREATE FUNCTION pg_temp.is_date(t text) RETURNS boolean LANGUAGE plpgsql AS $$
  BEGIN PERFORM make_date(substr(t,1,4)::int, substr(t,5,2)::int, substr(t,7,2)::int); RETURN true;
  EXCEPTION WHEN datetime_field_overflow THEN RETURN false; END $$;
CREATE FUNCTION pg_temp.is_mobile(t text) RETURNS boolean LANGUAGE sql AS $$
  SELECT regexp_replace(replace(replace(t, ' ', ''), '-', ''), '^(\\+|00)?86', '') ~ '^1[3-9][0-9]{9}$' $$;
CREATE FUNCTION pg_temp.s10_ok(t text) RETURNS boolean LANGUAGE sql AS $$
  SELECT substr(t, 11, 1) = substr('50987654321', (sum(substr(t, i + 2, 1)::int *
    ('{8,6,4,2,3,5,9,7}'::int[])[i]) % 11)::int + 1, 1) FROM generate_series(1, 8) i $$;
"""
DAY = "(%(now)s AT TIME ZONE 'UTC')::date"
UNDER_14 = f"(birth_date > {DAY} - interval '14 years')"
NO_CONSENT_TO = (
    "NOT EXISTS (SELECT FROM consent s WHERE s.customer_id = c.customer_id AND s.purpose = '{}')"
)
TRAINED = (
    "EXISTS (SELECT FROM training_completion t JOIN course k USING (course_id) "
    "WHERE t.employee_id = e.employee_id AND k.topic = 'onboarding' AND t.passed{})"
)
QUERIES = {
    "invalid_id_check_digit": "SELECT customer_id FROM customer WHERE id_number ~ '^[0-9]{17}[0-9Xx]$' "
    "AND upper(substr(id_number, 18)) <> pg_temp.id_check(id_number)",
    "invalid_id_birth_date": "SELECT customer_id FROM customer "
    "WHERE id_number !~ '^[0-9]{17}[0-9Xx]$' OR NOT pg_temp.is_date(substr(id_number, 7, 8))",
    "unknown_id_division": "SELECT customer_id FROM customer c WHERE id_number IS NOT NULL AND "
    "pg_temp.is_date(substr(id_number, 7, 8)) AND NOT EXISTS (SELECT FROM administrative_division d "
    "WHERE d.code = substr(id_number, 1, 6)::char(6) "
    "AND coalesce(d.retired_on, 'infinity') > substr(id_number, 7, 8)::date)",
    "invalid_phone": "SELECT customer_id FROM customer WHERE NOT pg_temp.is_mobile(phone)",
    "missing_name": "SELECT customer_id FROM customer WHERE name = ''",
    "missing_phone": "SELECT customer_id FROM customer WHERE phone IS NULL",
    "missing_id_number": "SELECT customer_id FROM customer WHERE id_number IS NULL",
    "over_collected_religion": "SELECT customer_id FROM customer WHERE religion IS NOT NULL",
    "stale_customer": "SELECT customer_id FROM customer "
    "WHERE status <> 'closed' AND verified_at < %(now)s - interval '365 days'",
    "no_reviewer": "SELECT customer_id FROM customer WHERE reviewed_by IS NULL",
    "reviewer_is_enterer": "SELECT customer_id FROM customer WHERE reviewed_by = entered_by",
    "consent_missing": "SELECT customer_id FROM customer "
    "WHERE customer_id NOT IN (SELECT customer_id FROM consent)",
    "consent_not_covering_purpose": "SELECT customer_id FROM customer c WHERE marketing_subscribed "
    f"AND {NO_CONSENT_TO.format('marketing')} AND NOT {NO_CONSENT_TO.format('delivery')}",
    "consent_withdrawn": "SELECT c.customer_id FROM customer c JOIN consent s USING (customer_id) "
    "WHERE marketing_subscribed AND purpose = 'marketing' AND withdrawn_at IS NOT NULL",
    "minor": f"SELECT customer_id FROM customer WHERE {UNDER_14}",
    "minor_without_guardian_consent": f"SELECT customer_id FROM customer WHERE {UNDER_14} "
    "EXCEPT SELECT customer_id FROM consent WHERE by_guardian AND withdrawn_at IS NULL",
    "closed_customer": "SELECT customer_id FROM customer WHERE closed_at IS NOT NULL",
    "expired_customer": "SELECT customer_id FROM customer WHERE closed_at + interval '3 years' < %(now)s",
    "expired_customer_kept_by_share": "SELECT DISTINCT customer_id FROM customer JOIN share_log USING (customer_id) "
    "WHERE closed_at + interval '3 years' < %(now)s AND (ended_at + interval '3 years' < %(now)s) IS NOT TRUE",
    "duplicate_customer": "SELECT a.customer_id, b.customer_id FROM customer a JOIN customer b ON "
    "a.customer_id <> b.customer_id AND (a.id_number = b.id_number OR a.phone = b.phone)",
    "unknown_division": "SELECT address_id FROM address "
    "WHERE division_code NOT IN (SELECT code FROM administrative_division)",
    "expired_address": "SELECT address_id FROM address JOIN customer USING (customer_id) "
    "WHERE status = 'closed'",
    "expired_consent": "SELECT consent_id FROM consent JOIN customer USING (customer_id) "
    "WHERE closed_at + interval '3 years' < %(now)s",
    "expired_consent_kept_by_share": "SELECT DISTINCT consent_id FROM consent c JOIN customer USING (customer_id) "
    "JOIN share_log s USING (consent_id) WHERE closed_at + interval '3 years' < %(now)s "
    "AND (ended_at + interval '3 years' < %(now)s) IS NOT TRUE",
    "invalid_waybill_number": "SELECT waybill_id FROM waybill WHERE NOT ("
    "number ~ '^(SF[0-9]{13}|[0-9]{12}|JD[0-9]{11,13})$' "
    "OR (number ~ '^[A-Z]{2}[0-9]{9}[A-Z]{2}$' AND pg_temp.s10_ok(number)))",
    "contact_not_masked": "SELECT waybill_id FROM waybill "
    "WHERE delivered_at < %(now)s - interval '90 days' AND masked_at IS NULL",
    "contact_not_masked_open_complaint": "SELECT DISTINCT w.waybill_id FROM waybill w "
    "JOIN complaint k ON k.waybill_id = w.waybill_id AND k.waybill_created_at = w.created_at "
    "WHERE delivered_at < %(now)s - interval '90 days' AND masked_at IS NULL AND k.closed_at IS NULL",
    "expired_waybill": "SELECT waybill_id FROM waybill WHERE created_at + interval '2 years' < %(now)s",
    "expired_waybill_open_complaint": "SELECT DISTINCT w.waybill_id FROM waybill w "
    "JOIN complaint k ON k.waybill_id = w.waybill_id AND k.waybill_created_at = w.created_at "
    "WHERE created_at + interval '2 years' < %(now)s AND k.closed_at IS NULL",
    "expired_waybill_kept_by_proof": "SELECT w.waybill_id FROM waybill w JOIN delivery_proof p "
    "ON p.waybill_id = w.waybill_id AND p.waybill_created_at = w.created_at "
    "WHERE created_at + interval '2 years' < %(now)s AND signed_at + interval '2 years' >= %(now)s",
    "expired_delivery_proof_open_complaint": "SELECT proof_id FROM delivery_proof p "
    "WHERE signed_at + interval '2 years' < %(now)s AND EXISTS (SELECT FROM complaint k "
    "WHERE k.waybill_id = p.waybill_id AND k.waybill_created_at = p.waybill_created_at AND closed_at IS NULL)",
    "expired_delivery_proof": "SELECT proof_id FROM delivery_proof "
    "WHERE signed_at + interval '2 years' < %(now)s",
    "open_complaint": "SELECT complaint_id FROM complaint WHERE closed_at IS NULL",
    "expired_complaint": "SELECT complaint_id FROM complaint WHERE closed_at + interval '3 years' < %(now)s",
    "approval_by_requester": "SELECT approval_id FROM approval WHERE approver_id = requester_id",
    "expired_approval": "SELECT approval_id FROM approval WHERE approved_at + interval '3 years' < %(now)s",
    "expired_approval_kept_by_access": "SELECT DISTINCT approval_id FROM approval JOIN access_log USING (approval_id) "
    "WHERE approved_at + interval '3 years' < %(now)s AND accessed_at + interval '3 years' >= %(now)s",
    "access_without_approval": "SELECT access_id FROM access_log WHERE approval_id IS NULL",
    "access_out_of_purpose": "SELECT access_id FROM access_log LEFT JOIN approval p USING (approval_id) "
    "WHERE access_log.purpose IN ('marketing', 'private') OR access_log.purpose <> p.purpose",
    "access_after_approval": "SELECT access_id FROM access_log a JOIN approval p USING (approval_id) "
    "WHERE accessed_at NOT BETWEEN approved_at AND valid_until OR employee_id <> requester_id",
    "access_by_leaver": "SELECT access_id FROM access_log JOIN employee USING (employee_id) "
    "WHERE (accessed_at AT TIME ZONE 'UTC')::date NOT BETWEEN joined_on AND coalesce(left_on, 'infinity')",
    "access_by_untrained": "SELECT access_id FROM access_log a JOIN employee e USING (employee_id) "
    f"WHERE NOT {TRAINED.format(' AND t.completed_on <= a.accessed_at')}",
    "expired_access_log": "SELECT access_id FROM access_log WHERE accessed_at + interval '3 years' < %(now)s",
    "share_without_basis": "SELECT share_id FROM share_log LEFT JOIN consent s USING (consent_id) "
    "WHERE legal_basis IS NULL AND (consent_id IS NULL OR s.purpose <> 'partner_sharing' "
    "OR s.customer_id <> share_log.customer_id OR given_at > shared_at OR withdrawn_at < shared_at)",
    "share_lapsed_nda": "SELECT share_id FROM share_log JOIN partner USING (partner_id) "
    "WHERE (shared_at AT TIME ZONE 'UTC')::date NOT BETWEEN nda_from AND nda_until",
    "share_excess_fields": "SELECT share_id FROM share_log WHERE NOT fields <@ '{name,phone,address}'",
    "expired_share": "SELECT share_id FROM share_log WHERE ended_at + interval '3 years' < %(now)s",
    "partner_lapsed_nda": f"SELECT partner_id FROM partner WHERE live_access AND nda_until < {DAY}",
    "partner_review_overdue": "SELECT partner_id FROM partner WHERE live_access "
    f"AND last_review_on < {DAY} - interval '12 months'",
    "leaver_with_access": "SELECT employee_id FROM employee "
    f"WHERE left_on < {DAY} AND has_data_access",
    "untrained_with_access": "SELECT employee_id FROM employee e "
    f"WHERE has_data_access AND NOT {TRAINED.format('')}",
    "training_overdue": "SELECT e.employee_id, k.course_id FROM employee e CROSS JOIN course k "
    "LEFT JOIN LATERAL (SELECT max(completed_on) AS last FROM training_completion t "
    "WHERE t.employee_id = e.employee_id AND t.course_id = k.course_id AND passed) d ON true "
    f"WHERE (left_on IS NULL OR left_on >= {DAY}) AND "
    f"(last < {DAY} - make_interval(months => repeat_months) "
    f"OR last IS NULL AND joined_on < {DAY} - due_days_after_joining)",
    "expired_training": "SELECT completion_id FROM training_completion JOIN employee USING (employee_id) "
    f"WHERE left_on < {DAY} - interval '3 years'",
    "intake_invalid_phone": "SELECT intake_id FROM intake_record "
    "WHERE status = 'pending' AND NOT pg_temp.is_mobile(phone)",
    "intake_invalid_id_number": "SELECT intake_id FROM intake_record WHERE status = 'pending' AND "
    "(id_number !~ '^[0-9]{17}[0-9Xx]$' OR upper(substr(id_number, 18)) <> pg_temp.id_check(id_number))",
    "intake_unknown_division": "SELECT intake_id FROM intake_record WHERE status = 'pending' "
    "AND division_code NOT IN (SELECT code FROM administrative_division)",
    "intake_missing_name": "SELECT intake_id FROM intake_record WHERE status = 'pending' "
    "AND coalesce(name, '') = ''",
    "intake_no_consent": "SELECT intake_id FROM intake_record WHERE status = 'pending' "
    "AND NOT consent_purposes @> '{delivery}'",
    "intake_duplicate": "SELECT intake_id FROM intake_record i WHERE status = 'pending' "
    "AND EXISTS (SELECT FROM customer c WHERE c.id_number = i.id_number OR c.phone = i.phone)",
    "intake_overdue": "SELECT intake_id FROM intake_record WHERE status = 'pending' "
    "AND entered_at < %(now)s - interval '72 hours'",
    "expired_incoming_record": "SELECT intake_id FROM intake_record WHERE reviewed_at + interval '180 days' < %(now)s",
}


@pytest.fixture(scope="module")
def checked(sample: Sample) -> Sample:
    """The sample, with the SQL functions that the queries use."""
    sample.connection.execute("SET default_transaction_read_only = off")
    sample.connection.execute(FUNCTIONS)
    return sample


def test_every_rule_of_the_answer_sheet_has_a_query_in_the_tests() -> None:
    """A rule without a query would not be tested."""
    assert set(QUERIES) == set(RULES)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_answer_sheet_lists_exactly_the_rows_with_each_planted_fault(
    checked: Sample, rule: str
) -> None:
    """For each rule, a query returns the rows that the answer sheet lists, and no other rows."""
    rows = sorted(checked.rows(QUERIES[rule]))
    planted = checked.sheet.planted[rule]
    if rule == "duplicate_customer":
        # The join returns each pair in both orders; the sheet lists a single order.
        assert sorted({*planted.rows, *((b, a) for a, b in planted.rows)}) == rows
        assert planted.count == len(rows) / 2
    else:
        named = sorted(planted.rows or [(key,) for key in planted.keys()])  # noqa: SIM118
        assert named == rows
        assert planted.count == len(rows)
    assert planted.count, "nothing planted: the rule was not tried"


def test_share_of_rows_with_deliberate_defects_equals_the_configured_rate(sample: Sample) -> None:
    """The rates are exact in each thousand rows, but certain customers never have a defect."""
    count = {name: planted.count for name, planted in sample.sheet.planted.items()}
    thousands = CUSTOMERS // 1000
    assert count["missing_phone"] == 2 * thousands
    assert count["over_collected_religion"] == 3 * thousands
    # The first customer and the canary customers never have a defect.
    assert 4 * thousands - 2 <= count["invalid_id_check_digit"] <= 4 * thousands
    assert count["share_lapsed_nda"] >= 2


def test_duplicate_customers_have_same_name_phone_and_id_number(checked: Sample) -> None:
    """Name, phone number and ID number are equal."""
    for duplicate, original in checked.sheet.planted["duplicate_customer"].rows:
        ((same,),) = checked.rows(
            "SELECT (a.name, a.phone, a.id_number) = (b.name, b.phone, b.id_number) "
            f"FROM customer a, customer b WHERE a.customer_id = {duplicate} AND b.customer_id = {original}"
        )
        assert same


def test_answer_sheet_has_the_row_count_of_every_table(sample: Sample) -> None:
    """The row count of a partitioned table is the sum of the counts of its partitions."""
    live = {
        name
        for (name,) in sample.rows(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
            "AND relkind IN ('r', 'p') AND NOT relispartition"
        )
    }
    assert set(sample.sheet.tables) == live
    for table, count in sample.sheet.tables.items():
        assert sample.rows(f'SELECT count(*) FROM "{table}"') == [(count,)], table


def test_canary_values_occur_in_the_records_that_the_answer_sheet_lists(sample: Sample) -> None:
    """The values are in text, JSON and binary columns of all tables with customer data."""
    keys = {
        "customer": "customer_id", "address": "address_id", "waybill": "waybill_id",
        "delivery_proof": "proof_id", "complaint": "complaint_id", "intake_record": "intake_id",
    }  # fmt: skip
    tables = set()
    for canary in sample.sheet.canaries:
        for location, key in canary.places:
            table, column = location.split(".")
            ((value,),) = sample.rows(f"SELECT {column} FROM {table} WHERE {keys[table]} = {key}")
            text = value.decode() if isinstance(value, bytes) else str(value)
            assert canary.value in text, location
            tables.add(table)
    assert tables == set(keys)
    assert len({canary.customer_id for canary in sample.sheet.canaries}) == 8


def test_canary_values_occur_only_in_records_of_canary_customers(sample: Sample) -> None:
    """If a search finds a canary value, it therefore comes from a record of the canary customer."""
    text = "\n".join(
        row for (row,) in sample.rows(
            "SELECT c::text FROM customer c UNION ALL SELECT a::text FROM address a"
        )
    )  # fmt: skip
    duplicated = {original for _, original in sample.sheet.planted["duplicate_customer"].rows}
    for canary in sample.sheet.canaries:
        assert canary.customer_id not in duplicated
        expected_count = {"token": 4}.get(canary.kind, 1)  # name, email, preferences, street
        assert text.count(canary.value) == expected_count, canary.kind
