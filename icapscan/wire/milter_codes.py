"""The numbers and letters of the Sendmail milter protocol, versions 2 to 6 (libmilter's mfdef.h; Postfix milter8.c)."""

from __future__ import annotations

import enum

OLDEST, NEWEST = 2, 6
PIECE = 65535
"""Bytes of one body piece at most, in both directions (MILTER_CHUNK_SIZE)."""


class Command(enum.Enum):
    """From the MTA to the filter (SMFIC_…)."""

    NEGOTIATE = b"O"
    MACROS = b"D"
    CONNECT = b"C"
    HELO = b"H"
    MAIL = b"M"
    RCPT = b"R"
    DATA = b"T"
    """Since version 4."""
    UNKNOWN = b"U"
    """Since version 3."""
    HEADER = b"L"
    END_OF_HEADERS = b"N"
    BODY = b"B"
    END_OF_BODY = b"E"
    ABORT = b"A"
    QUIT = b"Q"
    QUIT_NEW = b"K"
    """End of this client's session; another one follows on the same connection. Since version 6."""


class Response(enum.Enum):
    """From the filter to the MTA (SMFIR_…). ``d``, discard, is not here: no mail is made to vanish."""

    CONTINUE = b"c"
    ACCEPT = b"a"
    REJECT = b"r"
    TEMPFAIL = b"t"
    REPLY = b"y"
    SKIP = b"s"
    PROGRESS = b"p"
    ADD_HEADER = b"h"
    INSERT_HEADER = b"i"
    CHANGE_HEADER = b"m"
    REPLACE_BODY = b"b"
    QUARANTINE = b"q"


class Actions(enum.IntFlag):
    """What a filter may ask for (SMFIF_…)."""

    NONE = 0
    ADD_HEADERS = 1 << 0
    CHANGE_BODY = 1 << 1
    ADD_RECIPIENTS = 1 << 2
    DELETE_RECIPIENTS = 1 << 3
    CHANGE_HEADERS = 1 << 4
    QUARANTINE = 1 << 5
    CHANGE_SENDER = 1 << 6
    ADD_RECIPIENTS_WITH_ARGUMENTS = 1 << 7
    SET_MACROS = 1 << 8


class Protocol(enum.IntFlag):
    """What is not sent, not answered, or done otherwise (SMFIP_…)."""

    NONE = 0
    NO_CONNECT = 1 << 0
    NO_HELO = 1 << 1
    NO_MAIL = 1 << 2
    NO_RCPT = 1 << 3
    NO_BODY = 1 << 4
    NO_HEADERS = 1 << 5
    NO_END_OF_HEADERS = 1 << 6
    SILENT_HEADER = 1 << 7
    """``SILENT_…``: the filter does not answer this command (SMFIP_NR_…)."""
    NO_UNKNOWN = 1 << 8
    NO_DATA = 1 << 9
    SKIP = 1 << 10
    REJECTED_RCPT = 1 << 11
    SILENT_CONNECT = 1 << 12
    SILENT_HELO = 1 << 13
    SILENT_MAIL = 1 << 14
    SILENT_RCPT = 1 << 15
    SILENT_DATA = 1 << 16
    SILENT_UNKNOWN = 1 << 17
    SILENT_END_OF_HEADERS = 1 << 18
    SILENT_BODY = 1 << 19
    LEADING_SPACE = 1 << 20
    """Header values come and go with the white space behind the colon; without it one space is left out."""


class Stage(enum.IntEnum):
    """Which commands a filter may choose the macros of (SMFIM_…)."""

    CONNECT = 0
    HELO = 1
    MAIL = 2
    RCPT = 3
    DATA = 4
    END_OF_BODY = 5
    END_OF_HEADERS = 6


SILENT = {
    Command.CONNECT: Protocol.SILENT_CONNECT,
    Command.HELO: Protocol.SILENT_HELO,
    Command.MAIL: Protocol.SILENT_MAIL,
    Command.RCPT: Protocol.SILENT_RCPT,
    Command.DATA: Protocol.SILENT_DATA,
    Command.UNKNOWN: Protocol.SILENT_UNKNOWN,
    Command.HEADER: Protocol.SILENT_HEADER,
    Command.END_OF_HEADERS: Protocol.SILENT_END_OF_HEADERS,
    Command.BODY: Protocol.SILENT_BODY,
}
"""The flag that takes a command's answer away."""

NEVER_ANSWERED = frozenset({Command.MACROS, Command.ABORT, Command.QUIT, Command.QUIT_NEW})

_V2 = Protocol(0b1111111)
_V3 = _V2 | Protocol.NO_UNKNOWN
_V4 = _V3 | Protocol.NO_DATA
_ALL = Protocol((1 << 21) - 1)
FLAGS_OF = {2: _V2, 3: _V3, 4: _V4, 5: _V4, 6: _ALL}
"""What each version knows. QUIRK: Postfix offers SILENT_HEADER with older versions, too (``no_header_reply``)."""
