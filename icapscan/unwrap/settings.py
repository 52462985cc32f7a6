"""The configuration table ``[unwrap]``."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Password = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[^\x00]+$")]


class UnwrapSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[unwrap]``: how bodies are taken apart."""

    passwords: Annotated[tuple[Password, ...], Meta(max_length=64)] = ()
    """Passwords of one's own that encrypted content is tried with, before those that everybody knows."""
    mail_words: bool = False
    """Try words of the mail that an encrypted attachment came with."""
