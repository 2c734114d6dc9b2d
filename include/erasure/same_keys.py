"""Check that a key of the erasure ledger is the key that its entries were made with.

Under another secret of the same id no record of the ledger would be found: a restored copy would
keep everybody, and would look as if nobody had ever been erased.
"""

from __future__ import annotations

import hmac
from datetime import datetime

from sqlalchemy import Engine, select
from sqlalchemy.dialects.postgresql import insert

from include.erasure.ledger import ErasureKeys
from include.services.errors import UsageError
from include.state.tables import erasure_key

TEXT = b"parcelseal erasure key"  # what the check value is an HMAC of


def require_same(state: Engine, keys: ErasureKeys, at: datetime) -> None:
    """Hold the secret of each key id against the one that was used first, and remember a new one.

    Args:
        state: database of the ledger.
        keys: of the HMAC, old ones included.
        at: the moment.

    Raises:
        UsageError: a key is another than the one of that id before.
    """
    made = {name: hmac.digest(secret, TEXT, "sha256") for name, secret in keys.keys.items()}
    rows = [{"key_id": name, "check": check, "first_used_at": at} for name, check in made.items()]
    with state.begin() as conn:
        conn.execute(insert(erasure_key).on_conflict_do_nothing(), rows)
        query = select(erasure_key.c.key_id, erasure_key.c.check)
        known = {name: bytes(check) for name, check in conn.execute(query)}
    others = [one for one in made if not hmac.compare_digest(made[one], known[one])]
    if others:
        raise UsageError(
            f"The secret of erasure key {', '.join(sorted(others))} is not the one that the ledger "
            "was written with. A restore would not find erased people with it, and would bring "
            "them back.",
            "Put the earlier secret back into the extra `erasure_keys` of the connection state_db. "
            "To use a new secret, give it a new id and keep the earlier key.",
        )
