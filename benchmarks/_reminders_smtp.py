"""A mail server in a separate process, which counts mails and discards them.

The server prints its port. When its standard input ends, it prints as JSON the number of mails,
recipients and message ids.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

_ID = re.compile(rb"^Message-ID:\s*<([^>]+)>", re.IGNORECASE | re.MULTILINE)


class Counting:
    """Accepts and counts every mail."""

    def __init__(self) -> None:
        self.mails, self.bytes = 0, 0
        self.recipients: set[str] = set()
        self.ids: set[bytes] = set()

    async def handle_DATA(self, _smtp: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        """Count a mail."""
        content: Any = envelope.content
        match = _ID.search(content)
        self.mails += 1
        self.bytes += len(content)
        self.recipients.update(envelope.rcpt_tos)
        self.ids.add(match[1] if match else b"")
        return "250 2.0.0 OK"


async def serve(counting: Counting) -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(counting, ident="bench"), "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


def main() -> None:
    """Serve, and print the counts at the end."""
    counting = Counting()
    asyncio.run(serve(counting))
    counts = {"mails": counting.mails, "recipients": len(counting.recipients)}
    sys.stdout.write(json.dumps(counts | {"ids": len(counting.ids), "bytes": counting.bytes}))


if __name__ == "__main__":
    main()
