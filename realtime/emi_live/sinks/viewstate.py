"""What the terminal view shows at one instant: estimates, progress in a file, losses, colours, glyphs.

`StateKeeper` gathers the state from the estimates. `losses` gives each counter of `Health` its unit, its
words and whether it is a fault. `Glyphs` are the characters, for terminals with Unicode and without.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from rich.box import ASCII, ROUNDED, Box

from emi_live.clock import NS_PER_S, Clock, MonotonicClock
from emi_live.health import Health, HealthSnapshot
from emi_live.messages import Estimate, ModalityState
from emi_live.rings import SAMPLE_RATE_HZ
from emi_models import EMOTIONS
from emi_models.console import IN_ASCII

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "AMBER",
    "ASCII_GLYPHS",
    "EMOTION_COLOURS",
    "FRAME_COUNTER",
    "HISTORY_BIN_S",
    "LENGTH_FACT",
    "NOTICE",
    "UNICODE_GLYPHS",
    "Glyphs",
    "Loss",
    "Progress",
    "ProgressLine",
    "ProgressMeter",
    "StateKeeper",
    "ViewState",
    "clock_time",
    "colour_of",
    "glyphs_for",
    "losses",
]

EMOTION_COLOURS: Final = dict(
    zip(EMOTIONS, ("#a78bfa", "#fb923c", "#ef4444", "#60a5fa", "#f472b6", "#facc15"), strict=True)
)
OTHER_COLOURS: Final = (
    "#22d3ee",
    "#fb7185",
    "#a3e635",
    "#c084fc",
    "#fdba74",
    "#93c5fd",
    "#5eead4",
    "#f9a8d4",
)
AMBER: Final = "#f5a623"  # what went wrong


def colour_of(name: str, index: int) -> str:
    """The colour of a target: each emotion has its own, others take turns by their place."""
    return EMOTION_COLOURS.get(name) or OTHER_COLOURS[index % len(OTHER_COLOURS)]


@dataclass(frozen=True, slots=True)
class Glyphs:
    """One set of characters, and the encoding of everything shown."""

    encoding: str
    bar: str  # a cell of a bar, from almost empty to full
    track: str  # a cell that the bar does not reach
    band: str  # such a cell inside the 90 % interval
    levels: str  # a cell of a history, from lowest to full
    states: Mapping[ModalityState, str]
    box: Box
    dot: str
    dash: str
    times: str
    ellipsis: str

    def meter(self, value: float, width: int) -> tuple[str, str]:
        """A bar of `width` cells for a value in [0, 1]: the filled part and the rest."""
        steps = round(max(0.0, min(1.0, value)) * width * len(self.bar))
        full, part = divmod(steps, len(self.bar))
        filled = self.bar[-1] * full + (self.bar[part - 1] if part else "")
        return filled, self.track * (width - len(filled))

    def history(self, values: Sequence[float | None], rows: int = 1) -> list[str]:
        """A graph of values in [0, 1], a column each, `rows` lines from the top; None leaves a column blank.

        The lowest level is drawn for any value, so that a line shows where there was one.
        """
        steps = len(self.levels)
        heights = [
            0 if value is None else max(1, round(min(1.0, max(0.0, value)) * steps * rows))
            for value in values
        ]
        lines = []
        for row in reversed(range(rows)):
            cells = (min(steps, height - row * steps) for height in heights)
            lines.append("".join(self.levels[cell - 1] if cell > 0 else " " for cell in cells))
        return lines

    def printable(self, text: str) -> str:
        """The text without control characters; what the encoding does not have is replaced."""
        clean = "".join(character if character.isprintable() else " " for character in text)
        if self.encoding == "ascii":
            clean = clean.translate(IN_ASCII)
        return clean.encode(self.encoding, "replace").decode(self.encoding)


UNICODE_GLYPHS: Final = Glyphs(
    encoding="utf-8",
    bar="▏▎▍▌▋▊▉█",
    track="╌",
    band="─",
    levels="▁▂▃▄▅▆▇█",
    states={"live": "●", "missing": "○", "failed": "✖", "unavailable": "◌"},
    box=ROUNDED,
    dot="·",
    dash="–",  # noqa: RUF001 # the dash is meant
    times="×",  # noqa: RUF001 # the sign is meant
    ellipsis="…",
)

ASCII_GLYPHS: Final = Glyphs(
    encoding="ascii",
    bar="#",
    track=".",
    band="-",
    levels="_.-=+*#@",
    states={"live": "*", "missing": "o", "failed": "x", "unavailable": "-"},
    box=ASCII,
    dot="-",
    dash="-",
    times="x",
    ellipsis="...",
)


def glyphs_for(encoding: str) -> Glyphs:
    """The richest set that a terminal of this encoding shows."""
    return UNICODE_GLYPHS if encoding.lower().replace("-", "").startswith("utf") else ASCII_GLYPHS


LENGTH_FACT: Final = "file.duration_s"
SPEED_SPAN_NS: Final = 20 * NS_PER_S  # speed is a mean over this much time: words come in bursts
LINE_NS: Final = NS_PER_S // 4
BAR: Final = 24
CLEAR: Final = "\r\x1b[K"
LONGEST_S: Final = 1e6  # eleven days: nothing is known


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a file has been read at one instant, in seconds of media."""

    done_s: float
    total_s: float | None  # None: the file does not say how long it is
    speed: float | None = None  # seconds of media per second; None: not known yet

    @property
    def share(self) -> float | None:
        """How much is done, in [0, 1]."""
        return None if not self.total_s else min(1.0, max(0.0, self.done_s / self.total_s))

    @property
    def to_go_s(self) -> float | None:
        """How long the rest will take."""
        if self.total_s is None or not self.speed:
            return None
        to_go_s = max(0.0, self.total_s - self.done_s) / self.speed
        return to_go_s if to_go_s < LONGEST_S else None

    def pieces(self, glyphs: Glyphs) -> list[str]:
        """In words, the most important first."""
        length = "" if self.total_s is None else f" of {clock_time(self.total_s)}"
        pieces = [f"{clock_time(self.done_s)}{length}"]
        if self.share is not None:
            pieces.insert(0, f"{100 * self.share:3.0f} %")
        if self.to_go_s is not None:
            pieces.append(f"{clock_time(self.to_go_s)} to go")
        if self.speed:
            pieces.append(f"{self.speed:.1f}{glyphs.times} real time")
        return pieces


class ProgressMeter:
    """Measures the progress through a file from its estimates; used by one thread."""

    def __init__(self, clock: Clock, until_s: float | None = None) -> None:
        """`until_s`: where the run stops, if that is before the end of the file."""
        self._clock = clock
        self._until_s = until_s
        self._marks: deque[tuple[int, float]] = deque()

    def add(self, t_s: float) -> None:
        """Take in the media time of an estimate."""
        now_ns = self._clock.now_ns()
        self._marks.append((now_ns, t_s))
        while len(self._marks) > 2 and now_ns - self._marks[0][0] > SPEED_SPAN_NS:
            self._marks.popleft()

    def progress(self, health: HealthSnapshot) -> Progress:
        """The progress now."""
        lengths = [s for s in (health.facts.get(LENGTH_FACT), self._until_s) if s is not None]
        done_s = self._marks[-1][1] if self._marks else 0.0
        speed = None
        if len(self._marks) > 1:
            (first_ns, first_s), (last_ns, last_s) = self._marks[0], self._marks[-1]
            if last_ns - first_ns >= NS_PER_S // 2:
                speed = (last_s - first_s) / ((last_ns - first_ns) / NS_PER_S)
        return Progress(done_s, min(lengths, default=None), speed)


class ProgressLine:
    """One line on a terminal, rewritten as the file is read; without a terminal, nothing."""

    def __init__(
        self, console: Console, health: Health, *, until_s: float | None = None, clock: Clock | None = None
    ) -> None:
        self._console = console
        self._health = health
        self._clock = clock or MonotonicClock()
        self._meter = ProgressMeter(self._clock, until_s)
        self._glyphs = glyphs_for(console.encoding)
        self._shows = console.is_terminal and not console.is_dumb_terminal
        self._shown_ns: int | None = None

    def show(self, estimate: Estimate) -> None:
        """Show the progress up to this estimate."""
        self._meter.add(estimate.t_s)
        now_ns = self._clock.now_ns()
        if self._shows and (self._shown_ns is None or now_ns - self._shown_ns >= LINE_NS):
            self._shown_ns = now_ns
            self._write(CLEAR + self._line())

    def close(self) -> None:
        """Remove the line; a second call does nothing."""
        if self._shown_ns is not None:
            self._shown_ns, self._shows = None, False
            self._write(CLEAR)

    def _line(self) -> str:
        glyphs = self._glyphs
        progress = self._meter.progress(self._health.snapshot())
        line = f" {glyphs.dot} ".join(progress.pieces(glyphs))
        if progress.share is not None:
            line = f"{''.join(glyphs.meter(progress.share, BAR))} {line}"
        return line[: max(0, self._console.width - 1)]

    def _write(self, text: str) -> None:
        self._console.file.write(text)
        self._console.file.flush()


def clock_time(seconds: float) -> str:
    """A time as a player shows it: `02:50`, `1:02:50`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"


Kind = Literal["fault", "skip", "fact"]

FRAME_S: Final = 1 / 30
PACKET_S: Final = 0.1
HOP_S: Final = 0.2
SAMPLE_S: Final = 1 / SAMPLE_RATE_HZ


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that was lost, refused, late, or left out on purpose."""

    name: str  # of the counter
    count: int
    words: str  # with the number and its unit
    fault: bool  # False: as it should be, such as old frames that newer ones replaced
    weight_s: float = 0.0  # about how much of the run it stands for; the largest is shown first


@dataclass(frozen=True, slots=True)
class Meaning:
    """How to show one counter, or all counters with the same last part of their name.

    `words` has {n}, the count, or {s}, seconds of sound; {part} is the name before the last dot. A plural's
    [s] is left out when the count is 1. What was counted before the first estimate, while models load, is
    shown only if `always` is set.
    """

    words: str
    each_s: float = PACKET_S
    kind: Kind = "fault"
    always: bool = False


def _fact() -> Meaning:
    return Meaning("", kind="fact")


MEANINGS: Final[dict[str, Meaning]] = {
    # Sources.
    "camera.overwritten": Meaning("{n} frame[s] skipped (newer ones came first)", FRAME_S, "skip"),
    "camera.buffered": Meaning("{n} old frame[s] in the camera's buffer skipped", FRAME_S, "skip"),
    "camera.damaged": Meaning("{n} damaged frame[s]", FRAME_S),
    "camera.lost": Meaning("camera lost {n} time[s]", 3.0, always=True),
    "microphone.lost": Meaning("microphone lost {n} time[s]", 3.0, always=True),
    "microphone.overflows": Meaning("{n} overflow[s] of the sound card", PACKET_S),
    "microphone.dropped": Meaning("{n} block[s] of sound lost on the way in", 0.02),
    "file.late": Meaning("{n} frame[s] skipped (too late for real pace)", FRAME_S, "skip"),
    "file.damaged": Meaning("{n} damaged piece[s] of the file", 0.05, always=True),
    "file.discontinuities": Meaning("{n} jump[s] of the file's time stamps", 1.0, always=True),
    "file.refused_stamps": Meaning("{n} time stamp[s] of the file refused", FRAME_S, always=True),
    "video.out_of_order": Meaning("{n} frame[s] out of order", FRAME_S, always=True),
    "audio.out_of_order": Meaning("{n} block[s] of sound out of order", 0.02, always=True),
    "video.stamps_refused": Meaning("{n} frame[s] refused for their time stamps", FRAME_S, always=True),
    "audio.stamps_refused": Meaning("{n} block[s] of sound refused for their time stamps", 0.02, always=True),
    "video.stamps_replaced": Meaning("{n} frame[s] with the time of arrival", FRAME_S, always=True),
    "audio.stamps_replaced": Meaning("{n} block[s] of sound with the time of arrival", 0.02, always=True),
    "video.stamps_rebased": Meaning("{n} jump[s] of the frames' time stamps", 1.0, always=True),
    "audio.stamps_rebased": Meaning("{n} jump[s] of the sound's time stamps", 1.0, always=True),
    "audio.clipped": Meaning("{s} s of sound too loud (clipped)", SAMPLE_S, always=True),
    "audio.not_finite": Meaning("{s} s of sound that was no number", SAMPLE_S, always=True),
    # Stages.
    "face.skipped": Meaning("{n} frame[s] skipped (above face.max_fps)", FRAME_S, "skip"),
    "face.unreadable": Meaning("{n} frame[s] with a face that cannot be read", FRAME_S),
    "face.changed": Meaning("another face was followed {n} time[s]", 3.0, always=True),
    "face.fell_behind": Meaning("the face encoder fell behind {n} time[s]", 1.0),
    "audio.fell_behind": Meaning("the voice encoder fell behind {n} time[s]", 1.0),
    "audio.skipped_samples": Meaning("{s} s of sound left out to catch up", SAMPLE_S),
    "speech.skipped_samples": Meaning("{s} s of speech left out to catch up", SAMPLE_S),
    "speech.shrunk": Meaning("{n} time[s] the smaller speech model had to answer", 1.0),
    "speech.given_up": Meaning("recognition given up for a while {n} time[s]", 1.0),
    "speech.other_language": Meaning(
        "{n} utterance[s] in another language than speech.language says (auto tells it by itself)", 3.0
    ),
    "speech.no_data": Meaning("{n} time[s] no sound came", 1.0),
    "drift.skipped": Meaning("{n} check[s] of drift skipped", HOP_S, "skip"),
    # Window, fusion, sinks.
    "window.discarded": Meaning("{n} packet[s] too late for their window", PACKET_S),
    "fusion.missed_hops": Meaning("{n} estimate[s] left out (too slow)", HOP_S),
    "fusion.late_windows": Meaning("{n} estimate[s] left out (the shared network was busy)", HOP_S),
    "estimates.skipped": Meaning("{n} estimate[s] that the program did not take", HOP_S),
    "fusion.engine_failures": Meaning("{n} failure[s] of the fusion engine", HOP_S, always=True),
    "record.lost": Meaning("{n} event[s] not recorded (disk too slow or full)", HOP_S, always=True),
    "record.media_lost": Meaning("{n} picture[s] and piece[s] of sound not recorded", FRAME_S, always=True),
    "record.pictures_skipped": Meaning(
        "{n} picture[s] not recorded (newer ones came first)", FRAME_S, "skip"
    ),
    "publish.refused": Meaning("{n} client[s] of the published port cut off", HOP_S, always=True),
    # Of any part.
    "*.lost_samples": Meaning("{s} s of sound lost before {part}", SAMPLE_S),
    "*.gaps": Meaning("{n} gap[s] in the sound of {part}", 0.5),
    "*.dropped": Meaning("{n} message[s] lost on {part}", PACKET_S),
    "*.refused": Meaning("{n} broken message[s] refused on {part}", PACKET_S, always=True),
    "*.failures": Meaning("{part} failed {n} time[s]", 5.0, always=True),
    "*.lost": Meaning("{part} lost {n} time[s]", 3.0, always=True),
    # Facts: how much was done, and what the recogniser's guards and cuts decided.
    **{
        f"*.{name}": _fact()
        for name in ("frames", "crops", "estimates", "packets", "samples", "words", "utterances", "coalesced")
    },
    **{f"*.{name}": _fact() for name in ("checks", "erased", "cut_word", "cut_limit")},
    "*.guard_carry_over": _fact(),
    "*.guard_": Meaning("{n} invented word[s] withheld ({part})", 0.3, "skip"),
}
PARTS: Final = {
    "audio": "the voice",
    "speech": "the words",
    "face": "the face",
    "text": "the text",
    "record": "the recording",
    "sink-json": "writing --json",
    "sink-picture": "writing --picture",
    "sink-publish": "--publish",
    "sink-terminal": "the view",
}


def losses(health: HealthSnapshot) -> tuple[Loss, ...]:
    """What was lost since the first estimate, faults first, the largest of them first.

    A counter without an entry in `MEANINGS` is shown by its name, as a fault.
    """
    found = []
    for name, total in health.counters.items():
        meaning = _meaning(name)
        count = total if meaning.always else total - health.before.get(name, 0)
        if count > 0 and meaning.kind != "fact":
            words = _in_words(name, count, meaning)
            found.append(Loss(name, count, words, meaning.kind == "fault", count * meaning.each_s))
    return tuple(sorted(found, key=lambda loss: (not loss.fault, -loss.weight_s, loss.name)))


def _meaning(name: str) -> Meaning:
    last = name.rpartition(".")[2]
    if found := MEANINGS.get(name) or MEANINGS.get(f"*.{last}"):
        return found
    if last.startswith("guard_"):
        return MEANINGS["*.guard_"]
    return Meaning("{part}: {n} {last}", always=True)


def _in_words(name: str, count: int, meaning: Meaning) -> str:
    part, _, last = name.rpartition(".")
    if last.startswith("guard_"):
        part = last.removeprefix("guard_").replace("_", " ")
    words = meaning.words.replace("[s]", "" if count == 1 else "s")
    seconds = count / SAMPLE_RATE_HZ
    return words.format(
        n=f"{count:,}",
        s=f"{seconds:.1f}" if seconds >= 0.1 else f"{seconds:.2g}",
        part=PARTS.get(part, re.sub("^to-", "--to ", part).replace(".", " ") or "?"),
        last=last.replace("_", " "),
    )


NOTICE: Final = "intensities say what shows, not what is felt · on this machine, nothing stored"
FRAME_COUNTER: Final = "video.frames"
HISTORY_BIN_S: Final = 0.5  # of capture time: one column of a history
HISTORY_BINS: Final = 240
RATE_SPAN_NS: Final = 3 * NS_PER_S  # rates are means over this much time


@dataclass(frozen=True, slots=True)
class ViewState:
    """Everything the view shows; numbers as they came, not smoothed."""

    source: str = ""  # what is watched, in words
    notice: str = ""  # the line at the bottom
    estimate: Estimate | None = None  # the newest
    names: tuple[str, ...] = EMOTIONS  # of the values that estimates have
    # Per HISTORY_BIN_S, the mean of each value as a share of its range; newest last.
    history: tuple[tuple[float, ...] | None, ...] = ()
    estimate_rate_hz: float | None = None
    frame_rate_hz: float | None = None
    speed: float | None = None  # seconds of media per second
    silent_s: float = 0.0  # since the newest estimate came
    losses: tuple[Loss, ...] = ()  # what was lost or skipped, the largest fault first
    progress: Progress | None = None  # through a file in exact mode; None: live
    keys: bool | None = None  # whether keys are read; None: there is no keyboard
    paused: bool = False  # whether this is the state of an earlier instant
    helping: bool = False  # whether the help is shown
    markers: int = 0  # set so far

    def history_of(self, index: int, columns: int) -> list[float | None]:
        """The last shares of one of `names`, oldest first, one per column; None without an estimate."""
        recent = self.history[len(self.history) - min(columns, len(self.history)) :]
        values = [None if bin_ is None else bin_[index] for bin_ in recent]
        return [None] * (columns - len(values)) + values


class StateKeeper:
    """Gathers estimates into the state of the view; used by one thread."""

    def __init__(
        self,
        clock: Clock,
        source: str = "",
        notice: str = "",
        *,
        meter: ProgressMeter | None = None,
        names: tuple[str, ...] = EMOTIONS,
    ) -> None:
        """`meter` measures the progress through a file; None: the run is live.

        `names` are shown until the first estimate, which brings its own.
        """
        self._clock = clock
        self._names = names
        self._source = source
        self._notice = notice
        self._meter = meter
        self._estimate: Estimate | None = None
        self._bins: deque[tuple[float, ...] | None] = deque(maxlen=HISTORY_BINS)
        self._bin_index: int | None = None
        self._bin: list[tuple[float, ...]] = []
        self._marks: deque[tuple[int, float, int]] = deque()  # arrival, capture time, frames so far
        self._arrived_ns = clock.now_ns()

    def add(self, estimate: Estimate, frames: int) -> None:
        """Take in one estimate; `frames` is how many video frames had come by then."""
        if estimate.names != self._names:  # of another checkpoint
            self._names = estimate.names
            self._bins.clear()
            self._bin_index = None
        self._estimate = estimate
        self._arrived_ns = self._clock.now_ns()
        if self._meter is not None:
            self._meter.add(estimate.t_s)
        self._marks.append((self._arrived_ns, estimate.t_s, frames))
        while len(self._marks) > 2 and self._arrived_ns - self._marks[0][0] > RATE_SPAN_NS:
            self._marks.popleft()
        index = int(estimate.t_s / HISTORY_BIN_S)
        if self._bin_index is not None and index < self._bin_index:  # the stream was restarted
            self._bins.clear()
            self._bin_index = None
        if index != self._bin_index:
            skipped = 0 if self._bin_index is None else index - self._bin_index - 1
            self._bins.extend([None] * min(skipped, HISTORY_BINS))
            self._bins.append(None)
            self._bin_index, self._bin = index, []
        self._bin.append(estimate.shares)
        self._bins[-1] = tuple(sum(column) / len(column) for column in zip(*self._bin, strict=True))

    def state(self, health: HealthSnapshot) -> ViewState:
        """The state of the view now."""
        now_ns = self._clock.now_ns()
        estimate_rate = frame_rate = speed = None
        if len(self._marks) > 1:
            first, last = self._marks[0], self._marks[-1]
            span_s = (last[0] - first[0]) / NS_PER_S
            if span_s > 0:
                estimate_rate = (len(self._marks) - 1) / span_s
                speed = (last[1] - first[1]) / span_s
                frame_rate = (last[2] - first[2]) / span_s
        return ViewState(
            source=self._source,
            notice=self._notice,
            estimate=self._estimate,
            names=self._names,
            history=tuple(self._bins),
            estimate_rate_hz=estimate_rate,
            frame_rate_hz=frame_rate,
            speed=speed,
            silent_s=(now_ns - self._arrived_ns) / NS_PER_S,
            losses=losses(health),
            progress=None if self._meter is None else self._meter.progress(health),
        )
