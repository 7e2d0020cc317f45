# ruff: noqa: E501 # lines as strace writes them
"""The reader of traces sees what it is there to see: every rule on lines as strace writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.strace_output import Report, calls, read_trace


def read(*lines: str) -> Report:
    return read_trace(lines, cwd=Path("/run/here"), allowed=[Path("/run/here/out")])


@pytest.mark.parametrize(
    "line",
    [
        '7 connect(3<UDP:[1]>, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("20.42.65.92")}, 16) = -1 ENETUNREACH (Network is unreachable)',
        '7 connect(3<TCPv6:[1]>, {sa_family=AF_INET6, sin6_port=htons(443), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "2603:1030::1", &sin6_addr), sin6_scope_id=0}, 28) = -1 EINPROGRESS (Operation now in progress)',
        '7 sendto(3<UDP:[1]>, "x", 1, 0, {sa_family=AF_INET, sin_port=htons(9), sin_addr=inet_addr("10.0.0.1")}, 16) = 1',
        '7 sendto(3<TCP:[10.0.0.7:40000->20.42.65.92:443]>, "x", 1, 0, NULL, 0) = 1',
        "7 sendmsg(3<TCPv6:[[2001:db8::7]:40000->[2001:db8::1]:443]>, {msg_name=NULL, msg_namelen=0, msg_iov=[], msg_iovlen=1}, 0) = 1",
        '7 sendmmsg(3<UDP:[1]>, [{msg_hdr={msg_name={sa_family=AF_INET, sin_port=htons(9), sin_addr=inet_addr("10.0.0.1")}, msg_namelen=16}}], 2, 0) = 2',
        '7 bind(3<TCP:[1]>, {sa_family=AF_INET, sin_port=htons(5561), sin_addr=inet_addr("0.0.0.0")}, 16) = 0',
        "7 connect(3<socket:[1]>, {sa_family=AF_VSOCK, svm_cid=0x2, svm_port=0x1}, 16) = 0",
        "7 io_uring_setup(8, {flags=0}) = 3",
    ],
)
def test_a_process_that_reaches_beyond_this_machine_is_seen(line: str) -> None:
    report = read(line)
    assert len(report.reached) == 1
    assert report.faults == report.reached


@pytest.mark.parametrize(
    "line",
    [
        '7 connect(3<UDP:[1]>, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("127.0.0.53")}, 16) = 0',
        '7 openat(AT_FDCWD</run/here>, "/etc/resolv.conf", O_RDONLY|O_CLOEXEC) = 4</etc/resolv.conf>',
        '7 openat(AT_FDCWD</run/here>, "/etc/resolv.conf", O_RDONLY|O_CLOEXEC) = -1 ENOENT (No such file or directory)',
        '7 connect(3<UNIX-STREAM:[1]>, {sa_family=AF_UNIX, sun_path="/run/systemd/resolve/io.systemd.Resolve"}, 42) = 0',
        '7 connect(3<UNIX-STREAM:[1]>, {sa_family=AF_UNIX, sun_path="/var/run/nscd/socket"}, 110) = 0',
    ],
)
def test_a_process_that_looks_up_a_host_is_seen(line: str) -> None:
    report = read(line)
    assert len(report.looked_up) == 1
    assert report.faults == report.looked_up


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ('7 openat(AT_FDCWD</run/here>, "/home/ann/.cache/id", O_WRONLY|O_CREAT, 0600) = 4</home/ann/.cache/id>', "/home/ann/.cache/id"),
        ('7 openat(AT_FDCWD</run/here>, "beside", O_RDWR|O_CLOEXEC) = 4</run/here/beside>', "/run/here/beside"),
        ('7 openat(13</home/ann/.cache/Maker>, "deviceid", O_WRONLY|O_CREAT|O_EXCL, 0600) = 14', "/home/ann/.cache/Maker/deviceid"),
        ('7 creat("/home/ann/x", 0644) = 4', "/home/ann/x"),
        ('7 mkdir("/run/here/outside", 0777) = 0', "/run/here/outside"),
        ('7 rename("out/a", "../a") = 0', "/run/a"),
        ('7 symlinkat("/run/here/out/a", AT_FDCWD</run/here>, "/home/ann/link") = 0', "/home/ann/link"),
    ],
)  # fmt: skip
def test_a_process_that_writes_elsewhere_is_seen(line: str, path: str) -> None:
    report = read(line)
    assert [written.partition(" of ")[2] for written in report.wrote] == [path]
    assert report.faults == report.wrote


@pytest.mark.parametrize(
    "line",
    [
        '7 connect(3<TCP:[1]>, {sa_family=AF_INET, sin_port=htons(8090), sin_addr=inet_addr("127.0.0.1")}, 16) = 0',
        '7 connect(3<UNIX-STREAM:[1]>, {sa_family=AF_UNIX, sun_path="/tmp/bus/vision"}, 40) = 0',
        '7 connect(3<UNIX-STREAM:[1]>, {sa_family=AF_UNIX, sun_path="/var/run/nscd/socket"}, 110) = -1 ENOENT (No such file or directory)',
        "7 sendto(3<NETLINK:[ROUTE:7]>, [{nlmsg_len=20}], 20, 0, {sa_family=AF_NETLINK, nl_pid=0, nl_groups=00000000}, 12) = 20",
        '7 sendto(3<TCP:[127.0.0.1:40000->127.0.0.1:8090]>, "GET", 3, 0, NULL, 0) = 3',
        '7 sendto(3<UNIX-STREAM:[1->2]>, "sin_addr of 10.0.0.1:443", 3, 0, NULL, 0) = 3',
        '7 bind(3<TCP:[1]>, {sa_family=AF_INET, sin_port=htons(0), sin_addr=inet_addr("127.0.0.1")}, 16) = 0',
        '7 openat(AT_FDCWD</run/here>, "/home/ann/.cache/id", O_RDONLY) = 4</home/ann/.cache/id>',
        '7 openat(AT_FDCWD</run/here>, "/home/ann/.cache/id", O_WRONLY|O_CREAT, 0600) = -1 EACCES (Permission denied)',
        '7 openat(AT_FDCWD</run/here>, "out/a.jsonl", O_WRONLY|O_CREAT, 0666) = 4</run/here/out/a.jsonl>',
        '7 openat(AT_FDCWD</run/here>, "/dev/null", O_RDWR) = 4</dev/null>',
        '7 mkdir("/usr/lib/python3/__pycache__", 0777) = 0',
        '7 symlink("/home/ann/elsewhere", "out/link") = 0',
        "7 +++ exited with 0 +++",
        "7 --- SIGCHLD {si_signo=SIGCHLD} ---",
    ],
)
def test_what_stays_on_this_machine_and_in_its_folders_is_no_fault(line: str) -> None:
    assert read(line).faults == []


def test_a_call_that_another_thread_interrupted_is_put_together() -> None:
    lines = [
        '7 openat(AT_FDCWD</run/here>, "/home/ann/x", O_WRONLY|O_CREAT <unfinished ...>',
        '8 connect(3<UDP:[1]>, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("10.0.0.1")}, 16 <unfinished ...>',
        "7 <... openat resumed>, 0600) = 4</home/ann/x>",
        "8 <... connect resumed>) = -1 ENETUNREACH (Network is unreachable)",
        '9 connect(3<UDP:[1]>, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("10.0.0.1")}, 16 <unfinished ...>',
    ]
    assert [(call.name, call.result) for call in calls(lines)] == [
        ("openat", 4),
        ("connect", -1),
        ("connect", None),
    ]
    report = read(*lines)
    assert report.calls == 3
    assert report.wrote == ["openat of /home/ann/x"]
    assert report.looked_up == ["connect to 10.0.0.1 port 53"]
    assert report.reached == ["connect to 10.0.0.1 port 443"]
