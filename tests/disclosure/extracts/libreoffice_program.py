"""Convert an encrypted workbook to CSV: ``libreoffice_program.py FILE PASSWORD CSV PROFILE``.

Runs with the Python for which Debian installs LibreOffice's module `uno`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import uno
from com.sun.star.beans import PropertyValue
from com.sun.star.connection import NoConnectException

_CSV = "Text - txt - csv (StarCalc)"
_CSV_OPTIONS = "44,34,76,1,,0,false,false"  # comma, quote, UTF-8; values instead of displayed texts
_PATIENCE = 120  # seconds until LibreOffice has started


def main() -> None:
    """Start LibreOffice, and convert the workbook with it."""
    file, password, target, profile = sys.argv[1:]
    pipe = f"extract{os.getpid()}"
    office = subprocess.Popen(
        [
            "soffice",
            "--headless",
            "--norestore",
            f"-env:UserInstallation={Path(profile).as_uri()}",
            f"--accept=pipe,name={pipe};urp;",
        ]
    )
    try:
        desktop = _desktop(pipe)
        book = desktop.loadComponentFromURL(
            Path(file).as_uri(),
            "_blank",
            0,
            (_option("Hidden", True), _option("Password", password)),
        )
        if book is None:
            sys.exit("LibreOffice cannot open the workbook")
        options = (_option("FilterName", _CSV), _option("FilterOptions", _CSV_OPTIONS))
        book.storeToURL(Path(target).as_uri(), options)
        book.close(True)
        desktop.terminate()
        office.wait(60)
    finally:
        if office.poll() is None:
            office.terminate()
            office.wait()


def _desktop(pipe: str) -> Any:
    local = uno.getComponentContext()
    resolver = local.ServiceManager.createInstanceWithContext(
        "com.sun.star.bridge.UnoUrlResolver", local
    )
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            context = resolver.resolve(f"uno:pipe,name={pipe};urp;StarOffice.ComponentContext")
        except NoConnectException:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
        else:
            return context.ServiceManager.createInstanceWithContext(
                "com.sun.star.frame.Desktop", context
            )


def _option(name: str, value: object) -> Any:
    option = PropertyValue()
    option.Name, option.Value = name, value
    return option


if __name__ == "__main__":
    main()
