"""Guess which columns contain personal data, from names, related tables and counts of values.

Every guess has a reason and a confidence, and a person has to confirm it. The confidence is:

- high if the name of the column and at least one other indication (the table or the values) suggest
  the same data, or if the column refers to a person;
- medium if there is only one indication;
- low if the table is about people and nothing else is known about the column, or if the values
  contradict the name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from include.schema.context import (
    Context,
    category_by_values,
    contexts,
    is_actor,
    person_kind_by_key_name,
)
from include.schema.guesses import Confidence, Guess
from include.schema.live import LiveColumn, LiveSchema, Name
from include.schema.naming import (
    PERSON_INITIALS,
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
    """Guess the personal columns of a live schema.

    A column without a guess is taken as not personal.

    Args:
        live: result of ``read_schema``.
        counts: table -> result of ``count_patterns``. If a table is missing, its columns are
            guessed by their names.
    """
    guesses: list[Guess] = []
    for context in contexts(live, counts).values():
        for column in context.table.columns.values():
            guesses += _Column(context, column).guesses()
    return guesses


_Answer = tuple[str, Confidence, str]


class _Column:
    """A column, with the facts from which its data category is guessed."""

    def __init__(self, context: Context, column: LiveColumn) -> None:
        self.context = context
        self.column = column
        self.name_words = phrase(column.name)
        self.values = context.values(column.name)
        self.subject = context.subject

    def guesses(self) -> Iterator[Guess]:
        keys = list(self._keys())
        answer = self._guess_json(keys) if keys else self._answer()
        if answer is not None:
            yield self._guess("", answer)
            for key, key_answer in keys:
                yield self._guess(key, key_answer)

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
        return next((answer for step in steps if (answer := step()) is not None), None)

    # -- keys ---------------------------------------------------------------------------------

    def _by_key(self) -> _Answer | None:
        kind = self.context.people.get(self.column.name)
        if kind is not None:
            keys = {name for key in self.context.table.foreign_keys for name in key.columns}
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
        """Return whether the column alone identifies a row of its table.

        This is the case if it is the primary key, or if it has the name ``id`` and the table has no
        primary key.
        """
        key = self.context.table.primary_key
        return (self.column.name,) == key or (not key and self.name_words == "id")

    def _is_own_key(self) -> bool:
        """Return whether the column contains keys of its own table and not of another table.

        This is the case if it is the primary key, or if it is a part of the primary key and refers
        to no other table.
        """
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
        if self.name_words in PUBLIC_FIGURES and self.subject is not Subject.EMPLOYEE:
            return None
        if category in NEEDS_PERSON and not self._is_about_person(category):
            return None
        if self.name_words == "state" and not self._is_in_address():
            return None
        if category == "user.name" and self.subject is Subject.THING:
            return None
        return self._with_confidence(category)

    def _is_in_address(self) -> bool:
        """Return whether other columns of the table are parts of an address.

        In such a table, a column with the name ``state`` is a part of the address.
        """
        others = (
            category_of(column)
            for column in self.context.table.columns
            if column != self.column.name
        )
        return any((category or "").startswith("user.contact.address") for category in others)

    def _by_target(self) -> _Answer | None:
        """Guess the data category of a column from the table to which it refers.

        The column is taken as personal if it refers to an address, to a person's account, or, in a
        table of addresses, to a place such as a city.
        """
        target = self.context.targets[self.column.name]
        to_address = subject_of(target[1]) is Subject.ADDRESS
        if to_address and self.subject is not Subject.ORGANIZATION:
            return "user.contact.address", "high", "foreign key to an address"
        target_category = category_of(target[1]) or ""
        has_address = self.subject is Subject.ADDRESS or (
            self.subject is Subject.CUSTOMER and self._is_in_address()
        )
        if has_address and target_category.startswith("user.contact.address"):
            return target_category, "medium", "foreign key to a place, in an address"
        if subject_of(target[1]) is Subject.ACCOUNT and self.context.is_linked:
            return "user.financial", "medium", "foreign key to a person's account"
        return None

    def _fits(self, category: str) -> bool:
        name_words = words(self.column.name)
        if name_words and name_words[-1] in ABOUT:
            return False
        if self.column.form == "e":
            return True
        if self.column.base in BOOLS and name_words[0] in ("is", "has", "can", "use"):
            return category == "user.privacy_preferences"
        return self.column.base in HOLDERS.get(category, TEXT_OR_NUMBER)

    def _is_about_person(self, category: str = "") -> bool:
        """Return whether the column describes a person, and not an organization or a thing.

        Args:
            category: data category that is guessed for the column; empty if none is guessed yet.
        """
        if self.context.is_personal:
            return True
        if self.subject is Subject.THING or self._is_of_a_machine(category):
            return False
        if category in REACHES and self.subject is not Subject.ORGANIZATION:
            return True
        if self.column.base in BYTES and self.subject is not Subject.ORGANIZATION:
            return True  # bytes here are almost always a signature or a face
        return bool(ROLE.search(self.name_words)) or (
            (self.subject is Subject.ADDRESS or category_by_values(self.values) is not None)
            and self.subject is not Subject.ORGANIZATION
        )

    def _with_confidence(self, category: str) -> _Answer:
        expected = EXPECTED.get(category, ())
        if category == "user.government_id.national_identification_number":
            expected = ("resident_id", "ssn") if self.values.share("resident_id", "ssn") else ()
        share = self.values.share(*expected) if expected else 0.0
        if share >= 0.5:
            return category, "high", f"name, and {share:.0%} of the values"
        if expected and self.values.filled >= 20 and share < 0.02:
            return category, "low", "name only: no value looks like it"
        if self.context.is_personal:
            return category, "high", "name, in a table about people"
        return category, "medium", "name"

    # -- names --------------------------------------------------------------------------------

    def _by_name_of(self) -> _Answer | None:
        if self.column.base not in TEXT or self.column.name in self.context.targets:
            return None
        if named := _NAME.fullmatch(self.name_words):
            return self._guess_name(named[1] or "")
        if PERSON_INITIALS.fullmatch(self.name_words) or (
            person_word(words(self.column.name)[-1:]) and not self.subject.is_person
        ):
            # a role as a column of its own: driver, recipient
            share = self.values.share("chinese_name", "latin_name")
            if share >= 0.5:
                return "user.name", "medium", f"a role, and {share:.0%} of the values"
            return ("user.name", "low", "a role") if not self.values.filled else None
        if self.subject is Subject.EMPLOYEE and self.name_words in ("title", "role", "grade"):
            return "user.job_title", "high", "name, in a table of staff"
        if not self.context.is_personal:
            return None
        is_parcel = self.subject in (Subject.SHIPMENT, Subject.PURCHASE)
        if is_parcel and NUMBER_OF_A_PARCEL.fullmatch(self.name_words):
            return "user.unique_id", "medium", "a number that leads to a person"
        if FREE_TEXT.search(self.name_words):
            return "user.content.private", "medium", "free text about a person"
        return None

    def _guess_name(self, whose: str) -> _Answer | None:
        """Guess whether a column such as ``name`` or ``driver_name`` contains names of people.

        Args:
            whose: words of the column name before ``name``, such as ``driver``; may be empty.
        """
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
        if own and self.context.identifies_people:
            if share >= 0.3:
                return "user.name", "high", f"name, and {share:.0%} of the values"
            if not self.values.filled:
                return "user.name", "medium", "name, beside a person's other data"
        return None

    def _by_comment(self) -> _Answer | None:
        """Guess the data category from the comment on the column in the database.

        Only a short comment is used. Such a comment is often the name of the column in the language
        of the database's designer.
        """
        comment = (self.column.comment or "").strip()
        if not 0 < len(comment) <= 20 or self.column.name in self.context.targets:
            return None
        category = category_of(comment)
        if category is None or not self._fits(category):
            return None
        if category in NEEDS_PERSON and not self._is_about_person():
            return None
        return category, "medium", "the column's comment"

    # -- values -------------------------------------------------------------------------------

    def _by_values(self) -> _Answer | None:
        category = category_by_values(self.values)
        if (
            category is None
            or self._is_public(category)
            or self.column.name in self.context.targets
        ):
            return None
        if self.column.base in NUMBERS and self._is_own_key():
            return None
        return category, "medium", f"{self._best_share():.0%} of the values look like it"

    def _by_type(self) -> _Answer | None:
        """Guess the data category of the column from its type.

        A type for network addresses, device addresses or geographic locations indicates a data
        category.
        """
        if self.context.is_personal and self.column.base in DEVICES:
            return "user.device.device_id", "medium", "the type holds device addresses"
        if self.context.is_personal and self.column.base in PLACES:
            reason = "the type holds places, in a table about people"
            return "user.location.precise", "medium", reason
        category = "user.device.ip_address"
        if self.column.base not in NETWORKS or self._is_of_a_machine(category):
            return None
        if self.subject in (Subject.THING, Subject.ORGANIZATION):
            return None
        return category, "medium", "the type holds network addresses"

    def _is_of_a_machine(self, category: str) -> bool:
        names = f"{self.name_words} {phrase(self.context.table.name)}"
        return category == "user.device.ip_address" and bool(OF_MACHINES.search(names))

    def _is_public(self, category: str) -> bool:
        """Return whether values of a data category are public because of the table's content.

        Examples are the phone numbers in a table of shops, and the names in a table of artists.

        Args:
            category: data category that is guessed for the column.
        """
        if self.subject is Subject.ORGANIZATION:
            return not category.startswith(("user.government_id", "user.financial"))
        if category == "user.name":
            creators = {*words(self.column.name), *words(self.context.table.name)} & PUBLIC_FIGURES
            return bool(creators) or self.subject is Subject.THING
        return False

    def _best_share(self) -> float:
        return max(self.values.share(name) for name in self.values.like if name != "digits")

    # -- the table ----------------------------------------------------------------------------

    def _by_table(self) -> _Answer | None:
        """Guess the data category of the column from the kind of content of its table.

        The function guesses nothing for columns that only describe the row, such as the time of its
        last change.
        """
        is_key = self.column.name in self.context.targets
        if self._is_own_key() or self._is_row_metadata():
            return None
        if self.context.is_purchase_line:
            return "user.behavior.purchase_history", "medium", "a line of what a person bought"
        if self._is_of_a_neighbour():
            return None
        if self.subject is Subject.EMPLOYEE:
            return "user.workplace", "medium", "an attribute of staff"
        if is_key or person_kind_by_key_name(self.column):
            return None
        if self.subject is Subject.CUSTOMER:
            return "user.account", "low", "an attribute in a table of people"
        is_about = words(self.column.name)[-1:] and words(self.column.name)[-1] in ABOUT
        if (
            self.subject is Subject.ADDRESS
            and not is_about
            and (self.context.is_linked or not self.context.targets)
        ):
            return "user.contact.address", "medium", "part of an address"
        if not self.context.is_linked:
            return None
        if self.subject is Subject.PURCHASE and self.column.base in NUMBERS | DATES | PERIODS:
            return "user.behavior.purchase_history", "medium", "what a person bought, and when"
        if self.subject is Subject.WORK and self.context.is_linked_to_customer:
            return "user.account", "low", "an attribute of a record about a customer"
        category = {
            Subject.CONSENT: "user.privacy_preferences",
            Subject.HEALTH: "user.health_and_medical"
            if self.context.is_linked_to_customer
            else None,
            Subject.WORK: "user.workplace",
            Subject.ACCOUNT: "user.financial",
        }.get(self.subject)
        return (category, "medium", f"a person's {self.subject} record") if category else None

    def _is_row_metadata(self) -> bool:
        if TECHNICAL_CLOCK.fullmatch(self.name_words):
            return True
        if not ROW_KEEPING.search(self.name_words):
            return False
        return not (self.subject.is_person and ROW_KEEPING_OF_A_PERSON.search(self.name_words))

    def _is_of_a_neighbour(self) -> bool:
        """Return whether the column describes a record to which another column refers.

        For example, ``course_version`` describes the course to which ``course_id`` refers.
        """
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
            answer = inner._guess_json_key(self.column, values)
            if answer is not None:
                yield key, answer

    def _guess_json_key(self, around: LiveColumn, values: Counts) -> _Answer | None:
        is_about_person = self.context.is_personal or person_word(words(around.name)) is not None
        category = category_of(self.column.name)
        if category is None and self.name_words == "name" and is_about_person:
            category = "user.name"
        if category and (is_about_person or category not in NEEDS_PERSON):
            return self._with_confidence(category)
        by_values = category_by_values(values)
        if by_values is None:
            return None
        return by_values, "medium", f"{self._best_share():.0%} of the values look like it"

    def _guess_json(self, keys: list[tuple[str, _Answer]]) -> _Answer:
        """Guess the data category of a JSON column from the data categories of its personal keys.

        If the keys have several data categories, the result is the most specific category that
        includes all of them.

        Args:
            keys: personal keys of the JSON column, with the guess for each key.
        """
        first, *rest = [answer[0].split(".") for _key, answer in keys]
        common = first
        for parts in rest:
            same = [a for a, b in zip(common, parts, strict=False) if a == b]
            common = same if common[: len(same)] == same else common[:1]
        names = ", ".join(key for key, _answer in keys)
        return ".".join(common), "high", f"its keys: {names}"
