"""Send messages to group chats through the webhooks of WeCom, DingTalk and Feishu robots.

A message to these services has no id, so they cannot recognise that the same message is sent twice.
Therefore, if a message may have arrived, it is *in doubt* and is not sent again automatically.
Errors and logs contain no address, token or secret.
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
from include.services.delivery_status import DeliveryStatus, Reply
from include.services.errors import UsageError
from include.services.transport import of_url

if TYPE_CHECKING:
    import requests

Kind = Literal["wecom", "dingtalk", "feishu"]
_PATHS = {
    "wecom": "/cgi-bin/webhook/send",
    "dingtalk": "/robot/send",
    "feishu": "/open-apis/bot/v2/hook",
}
_TOKENS = {"wecom": "key", "dingtalk": "access_token"}  # in Feishu URLs, it is part of the path
LONGEST = {"wecom": 2048, "dingtalk": 20_000, "feishu": 20_000}
"""Bytes of a message's text, by kind."""
# Codes for too many messages per minute, or for a busy service.
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
    """A robot that posts messages to a group chat.

    Attributes:
        kind: chat service of the robot.
        clock: clock for the timestamps of signed messages.
        url: URL of the webhook, including the token.
        secret: secret with which messages are signed; empty if they are not signed.
    """

    kind: Kind
    clock: Clock
    url: str = field(repr=False)
    secret: str = field(default="", repr=False)

    @classmethod
    def from_connection(cls, spec: ConnectionSpec, clock: Clock) -> Robot:
        """Return the robot that a connection of type ``http`` describes.

        The host is the complete URL of the webhook, or only the host name. The password is the
        token or key. The extra has ``kind`` (``wecom``, ``dingtalk``, ``feishu``) and may have
        ``secret``.

        Raises:
            UsageError: the type or ``kind`` is wrong, the host is missing, or the URL is not
                ``https``.
        """
        kind = spec.text("kind")
        if spec.conn_type not in {"http", "https"} or kind not in _PATHS:
            raise UsageError(
                f"Connection {spec.conn_id} is not a robot of a group chat.",
                "Use type http with `kind` in its extra: wecom, dingtalk or feishu.",
            )
        if not spec.host:
            raise UsageError(f"Connection {spec.conn_id} has no host.")
        return cls(cast("Kind", kind), clock, _url(spec, kind), spec.text("secret"))

    @property
    def longest(self) -> int:
        """Return the largest size in bytes that the chat service allows for a message text."""
        return LONGEST[self.kind]

    def send(self, text: str) -> Reply:
        """Send a text message to the chat, and return the reply with the delivery status."""
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
            return Reply(
                DeliveryStatus.UNAVAILABLE if _never_connected(error) else DeliveryStatus.IN_DOUBT
            )
        except requests.RequestException:
            return Reply(DeliveryStatus.IN_DOUBT)
        return self._judged(answer)

    def _content(self, text: str) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the JSON body and URL parameters of the request that posts a text to the chat."""
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
            return Reply(DeliveryStatus.DEFERRED, str(status))
        if status >= 500 or status < 200:
            return Reply(
                DeliveryStatus.IN_DOUBT, str(status)
            )  # from a gateway: the chat service may have received the message
        if status >= 300:
            return Reply(DeliveryStatus.REFUSED, str(status))
        try:
            content = answer.json()
            code = content.get("errcode", content.get("code", content.get("StatusCode")))
        except (ValueError, AttributeError):
            return Reply(DeliveryStatus.IN_DOUBT, str(status))
        if not isinstance(code, int):
            return Reply(DeliveryStatus.IN_DOUBT, str(status))
        if code == 0:
            return Reply(DeliveryStatus.ACCEPTED, str(status))
        later = code in _LATER[self.kind]
        return Reply(
            DeliveryStatus.DEFERRED if later else DeliveryStatus.REFUSED, f"{status} {code}"
        )


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
    """Return whether an error means that no connection was established.

    In this case, the message was certainly not sent.
    """
    import requests
    from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError, SSLError

    if isinstance(error, requests.ConnectTimeout | requests.exceptions.SSLError):
        return True
    cause = error.args[0] if error.args else None
    reason = cause.reason if isinstance(cause, MaxRetryError) else cause
    return isinstance(reason, NewConnectionError | ConnectTimeoutError | SSLError)
