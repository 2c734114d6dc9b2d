"""Show why a command waits, and for how long."""

from __future__ import annotations

import threading
import time

from rich.console import Console


class Countdown:
    """Prints a failed attempt, and on a terminal counts down to the next attempt.

    Args:
        screen: the person's terminal; libraries may write elsewhere.
    """

    def __init__(self, screen: Console) -> None:
        self._screen = screen

    def __call__(self, text: str, seconds: float) -> None:
        """Show a failed attempt.

        Args:
            text: what failed, and why, in one line.
            seconds: until the next attempt.
        """
        line = f"{text} Next attempt in {seconds:.0f} s."
        self._screen.print(f"[dim]·[/dim] {line.replace('[', chr(92) + '[')}", soft_wrap=True)
        if self._screen.is_terminal:
            threading.Thread(target=self._count, args=(seconds,), daemon=True).start()

    def _count(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        with self._screen.status("") as status:
            while (left := end - time.monotonic()) > 0:
                status.update(f"next attempt in {left:.0f} s")
                time.sleep(min(1.0, left))
