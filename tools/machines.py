"""Several machines on one: each with its own network address, name, processes, steady clock and `/tmp`.

For trying a cluster where there is one computer. A machine is a set of Linux namespaces, and a switch joins
them; nothing of the computer's own network is touched. It needs root, `unshare`, `nsenter` and `ip`. What the
machines do not have of their own they share, so a folder outside `/tmp` stands for NFS, and all have the same
cores, memory and time of day.

    python -m tools.machines up 2               # 10.77.0.1 (m1) and 10.77.0.2 (m2)
    python -m tools.machines run m1 -- ray start --head --node-ip-address 10.77.0.1
    python -m tools.machines cut m2             # its cable is pulled; `mend m2` puts it back
    python -m tools.machines off m2             # its processes are killed
    python -m tools.machines down
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

__all__ = ["Machines", "why_not"]

NETWORK: Final = "10.77.0"
SWITCH: Final = "switch"
UP_S: Final = 1_000_000
FOLDER: Final = Path("/run/emi-machines")
TEMPORARY: Final = "/tmp"  # noqa: S108  # each machine has its own
NEEDED: Final = ("unshare", "nsenter", "ip", "mount", "hostname")
# The first process of a machine; a shell that waits for what has lost its parent.
INIT: Final = "while :; do sleep 1; done >/dev/null"


class Machines:
    """Machines `m1`, `m2`, … at 10.77.0.1, 10.77.0.2, …; they run until `down`."""

    def __init__(self, folder: Path = FOLDER, keep: Iterable[str | Path] = ()) -> None:
        """Nothing is started.

        Args:
            folder: keeps what each machine has of its own; not below `/tmp`.
            keep: what of `/tmp` all machines see all the same, such as a checkout.
        """
        self.folder = folder
        self._keep = [whole for path in keep if (whole := Path(path).resolve()).is_relative_to(TEMPORARY)]
        self._ours: dict[str, subprocess.Popen[str]] = {}  # that this process has started

    def __enter__(self) -> Self:
        """Nothing more; the machines end with the span."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all machines."""
        self.down()

    @staticmethod
    def address(name: str) -> str:
        """The address of a machine, in all machines' network."""
        return f"{NETWORK}.{int(name.removeprefix('m'))}"

    def names(self) -> list[str]:
        """The machines that run."""
        files = self.folder.glob("m*.pid")
        return sorted(file.stem for file in files if Path(f"/proc/{file.read_text()}").exists())

    def add(self, name: str) -> None:
        """Start a machine, and the switch before the first one.

        Raises:
            ValueError: it runs already.
            subprocess.CalledProcessError: the kernel does not allow it.
        """
        if name in self.names():
            raise ValueError(f"{name} runs already")
        if not (self.folder / f"{SWITCH}.pid").exists():
            self._begin(SWITCH, ["--net"], "true")
            self._ip(SWITCH, "link add br0 type bridge", "link set br0 up")
        own = self.folder / name
        mine = own / "tmp"
        mine.mkdir(parents=True, exist_ok=True)
        mine.chmod(0o1777)
        mounts = []
        for kept in self._keep:
            inside = mine / kept.relative_to(TEMPORARY)
            inside.mkdir(parents=True, exist_ok=True)
            mounts.append(f"mount --bind {shlex.quote(str(kept))} {shlex.quote(str(inside))}")
        mounts += [f"mount --rbind {mine} {TEMPORARY}", "mount -t tmpfs tmpfs /dev/shm"]
        hosts = own / "hosts"
        known = (f"{NETWORK}.{number} m{number}\n" for number in range(1, 10))
        hosts.write_text("127.0.0.1 localhost\n" + "".join(known), encoding="utf-8")
        mounts.append(f"mount --bind {hosts} /etc/hosts")
        # Computers have been up for different times, which is what steady clocks show.
        later = f"--monotonic={UP_S * int(name.removeprefix('m'))}"
        spaces = ["--net", "--mount", "--uts", "--pid", "--mount-proc", "--time", later]
        self._begin(name, spaces, " && ".join([*mounts, f"hostname {name}"]))
        pid = self._pid(name)
        with suppress(subprocess.CalledProcessError):  # of one that was switched off a moment ago
            self._ip(SWITCH, f"link del {name}", quiet=True)
        self._ip(
            SWITCH,
            f"link add {name} type veth peer name eth0 netns {pid}",
            f"link set {name} master br0",
            f"link set {name} up",
        )
        self._ip(
            name, "link set lo up", f"addr add {self.address(name)}/24 dev eth0", "link set eth0 up",
            # As in most networks there is a way out; nothing answers at its end.
            f"route add default via {NETWORK}.254",
        )  # fmt: skip

    def command(self, name: str, command: Sequence[str]) -> list[str]:
        """A command, as it is run on a machine, in the folder that this process works in."""
        spaces = ["--net", "--mount", "--uts", "--pid", "--time"]
        return ["nsenter", "-t", self._pid(name), *spaces, f"--wdns={Path.cwd()}", "--", *command]

    def start(
        self, name: str, command: Sequence[str], *, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a command on a machine; its output is a pipe, errors with it."""
        return subprocess.Popen(
            self.command(name, command),
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def cut(self, name: str) -> None:
        """Pull the cable of a machine: what is sent to it is lost, and nobody is told."""
        self._ip(SWITCH, f"link set {name} down")

    def mend(self, name: str) -> None:
        """Put the cable of a machine back."""
        self._ip(SWITCH, f"link set {name} up")

    def off(self, name: str) -> None:
        """Switch a machine off: all its processes are killed, and its address is gone."""
        file = self.folder / f"{name}.pid"
        with suppress(FileNotFoundError, ProcessLookupError):
            os.killpg(os.getpgid(int(file.read_text())), signal.SIGKILL)  # with `unshare`, which waits for it
        file.unlink(missing_ok=True)
        if (process := self._ours.pop(name, None)) is not None:
            process.wait()

    def down(self) -> None:
        """End all machines, and remove what they had of their own."""
        for file in self.folder.glob("*.pid"):
            self.off(file.stem)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _begin(self, name: str, spaces: Sequence[str], script: str) -> None:
        """Start the first process of a machine, and note its number."""
        self.folder.mkdir(parents=True, exist_ok=True)
        process = subprocess.Popen(
            ["unshare", *spaces, "--fork", "sh", "-c", f"{script} && echo up && {INIT}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        assert process.stdout is not None  # noqa: S101
        if process.stdout.readline() != "up\n":
            raise subprocess.CalledProcessError(process.wait(), process.args)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8")
        (self.folder / f"{name}.pid").write_text(children.strip(), encoding="utf-8")
        process.stdout.close()
        self._ours[name] = process

    def _pid(self, name: str) -> str:
        return (self.folder / f"{name}.pid").read_text(encoding="utf-8")

    def _ip(self, name: str, *commands: str, quiet: bool = False) -> None:
        for command in commands:
            enter = ["nsenter", "-t", self._pid(name), "--net"]
            subprocess.run([*enter, "ip", *command.split()], check=True, capture_output=quiet)


def why_not() -> str | None:
    """Why there can be no such machines here; None: there can."""
    if sys.platform != "linux":
        return "namespaces are of Linux"
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        return f"not installed: {', '.join(missing)}"
    spaces = ["unshare", "--net", "--mount", "--uts", "--pid", "--time", "--fork", "--mount-proc"]
    tried = subprocess.run(
        [*spaces, "ip", "link", "add", "br0", "type", "bridge"], capture_output=True, text=True, check=False
    )
    return tried.stderr.strip() or None if tried.returncode else None


def main() -> int:
    """Start, use and end machines."""
    parser = argparse.ArgumentParser(prog="machines", description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the machines (default: %(default)s)")
    parser.add_argument("--keep", action="append", default=[], help="a path below /tmp that all of them see")
    parser.add_argument("what", choices=("up", "add", "run", "cut", "mend", "off", "down"))
    parser.add_argument("which", nargs="?", default="2", help="of `up`, how many; else the name of one")
    parser.add_argument("command", nargs="*", help="of `run`, after --")
    args = parser.parse_args()
    if args.what in {"up", "add"} and (reason := why_not()) is not None:
        parser.error(reason)
    machines = Machines(args.folder, args.keep)
    if args.what == "up":
        for number in range(1, int(args.which) + 1):
            machines.add(f"m{number}")
            print(f"m{number} {machines.address(f'm{number}')}")  # noqa: T201
    elif args.what == "run":
        return subprocess.run(machines.command(args.which, args.command), check=False).returncode
    elif args.what == "down":
        machines.down()
    else:
        getattr(machines, args.what)(args.which)
    return 0


if __name__ == "__main__":
    sys.exit(main())
