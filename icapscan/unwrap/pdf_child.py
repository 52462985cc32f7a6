"""The child process that rewrites a PDF file on standard input: decrypted with the empty password or a known one.

The new file goes to standard output; the exit status says why there is none. Run by `pdf.py` only.
"""

from __future__ import annotations

import sys
from typing import Any

from icapscan.unwrap import bounded

NOT_INSTALLED, LOCKED, DAMAGED, PLAIN = 3, 4, 5, 6
"""Exit statuses: no library; no password fits; the library cannot read it; there is no encryption."""


def main(only_encrypted: bool) -> int:
    """Rewrite standard input; where ``only_encrypted`` is asked for, an encrypted file alone."""
    try:
        import pikepdf
    except ImportError:
        return NOT_INSTALLED
    bounded.apply()
    bounded.alive()
    try:
        with _opened(pikepdf) as document:
            if only_encrypted and not document.is_encrypted:
                return PLAIN
            document.save(
                bounded.Out(),
                preserve_pdfa=False,
                compress_streams=False,
                stream_decode_level=pikepdf.StreamDecodeLevel.specialized,
                object_stream_mode=pikepdf.ObjectStreamMode.disable,
                encryption=False,
                fix_metadata_version=False,
                deterministic_id=True,  # the same file always gives the same part
            )
    except pikepdf.PasswordError:
        return LOCKED
    except Exception:  # whatever a damaged file does to the library
        return DAMAGED
    return 0


def _opened(pikepdf: Any) -> Any:
    """The document, opened with the empty password or one of those that are given. Raises what the library raises."""
    for password in ("", *bounded.passwords()):
        bounded.alive()
        try:
            return pikepdf.open(bounded.PART, password=password, suppress_warnings=True)
        except pikepdf.PasswordError:
            continue
    raise pikepdf.PasswordError


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] == ["decrypt"]))
