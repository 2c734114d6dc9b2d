"""The store of extracts: connection ``extract_store``.

Each extract is one object below ``use/REQUEST/``. Its key contains the id of the attempt that
wrote it, so an object that no grant names is a left-over and is deleted.
"""

from __future__ import annotations

from collections.abc import Iterator

from include.disclosure.content import DeliveryForm
from include.disclosure.extracts.passwords import MINIMUM_KEY, derive_password
from include.disclosure.grants import Grant
from include.disclosure.requests import UseRequest
from include.disclosure.rules import USE, UseRules
from include.service_container import Services
from include.services.errors import UsageError
from include.services.objectstore.base import ObjectStore
from include.workflow.run_context import RunContext

STORE = "extract_store"
FOLDER = "use"  # of all extracts in the store
PASSWORD_KEY = "password_key"  # noqa: S105 - name of an extra


def has_extract_store(services: Services) -> bool:
    """Return whether extracts are configured: by use.yaml, and by the connection of their store.

    The local profile replaces the connection only together with ``state_db``: extracts of a real
    company never go to the home folder of a person.
    """
    if services.pack.section(USE) is None:
        return False
    if services.lookup(STORE) is not None:
        return True
    return services.is_local("state_db") and services.is_local(STORE)


def open_extract_store(services: Services) -> ObjectStore:
    """Return the store of extracts.

    Raises:
        UsageError: the connection ``extract_store`` is not configured.
    """
    if not has_extract_store(services):
        raise UsageError(
            f"Extracts are not configured: there is no connection {STORE}.",
            f"Set AIRFLOW_CONN_{STORE.upper()} or add it in Airflow.",
        )
    return services.store(STORE)


def check_extract_store(run: RunContext[UseRules]) -> ObjectStore:
    """Return the store of extracts if extracts can be deleted from it at any time.

    Raises:
        UsageError: the connection is missing or incomplete, or the store locks new objects.
    """
    store = open_extract_store(run.services)
    if store.locks_new_objects():
        raise UsageError(
            f"The extract store {store.description} locks new objects, so an expired extract "
            "could not be deleted.",
            "Use a bucket without a default retention of Object Lock.",
        )
    password_key(run)
    return store


def password_key(run: RunContext[UseRules]) -> bytes:
    """Return the secret from which the passwords of extracts are derived.

    Raises:
        UsageError: the connection ``extract_store`` has no secret, or it is too short.
    """
    secret = run.services.connection(STORE).text(PASSWORD_KEY).encode()
    if len(secret) < MINIMUM_KEY:
        raise UsageError(
            f"The connection {STORE} has no secret for the passwords of extracts.",
            f"Set its extra `{PASSWORD_KEY}` to a random text of at least {MINIMUM_KEY} bytes.",
        )
    return secret


def password_of(run: RunContext[UseRules], request: UseRequest, grant: Grant) -> str:
    """Return the password of an extract; empty for an extract for a machine.

    Raises:
        UsageError: the connection ``extract_store`` has no secret.
    """
    if request.content.form is DeliveryForm.AGE:
        return ""
    return derive_password(password_key(run), request.sha256, request.requester, grant.attempt)


def extract_key(number: int, attempt: str, form: DeliveryForm) -> str:
    """Return the key of the object that an attempt writes.

    Args:
        number: number of the request.
        attempt: id of the attempt.
        form: form of the extract.
    """
    return f"{FOLDER}/{number}/{attempt}.{form}"


def delete_extracts(store: ObjectStore, number: int) -> int:
    """Delete all versions of all objects of a request, and return the number of objects.

    Uploads that were begun are aborted, too: the access has ended, so no worker may complete one.

    Raises:
        StoreError: the store is unavailable, or a version is locked.
    """
    prefix = f"{FOLDER}/{number}/"
    store.clear_abandoned(prefix)
    keys = {version.key for version in store.list_versions(prefix)}
    for key in sorted(keys):
        store.delete(key)
    return len(keys)


def stored_keys(store: ObjectStore) -> Iterator[str]:
    """Yield the key of each object, and of each older version, in the folder of extracts."""
    for version in store.list_versions(f"{FOLDER}/"):
        if not version.is_marker:
            yield version.key
