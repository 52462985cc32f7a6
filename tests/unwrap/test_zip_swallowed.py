"""A stored member without an end takes the rest of a zip for its data; readers by the directory find members there."""

from __future__ import annotations

import io
import zipfile
from base64 import b64decode

from icapscan.findings import Reason
from icapscan.limits import Budget, Limits
from icapscan.store import PartStore, Purse
from icapscan.unwrap.events import PartFailed
from icapscan.unwrap.walker import Walker

SWALLOWS = b64decode(
    "UEsDBBQAAAAAAAAAIQDqlRFXmAAAAJgAAFBLBgYACQAAAGlubmVyLnppcFBLAwQtAAgAAADadIJKAAAA/wD/////////AwAUAHo2NFAsSwMEFFBL"
    "BgdQSwMEFAAAAAgAAAAhAAYySPAsAAAAPgEAAAUAAABhLnR4dHNUyEgsys1JLS5WKEmtKNFRKM7PTVXIT1PILFEoKc9MTsUU0eNyHNUE0QQAUEsB"
    "AhQAFAAAAAgAAAAhAAYySPAsAAAAPgEAAAUAmAAAUEsAAAAAAAAAAAAAAGEudHh0UEsFBgAAAAABAAEAMwAAAE8AAAAAAFBLBwhQSwMEFAAAAAAA"
    "AAAhMAAAAAAAAAAAAAAAAAAAAA=="
)
"""Found by fuzzing: Python's zipfile reads ``a.txt`` in it."""


def test_what_may_be_in_there_is_not_called_scanned() -> None:
    assert zipfile.ZipFile(io.BytesIO(SWALLOWS)).namelist() == ["a.txt"]
    limits = Limits()
    purse = Purse(1 << 24, 1 << 24)
    virgin = PartStore(purse, limits)
    virgin.append(SWALLOWS)
    walker = Walker(Budget(limits), lambda: PartStore(purse, limits), virgin)
    events = [*walker.feed(SWALLOWS)]
    for more in walker.finish():
        events += more
    walker.close()
    failures = [event for event in events if isinstance(event, PartFailed)]
    assert any(event.reason is Reason.MALFORMED for event in failures)
