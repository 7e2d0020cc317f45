"""Reads what strace saw of a program: whom it tried to reach, what it looked up, and where it wrote."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

# What is traced, and no more: every call costs the program time.
NETWORK_CALLS: Final = "connect,bind,sendto,sendmsg,sendmmsg,io_uring_setup"
CALLS: Final = (
    f"{NETWORK_CALLS},"
    "open,openat,openat2,creat,mkdir,mkdirat,mknod,mknodat,rename,renameat,renameat2,link,linkat,symlink,symlinkat"
)

RESOLVER_FILE: Final = "/etc/resolv.conf"  # a process reads it before it looks up a host
# They look up hosts for others. nscd also tells users' names, so it is refused only where it answers.
RESOLVERS: Final = ("resolve", "avahi", "mdns", "nscd")
# The last ones are memory that processes share: PyTorch's tensors, Python's locks.
DEVICES: Final = (
    "/dev/shm/torch_",  # noqa: S108 # is looked for, not made
    "/dev/shm/sem.mp-",  # noqa: S108 # as above
    "/dev/null",
    "/dev/zero",
    "/dev/tty",
    "/dev/pts/",
    "/dev/ptmx",
    "/dev/urandom",
    "/proc/",
)
# Three of Ray's processes ask for the name of 127.0.0.1, which /etc/hosts answers (docs/decisions/0044).
RAY_FAULT: Final = re.compile(r"openat of /etc/resolv\.conf|openat of /dev/shm/plasma\w+")
WRITING: Final = re.compile(r"\bO_(?:WRONLY|RDWR|CREAT|TMPFILE)\b")

_CALL: Final = re.compile(r"^(?P<pid>\d+) +(?P<name>\w+)\((?P<args>.*)$", re.DOTALL)
_RESUMED: Final = re.compile(r"^(?P<pid>\d+) +<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)$", re.DOTALL)
_RESULT: Final = re.compile(r"\) += (?P<value>-?\d+|\?)[^)]*(?:\([^)]*\))?$")
_UNFINISHED: Final = " <unfinished ...>"
_INET: Final = re.compile(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')
_PORT: Final = re.compile(r"sin6?_port=htons\((\d+)\)")
_FAMILY: Final = re.compile(r"(?:sa|sin6?)_family=(AF_\w+)")
_UNIX: Final = re.compile(r'sun_path=(@?"[^"]*")')
_PEER: Final = re.compile(r"<(?:TCP|UDP)(?:v6)?:\[(?:[^<>]*->)\[?([0-9a-fA-F.:]+?)\]?:(\d+)\]>")
_PATH: Final = re.compile(
    r'(?:(?:AT_FDCWD|\d+)(?:<(?P<base>[^>]*)>)?, )?"(?P<path>(?:[^"\\]|\\.)*)"(?P<more>\.\.\.)?'
)


@dataclass(frozen=True, slots=True)
class Call:
    """One system call: its arguments as strace writes them, and what it returned; None if not seen."""

    name: str
    args: str
    result: int | None


@dataclass(slots=True)
class Report:
    """What a program did outside its own folders and address space, one line each."""

    reached: list[str] = field(default_factory=list)  # addresses beyond this machine
    looked_up: list[str] = field(default_factory=list)  # hosts asked for
    wrote: list[str] = field(default_factory=list)  # files outside the folders that are allowed
    calls: int = 0  # that were looked at: none would mean that nothing was traced

    @property
    def faults(self) -> list[str]:
        """All of them."""
        return [*self.reached, *self.looked_up, *self.wrote]


def read_trace(lines: Iterable[str], *, cwd: Path, allowed: Iterable[Path]) -> Report:
    """What is amiss in a trace made by `strace -f -yy`.

    Args:
        lines: of strace's output file.
        cwd: where the program was started; relative paths start there.
        allowed: folders in which it may write, and whose parents it may make. Python's own `__pycache__`
            folders are allowed anywhere.
    """
    report = Report()
    folders = [os.path.realpath(folder) for folder in allowed]
    for call in calls(lines):
        report.calls += 1
        if call.name == "io_uring_setup":
            report.reached.append("io_uring_setup: what is done through a ring is not seen here")
        elif call.name in ("connect", "bind", "sendto", "sendmsg", "sendmmsg"):
            _look_at_address(call, report)
        else:
            _look_at_paths(call, report, cwd, folders)
    return report


def calls(lines: Iterable[str]) -> Iterator[Call]:
    """The calls of a trace; one that another thread interrupted is put together again."""
    begun: dict[tuple[str, str], str] = {}
    for line in lines:
        text = line.rstrip("\n")
        if resumed := _RESUMED.match(text):
            args = begun.pop((resumed["pid"], resumed["name"]), "") + resumed["rest"]
            yield _call(resumed["name"], args)
        elif found := _CALL.match(text):
            if found["args"].endswith(_UNFINISHED):
                begun[found["pid"], found["name"]] = found["args"].removesuffix(_UNFINISHED)
            else:
                yield _call(found["name"], found["args"])
    for (_, name), args in begun.items():  # the process ended in them
        yield _call(name, args)


def _call(name: str, args: str) -> Call:
    found = _RESULT.search(args)
    if found is None:
        return Call(name, args, None)
    value = found["value"]
    return Call(name, args[: found.start()], None if value == "?" else int(value))


def _look_at_address(call: Call, report: Report) -> None:
    for unix in _UNIX.findall(call.args):
        if any(name in unix for name in RESOLVERS) and not ("nscd" in unix and (call.result or 0) < 0):
            report.looked_up.append(f"{call.name} to {unix}")
    family = _FAMILY.search(call.args)
    if family is not None and family[1] not in ("AF_UNIX", "AF_NETLINK", "AF_UNSPEC", "AF_INET", "AF_INET6"):
        report.reached.append(f"{call.name} to {family[1]}")
    port = _PORT.search(call.args)
    ends = [(first or second, port[1] if port else "?") for first, second in _INET.findall(call.args)]
    for address, number in [*ends, *_PEER.findall(call.args)]:
        if number == "53":
            report.looked_up.append(f"{call.name} to {address} port 53")
        elif not _is_loopback(address):
            report.reached.append(f"{call.name} to {address} port {number}")


def _is_loopback(text: str) -> bool:
    address = ipaddress.ip_address(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _look_at_paths(call: Call, report: Report, cwd: Path, folders: list[str]) -> None:
    if call.result is None or call.result < 0:
        if RESOLVER_FILE in call.args:
            report.looked_up.append(f"{call.name} of {RESOLVER_FILE}")
        return
    paths = [_absolute(found, cwd) for found in _PATH.finditer(call.args)]
    if call.name in ("open", "openat", "openat2"):
        if paths[:1] == [RESOLVER_FILE]:
            report.looked_up.append(f"{call.name} of {RESOLVER_FILE}")
        if not WRITING.search(call.args):
            return
    elif call.name.startswith("symlink"):
        paths = paths[1:]  # the first is what it points to
    for path in paths:
        inside = any(path == folder or path.startswith(f"{folder}/") for folder in folders)
        inside |= call.name.startswith("mkdir") and any(folder.startswith(f"{path}/") for folder in folders)
        if not (inside or "/__pycache__" in path or path.startswith(DEVICES)):
            report.wrote.append(f"{call.name} of {path}")


def _absolute(found: re.Match[str], cwd: Path) -> str:
    path = found["path"].encode("latin-1", "backslashreplace").decode("unicode_escape", "replace")
    return os.path.normpath(os.path.join(found["base"] or cwd, path))
