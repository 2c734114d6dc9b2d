"""Users of FAB from a file: who they are and which roles they have."""

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
from include.services.whole_file import write_whole

PASSWORD_BYTES = 18  # of chance in a generated password: 24 characters
# FAB's own, unless webserver_config.py says otherwise; which method it was stands in the hash
METHOD = "scrypt"

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=256)]


class Person(StrictModel):
    """One user.

    Attributes:
        id: account with which they log in, as the policy pack and the staff table name them.
        name: as Airflow shows it.
        mail: address; FAB wants one of its own for each user.
        roles: names of roles, of the table or of FAB; they replace those that the user had.
    """

    id: Text
    name: Text
    mail: Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+\z", max_length=512)]
    roles: Annotated[tuple[Text, ...], Field(min_length=1)]


@dataclass
class UserChanges:
    """What was changed of users.

    Attributes:
        created: accounts that are new.
        updated: accounts of which name, address or roles are others now.
        passwords: of those who are new.
    """

    created: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    passwords: dict[str, str] = field(default_factory=dict)


def read_people(path: Path) -> list[Person]:
    """Read a file of users: a list in YAML or JSON.

    Raises:
        UsageError: it cannot be read, or something in it is wrong; every fault is named.
    """
    content = _read(path, "The file of users")
    try:
        people = TypeAdapter(list[Person]).validate_python(content)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg']}"
            for one in error.errors(include_input=False)
        )
        raise UsageError(f"{path}: {faults}.", "Each user has id, name, mail and roles.") from None
    for attribute in ("id", "mail"):
        seen: set[str] = set()
        for number, one in enumerate(people):
            if (value := getattr(one, attribute).casefold()) in seen:
                raise UsageError(f"{path}: {number}.{attribute} stands there twice.")
            seen.add(value)
    return people


def sync_users(session: Session, people: Sequence[Person], passwords: Path | None) -> UserChanges:
    """Make the users of a list; change those who are there already; touch no others.

    Whoever is there keeps their password. A new user's is what the file of passwords has for them;
    one that is generated is written there before the user is made.

    Args:
        session: on Airflow's database.
        people: of the list.
        passwords: JSON, account to password; made with mode 0600 where it is needed.

    Raises:
        UsageError: a role or the file of passwords is missing, or an address is another's.
    """
    roles = {one.name: one for one in session.scalars(select(fab.Role)).unique()}
    users = {one.username: one for one in session.scalars(select(fab.User)).unique()}
    changes = UserChanges()
    _require_roles(people, roles)
    kept = _passwords(passwords) if passwords and passwords.exists() else {}
    for one in people:
        _require_own_mail(session, one)
        if one.id not in users:
            changes.passwords[one.id] = kept.get(one.id) or secrets.token_urlsafe(PASSWORD_BYTES)
    if set(changes.passwords) - set(kept):
        _keep(passwords, kept | changes.passwords)
    for one in people:
        user = users.get(one.id)
        given = [roles[name] for name in dict.fromkeys(one.roles)]
        if user is None:
            hashed = generate_password_hash(changes.passwords[one.id], method=METHOD)
            user = fab.User(username=one.id, active=True, password=hashed)
            session.add(user)
            changes.created.append(one.id)
        elif _as_is(user) != (one.name, "", one.mail, sorted(set(one.roles))):
            changes.updated.append(one.id)
        else:
            continue
        user.first_name, user.last_name, user.email, user.roles = one.name, "", one.mail, given
        session.flush()
    return changes


def _as_is(user: Any) -> tuple[str, str, str, list[str]]:
    return user.first_name, user.last_name, user.email, sorted(one.name for one in user.roles)


def _require_roles(people: Sequence[Person], roles: Any) -> None:
    for one in people:
        if unknown := sorted(set(one.roles) - set(roles)):
            raise UsageError(
                f"User {one.id} has roles that do not exist: {', '.join(unknown)}.",
                "See `./parcelseal roles list`.",
            )


def _require_own_mail(session: Session, person: Person) -> None:
    query = select(fab.User.username).where(
        func.lower(fab.User.email) == person.mail.lower(), fab.User.username != person.id
    )
    if holder := session.scalar(query):
        raise UsageError(
            f"User {person.id} has the address of user {holder}.",
            "Give each an address of its own.",
        )


def _passwords(path: Path) -> dict[str, str]:
    found = _read(path, "The file of passwords")
    if not isinstance(found, dict) or not all(
        isinstance(key, str) and isinstance(value, str) and value for key, value in found.items()
    ):
        raise UsageError(f"{path} is no object of accounts and passwords.", "Correct or remove it.")
    return found


def _read(path: Path, what: str) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{what} cannot be read: {path}: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{what} is neither YAML nor JSON: {path}{where}.") from None


def _keep(path: Path | None, passwords: dict[str, str]) -> None:
    """Write the file of passwords."""
    if path is None:
        raise UsageError(
            "There are new users, and no file for their passwords.", "Name one with --passwords."
        )
    try:
        write_whole(path, json.dumps(passwords, ensure_ascii=False, indent=2).encode())
    except OSError as error:
        raise UsageError(f"Passwords cannot be written: {path}: {error.strerror}.") from None
