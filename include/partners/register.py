"""Read the register of partners from the database that partners.yaml names.

Every column is read as text. A malformed date of one partner therefore does not prevent the reading
of all other partners. Faulty values are reported and treated as missing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from include.approvals.reasons import has_personal_number
from include.messages import Message, _, verbatim
from include.partners.rules import PartnerRules
from include.policy.datamap import MappedDatabase
from include.policy.fragments import pack_sql
from include.services.database import PRINTING, DatabaseAddress
from include.services.errors import ServiceError, UsageError
from include.workflow.run_context import RunContext

COLUMNS = (
    "partner",
    "name",
    "tier",
    "mail",
    "nda_from",
    "nda_until",
    "agreement_until",
    "last_review_on",
    "live_access",
)
"""The columns of the register. Dates have the type date, and ``live_access`` is a boolean."""

MAX_PARTNERS = 20_000  # a query that returns more rows reads a wrong table
_MAX_NAME_LENGTH = 200
_NUMBER = re.compile(r"[^\s/#]{1,64}")  # keys of reminders use / and # as separators
# control, invisible and line break characters
_UNPRINTABLE_CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_DATE_TITLES = {
    "nda_from": _("start date of the confidentiality agreement"),
    "nda_until": _("end date of the confidentiality agreement"),
    "agreement_until": _("end date of the data-processing agreement"),
    "last_review_on": _("date of the last security review"),
}
_BOOLEANS = {"true": True, "t": True, "false": False, "f": False}
_SYNTAX_ERROR_CLASS, _STATEMENT_TIMEOUT = "42", "60s"


@dataclass(frozen=True)
class RegisterFault:
    """A fault in a row of the partner register.

    Attributes:
        partner: number of the partner.
        code: code of the finding that reports the fault.
        message: description of the fault.
        action: action that corrects the fault.
        for_engineers: text for engineers that names the column or file to correct; None if
            engineers have nothing to correct.
    """

    partner: str
    code: str
    message: Message
    action: Message
    for_engineers: Message | None = None


@dataclass(frozen=True)
class Partner:
    """A partner, as the partner register describes it.

    Attributes:
        number: number of the partner in the register.
        name: name of the partner's company; empty if it is missing or must not be shown.
        tier: tier of the partner; None if partners.yaml does not define the tier that the register
            states.
        mail: e-mail address of the partner's contact; may be empty or malformed.
        nda_from: first day of the confidentiality agreement; None if missing or malformed.
        nda_until: last day of the confidentiality agreement; None if missing or malformed.
        agreement_until: last day of the data-processing agreement; None if missing or malformed.
        last_review_on: day of the last security review; None if missing or malformed.
        live: whether the partner has access to customer information now. It is True if the register
            does not state a valid value.
        is_unambiguous: whether the register has exactly one row for the partner. If it has several
            rows, only `number` may be used.
    """

    number: str
    name: str = ""
    tier: int | None = None
    mail: str = ""
    nda_from: date | None = None
    nda_until: date | None = None
    agreement_until: date | None = None
    last_review_on: date | None = None
    live: bool = True
    is_unambiguous: bool = True

    @property
    def display_name(self) -> Message:
        """Return the name of the partner as display text, or the text "partner without a name".

        Use `title` instead if the partner's number is not shown next to this text.
        """
        return verbatim(self.name) if self.name else _("partner without a name")

    @property
    def title(self) -> Message:
        """Return the partner's name with its number in brackets, as display text."""
        if not self.name:
            return _("partner {number}", number=self.number)
        return _("{name} (partner {number})", name=self.name, number=self.number)


@dataclass
class Register:
    """The partners of the register, and the faults of its rows.

    Attributes:
        partners: partners by number.
        faults: faults in rows of the register.
        unnamed: number of rows without a usable partner number.
    """

    partners: dict[str, Partner] = field(default_factory=dict)
    faults: list[RegisterFault] = field(default_factory=list)
    unnamed: int = 0


def read_register(
    address: DatabaseAddress, database: MappedDatabase, rules: PartnerRules, today: date
) -> Register:
    """Read the register of partners with the query of partners.yaml.

    Args:
        address: address and login of the database.
        database: data map of the database.
        rules: content of partners.yaml.
        today: today's date. A last review on a later date is a fault.

    Raises:
        UsageError: the query of the register fails, or its result lacks a column.
        ServiceError: the database cannot be reached.
    """
    return parse_rows(_read_rows(address, database, rules), rules, today)


def load_register(run: RunContext[PartnerRules]) -> Register:
    """Read the register of partners for a run, with the connection and the date of the run.

    Args:
        run: context of the run.

    Raises:
        UsageError: the query of the register fails, or its result lacks a column.
        ServiceError: the database cannot be reached.
    """
    name = run.rules.source.database
    return read_register(run.reader(name), run.database(name), run.rules, run.today)


def load_partner(run: RunContext[PartnerRules], number: str) -> Partner:
    """Read the register, and return the partner with the given number.

    Raises:
        UsageError: the register does not have the partner, or cannot be read.
        ServiceError: the database of the register cannot be reached.
    """
    partner = load_register(run).partners.get(number)
    if partner is None:
        raise UsageError(
            f"The register has no partner {number}.", "See ./parcelseal partners list."
        )
    return partner


def parse_rows(rows: Sequence[Sequence[str | None]], rules: PartnerRules, today: date) -> Register:
    """Convert rows of the partner register to partners, and collect the faults of the rows.

    Args:
        rows: rows with the values of ``COLUMNS`` as text.
        rules: content of partners.yaml.
        today: today's date. A last review on a later date is a fault.
    """
    register = Register()
    for row in rows:
        cells = {name: (value or "").strip() for name, value in zip(COLUMNS, row, strict=True)}
        if not _NUMBER.fullmatch(cells["partner"]) or not cells["partner"].isprintable():
            register.unnamed += 1
        elif cells["partner"] in register.partners:
            _reject_duplicate(register, cells)
        else:
            _RowParser(register, cells, rules, today).add()
    return register


def _reject_duplicate(register: Register, cells: Mapping[str, str]) -> None:
    number = cells["partner"]
    before = register.partners[number]
    live = before.live or _BOOLEANS.get(cells["live_access"].lower(), True)
    register.partners[number] = Partner(number, before.name, live=live, is_unambiguous=False)
    if before.is_unambiguous:
        register.faults = [fault for fault in register.faults if fault.partner != number]
        register.faults.append(
            RegisterFault(
                number,
                "partners.twice",
                _(
                    "The partner register has several entries for this partner. The checks use "
                    "none of these entries."
                ),
                _("Keep only one entry for the partner in the partner register."),
            )
        )


@dataclass
class _RowParser:
    """Converts one row of the partner register to a partner, and reports the faults of the row.

    Attributes:
        register: register to which the partner is added.
        cells: texts of the row, by name of the column.
        rules: content of partners.yaml.
        today: today's date.
    """

    register: Register
    cells: Mapping[str, str]
    rules: PartnerRules
    today: date

    def add(self) -> None:
        cells, number = self.cells, self.cells["partner"]
        live = _BOOLEANS.get(cells["live_access"].lower())
        if live is None:
            self.report_fault(
                "partners.access_unclear",
                _(
                    "The partner register does not state whether this partner has access to "
                    "customer information."
                ),
                _(
                    "Enter in the partner register whether the partner has access to customer "
                    "information. Until then, it counts as a partner with access."
                ),
            )
        partner = Partner(
            number,
            self.name(),
            tier=self.tier(),
            mail=cells["mail"],
            live=live is not False,
            nda_from=self.day("nda_from"),
            nda_until=self.day("nda_until"),
            agreement_until=self.day("agreement_until"),
            last_review_on=self.day("last_review_on"),
        )
        self.register.partners[number] = self.drop_impossible_days(partner)

    def report_fault(
        self, code: str, message: Message, action: Message, for_engineers: Message | None = None
    ) -> None:
        self.register.faults.append(
            RegisterFault(self.cells["partner"], code, message, action, for_engineers)
        )

    def name(self) -> str:
        cell = self.cells["name"]
        name = one_line(cell)
        has_unprintable = any(
            unicodedata.category(character) in _UNPRINTABLE_CATEGORIES for character in cell
        )
        if has_unprintable or not name or len(name) > _MAX_NAME_LENGTH:
            self.report_fault(
                "partners.name",
                _("The partner's name is empty, too long, or contains invisible characters."),
                _("Correct the partner's name in the partner register."),
            )
        if has_personal_number(name):
            self.report_fault(
                "partners.name",
                _("The partner's name contains a mobile or ID number and is not shown."),
                _("Enter the partner's company name without a mobile or ID number."),
            )
            return ""
        return name[:_MAX_NAME_LENGTH]

    def tier(self) -> int | None:
        cell = self.cells["tier"]
        number = int(cell) if re.fullmatch(r"[0-9]{1,4}", cell) else None
        if self.rules.tier(number) is None:
            self.report_fault(
                "partners.unknown_tier",
                _(
                    "The partner register gives this partner a tier that the policy pack does "
                    "not define."
                ),
                _(
                    "Correct the partner's tier in the partner register, or add this tier to the "
                    "partner rules of the policy pack."
                ),
                _("The tiers are in `partners.yaml`."),
            )
            return None
        return number

    def day(self, column: str) -> date | None:
        cell = self.cells[column]
        if not cell:
            return None  # the missing obligation has a finding of its own
        try:
            if _DAY.fullmatch(cell):
                return date.fromisoformat(cell)
        except ValueError:
            pass
        self.report_fault(
            "partners.no_day",
            _(
                "In the partner register, the {date} is not a valid date.",
                date=_DATE_TITLES[column],
            ),
            _(
                "Enter a date such as 2027-03-31 in the partner register. Until then, the "
                "agreement or security review counts as missing."
            ),
            _(
                "The query of the partner register has to return this date in the column "
                "`{column}`.",
                column=column,
            ),
        )
        return None

    def drop_impossible_days(self, partner: Partner) -> Partner:
        """Return a copy of a partner without its impossible dates, and report each of these dates.

        For example, an agreement cannot end before it starts.
        """
        begins, ends = partner.nda_from, partner.nda_until
        if begins is None and ends is not None:
            # Malformed dates are reported. The agreement may begin next year.
            if self.cells["nda_from"]:
                partner = replace(partner, nda_until=None)
            else:
                self.report_fault(
                    "partners.nda_from_missing",
                    _("The start date of the confidentiality agreement is missing."),
                    _(
                        "Enter the start date of the agreement in the partner register. Until "
                        "then, the agreement counts as in force up to its end date."
                    ),
                )
        if begins is not None and ends is not None and ends < begins:
            self.report_fault(
                "partners.nda_backwards",
                _(
                    "The end date of the confidentiality agreement, {ends}, is earlier than its "
                    "start date.",
                    ends=ends,
                ),
                _(
                    "Correct the dates in the partner register. Until then, the agreement counts "
                    "as missing."
                ),
            )
            partner = replace(partner, nda_until=None)
        reviewed = partner.last_review_on
        if reviewed is not None and reviewed > self.today:
            self.report_fault(
                "partners.reviewed_in_future",
                _("The date of the last security review, {day}, is in the future.", day=reviewed),
                _(
                    "Correct the date in the partner register. Until then, the security review "
                    "counts as missing."
                ),
            )
            partner = replace(partner, last_review_on=None)
        return partner


def one_line(text: str) -> str:
    """Return a text as one line without control characters, as mail headers require."""
    printable = "".join(
        " " if unicodedata.category(character)[0] in "CZ" else character for character in text
    )
    return " ".join(printable.split())


def _read_rows(
    address: DatabaseAddress, database: MappedDatabase, rules: PartnerRules
) -> list[tuple[str | None, ...]]:
    relation = SQL("({}) AS partners").format(pack_sql(rules.source.sql))
    try:
        with address.connect() as connection:
            connection.read_only = True
            path = SQL("SET LOCAL search_path = {}, pg_catalog")
            connection.execute(path.format(Identifier(database.schema_name)))
            for name, value in (*PRINTING.items(), ("statement_timeout", _STATEMENT_TIMEOUT)):
                connection.execute(
                    SQL("SET LOCAL {} = {}").format(Identifier(name), Literal(value))
                )
            query = SQL("SELECT * FROM {} LIMIT 0").format(relation)
            columns_returned = {
                column.name for column in connection.execute(query, {}).description or []
            }
            if absent := [column for column in COLUMNS if column not in columns_returned]:
                raise UsageError(
                    f"partners.yaml: the query of the register lacks the columns "
                    f"{', '.join(absent)}.",
                    f"Let the query return the columns {', '.join(COLUMNS)}.",
                )
            columns = SQL(", ").join(
                SQL("{}::text").format(Identifier(column)) for column in COLUMNS
            )
            rows = SQL("SELECT {} FROM {} ORDER BY 1, 2 LIMIT {}")
            rows_read = connection.execute(
                rows.format(columns, relation, MAX_PARTNERS + 1), {}
            ).fetchall()
    except psycopg.OperationalError as error:
        raise ServiceError(
            "The connection to the database of the partner register was lost "
            f"({error.sqlstate or 'no answer'}).",
            "Check that the database runs, then retry.",
        ) from None
    except psycopg.Error as error:
        state = error.sqlstate or ""
        detail = (
            error.diag.message_primary if state.startswith(_SYNTAX_ERROR_CLASS) else None
        )  # has no value
        raise UsageError(
            f"partners.yaml: the register cannot be read: {detail or f'SQLSTATE {state}'}.",
            "Correct the query of the register, or the rights of its connection.",
        ) from None
    if len(rows_read) > MAX_PARTNERS:
        raise UsageError(
            f"partners.yaml: the query of the register returns more than {MAX_PARTNERS:,} rows.",
            "Let the query return one row for each partner.",
        )
    return rows_read
