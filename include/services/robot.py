"""Robots of group chats: the webhooks of WeCom, DingTalk and Feishu.

A message has no id, so a second copy cannot be recognised: a message that may have arrived is
*in doubt*, and is not sent again by itself. No error and no log has address, token or secret.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import urlsplit

from include.services.clock import Clock
from include.services.connections import ConnectionSpec
from include.services.errors import UsageError
from include.services.fate import Fate, Reply
from include.services.transport import of_url

if TYPE_CHECKING:
    import requests

Kind = Literal["wecom", "dingtalk", "feishu"]
_PATHS = {
    "wecom": "/cgi-bin/webhook/send",
    "dingtalk": "/robot/send",
    "feishu": "/open-apis/bot/v2/hook",
}
_TOKENS = {"wecom": "key", "dingtalk": "access_token"}  # Feishu's is part of the path
LONGEST = {"wecom": 2048, "dingtalk": 20_000, "feishu": 20_000}
"""Bytes of a message's text, by kind."""
# Too often, or busy: all three allow some messages a minute only.
_LATER = {
    "wecom": {-1, 45009, 45033},
    "dingtalk": {-1, 130101, 130102, 410100},
    "feishu": {11232, 11233, 99991400},
}
_CONNECT, _ANSWER = 10, 30  # seconds

# Its debug messages contain the whole address, with the token.
logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)


@dataclass(frozen=True)
class Robot:
    """A robot of a group chat.

    Attributes:
        url: of its webhook, with the token.
        secret: that signs our messages; empty without one.
    """

    kind: Kind
    clock: Clock
    url: str = field(repr=False)
    secret: str = field(default="", repr=False)

    @classmethod
    def from_connection(cls, spec: ConnectionSpec, clock: Clock) -> Robot:
        """Read a connection of type ``http``.

        The host is the whole address, or the host alone; the password is the token or key, the
        extra has ``kind`` (``wecom``, ``dingtalk``, ``feishu``) and may have ``secret``.

        Raises:
            UsageError: another type or kind, no host, or an address that is not ``https``.
        """
        kind = spec.text("kind")
        if spec.conn_type not in {"http", "https"} or kind not in _PATHS:
            raise UsageError(
                f"Connection {spec.conn_id} is no robot of a group chat.",
                "Use type http with `kind` in its extra: wecom, dingtalk or feishu.",
            )
        if not spec.host:
            raise UsageError(f"Connection {spec.conn_id} names no host.")
        return cls(cast("Kind", kind), clock, _url(spec, kind), spec.text("secret"))

    @property
    def longest(self) -> int:
        """Bytes that a text may have."""
        return LONGEST[self.kind]

    def send(self, text: str) -> Reply:
        """Send one text to the chat."""
        import requests  # loads slowly, and few companies have robots

        body, query = self._content(text)
        try:
            answer = requests.post(
                self.url,
                params=query,
                data=json.dumps(body, ensure_ascii=False).encode(),
                headers={"Content-Type": "application/json; charset=utf-8"},
                timeout=(_CONNECT, _ANSWER),
                allow_redirects=False,
            )
        except requests.ConnectionError as error:
            return Reply(Fate.UNAVAILABLE if _never_connected(error) else Fate.IN_DOUBT)
        except requests.RequestException:
            return Reply(Fate.IN_DOUBT)
        return self._judged(answer)

    def _content(self, text: str) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the body in the form of the kind, and the parameters of the address."""
        now = self.clock.now().timestamp()
        if self.kind == "feishu":
            body: dict[str, Any] = {"msg_type": "text", "content": {"text": text}}
            if self.secret:
                stamp = str(int(now))
                key = f"{stamp}\n{self.secret}".encode()
                body |= {"timestamp": stamp, "sign": _signed(key, b"")}
            return body, {}
        body = {"msgtype": "text", "text": {"content": text}}
        if self.kind == "dingtalk" and self.secret:
            stamp = str(round(now * 1000))
            signed = _signed(self.secret.encode(), f"{stamp}\n{self.secret}".encode())
            return body, {"timestamp": stamp, "sign": signed}
        return body, {}

    def _judged(self, answer: requests.Response) -> Reply:
        status = answer.status_code
        if status in (429, 503):
            return Reply(Fate.DEFERRED, str(status))
        if status >= 500 or status < 200:
            return Reply(
                Fate.IN_DOUBT, str(status)
            )  # of a gateway: its server may have the message
        if status >= 300:
            return Reply(Fate.REFUSED, str(status))
        try:
            content = answer.json()
            code = content.get("errcode", content.get("code", content.get("StatusCode")))
        except (ValueError, AttributeError):
            return Reply(Fate.IN_DOUBT, str(status))
        if not isinstance(code, int):
            return Reply(Fate.IN_DOUBT, str(status))
        if code == 0:
            return Reply(Fate.ACCEPTED, str(status))
        later = code in _LATER[self.kind]
        return Reply(Fate.DEFERRED if later else Fate.REFUSED, f"{status} {code}")


Robots = Callable[[str], Robot]
"""Finds the robot of a connection's id; raises UsageError where there is none."""


def _url(spec: ConnectionSpec, kind: str) -> str:
    address = spec.host if "://" in spec.host else f"{spec.schema or 'https'}://{spec.host}"
    parts = urlsplit(address)
    if not of_url(address).is_safe:
        raise UsageError(
            f"Connection {spec.conn_id}: the address of the robot is not https.",
            "Copy the whole webhook address from the group chat.",
        )
    if spec.port and parts.port is None:
        parts = parts._replace(netloc=f"{parts.netloc}:{spec.port}")
    path = parts.path.rstrip("/") or _PATHS[kind]
    query = parts.query
    if spec.password and kind == "feishu":
        path = f"{path}/{spec.password}"
    elif spec.password:
        query = f"{query}&" * bool(query) + f"{_TOKENS[kind]}={spec.password}"
    return parts._replace(path=path, query=query, fragment="").geturl()


def _signed(key: bytes, text: bytes) -> str:
    return base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()


def _never_connected(error: requests.ConnectionError) -> bool:
    """Return whether nothing was sent: there was no connection, or its TLS was refused."""
    import requests
    from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError, SSLError

    if isinstance(error, requests.ConnectTimeout | requests.exceptions.SSLError):
        return True
    cause = error.args[0] if error.args else None
    reason = cause.reason if isinstance(cause, MaxRetryError) else cause
    return isinstance(reason, NewConnectionError | ConnectTimeoutError | SSLError)
