"""The register of another company, with everything that a register can have: told, not guessed."""

from __future__ import annotations

from datetime import date

import pytest
from sqlalchemy import text

from include.partners import register
from include.partners.rules import PartnerRules
from include.services.database import DatabaseAddress
from include.services.errors import ServiceError, UsageError
from tests.partners.rig import Rig

MOBILE = "13800138000"


def oddities(found: register.Register) -> list[tuple[str, str]]:
    return [(one.partner, one.code) for one in found.oddities]


def test_a_partner_is_read_as_the_register_has_it(rig: Rig) -> None:
    """Its SQL may have a percent sign, and its columns other names."""
    rig.ally("A-7", grade="2", secrecy_to="2027-02-28", connected=False)
    found = rig.register()
    (one,) = found.partners.values()
    assert (one.number, one.name, one.tier, one.mail) == (
        "A-7", "Company A-7", 2, "privacy@A-7.example")  # fmt: skip
    assert (one.nda_from, one.nda_until) == (date(2020, 1, 1), date(2027, 2, 28))
    assert (one.live, one.clear, found.oddities, found.unnamed) == (False, True, [], 0)


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
def test_what_cannot_be_counts_as_missing(
    rig: Rig, change: dict[str, str | None], code: str, field: str
) -> None:
    """And is told once; nothing is put in its place."""
    rig.ally("1", **change)
    found = rig.register()
    assert oddities(found) == [("1", code)]
    assert getattr(found.partners["1"], field) is None


def test_missing_days_are_no_oddity_of_their_own(rig: Rig) -> None:
    """They are told where they are missed: at the agreement, at the review."""
    rig.ally("1", secrecy_from=None, secrecy_to=None, deal_to="", seen_on=None)
    found = rig.register()
    assert found.oddities == []
    assert found.partners["1"].nda_until is None


def test_an_agreement_without_a_first_day_counts_and_is_told(rig: Rig) -> None:
    """It holds to its last day; nobody can see whether it has begun."""
    rig.ally("1", secrecy_from=None)
    found = rig.register()
    assert oddities(found) == [("1", "partners.nda_from_missing")]
    assert found.partners["1"].nda_until == date(2029, 12, 31)
    assert rig.standing("1").allowed


def test_unclear_access_counts_as_access(rig: Rig) -> None:
    """Whoever may have access is checked at."""
    rig.ally("1", connected=None)
    found = rig.register()
    assert oddities(found) == [("1", "partners.access_unclear")]
    assert found.partners["1"].live


def test_two_rows_of_one_partner_count_as_none(rig: Rig) -> None:
    """The later one does not win unseen; what else is odd in them is not told beside it."""
    rig.ally("1", connected=False)
    rig.ally("1", deal_to="nonsense")
    rig.ally("1")
    rig.ally("2")
    found = rig.register()
    assert oddities(found) == [("1", "partners.twice")]
    assert (found.partners["1"].clear, found.partners["1"].live) == (False, True)
    assert found.partners["2"].clear


@pytest.mark.parametrize(
    "code", [None, "", "  ", "a b", "1/2", "7#1", "x" * 65, "a\r\nb", "a\x85b"]
)
def test_a_row_without_a_number_is_counted(rig: Rig, code: str | None) -> None:
    """Nothing else could be said of it."""
    rig.ally(code or "0")
    rig.sql("UPDATE ally SET code = %s", [code])
    found = rig.register()
    assert (found.partners, found.unnamed) == ({}, 1)


def test_line_breaks_in_a_name_end_no_line_of_a_mail(rig: Rig) -> None:
    """CR, LF and characters that nobody sees become blanks, and it is told."""
    rig.ally("1", company="Nord\r\nBcc: all@evil.example\u2028\u202eX")
    found = rig.register()
    assert found.partners["1"].name == "Nord Bcc: all@evil.example X"
    assert oddities(found) == [("1", "partners.name")]


def test_a_name_with_a_mobile_number_is_not_shown(rig: Rig) -> None:
    """A person's number does not become a company's name in a bundle."""
    rig.ally("1", company=f"Zhang {MOBILE}")
    found = rig.register()
    assert (found.partners["1"].name, oddities(found)) == ("", [("1", "partners.name")])
    assert MOBILE not in repr(found.oddities)


def test_blanks_of_any_width_are_no_oddity(rig: Rig) -> None:
    """Names of companies have them."""
    rig.ally("1", company="Nord  und　Süd")
    found = rig.register()
    assert (found.partners["1"].name, found.oddities) == ("Nord und Süd", [])


def reading(rig: Rig, sql: str) -> register.Register:
    run = rig.context
    source = run.rules.source.model_copy(update={"sql": sql})
    rules: PartnerRules = run.rules.model_copy(update={"source": source})
    return register.read(run.reader("shop"), run.database("shop"), rules, run.today)


def test_a_query_without_a_column_says_which(rig: Rig) -> None:
    """All of them at once."""
    with pytest.raises(UsageError, match="lacks the columns name, tier, mail"):
        reading(rig, "SELECT code AS partner FROM ally")


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT 1 FROM nowhere", 'relation "nowhere" does not exist'),
        ("SELECT FROM", "syntax error"),
        ("DELETE FROM ally RETURNING *", "syntax error"),
    ],
)
def test_a_query_that_fails_says_why(rig: Rig, sql: str, said: str) -> None:
    """It is the pack's, and whoever writes it has to know."""
    with pytest.raises(UsageError, match="cannot be read") as refused:
        reading(rig, sql)
    assert said in refused.value.message


def test_a_value_that_breaks_the_query_is_not_told(rig: Rig) -> None:
    """The server's words would quote it."""
    rig.ally("1", company="Secret Ltd")
    sql = str(rig.context.rules.source.sql).replace("grade AS tier", "company::int AS tier")
    with pytest.raises(UsageError, match="SQLSTATE 22P02") as refused:
        reading(rig, sql)
    assert "Secret" not in str(refused.value)


def test_a_server_that_is_gone_is_a_fault_of_the_service(rig: Rig) -> None:
    """The task is repeated."""
    run = rig.context
    nowhere = DatabaseAddress.from_conninfo("host=127.0.0.1 port=1 dbname=x user=x")
    with pytest.raises(ServiceError):
        register.read(nowhere, run.database("shop"), run.rules, run.today)


def test_nothing_of_the_register_is_written(rig: Rig) -> None:
    """The session reads only, whatever the pack's SQL calls."""
    rig.ally("1")
    rig.sql("CREATE OR REPLACE FUNCTION w() RETURNS text LANGUAGE sql AS "
            "$$ DELETE FROM ally; SELECT '1' $$")  # fmt: skip
    sql = str(rig.context.rules.source.sql).replace("code AS partner", "w() AS partner")
    with pytest.raises(UsageError, match="SQLSTATE 25006"):
        reading(rig, sql)
    with rig.state.connect() as conn:
        assert conn.scalar(text("SELECT count(*) FROM partner_review")) == 0
    assert rig.register().partners
