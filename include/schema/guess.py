"""Guessing which columns hold personal data, from names, neighbours, keys and counts of values.

Every guess has a reason and a confidence; a person decides. High: name and surroundings or name
and values agree. Medium: one of them speaks. Low: the table is about people and nothing speaks
against it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from include.schema.context import Context, by_value, contexts, is_actor, named_key
from include.schema.guesses import Confidence, Guess
from include.schema.live import LiveColumn, LiveSchema, Name
from include.schema.naming import (
    WHOSE,
    Subject,
    category_of,
    person_word,
    phrase,
    subject_of,
    words,
)
from include.schema.patterns import (
    BOOLS,
    BYTES,
    DATES,
    DEVICES,
    EXPECTED,
    HOLDERS,
    NETWORKS,
    NUMBERS,
    PERIODS,
    PLACES,
    REACHES,
    TEXT,
    TEXT_OR_NUMBER,
    Counts,
    TableCounts,
)
from include.schema.vocabulary import (
    ABOUT,
    FREE_TEXT,
    NEEDS_PERSON,
    NUMBER_OF_A_PARCEL,
    OF_MACHINES,
    PUBLIC_FIGURES,
    ROLE,
    ROLES,
    ROW_KEEPING,
    ROW_KEEPING_OF_A_PERSON,
    TECHNICAL_CLOCK,
)

_NAME = re.compile(r"(?:(.*) )?names?$")


def guess(live: LiveSchema, counts: Mapping[Name, TableCounts]) -> list[Guess]:
    """Guess the personal columns of a live schema; columns without a guess are not personal.

    Args:
        live: of ``read_schema``.
        counts: of ``count_patterns``, by table; a table that is missing is guessed by its names.
    """
    found: list[Guess] = []
    for context in contexts(live, counts).values():
        for column in context.table.columns.values():
            found += _Column(context, column).guesses()
    return found


_Answer = tuple[str, Confidence, str]


class _Column:
    """One column and all that can be said about it."""

    def __init__(self, context: Context, column: LiveColumn) -> None:
        self.context = context
        self.column = column
        self.said = phrase(column.name)
        self.values = context.values(column.name)
        self.subject = context.subject

    def guesses(self) -> Iterator[Guess]:
        keys = list(self._keys())
        answer = self._of_keys(keys) if keys else self._answer()
        if answer is not None:
            yield self._guess("", answer)
            for key, one in keys:
                yield self._guess(key, one)

    def _guess(self, key: str, answer: _Answer) -> Guess:
        table = self.context.table
        kind = self.context.people.get(self.column.name)
        is_staff = kind is Subject.EMPLOYEE or (kind is None and is_actor(self.column.name))
        subject = "employee" if is_staff and answer[0] == "user.workplace" else ""
        return Guess(table.schema, table.name, self.column.name, key, *answer, subject=subject)

    def _answer(self) -> _Answer | None:
        steps = (
            self._by_key, self._by_word, self._by_name_of, self._by_comment,
            self._by_values, self._by_type, self._by_table,
        )  # fmt: skip
        return next((found for step in steps if (found := step()) is not None), None)

    # -- keys ---------------------------------------------------------------------------------

    def _by_key(self) -> _Answer | None:
        kind = self.context.people.get(self.column.name)
        if kind is not None:
            keys = {one for key in self.context.table.foreign_keys for one in key.columns}
            by = "foreign key" if self.column.name in keys else "named as a key"
            return self._person_key(kind, f"{by} to a person")
        if self.subject.is_person and self._identifies_the_row():
            return "user.unique_id", "high", "identifies the person"
        if self.column.name in self.context.targets or self.column.base in DATES | PERIODS | BOOLS:
            return None
        return (
            ("user.workplace", "medium", "names who did it") if is_actor(self.column.name) else None
        )

    def _person_key(self, kind: Subject, reason: str) -> _Answer:
        category = "user.workplace" if kind is Subject.EMPLOYEE else "user.unique_id"
        return category, "high", reason

    def _identifies_the_row(self) -> bool:
        """Whether it is the primary key, or called id in a table that declares none."""
        key = self.context.table.primary_key
        return (self.column.name,) == key or (not key and self.said == "id")

    def _is_own_key(self) -> bool:
        """Whether it is the row's own name, or part of it that leads nowhere else."""
        key = self.context.table.primary_key
        return (self.column.name,) == key or (
            self.column.name in key and self.column.name not in self.context.targets
        )

    # -- words --------------------------------------------------------------------------------

    def _by_word(self) -> _Answer | None:
        if self.column.name in self.context.targets:
            return self._by_target()
        category = category_of(self.column.name)
        if category is None or not self._fits(category):
            return None
        if self.said in PUBLIC_FIGURES and self.subject is not Subject.EMPLOYEE:
            return None
        if category in NEEDS_PERSON and not self._is_a_persons(category):
            return None
        if self.said == "state" and not self._stands_in_an_address():
            return None
        if category == "user.name" and self.subject is Subject.THING:
            return None
        return self._weighed(category)

    def _stands_in_an_address(self) -> bool:
        """Whether the table has other parts of an address: then ``state`` is one, too."""
        others = (category_of(one) for one in self.context.table.columns if one != self.column.name)
        return any((one or "").startswith("user.contact.address") for one in others)

    def _by_target(self) -> _Answer | None:
        """A key to an address is the address; staff's keys say where they work."""
        target = self.context.targets[self.column.name]
        to_address = subject_of(target[1]) is Subject.ADDRESS
        if to_address and self.subject is not Subject.ORGANIZATION:
            return "user.contact.address", "high", "foreign key to an address"
        place = category_of(target[1]) or ""
        has_address = self.subject is Subject.ADDRESS or (
            self.subject is Subject.CUSTOMER and self._stands_in_an_address()
        )
        if has_address and place.startswith("user.contact.address"):
            return place, "medium", "foreign key to a place, in an address"
        if subject_of(target[1]) is Subject.ACCOUNT and self.context.linked:
            return "user.financial", "medium", "foreign key to a person's account"
        return None

    def _fits(self, category: str) -> bool:
        said = words(self.column.name)
        if said and said[-1] in ABOUT:
            return False
        if self.column.form == "e":
            return True
        if self.column.base in BOOLS and said[0] in ("is", "has", "can", "use"):
            return category == "user.privacy_preferences"
        return self.column.base in HOLDERS.get(category, TEXT_OR_NUMBER)

    def _is_a_persons(self, category: str = "") -> bool:
        """Whether what it says belongs to a person and not to a shop or a thing."""
        if self.context.personal:
            return True
        if self.subject is Subject.THING or self._is_of_a_machine(category):
            return False
        if category in REACHES and self.subject is not Subject.ORGANIZATION:
            return True
        if self.column.base in BYTES and self.subject is not Subject.ORGANIZATION:
            return True  # nobody stores a signature or a face as bytes for another reason
        return bool(ROLE.search(self.said)) or (
            (self.subject is Subject.ADDRESS or by_value(self.values) is not None)
            and self.subject is not Subject.ORGANIZATION
        )

    def _weighed(self, category: str) -> _Answer:
        expected = EXPECTED.get(category, ())
        if category == "user.government_id.national_identification_number":
            expected = ("resident_id", "ssn") if self.values.share("resident_id", "ssn") else ()
        share = self.values.share(*expected) if expected else 0.0
        if share >= 0.5:
            return category, "high", f"name, and {share:.0%} of the values"
        if expected and self.values.filled >= 20 and share < 0.02:
            return category, "low", "name only: no value looks like it"
        if self.context.personal:
            return category, "high", "name, in a table about people"
        return category, "medium", "name"

    # -- names --------------------------------------------------------------------------------

    def _by_name_of(self) -> _Answer | None:
        if self.column.base not in TEXT or self.column.name in self.context.targets:
            return None
        if named := _NAME.fullmatch(self.said):
            return self._name_of(named[1] or "")
        if WHOSE.fullmatch(self.said) or (
            person_word(words(self.column.name)[-1:]) and not self.subject.is_person
        ):
            # a role as a column of its own: driver, recipient
            share = self.values.share("chinese_name", "latin_name")
            if share >= 0.5:
                return "user.name", "medium", f"a role, and {share:.0%} of the values"
            return ("user.name", "low", "a role") if not self.values.filled else None
        if self.subject is Subject.EMPLOYEE and self.said in ("title", "role", "grade"):
            return "user.job_title", "high", "name, in a table of staff"
        if not self.context.personal:
            return None
        is_parcel = self.subject in (Subject.SHIPMENT, Subject.PURCHASE)
        if is_parcel and NUMBER_OF_A_PARCEL.fullmatch(self.said):
            return "user.unique_id", "medium", "a number that leads to a person"
        if FREE_TEXT.search(self.said):
            return "user.content.private", "medium", "free text about a person"
        return None

    def _name_of(self, whose: str) -> _Answer | None:
        """A column called name: of the person, of somebody in a role, or of a thing."""
        share = self.values.share("chinese_name", "latin_name")
        if whose and (
            person_word(tuple(whose.split())) or re.search(rf"(?:^| )(?:{ROLES})$", whose)
        ):
            return "user.name", "high", "name of somebody in a role"
        own = whose in ("", *words(self.context.table.name)) or whose == phrase(
            self.context.table.name
        )
        if own and self.subject.is_person:
            return "user.name", "high", "name, in a table of people"
        if own and self.context.holds:
            if share >= 0.3:
                return "user.name", "high", f"name, and {share:.0%} of the values"
            if not self.values.filled:
                return "user.name", "medium", "name, beside a person's other data"
        return None

    def _by_comment(self) -> _Answer | None:
        """A short comment is often the column's name in the designer's language."""
        comment = (self.column.comment or "").strip()
        if not 0 < len(comment) <= 20 or self.column.name in self.context.targets:
            return None
        category = category_of(comment)
        if category is None or not self._fits(category):
            return None
        if category in NEEDS_PERSON and not self._is_a_persons():
            return None
        return category, "medium", "the column's comment"

    # -- values -------------------------------------------------------------------------------

    def _by_values(self) -> _Answer | None:
        category = by_value(self.values)
        if (
            category is None
            or self._is_public(category)
            or self.column.name in self.context.targets
        ):
            return None
        if self.column.base in NUMBERS and self._is_own_key():
            return None
        return category, "medium", f"{self._best():.0%} of the values look like it"

    def _by_type(self) -> _Answer | None:
        """Guess by the column type: network address, device address or place."""
        if self.context.personal and self.column.base in DEVICES:
            return "user.device.device_id", "medium", "the type holds device addresses"
        if self.context.personal and self.column.base in PLACES:
            reason = "the type holds places, in a table about people"
            return "user.location.precise", "medium", reason
        category = "user.device.ip_address"
        if self.column.base not in NETWORKS or self._is_of_a_machine(category):
            return None
        if self.subject in (Subject.THING, Subject.ORGANIZATION):
            return None
        return category, "medium", "the type holds network addresses"

    def _is_of_a_machine(self, category: str) -> bool:
        names = f"{self.said} {phrase(self.context.table.name)}"
        return category == "user.device.ip_address" and bool(OF_MACHINES.search(names))

    def _is_public(self, category: str) -> bool:
        """Shops have phones and addresses too; artists have names."""
        if self.subject is Subject.ORGANIZATION:
            return not category.startswith(("user.government_id", "user.financial"))
        if category == "user.name":
            creators = {*words(self.column.name), *words(self.context.table.name)} & PUBLIC_FIGURES
            return bool(creators) or self.subject is Subject.THING
        return False

    def _best(self) -> float:
        return max(self.values.share(one) for one in self.values.like if one != "digits")

    # -- the table ----------------------------------------------------------------------------

    def _by_table(self) -> _Answer | None:
        """What the whole table says about a person, unless the column is only about the row."""
        is_key = self.column.name in self.context.targets
        if self._is_own_key() or self._keeps_rows():
            return None
        if self.context.is_purchase_line:
            return "user.behavior.purchase_history", "medium", "a line of what a person bought"
        if self._is_of_a_neighbour():
            return None
        if self.subject is Subject.EMPLOYEE:
            return "user.workplace", "medium", "an attribute of staff"
        if is_key or named_key(self.column):
            return None
        if self.subject is Subject.CUSTOMER:
            return "user.account", "low", "an attribute in a table of people"
        is_about = words(self.column.name)[-1:] and words(self.column.name)[-1] in ABOUT
        if (
            self.subject is Subject.ADDRESS
            and not is_about
            and (self.context.linked or not self.context.targets)
        ):
            return "user.contact.address", "medium", "part of an address"
        if not self.context.linked:
            return None
        if self.subject is Subject.PURCHASE and self.column.base in NUMBERS | DATES | PERIODS:
            return "user.behavior.purchase_history", "medium", "what a person bought, and when"
        if self.subject is Subject.WORK and self.context.linked_to_customer:
            return "user.account", "low", "an attribute of a record about a customer"
        category = {
            Subject.CONSENT: "user.privacy_preferences",
            Subject.HEALTH: "user.health_and_medical" if self.context.linked_to_customer else None,
            Subject.WORK: "user.workplace",
            Subject.ACCOUNT: "user.financial",
        }.get(self.subject)
        return (category, "medium", f"a person's {self.subject} record") if category else None

    def _keeps_rows(self) -> bool:
        if TECHNICAL_CLOCK.fullmatch(self.said):
            return True
        if not ROW_KEEPING.search(self.said):
            return False
        return not (self.subject.is_person and ROW_KEEPING_OF_A_PERSON.search(self.said))

    def _is_of_a_neighbour(self) -> bool:
        """Whether it describes what a key leads to: course_version beside course_id."""
        first = words(self.column.name)[:1]
        return any(
            words(target[1])[:1] == first and not person_word(words(target[1]))
            for column, target in self.context.targets.items()
            if column != self.column.name
        )

    # -- inside JSON --------------------------------------------------------------------------

    def _keys(self) -> Iterator[tuple[str, _Answer]]:
        for key, values in self.context.counts.keys.get(self.column.name, {}).items():
            inner = _Column(self.context, LiveColumn(key, "text", "text"))
            inner.values = values
            answer = inner._of_json(self.column, values)
            if answer is not None:
                yield key, answer

    def _of_json(self, around: LiveColumn, values: Counts) -> _Answer | None:
        theirs = self.context.personal or person_word(words(around.name)) is not None
        category = category_of(self.column.name)
        if category is None and self.said == "name" and theirs:
            category = "user.name"
        if category and (theirs or category not in NEEDS_PERSON):
            return self._weighed(category)
        seen = by_value(values)
        return (seen, "medium", f"{self._best():.0%} of the values look like it") if seen else None

    def _of_keys(self, keys: list[tuple[str, _Answer]]) -> _Answer:
        """A JSON column is what its keys have in common."""
        first, *rest = [answer[0].split(".") for _key, answer in keys]
        common = first
        for parts in rest:
            same = [a for a, b in zip(common, parts, strict=False) if a == b]
            common = same if common[: len(same)] == same else common[:1]
        names = ", ".join(key for key, _answer in keys)
        return ".".join(common), "high", f"its keys: {names}"
