"""Members of an archive: keys that are harmless and unique, names for people, and the events of one member."""

from __future__ import annotations

from collections.abc import Iterator

from icapscan.findings import Anomaly, PartPath, Reason
from icapscan.unwrap.contract import Context
from icapscan.unwrap.events import AnomalyFound, Audience, PartBegin, PartData, PartEnd, PartEvent, PartFailed
from icapscan.unwrap.gate import Stop

KEY_MAX = 200
"""Characters of a name that become the segment of a path; the whole name is in `PartBegin.name`."""
NAME_MAX = 4096
"""Characters of a name that are kept. PATH_MAX of Linux; Windows has 32,767 and opens none that long from a mail."""
ANOMALIES_MAX = 100
"""Anomalies of one archive that are told; a hundred thousand of them say no more than that."""
_NO_NAME = "member"


class Members:
    """Makes the events of the members of one archive."""

    __slots__ = ("_anomalies", "_keys", "_seen", "audience", "begun", "context")

    def __init__(self, context: Context, audience: Audience = Audience.NOT_CLAMD) -> None:
        self.context = context
        self.audience = audience
        """Whom the members are for, unless `begin` is told otherwise."""
        self._keys: dict[str, int] = {}
        self._anomalies = 0
        self._seen: set[tuple[str, str]] = set()
        self.begun = 0
        """Members that have begun; 0 means that nothing of this kind was found."""

    def begin(
        self, names: tuple[str, ...], reading: int = 0, audience: Audience | None = None
    ) -> tuple[PartPath, PartBegin]:
        """A member begins: its key, and the event. Raises `Stop` when the budget is spent.

        Another reading than the first is for clamd, too: it has read the container in its own way.
        """
        self.context.gate.room()
        names = tuple(name[:NAME_MAX] for name in names if name)
        key = self._unique(safe_key(names[0]) if names else _NO_NAME)
        self.begun += 1
        name = names[0] if names else None
        if audience is None:
            audience = Audience.ALL if reading else self.audience
        return key, PartBegin(key, name, reading=reading, names=names[1:], audience=audience)

    def data(self, key: PartPath, piece: bytes | memoryview) -> Iterator[PartEvent]:
        """Bytes of a member that were decoded without a `Unpacker`: counted. Raises `Stop` when the budget is spent."""
        gate = self.context.gate
        gate.room()
        within = gate.took(len(piece))
        yield PartData(key, piece)
        if not within:
            gate.stop()

    def whole(self, names: tuple[str, ...], reading: int = 0) -> Iterator[PartEvent]:
        """An empty member."""
        key, begin = self.begin(names, reading)
        yield begin
        yield PartEnd(key)

    def failed(self, names: tuple[str, ...], reason: Reason, detail: str) -> Iterator[PartEvent]:
        """A member of which nothing could be decoded."""
        key, begin = self.begin(names)
        yield begin
        yield PartFailed(key, reason, detail)

    def anomaly(self, kind: str, detail: str = "") -> Iterator[PartEvent]:
        """Something about the archive; the same one only once, and not too many."""
        detail = detail[:200]
        if (kind, detail) in self._seen or self._anomalies >= ANOMALIES_MAX:
            return
        self._seen.add((kind, detail))
        self._anomalies += 1
        yield AnomalyFound(Anomaly(kind, "", detail))

    def _unique(self, key: str) -> str:
        count = self._keys.get(key, 0) + 1
        self._keys[key] = count
        while count > 1:
            numbered = f"{key}~{count}"
            if numbered not in self._keys:
                self._keys[numbered] = 1
                return numbered
            count += 1
            self._keys[key] = count
        return key


def safe_key(name: str) -> str:
    """``name`` as a segment of a path: no ``/`` at its ends, no ``..``, no control characters, of bounded length."""
    key = name[:KEY_MAX].strip("/")
    if ".." in key:
        key = "/".join("%2E%2E" if piece == ".." else piece for piece in key.split("/"))
    if not key.isprintable():
        key = "".join(char if char.isprintable() else f"%{ord(char):02X}" for char in key)
    return key or _NO_NAME


def spent(stop: Stop) -> PartFailed:
    """The event that ends the reading of a whole archive because of ``stop``."""
    return PartFailed("", stop.reason, stop.detail)
