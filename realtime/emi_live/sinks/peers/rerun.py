"""`--to rerun:` the viewer Rerun: curves of the values, states, words and markers, live or in a file.

Only the logging part of its SDK is used. It sends no usage data, while the viewer does unless its user says
`rerun analytics disable`; a test traces this. A viewer is never started: it has to run, or a file is written.
API: https://ref.rerun.io/docs/python
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from emi_live.errors import ConfigurationError
from emi_live.messages import Estimate
from emi_live.sinks.peers import Peer, PeerLostError, Run, Spoken, host_and_port
from emi_models import MODALITIES
from emi_models.libraries import require

if TYPE_CHECKING:
    from rerun import RecordingStream

__all__ = ["RerunPeer"]

PORT: Final = 9876
APPLICATION: Final = "emi-live"
TIMELINE: Final = "capture_time"
SUFFIX: Final = ".rrd"
CONNECT_S: Final = 1.0
FLUSH_S: Final = 1.0  # longest wait for a viewer or a disk; the rest of emi-live does not wait
FILE_EVERY_S: Final = 2.0  # each chunk of a file has a kilobyte around its numbers
OFF: Final = frozenset({"0", "off", "false"})  # values of RERUN with which the SDK logs nothing


class RerunPeer(Peer):
    """A viewer that runs, or a new file: `rerun:`, `rerun:PORT`, `rerun:HOST:PORT` or `rerun:FILE.rrd`.

    Entities: `emi/intensities` and `emi/used` are scalars with names, `emi/states`, `emi/words` and
    `emi/markers` text. The timeline `capture_time` has capture times by wall time. A viewer that was closed
    gets the same recording again when it is back. A file is not continued after its disk was full; it is cut
    to what was written whole, since Rerun reads no half message.
    """

    kind: ClassVar[str] = "rerun"

    def __init__(self, address: str, *, lan: bool = False) -> None:
        super().__init__(address, lan=lan)
        self.file: Path | None = Path(address) if address.endswith(SUFFIX) else None
        self.host, self.port = "", 0
        if self.file is None:
            where = f":{address}" if address.isdecimal() else address
            self.host, self.port = host_and_port(f"--to rerun:{address}", where, default_port=PORT, lan=lan)
        else:
            self.lan = False
        require("rerun", extra="rerun", what="--to rerun:")
        if os.environ.get("RERUN", "").lower() in OFF:
            raise ConfigurationError("RERUN=off lets Rerun log nothing: unset it, or leave out --to rerun:")
        self._stream: RecordingStream | None = None
        self._run: Run | None = None
        self._states: dict[str, str] = {}
        self._broken = ""  # why the file cannot be continued
        self._whole = 0  # bytes of the file that were written whole
        self._flushed_s = 0.0

    @property
    def where(self) -> str:
        """The file, or the viewer that must run."""
        if self.file is not None:
            return f"file {self.file}"
        return f"a viewer on {self.host} port {self.port}, which you start: `rerun --port {self.port}`"

    def bind(self) -> None:
        """Load the SDK, and make the file, which must not be there.

        Raises:
            ConfigurationError: it is there, or cannot be written.
        """
        os.environ.setdefault("RUST_LOG", "off")  # its own messages would go into the view
        import rerun  # noqa: F401  # over a second, in which events would be lost

        if self.file is None:
            return
        if self.file.is_file() and self.file.stat().st_size:  # a start that failed leaves an empty one
            raise ConfigurationError(
                f"--to rerun:{self.file} is there, and is not replaced: choose another name"
            )
        try:
            self.file.open("ab").close()
        except OSError as error:
            raise ConfigurationError(
                f"--to rerun:{self.file} cannot be written: {error.strerror}; name a file in a folder that "
                "exists"
            ) from error

    def open(self, run: Run) -> None:
        """Connect to the viewer, or begin the file.

        Raises:
            OSError: no viewer listens.
            PeerLostError: the file could not be written before.
        """
        if self._broken:
            raise PeerLostError(self._broken)
        if self.file is None:
            # The SDK itself would wait, and keep all that is logged until a viewer comes.
            socket.create_connection((self.host, self.port), CONNECT_S).close()
        import rerun

        self._run, self._states = run, {}
        stream = rerun.RecordingStream(APPLICATION, recording_id=run.session)
        if self.file is None:
            host = f"[{self.host}]" if ":" in self.host else self.host
            stream.set_sinks(rerun.GrpcSink(f"rerun+http://{host}:{self.port}/proxy"))
        else:
            stream.set_sinks(rerun.FileSink(self.file))
        self._stream = stream
        for entity, names in (("emi/intensities", list(run.names)), ("emi/used", list(MODALITIES))):
            stream.log(entity, rerun.SeriesLines(names=names), static=True)

    def send(self, event: Estimate | Spoken) -> None:
        """Log one event; a viewer gets it at once, a file every two seconds.

        Raises:
            PeerLostError: the viewer is gone, or the disk is full.
        """
        import rerun

        stream = self._stream
        if stream is None:
            return
        if isinstance(event, Spoken):
            for word in event.words:
                self._at(word.start_ns)
                stream.log("emi/words", rerun.TextLog(word.text, level="INFO"))
        else:
            for mark in event.marks:
                self._at(mark.t_ns)
                text = f"{mark.label or mark.number} (from {mark.origin})"
                stream.log("emi/markers", rerun.TextLog(text, level="INFO"))
            self._at(event.t_ns)
            stream.log("emi/intensities", rerun.Scalars(list(event.intensities)))
            used = [float(event.modalities[name].used) for name in MODALITIES]
            stream.log("emi/used", rerun.Scalars(used))
            for name, report in event.modalities.items():
                if self._states.get(name) != report.state:  # each change
                    self._states[name] = report.state
                    level = "WARN" if report.state == "failed" else "INFO"
                    stream.log("emi/states", rerun.TextLog(f"{name}: {report.state}", level=level))
        if self.file is None or time.monotonic() - self._flushed_s > FILE_EVERY_S:
            self._flush()

    def close(self) -> None:
        """End the connection, or the file."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        if self.file is not None and not self._broken:
            with suppress(PeerLostError):  # `_broken` has it
                self._flush(stream)
        if self.file is not None and self._broken:
            _abandon(stream)
            os.truncate(self.file, self._whole)
        else:
            stream.disconnect()

    def _at(self, t_ns: int) -> None:
        assert self._run is not None  # noqa: S101  # `open` was called
        assert self._stream is not None  # noqa: S101
        stamp = np.datetime64(self._run.clocks.unix_ns(t_ns), "ns")
        self._stream.set_time(TIMELINE, timestamp=stamp)

    def _flush(self, stream: RecordingStream | None = None) -> None:
        stream = stream or self._stream
        assert stream is not None  # noqa: S101  # `open` was called
        self._flushed_s = time.monotonic()
        try:
            stream.flush(timeout_sec=FLUSH_S)
        except (RuntimeError, ValueError) as error:
            if self.file is not None:
                self._broken = f"the file {self.file} cannot be written: {error}"
                raise PeerLostError(self._broken) from error
            raise PeerLostError(f"the viewer is gone: {error}") from error
        if self.file is not None:
            self._whole = self.file.stat().st_size


def _abandon(stream: RecordingStream) -> None:
    """Leave a stream whose file cannot be written: whatever ends it waits for ever (seen with 0.41)."""
    import ctypes

    import rerun

    rerun.unregister_shutdown()
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(stream))  # its `__del__` would wait too
