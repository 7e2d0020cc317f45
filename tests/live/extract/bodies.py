"""What worker processes of tests run in place of encoders."""

from __future__ import annotations

import os
import signal
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from pathlib import Path

from emi_live.extract.folder import Entry
from emi_live.extract.pool import Failed, Job, Link, Ready, Refused, Written
from tests.support.waiting import until

READY = Ready(encoders={"vision": "fake"}, recognizer="none", settings="s", announcements=["vision: fake"])


def entry_of(job: Job, settings: str = "s") -> Entry:
    facts = asdict(job)
    facts.pop("path")
    return Entry(
        source=facts.pop("name"),
        **facts,
        settings=settings,
        duration_s=2.0,
        pictures=1,
        faces=1,
        sounds=0,
        words=0,
    )


def obedient(connection: Connection, *_: object) -> None:
    """Does what the name of a clip says: `die`, `hang`, `refuse`, `full`, or else is written."""
    link = Link(connection)
    link.send(READY)
    while isinstance(job := link.receive(), Job):
        if job.id.startswith("die"):
            os.kill(os.getpid(), signal.SIGKILL)
        if job.id.startswith("hang"):
            Path(job.path).touch()
            until(Path(f"{job.path}.go").exists, 600)
        if job.id.startswith("refuse"):
            link.send(Refused(id=job.id, reason=f"{job.path} is of no use"))
        elif job.id.startswith("full"):
            link.send(Failed(reason="the disk is full"))
        else:
            link.send(Written(entry=entry_of(job), damaged=int(job.id.startswith("damaged"))))


def three_at_once(connection: Connection, log: str) -> None:
    """Takes three clips before it answers any, if there are; dies if one of them is called so."""
    link = Link(connection)
    link.send(replace(READY, at_once=3))
    held: list[Job] = []
    while isinstance(job := link.receive(), Job):
        held.append(job)
        while len(held) < 3 and connection.poll(0.5) and isinstance(job := link.receive(), Job):
            held.append(job)
        with Path(log).open("a", encoding="utf-8") as file:
            file.write(" ".join(one.id for one in held) + "\n")
        if any(one.id.startswith("die") for one in held):
            os.kill(os.getpid(), signal.SIGKILL)
        while held:
            link.send(Written(entry=entry_of(held.pop()), damaged=0))


def hungry(connection: Connection, log: str) -> None:
    """Has the memory for one clip, and says that it has it for four."""
    link = Link(connection)
    link.send(replace(READY, at_once=4))
    while isinstance(job := link.receive(), Job):
        with Path(log).open("a", encoding="utf-8") as file:
            file.write(f"{job.id} ")
        if connection.poll(0.5):
            os.kill(os.getpid(), signal.SIGKILL)
        link.send(Written(entry=entry_of(job), damaged=0))


def lacking(connection: Connection, *_: object) -> None:
    """Has no encoder for text."""
    link = Link(connection)
    link.send(
        Ready(
            encoders={}, recognizer="", settings="s", unavailable={"text": "no model; run `emi models pull`"}
        )
    )


def failing(connection: Connection, *_: object) -> None:
    """Finds that it cannot work."""
    Link(connection).send(Failed(reason="the folder is another one's"))


def stillborn(connection: Connection, *_: object) -> None:
    """Ends at once."""
    raise SystemExit(7)
