"""The text file of an inspection pack with shell commands that check the pack."""

from __future__ import annotations

from collections.abc import Iterator

from include.inspection.letter import PackFacts
from include.messages import _
from include.reports.i18n import LOCALES, Translator

INSTRUCTIONS = "HOW-TO-CHECK.txt"
_VERIFY = 'openssl pkeyutl -verify -pubin -inkey "keys/$key.pem" -rawin'


def render_instructions(facts: PackFacts) -> bytes:
    """Return the content of the text file, in both languages.

    Args:
        facts: content of the pack.
    """
    parts = ["\n".join(_lines(Translator(locale, facts.timezone), facts)) for locale in LOCALES]
    return (f"\n\n{'=' * 72}\n\n".join(parts) + "\n").encode()


def commands(fingerprints: list[str]) -> list[str]:
    """Return shell commands that check an unpacked inspection pack with coreutils and OpenSSL 3.

    Args:
        fingerprints: fingerprints of the public keys in the pack.
    """
    return [command for _words, lines in _steps(fingerprints) for command in lines]


def _steps(fingerprints: list[str]) -> list[tuple[str, list[str]]]:
    keys = " ".join(fingerprints)
    return [
        ("files", ["sha256sum -c --quiet pack.sha256"]),
        (
            "bundles",
            [
                "find . -path './bundles/*' -name SHA256SUMS -execdir sh -c "
                "\"grep -v '  [.][.]/' SHA256SUMS | sha256sum -c --quiet -\" ';'",
            ],
        ),
        (
            "signatures",
            [
                "find . -path './bundles/*' -name SHA256SUMS | while IFS= read -r sums; do",
                f"  for key in {keys}; do",
                f'    {_VERIFY} -in "$sums" -sigfile "$sums.sig" >/dev/null 2>&1 && continue 2',
                "  done",
                '  echo "NOT SIGNED: $sums"',
                "done",
            ],
        ),
        (
            "ledger",
            [
                "work=$(mktemp -d)",
                "while IFS=\"$(printf '\\t')\" read -r signature row; do",
                '  printf \'%s\' "$row" > "$work/row"',
                '  printf \'%s\' "$signature" | base64 -d > "$work/row.sig"',
                f"  for key in {keys}; do",
                f'    {_VERIFY} -in "$work/row" -sigfile "$work/row.sig" >/dev/null 2>&1 '
                "&& continue 2",
                "  done",
                '  echo "NOT SIGNED: $row"',
                "done < chain/ledger.txt",
            ],
        ),
        (
            "keys",
            [
                f"openssl pkey -pubin -in keys/{key}.pem -outform DER | sha256sum"
                for key in fingerprints
            ],
        ),
    ]


_WORDS = {
    "files": _(
        "1. All files of the pack are complete and were not damaged on the way. The command prints "
        "nothing if this is so."
    ),
    "bundles": _(
        "2. The files of each bundle are those that were sealed. The command prints nothing if "
        "this is so."
    ),
    "signatures": _(
        "3. Each list of files was signed with a key of the folder keys. The commands print the "
        "lists that were not."
    ),
    "ledger": _(
        "4. Each row of the evidence ledger was signed. The commands print the rows that were not. "
        "In each row, previous_sums_sha256 is the sums_sha256 of the row before; sums_sha256 is "
        "the SHA-256 of the file SHA256SUMS in the folder that bundle names."
    ),
    "keys": _(
        "5. The fingerprint of each key. Compare it with the fingerprint that the company "
        "published."
    ),
}


def _lines(translator: Translator, facts: PackFacts) -> Iterator[str]:
    yield translator.text(_("How to check this inspection pack"))
    yield ""
    yield translator.text(
        _(
            "Open verify.html in Chrome, Edge or Firefox, and choose the unpacked folder or the "
            "ZIP file. The page works without a network."
        )
    )
    yield ""
    yield translator.text(
        _(
            "Or run the commands below in the unpacked folder, in a shell with sha256sum and "
            "OpenSSL 3 (Linux, or Git Bash on Windows)."
        )
    )
    for name, lines in _steps(list(facts.fingerprints)):
        yield ""
        yield translator.text(_WORDS[name])
        yield ""
        yield from (f"    {line}" for line in lines)
