"""The rules of the answer sheet: conditions that rows with deliberate defects meet.

Each rule names its table and the key of the rows. The texts of the conditions use these terms.
"More than 3 years ago" means that the time plus three calendar years, in the timezone
Asia/Shanghai, is before the time for which the sample was generated. "The day" is the UTC date of
the time for which the sample was generated. A day is 24 hours. An expired record is kept only if it
has an open complaint, or if a record that is kept refers to it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RuleText:
    """A rule of the answer sheet: a condition that rows with deliberate defects meet.

    Attributes:
        table: name of the table.
        key: names of the columns that form the key of a row.
        text: condition in words.
    """

    table: str
    key: tuple[str, ...]
    text: str


def _rules(table: str, key: str, texts: dict[str, str]) -> dict[str, RuleText]:
    return {name: RuleText(table, (key,), text) for name, text in texts.items()}


RULES: dict[str, RuleText] = {
    **_rules("customer", "customer_id", {
        "invalid_id_check_digit": "id_number: 17 digits, a real date, the wrong check character",
        "invalid_id_birth_date": "id_number: digits 7-14 are no date; the check character is right",
        "unknown_id_division": "id_number: digits 1-6 are not in administrative_division, or were "
        "retired before the birth date; the check character is right",
        "invalid_phone": "phone: no mobile number, +86, spaces and hyphens stripped",
        "missing_name": "name is empty",
        "missing_phone": "phone is null",
        "missing_id_number": "id_number is null",
        "over_collected_religion": "religion is filled",
        "stale_customer": "not closed, verified_at more than 365 days ago",
        "no_reviewer": "reviewed_by is null",
        "reviewer_is_enterer": "reviewed_by = entered_by",
        "consent_missing": "no consent at all",
        "consent_not_covering_purpose": "marketing_subscribed, delivery consent, none to marketing",
        "consent_withdrawn": "marketing_subscribed, consent to marketing withdrawn, none since",
        "minor": "birth_date less than 14 years ago",
        "minor_without_guardian_consent": "under 14, no consent of the guardian in force",
        "closed_customer": "status is closed",
        "expired_customer": "closed_at more than 3 years ago",
        "expired_customer_kept_by_share": "closed_at more than 3 years ago, a share has not ended "
        "more than 3 years ago",
    }),
    "duplicate_customer": RuleText(
        "customer", ("customer_id", "duplicate_of"),
        "same name, phone and id_number as the other, earlier customer",
    ),
    **_rules("address", "address_id", {
        "unknown_division": "division_code is not in administrative_division",
        "expired_address": "the customer has closed the account",
    }),
    **_rules("consent", "consent_id", {
        "expired_consent": "the customer closed the account more than 3 years ago",
        "expired_consent_kept_by_share": "the customer closed the account more than 3 years ago, a "
        "share by this consent has not ended more than 3 years ago",
    }),
    **_rules("waybill", "waybill_id", {
        "invalid_waybill_number": "number: S10 form with the wrong check digit",
        "contact_not_masked": "delivered_at more than 90 days ago, masked_at is null",
        "contact_not_masked_open_complaint": "delivered_at more than 90 days ago, masked_at is "
        "null, a complaint is open",
        "expired_waybill": "created_at more than 2 years ago",
        "expired_waybill_open_complaint": "created_at more than 2 years ago, a complaint is open",
        "expired_waybill_kept_by_proof": "created_at more than 2 years ago, its proof was signed "
        "less than 2 years ago",
    }),
    **_rules("delivery_proof", "proof_id", {
        "expired_delivery_proof": "signed_at more than 2 years ago",
        "expired_delivery_proof_open_complaint": "signed_at more than 2 years ago, a complaint "
        "about its waybill is open",
    }),
    **_rules("complaint", "complaint_id", {
        "open_complaint": "closed_at is null",
        "expired_complaint": "closed_at more than 3 years ago",
    }),
    **_rules("approval", "approval_id", {
        "approval_by_requester": "approver_id = requester_id",
        "expired_approval": "approved_at more than 3 years ago",
        "expired_approval_kept_by_access": "approved_at more than 3 years ago, an access under it "
        "is younger",
    }),
    **_rules("access_log", "access_id", {
        "access_without_approval": "approval_id is null",
        "access_out_of_purpose": "purpose is marketing or private",
        "access_after_approval": "accessed_at after the approval's valid_until",
        "access_by_leaver": "accessed_at after the day the employee left",
        "access_by_untrained": "no passed onboarding course before accessed_at",
        "expired_access_log": "accessed_at more than 3 years ago",
    }),
    **_rules("share_log", "share_id", {
        "share_without_basis": "neither consent_id nor legal_basis",
        "share_lapsed_nda": "shared_at after the partner's nda_until",
        "share_excess_fields": "fields beyond name, phone and address",
        "expired_share": "ended_at more than 3 years ago",
    }),
    **_rules("partner", "partner_id", {
        "partner_lapsed_nda": "live_access, nda_until before the day",
        "partner_review_overdue": "live_access, last_review_on more than 12 months before the day",
    }),
    **_rules("employee", "employee_id", {
        "leaver_with_access": "left before the day, has_data_access",
        "untrained_with_access": "has_data_access, no passed onboarding course",
    }),
    "training_overdue": RuleText(
        "employee", ("employee_id", "course_id"),
        "not left; last passed completion more than repeat_months before the day, or none and "
        "joined more than due_days_after_joining before it",
    ),
    **_rules("training_completion", "completion_id", {
        "expired_training": "the employee left more than 3 years before the day",
    }),
    **_rules("intake_record", "intake_id", {
        "intake_invalid_phone": "pending; phone is no mobile number",
        "intake_invalid_id_number": "pending; id_number with the wrong check character",
        "intake_unknown_division": "pending; division_code is not in administrative_division",
        "intake_missing_name": "pending; name is null",
        "intake_no_consent": "pending; consent_purposes is empty",
        "intake_duplicate": "pending; id_number of a customer who has a formal record",
        "intake_overdue": "pending for more than 72 hours",
        "expired_incoming_record": "reviewed_at more than 180 days ago",
    }),
}  # fmt: skip
