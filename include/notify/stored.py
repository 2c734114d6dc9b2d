"""Messages of the catalogue as the state database takes them."""

from __future__ import annotations

import json
import re
from typing import Any

from include.messages import Message
from include.reports.i18n import visible

_NOT_STORED = re.compile(r"\\u0000|\\ud[89a-f]", re.IGNORECASE)  # by JSONB


def stored(message: Message) -> str:
    """A message as JSONB takes it: what that cannot hold is written out."""
    return json.dumps(storable(message.model_dump(mode="json")))


def storable(plain: Any) -> Any:
    """Values of JSON whose texts JSONB takes; done twice, it changes nothing more."""
    return _written_out(plain) if _NOT_STORED.search(json.dumps(plain)) else plain


def _written_out(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {key: _written_out(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_written_out(one) for one in value]
    return value
