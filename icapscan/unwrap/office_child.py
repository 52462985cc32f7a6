"""The child process that decrypts an Office document on standard input with the passwords that it is given.

What it decrypts goes to standard output; the exit status says why there is nothing. Run by `office_crypto.py` only.
"""

from __future__ import annotations

import io
import sys
import tempfile

from icapscan.unwrap import bounded

NOT_INSTALLED, LOCKED, UNKNOWN = 3, 4, 5
"""Exit statuses: no library; no password fits; an encryption that the library does not know."""


def main() -> int:
    """Decrypt standard input."""
    bounded.apply()
    bounded.alive()
    tempfile.TemporaryFile = lambda *arguments, **named: io.BytesIO()  # type: ignore[assignment] # no file may grow
    try:
        import msoffcrypto
        from msoffcrypto.exceptions import DecryptionError, InvalidKeyError
    except ImportError:
        return NOT_INSTALLED
    with open(bounded.PART, "rb") as part:
        data = part.read()
    for password in bounded.passwords():
        bounded.alive()
        try:
            document = msoffcrypto.OfficeFile(io.BytesIO(data))
            if not document.is_encrypted():
                return UNKNOWN
            document.load_key(password=password)
            plain = io.BytesIO()
            document.decrypt(plain)
        except InvalidKeyError:
            continue
        except DecryptionError as error:
            if "password" in str(error).lower():
                continue
            return UNKNOWN
        except Exception:  # whatever a damaged document does to the library
            return UNKNOWN
        bounded.put(plain.getbuffer())
        return 0
    return LOCKED


if __name__ == "__main__":
    sys.exit(main())
