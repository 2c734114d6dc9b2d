"""Read the register of partners in a mapped database; faulty rows are reported, not interpreted.

Every column is read as text: one date that is none must not hide all other partners.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from include.approvals.reasons import names_a_person
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
"""The columns of the register; dates as dates, ``live_access`` as a boolean."""

MOST = 20_000  # partners; a query that gives more is another table's
_LONGEST_NAME = 200
_NUMBER = re.compile(r"[^\s/#]{1,64}")  # it is part of keys, which have slashes of their own
_BREAKS = ("Cc", "Cf", "Cs", "Zl", "Zp")  # line breaks, controls, characters that nobody sees
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_LIVE = {"true": True, "t": True, "false": False, "f": False}
_SQL, _TIME_LIMIT = "42", "60s"


@dataclass(frozen=True)
class Oddity:
    """A fault of the register.

    Attributes:
        partner: number of the partner.
        code: of the finding.
        message: what is wrong.
        action: what to do about it.
    """

    partner: str
    code: str
    message: Message
    action: Message


@dataclass(frozen=True)
class Partner:
    """A partner as the register has it.

    Attributes:
        number: names it in the register.
        name: of the company; empty where there is none that may be shown.
        tier: of partners.yaml; None where it has no such tier.
        mail: address of its contact; may be empty or malformed.
        nda_from: first day of the confidentiality agreement; None where nothing usable is said.
        nda_until: its last day, likewise.
        agreement_until: last day of the data-processing agreement, likewise.
        last_review_on: day of the last security review, likewise.
        live: whether it has access now; so it is where the register does not say.
        clear: whether the register says one thing of it; nothing else counts where it does not.
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
    clear: bool = True

    @property
    def called(self) -> Message:
        """Its name, for texts that show its number too."""
        return verbatim(self.name) if self.name else _("partner without a name")

    @property
    def title(self) -> Message:
        """Name and number, for people."""
        if not self.name:
            return _("partner {number}", number=self.number)
        return _("{name} ({number})", name=self.name, number=self.number)


@dataclass
class Register:
    """The partners that were read.

    Attributes:
        partners: by number.
        oddities: what has to be put right.
        unnamed: rows without a number that can be used.
    """

    partners: dict[str, Partner] = field(default_factory=dict)
    oddities: list[Oddity] = field(default_factory=list)
    unnamed: int = 0


def read(
    address: DatabaseAddress, database: MappedDatabase, rules: PartnerRules, today: date
) -> Register:
    """Read the register.

    Args:
        address: where it is, as one who may read it.
        database: of the data map.
        rules: partners.yaml.
        today: the day; no review was done on a later one.

    Raises:
        UsageError: the query cannot be read or lacks a column.
        ServiceError: the database is not there.
    """
    return interpret(_rows(address, database, rules), rules, today)


def register_of(run: RunContext[PartnerRules]) -> Register:
    """Read the register of partners as of today; raises as `read`."""
    name = run.rules.source.database
    return read(run.reader(name), run.database(name), run.rules, run.today)


def partner_of(run: RunContext[PartnerRules], number: str) -> Partner:
    """Return the partner with that number.

    Raises:
        UsageError: the register has none.
    """
    partner = register_of(run).partners.get(number)
    if partner is None:
        raise UsageError(
            f"The register has no partner {number}.", "See ./parcelseal partners list."
        )
    return partner


def interpret(rows: Sequence[Sequence[str | None]], rules: PartnerRules, today: date) -> Register:
    """Read rows of the register, whose columns are those of ``COLUMNS``, each as text."""
    found = Register()
    for row in rows:
        said = {name: (value or "").strip() for name, value in zip(COLUMNS, row, strict=True)}
        if not _NUMBER.fullmatch(said["partner"]) or not said["partner"].isprintable():
            found.unnamed += 1
        elif said["partner"] in found.partners:
            _twice(found, said)
        else:
            _Row(found, said, rules, today).take()
    return found


def _twice(found: Register, said: Mapping[str, str]) -> None:
    number = said["partner"]
    before = found.partners[number]
    live = before.live or _LIVE.get(said["live_access"].lower(), True)
    found.partners[number] = Partner(number, before.name, live=live, clear=False)
    if before.clear:
        found.oddities = [oddity for oddity in found.oddities if oddity.partner != number]
        found.oddities.append(
            Oddity(
                number,
                "partners.twice",
                _("The register has more than one row of this partner; none of them counts."),
                _("Leave one row of it."),
            )
        )


@dataclass
class _Row:
    """One row on its way into the register."""

    found: Register
    said: Mapping[str, str]
    rules: PartnerRules
    today: date

    def take(self) -> None:
        said, number = self.said, self.said["partner"]
        live = _LIVE.get(said["live_access"].lower())
        if live is None:
            self.odd(
                "partners.access_unclear",
                _("The register does not say whether this partner has access."),
                _("Enter whether it has; until then it counts as having it."),
            )
        partner = Partner(
            number,
            self.name(),
            tier=self.tier(),
            mail=said["mail"],
            live=live is not False,
            nda_from=self.day("nda_from"),
            nda_until=self.day("nda_until"),
            agreement_until=self.day("agreement_until"),
            last_review_on=self.day("last_review_on"),
        )
        self.found.partners[number] = self.sensible(partner)

    def odd(self, code: str, message: Message, action: Message) -> None:
        self.found.oddities.append(Oddity(self.said["partner"], code, message, action))

    def name(self) -> str:
        said = self.said["name"]
        name = one_line(said)
        broken = any(unicodedata.category(character) in _BREAKS for character in said)
        if broken or not name or len(name) > _LONGEST_NAME:
            self.odd(
                "partners.name",
                _("The partner's name is empty or too long, or has control characters."),
                _("Correct it in the register."),
            )
        if names_a_person(name):
            self.odd(
                "partners.name",
                _("The partner's name holds a mobile or ID number; it is not shown."),
                _("Enter the company's name."),
            )
            return ""
        return name[:_LONGEST_NAME]

    def tier(self) -> int | None:
        said = self.said["tier"]
        number = int(said) if re.fullmatch(r"[0-9]{1,4}", said) else None
        if self.rules.tier(number) is None:
            self.odd(
                "partners.unknown_tier",
                _("partners.yaml has no tier such as this partner's."),
                _("Correct the tier in the register, or add it to partners.yaml."),
            )
            return None
        return number

    def day(self, column: str) -> date | None:
        said = self.said[column]
        if not said:
            return None  # what is missing is told where it is missed
        try:
            if _DAY.fullmatch(said):
                return date.fromisoformat(said)
        except ValueError:
            pass
        self.odd(
            "partners.no_day",
            _("{column} is no day.", column=column),
            _("Enter a day such as 2027-03-31; until then nothing counts as agreed or reviewed."),
        )
        return None

    def sensible(self, partner: Partner) -> Partner:
        """The partner without dates that cannot be."""
        begins, ends = partner.nda_from, partner.nda_until
        if begins is None and ends is not None:
            if self.said["nda_from"]:  # is no day, which is told: it may begin next year
                partner = replace(partner, nda_until=None)
            else:
                self.odd(
                    "partners.nda_from_missing",
                    _("The first day of the confidentiality agreement is not entered."),
                    _("Enter it; until then the agreement counts as in force since ever."),
                )
        if begins is not None and ends is not None and ends < begins:
            self.odd(
                "partners.nda_backwards",
                _("The confidentiality agreement ends on {ends}, before it begins.", ends=ends),
                _("Correct the days in the register; until then it counts as missing."),
            )
            partner = replace(partner, nda_until=None)
        reviewed = partner.last_review_on
        if reviewed is not None and reviewed > self.today:
            self.odd(
                "partners.reviewed_in_future",
                _("The last review is dated {day}, which is to come.", day=reviewed),
                _("Correct the day in the register; until then it counts as missing."),
            )
            partner = replace(partner, last_review_on=None)
        return partner


def one_line(text: str) -> str:
    """A text in one line, without control characters: a name must not end a line of a mail."""
    plain = "".join(
        " " if unicodedata.category(character)[0] in "CZ" else character for character in text
    )
    return " ".join(plain.split())


def _rows(
    address: DatabaseAddress, database: MappedDatabase, rules: PartnerRules
) -> list[tuple[str | None, ...]]:
    relation = SQL("({}) AS one").format(pack_sql(rules.source.sql))
    try:
        with address.connect() as connection:
            connection.read_only = True
            path = SQL("SET LOCAL search_path = {}, pg_catalog")
            connection.execute(path.format(Identifier(database.schema_name)))
            for name, value in (*PRINTING.items(), ("statement_timeout", _TIME_LIMIT)):
                connection.execute(
                    SQL("SET LOCAL {} = {}").format(Identifier(name), Literal(value))
                )
            query = SQL("SELECT * FROM {} LIMIT 0").format(relation)
            have = {column.name for column in connection.execute(query, {}).description or []}
            if absent := [column for column in COLUMNS if column not in have]:
                raise UsageError(
                    f"partners.yaml: the register lacks the columns {', '.join(absent)}.",
                    f"Its query should have: {', '.join(COLUMNS)}.",
                )
            columns = SQL(", ").join(
                SQL("{}::text").format(Identifier(column)) for column in COLUMNS
            )
            rows = SQL("SELECT {} FROM {} ORDER BY 1, 2 LIMIT {}")
            found = connection.execute(rows.format(columns, relation, MOST + 1), {}).fetchall()
    except psycopg.OperationalError as error:
        raise ServiceError(
            f"The database of the partners was lost ({error.sqlstate or 'no answer'}).",
            "Check that the database runs, then retry.",
        ) from None
    except psycopg.Error as error:
        state = error.sqlstate or ""
        said = error.diag.message_primary if state.startswith(_SQL) else None  # has no value
        raise UsageError(
            f"partners.yaml: the register cannot be read: {said or f'SQLSTATE {state}'}.",
            "Correct its query, or the rights of its connection.",
        ) from None
    if len(found) > MOST:
        raise UsageError(
            f"partners.yaml: the register has more than {MOST:,} rows.",
            "Let its query have one row for each partner.",
        )
    return found
