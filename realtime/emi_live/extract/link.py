"""What the main process and its workers say to each other: JSON over a pipe, so nothing is unpickled."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from emi_live.extract.ledger import Entry
from emi_models.vocabulary import Modality

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

__all__ = ["Failed", "Job", "Link", "Message", "Ready", "Refused", "Written"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A worker has loaded its encoders; with anything in `unavailable`, it has ended instead."""

    encoders: dict[Modality, str]
    recognizer: str
    settings: str  # the fingerprint of the settings with these
    announcements: list[str] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A worker cannot work, and has ended."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A clip to extract; the fields are those of `Video`."""

    id: str
    path: str
    name: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A clip's features are in place."""

    entry: Entry
    damaged: int  # packets of the file that could not be decoded


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A clip's file is of no use."""

    id: str
    reason: str


Message: TypeAlias = Ready | Failed | Job | Written | Refused
KINDS: Final[dict[str, type[Message]]] = {
    kind.__name__: kind for kind in (Ready, Failed, Job, Written, Refused)
}


class Link:
    """One end of a pipe."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def send(self, message: Message) -> bool:
        """Send one message; False if nobody is at the other end."""
        try:
            self.connection.send_bytes(json.dumps([type(message).__name__, asdict(message)]).encode())
        except OSError:
            return False
        return True

    def receive(self) -> Message | None:
        """The next message, waited for; None when the other end is gone."""
        try:
            kind, fields = json.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            return None
        if "entry" in fields:
            fields["entry"] = Entry(**fields["entry"])
        return KINDS[kind](**fields)
