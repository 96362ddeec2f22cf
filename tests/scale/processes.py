"""Processes and sockets of this machine, as /proc lists them."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Collection
from pathlib import Path

_LISTEN = "0A"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def descendants(root: int | None = None) -> list[tuple[int, str]]:
    """Processes that descend from one, with their command lines; this one's where none is named."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (
                (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            )
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(folder.name)], names[int(folder.name)] = int(fields[1]), command.strip()
    found: list[tuple[int, str]] = []
    waiting = [root or os.getpid()]
    while waiting:
        current = waiting.pop()
        for pid, parent in parents.items():
            if parent == current:
                found.append((pid, names[pid]))
                waiting.append(pid)
    return [(pid, name) for pid, name in found if name]


def listening(pids: Collection[int]) -> set[Address]:
    """Addresses on which processes accept TCP connections."""
    inodes = set()
    for pid in pids:
        for descriptor in Path("/proc", str(pid), "fd").glob("*"):
            try:
                target = str(descriptor.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[len("socket:[") : -1])
    found: set[Address] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN and fields[9] in inodes:
                found.add(_address(fields[1].partition(":")[0]))
    return found


def _address(text: str) -> Address:
    """An address as the kernel writes it: in words of four bytes of this machine's order."""
    raw = b"".join(bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, len(text), 8))
    address = ipaddress.ip_address(raw)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
