"""Generate data/saved_by_libreoffice.xlsx: a completed workbook that LibreOffice saved.

Run ``python -m tests.sampling.workpapers.make_saved_by_libreoffice`` in the checkout, with
LibreOffice Calc installed. LibreOffice 25.2.3 of Debian 13 saved the file in git. Run it again when
the form of the workbook has changed.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from include.sampling.workpapers.writing import write
from tests.sampling.workpapers.support import (
    LIBREOFFICE,
    NOTES,
    OTHER_ANSWERS,
    edited,
    fill,
    workpapers,
)


def main() -> None:
    issued = workpapers()
    content = edited(write(issued), lambda book: fill(book, issued, OTHER_ANSWERS, NOTES))
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "filled.xlsx"
        source.write_bytes(content)
        profile = f"-env:UserInstallation=file://{folder}/profile"
        command = ["soffice", profile, "--headless", "--convert-to", "xlsx", "--outdir"]
        subprocess.run([*command, f"{folder}/saved", str(source)], check=True, timeout=120)
        shutil.copy(Path(folder) / "saved" / "filled.xlsx", LIBREOFFICE)


if __name__ == "__main__":
    main()
