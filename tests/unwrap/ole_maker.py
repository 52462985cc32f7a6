"""Makes OLE2 compound files, VBA projects and embedded packages for tests. Everything in them is harmless."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from uuid import UUID

MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
FREE, END, FAT = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD
SECTOR, MINI, CUTOFF = 512, 64, 4096


def ole(streams: Mapping[str, bytes], clsid: str = "", cutoff: int = CUTOFF) -> bytes:
    """A compound file (version 3) of these streams; ``/`` in a name makes storages."""
    return _Maker(streams, clsid, cutoff).made()


class _Node:
    def __init__(self, name: str, kind: int) -> None:
        self.name = name
        self.kind = kind
        self.children: dict[str, _Node] = {}
        self.data = b""
        self.number = 0
        self.start = END


class _Maker:
    def __init__(self, streams: Mapping[str, bytes], clsid: str, cutoff: int) -> None:
        self.sectors: list[bytes] = []
        self.fat: list[int] = []
        self.cutoff = cutoff
        self.root = _Node("Root Entry", 5)
        self.clsid = UUID(clsid).bytes_le if clsid else bytes(16)
        for path, data in streams.items():
            node = self.root
            *folders, name = path.split("/")
            for folder in folders:
                node = node.children.setdefault(folder, _Node(folder, 1))
            leaf = node.children[name] = _Node(name, 2)
            leaf.data = data

    def put(self, data: bytes) -> int:
        """A chain of sectors; its first one."""
        if not data:
            return END
        start, count = len(self.sectors), -(-len(data) // SECTOR)
        for at in range(0, len(data), SECTOR):
            self.sectors.append(data[at : at + SECTOR].ljust(SECTOR, b"\0"))
        self.fat += [*range(start + 1, start + count), END]
        return start

    def made(self) -> bytes:
        nodes = [self.root]
        for node in nodes:
            nodes += node.children.values()
        mini, mini_fat = b"", []
        for number, node in enumerate(nodes):
            node.number = number
            if node.kind == 2 and len(node.data) >= CUTOFF:
                node.start = self.put(node.data)
            elif node.kind == 2 and node.data:
                count = -(-len(node.data) // MINI)
                node.start = len(mini) // MINI
                mini += node.data.ljust(count * MINI, b"\0")
                mini_fat += [*range(node.start + 1, node.start + count), END]
        self.root.data = mini
        self.root.start = self.put(mini)
        mini_start = self.put(b"".join(struct.pack("<I", word) for word in mini_fat))
        directory = self.put(b"".join(self.entry(node) for node in nodes))
        per = SECTOR // 4
        fats = 1
        while fats * per < len(self.fat) + fats:
            fats += 1
        first = len(self.sectors)
        table = self.fat + [FAT] * fats
        table += [FREE] * (fats * per - len(table))
        raw = struct.pack(f"<{len(table)}I", *table)
        self.sectors += [raw[at : at + SECTOR] for at in range(0, len(raw), SECTOR)]
        head = struct.pack(
            "<8s16sHHHHH6sIIIIIIIIII", MAGIC, b"", 0x3E, 3, 0xFFFE, 9, 6, b"", 0, fats, directory, 0, self.cutoff,
            mini_start, -(-len(mini_fat) * 4 // SECTOR), END, 0, first,
        )  # fmt: skip
        head += struct.pack("<108I", *[*range(first + 1, first + fats), *[FREE] * 109][:108])
        return head + b"".join(self.sectors)

    def entry(self, node: _Node) -> bytes:
        """A directory entry; siblings hang on each other's right side."""
        parent = self.parent(node)
        siblings = list(parent.children.values()) if parent is not None else [node]
        place = siblings.index(node)
        right = siblings[place + 1].number if place + 1 < len(siblings) else FREE
        child = next((child.number for child in node.children.values()), FREE)
        name = node.name.encode("utf-16-le") + b"\0\0"
        return struct.pack(
            "<64sHBBIII16sIQQIQ", name, len(name), node.kind, 1, FREE, right, child,
            self.clsid if node.kind == 5 else b"", 0, 0, 0, node.start, len(node.data),
        )  # fmt: skip

    def parent(self, wanted: _Node) -> _Node | None:
        waiting = [self.root]
        while waiting:
            node = waiting.pop()
            if wanted in node.children.values():
                return node
            waiting += node.children.values()
        return None


def compress(data: bytes) -> bytes:
    """MS-OVBA 2.4.1 with literals only."""
    out = b"\x01"
    for at in range(0, len(data), 3584):
        chunk = data[at : at + 3584]
        body = b"".join(b"\0" + chunk[piece : piece + 8] for piece in range(0, len(chunk), 8))
        out += struct.pack("<H", 0xB000 | len(body) - 1) + body
    return out


def vba_project(
    modules: Mapping[str, str], *, code: bytes = b"p-code" * 20, folder: str = "Macros/", shift: int = 0
) -> dict[str, bytes]:
    """The streams of a VBA project. ``shift``: what the directory is wrong by about where source begins."""
    records = [record(0x01, struct.pack("<I", 3)), record(0x03, struct.pack("<H", 1252))]
    streams = {}
    for name, text in modules.items():
        raw = name.encode()
        records += [
            record(0x19, raw), record(0x47, name.encode("utf-16-le")), record(0x1A, raw),
            record(0x32, name.encode("utf-16-le")), record(0x31, struct.pack("<I", len(code) + shift)),
            record(0x21, b""), record(0x2B, b""),
        ]  # fmt: skip
        source = f'Attribute VB_Name = "{name}"\r\n{text}'
        streams[f"{folder}VBA/{name}"] = code + compress(source.encode())
    version = struct.pack("<HIIH", 0x09, 4, 1, 2)
    streams[f"{folder}VBA/dir"] = compress(b"".join(records[:2]) + version + b"".join(records[2:]))
    streams[f"{folder}VBA/_VBA_PROJECT"] = b"\xcc\x61" + bytes(20)
    return streams


def record(kind: int, data: bytes) -> bytes:
    """A record of a ``dir`` stream."""
    return struct.pack("<HI", kind, len(data)) + data


def biff(kind: int, data: bytes) -> bytes:
    """A record of a workbook."""
    return struct.pack("<HH", kind, len(data)) + data


def packed(name: str, data: bytes, *, size: int | None = None) -> bytes:
    """An OLE package without the four bytes of its size in front."""
    raw = name.encode() + b"\0"
    path = b"C:\\Users\\someone\\" + raw
    wide = name.encode("utf-16-le")
    tail = b"".join(struct.pack("<I", len(wide) // 2) + wide for _ in range(3))
    size = len(data) if size is None else size
    return (
        struct.pack("<H", 2) + raw + path + struct.pack("<HHI", 0, 3, len(path)) + path
        + struct.pack("<I", size) + data + tail
    )  # fmt: skip


def native(name: str, data: bytes) -> bytes:
    """An ``\\x01Ole10Native`` stream."""
    inside = packed(name, data)
    return struct.pack("<I", len(inside)) + inside


def ole1(class_name: str, data: bytes, *, kind: int = 2, topic: bytes = b"") -> bytes:
    """An OLE 1.0 object."""
    raw = class_name.encode() + b"\0"
    out = struct.pack("<III", 0x0501, kind, len(raw)) + raw
    out += struct.pack("<I", len(topic)) + topic + struct.pack("<I", 0)
    return out + (struct.pack("<I", len(data)) + data if kind == 2 else b"")
