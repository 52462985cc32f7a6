"""The VBA projects of an OLE2 file: modules are found by the directory of their project, and by their look."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from icapscan.findings import Reason
from icapscan.limits import MIB
from icapscan.unwrap import vba
from icapscan.unwrap.events import PartEnd, PartEvent, PartFailed
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.members import Members
from icapscan.unwrap.ole_file import Entry, OleFile
from icapscan.unwrap.streams import Broken
from icapscan.unwrap.vba_words import Words

DIRECTORY_MAX = 1 * MIB
"""Of a decompressed ``dir`` stream: some hundred bytes for each module and reference."""


class Projects:
    """The VBA projects of one file."""

    def __init__(self, file: OleFile, members: Members) -> None:
        self._file = file
        self._members = members
        self._words = Words()

    def sources(self) -> Generator[PartEvent, None, set[int]]:
        """The source of every module that a ``dir`` stream names; returns the numbers of the streams it was in."""
        streams = {entry.path.lower(): entry for entry in self._file.entries if entry.kind == 2}
        done: set[int] = set()
        for path, entry in streams.items():
            folder, _, name = path.rpartition("/")
            if name != "dir" or self._file.head(entry, 1) != b"\x01":
                continue
            modules = vba.modules(self._directory(entry))
            if modules:
                yield from self._members.anomaly("vba-macro", ", ".join(module.name for module in modules))
            for module in modules:
                stream = streams.get(f"{folder}/{module.stream.lower()}" if folder else module.stream.lower())
                if stream is None:
                    yield from self._members.anomaly("vba-module-missing", module.stream)
                else:
                    done.add(stream.number)
                    yield from self._module(module, stream)
        yield from self._told()
        return done

    def stray(self, entry: Entry) -> Iterator[PartEvent]:
        """A stream that looks like a module and is named by no directory."""
        data = self._file.head(entry, vba.STREAM_MAX)
        at = vba.find_source(data)
        if at >= 0:
            yield from self._members.anomaly("vba-macro", entry.name)
            yield from self._source((f"{entry.name}.bas",), data, at)
            yield from self._told()

    def _told(self) -> Iterator[PartEvent]:
        words = self._words
        if words.automatic:
            yield from self._members.anomaly("vba-auto-run", ", ".join(words.automatic))
        if words.starts:
            yield from self._members.anomaly("vba-starts-program", ", ".join(words.starts))

    def _directory(self, entry: Entry) -> bytes:
        """As much of a ``dir`` stream as can be decompressed."""
        found = bytearray()
        try:
            for piece in vba.decompress(self._file.head(entry, DIRECTORY_MAX)):
                self._members.context.gate.room()
                found += piece
                if len(found) > DIRECTORY_MAX:
                    break
        except Broken:
            self._file.damage.append("The directory of a VBA project is damaged.")
        return bytes(found)

    def _module(self, module: vba.Module, stream: Entry) -> Iterator[PartEvent]:
        """The source where the directory says, and where it looks like source when that is another place."""
        if stream.size > vba.STREAM_MAX:
            yield from self._members.anomaly("vba-huge-module", module.name)
            self._members.context.gate.stop("size of a VBA module")
        data = self._file.head(stream, vba.STREAM_MAX)
        names = (f"{module.name}.{'bas' if module.procedural else 'cls'}",)
        seen = vba.find_source(data)
        if data[module.offset : module.offset + 1] == b"\x01":
            yield from self._source(names, data, module.offset)
            if seen >= 0 and seen != module.offset:
                yield from self._members.anomaly("vba-two-sources", module.name)
                yield from self._source(names, data, seen, 1)
        elif seen >= 0:
            yield from self._members.anomaly("vba-wrong-offset", module.name)
            yield from self._source(names, data, seen)
        else:  # only compiled code: Office of the same version runs it
            yield from self._members.anomaly("vba-no-source", module.name)

    def _source(self, names: tuple[str, ...], data: bytes, at: int, reading: int = 0) -> Iterator[PartEvent]:
        key, begin = self._members.begin(names, reading)
        yield begin
        try:
            for piece in vba.decompress(data, at):
                if piece:
                    self._words.look(piece)
                    yield from self._members.data(key, piece)
        except Broken as error:
            yield PartFailed(key, Reason.MALFORMED, f"The source of a VBA module is damaged: {error}.")
        except Stop as stop:
            yield PartFailed(key, stop.reason, stop.detail)
            raise
        else:
            yield PartEnd(key)
        finally:
            self._words.end()
