"""Create and update FAB users and their roles from a file that lists the users."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import yaml
from airflow.providers.fab.auth_manager import models as fab
from pydantic import Field, StringConstraints, TypeAdapter, ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from werkzeug.security import generate_password_hash

from include.frozen import StrictModel
from include.services.errors import UsageError
from include.services.whole_file import write_atomically

PASSWORD_BYTES = 18  # random bytes of a generated password, 24 characters
METHOD = "scrypt"  # FAB's default; the hash itself names its method

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=256)]


class Person(StrictModel):
    """An entry of the file that lists the users.

    Attributes:
        id: account for the log-in, as in the policy pack and the staff table.
        name: name that Airflow shows.
        mail: mail address. FAB requires a different address for each user.
        roles: names of the user's roles in Airflow, which replace the user's current roles.
    """

    id: Text
    name: Text
    mail: Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+\z", max_length=512)]
    roles: Annotated[tuple[Text, ...], Field(min_length=1)]


@dataclass
class UserChanges:
    """The changes that a synchronisation made to users.

    Attributes:
        created: accounts that were created.
        updated: accounts whose name, mail address or roles were changed.
        passwords: account -> password of each new user, either from the file of passwords or
            generated.
    """

    created: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    passwords: dict[str, str] = field(default_factory=dict)


def read_people(path: Path) -> list[Person]:
    """Read the file that lists the users, in YAML or JSON.

    Raises:
        UsageError: the file cannot be read or is invalid. The message lists the faults.
    """
    content = _read(path, "The file of users")
    try:
        people = TypeAdapter(list[Person]).validate_python(content)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, detail['loc'])) or 'the file'}: {detail['msg']}"
            for detail in error.errors(include_input=False)
        )
        raise UsageError(f"{path}: {faults}.", "Each user has id, name, mail and roles.") from None
    for attribute in ("id", "mail"):
        values: set[str] = set()
        for number, person in enumerate(people):
            if (value := getattr(person, attribute).casefold()) in values:
                raise UsageError(f"{path}: {number}.{attribute} appears twice in the file.")
            values.add(value)
    return people


def sync_users(session: Session, people: Sequence[Person], passwords: Path | None) -> UserChanges:
    """Create or update the listed users in FAB; leave all other users unchanged.

    Existing users keep their password. A new user gets the password from the file of passwords. If
    the file has no password for the user, a new password is generated and written to the file
    before the user is created.

    Args:
        session: database session on Airflow's database.
        people: users to create or update.
        passwords: JSON file, account -> password, which is created if needed. May be None if no
            user is new.

    Raises:
        UsageError: a role does not exist, another user has the same mail address, a new user has no
            password and `passwords` is None, or the file cannot be read or written.
    """
    roles = {role.name: role for role in session.scalars(select(fab.Role)).unique()}
    users = {user.username: user for user in session.scalars(select(fab.User)).unique()}
    changes = UserChanges()
    _require_roles(people, roles)
    stored = _read_passwords(passwords) if passwords and passwords.exists() else {}
    for person in people:
        _require_own_mail(session, person)
        if person.id not in users:
            changes.passwords[person.id] = stored.get(person.id) or secrets.token_urlsafe(
                PASSWORD_BYTES
            )
    if set(changes.passwords) - set(stored):
        _write_passwords(passwords, stored | changes.passwords)
    for person in people:
        user = users.get(person.id)
        person_roles = [roles[name] for name in dict.fromkeys(person.roles)]
        if user is None:
            hashed = generate_password_hash(changes.passwords[person.id], method=METHOD)
            user = fab.User(username=person.id, active=True, password=hashed)
            session.add(user)
            changes.created.append(person.id)
        elif _current_values(user) != (person.name, "", person.mail, sorted(set(person.roles))):
            changes.updated.append(person.id)
        else:
            continue
        user.first_name, user.last_name, user.email, user.roles = (
            person.name,
            "",
            person.mail,
            person_roles,
        )
        session.flush()
    return changes


def _current_values(user: Any) -> tuple[str, str, str, list[str]]:
    return user.first_name, user.last_name, user.email, sorted(role.name for role in user.roles)


def _require_roles(people: Sequence[Person], roles: Any) -> None:
    for person in people:
        if unknown := sorted(set(person.roles) - set(roles)):
            raise UsageError(
                f"User {person.id} has roles that do not exist: {', '.join(unknown)}.",
                "See `./parcelseal roles list`.",
            )


def _require_own_mail(session: Session, person: Person) -> None:
    query = select(fab.User.username).where(
        func.lower(fab.User.email) == person.mail.lower(), fab.User.username != person.id
    )
    if holder := session.scalar(query):
        raise UsageError(
            f"User {person.id} has the address of user {holder}.",
            "Give each user a separate address.",
        )


def _read_passwords(path: Path) -> dict[str, str]:
    content = _read(path, "The file of passwords")
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, str) and value for key, value in content.items()
    ):
        raise UsageError(
            f"{path} is not a mapping of accounts to passwords.", "Correct or remove it."
        )
    return content


def _read(path: Path, title: str) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{title} cannot be read: {path}: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{title} is neither YAML nor JSON: {path}{where}.") from None


def _write_passwords(path: Path | None, passwords: dict[str, str]) -> None:
    if path is None:
        raise UsageError(
            "There are new users, but no file for their passwords.", "Name a file with --passwords."
        )
    try:
        write_atomically(path, json.dumps(passwords, ensure_ascii=False, indent=2).encode())
    except OSError as error:
        raise UsageError(f"Passwords cannot be written: {path}: {error.strerror}.") from None
