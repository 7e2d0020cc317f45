"""The last seconds of all three modalities as one input of the fusion network: packets in, windows out.

`WindowAssembler` cuts windows: masks, presence, ages and states of the modalities at one instant. A modality
is `live` while its newest usable evidence (a face, a voice, a word) is younger than its dropout time. Until
then its last frames are used, as many seconds of them as the checkpoint takes. Otherwise it is `unavailable`
(no model), `failed` (device or stage down) or `missing`, with the reason in words; its presence flag is off
and the network puts its learned missing token there.

Pure: no thread, clock or socket, so the same packets give the same windows at every machine speed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import NDArray

from emi_live.clock import NS_PER_MS, NS_PER_S, seconds_to_ns
from emi_live.config import WindowConfig
from emi_live.messages import (
    END_OF_STREAM,
    NOTHING_YET,
    AudioPacket,
    ModalityReport,
    ModalityState,
    Packet,
    TextPacket,
    VisionPacket,
)
from emi_models import MODALITIES, Modality
from emi_models.inputs import (
    FrameRun,
    FusionInputs,
    FusionShapes,
    StreamWindow,
    equidistant,
    shown_frames,
)

if TYPE_CHECKING:
    from emi_models.baseline import Baseline, Learned

__all__ = ["AUDIO_FRAME_NS", "Condition", "Window", "WindowAssembler"]

AUDIO_FRAME_NS: Final = 20_000_000  # from one frame to the next, of prosody and of wav2vec 2.0 alike
# A voice is known before its frames where an encoder waits for what comes next. They may be so much later.
LATE_NS: Final = NS_PER_S
PARTIAL: Final = 0.5  # how far words that may still change count as lost
LOST: Final = 0.25  # how far all counts as lost when a modality that was used is missing (docs/messages.md)
UNLEARNED: Final = 0.3  # how far a modality counts as lost whose neutral is not known yet
VOICE_HEARD_NS: Final = NS_PER_S // 2  # after a voice: frames from which its neutral may be learned
WORDS_DUE_S: Final = 1.4  # from a voice to the hypothesis that covers it, by default; later is behind


@dataclass(frozen=True, slots=True)
class Condition:
    """What is known of a modality apart from its packets: whether its part can work at all, and why not.

    `paused`: the program asked for a pause. The detail of `ok` says why nothing usable may come.
    """

    state: Literal["ok", "failed", "unavailable", "absent", "paused"] = "ok"
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A modality's state at one instant; `reason` is None only when it is live."""

    state: ModalityState
    reason: str | None

    @property
    def live(self) -> bool:
        """Whether its evidence may be used."""
        return self.state == "live"


def is_recent(t_ns: int | None, end_ns: int, within_ns: int) -> bool:
    """Whether something happened at most `within_ns` before `end_ns`."""
    return t_ns is not None and end_ns - t_ns <= within_ns


def judge(recent: bool, condition: Condition, why_missing: str) -> Verdict:
    """Live while the newest usable evidence is recent; otherwise why not."""
    if condition.state == "paused":
        return Verdict("missing", condition.detail)
    if recent:
        return Verdict("live", None)
    if condition.state == "failed" or condition.state == "unavailable":
        return Verdict(condition.state, condition.detail)
    return Verdict("missing", "no source" if condition.state == "absent" else condition.detail or why_missing)


@dataclass(frozen=True, slots=True)
class Window:
    """The network's input for the instant `end_ns`, and what it was made from."""

    end_ns: int
    stream: StreamWindow  # views into the assembler, valid until the next packet is added
    shapes: FusionShapes
    reports: dict[Modality, ModalityReport]
    # Capture time of the newest video frame or the newest sound, whichever is older; None: neither comes.
    sensed_ns: int | None
    audio_ends_ns: NDArray[np.int64]  # when the audio frames end, (n,); a view like `stream`
    # How far the evidence is on the way to being lost, in [0, 1]: stale, words that may still change, or a
    # neutral that is still being learned.
    gone: float = 0.0
    learned: Mapping[Modality, Learned] = field(default_factory=dict)  # with a baseline: how far it is known

    @property
    def inputs(self) -> FusionInputs:
        """`stream` padded to a batch of one: new CPU tensors at each call; the caller owns them."""
        return self.stream.inputs(self.shapes)


class WindowAssembler:
    """Collects packets and cuts windows out of them. The ends of windows may not go back in time."""

    def __init__(
        self,
        config: WindowConfig,
        shapes: FusionShapes,
        trained: frozenset[Modality],
        spans_s: Mapping[str, float] | None = None,
        breaks: Callable[[int], Mapping[Modality, Condition]] | None = None,
        words_due_s: float = WORDS_DUE_S,
        *,
        spread: bool = False,
        baselines: Mapping[Modality, Baseline] | None = None,
    ) -> None:
        """Assemble windows of `shapes`; modalities outside `trained` are reported as not used.

        Args:
            config: the window's length and the modalities' dropout times.
            shapes: the sizes that the network takes.
            trained: the modalities that it takes.
            spans_s: seconds of a sequence that it is shown, back from the newest frame of the window, where
                the checkpoint takes less than the window, or with `spread` another number.
            breaks: which modalities are muted or paused at the end of a window.
            words_due_s: a hypothesis covers a voice within this time, if recognition keeps up.
            spread: as a network for BAH was trained: the window is as long as the longest span, and of more
                faces than the network takes it is shown some from all of their seconds, not the newest.
            baselines: by modality; features are made relative to a neutral of one's own. Windows own them.
        """
        self._shapes = shapes
        self._trained = trained
        self._window_s = config.length_s
        self._spread = spread
        self._set_spans(spans_s or {})
        self._breaks = breaks
        self._dropout_ns: dict[Modality, int] = {
            "vision": seconds_to_ns(config.vision_dropout_s),
            "audio": seconds_to_ns(config.audio_dropout_s),
            "text": seconds_to_ns(config.text_dropout_s),
        }
        self._baselines = dict(baselines or {})
        self._followed = 0  # how often the face has changed
        self._ever_used: set[Modality] = set()
        # Frames of a modality that the network was not trained on may have any width; they are only counted.
        self._vision = FrameTrack(shapes.vision_dim, shapes.vision_frames, empty="vision" not in trained)
        self._sound = SoundTrack(
            FrameTrack(shapes.audio_dim, shapes.audio_frames, empty="audio" not in trained),
            self._baselines.get("audio"),
        )
        self._words_due_ns = seconds_to_ns(words_due_s)
        self._uncovered_ns: int | None = None  # the first voice that no hypothesis covers
        self._no_text = np.zeros(shapes.text_dim, np.float32)
        self._late_faces = False  # the newest packet said that the encoder is behind
        # Capture times of all analysed frames, with a face or without; and why the face was not read.
        self._seen: deque[tuple[int, str | None]] = deque()
        self._newly_seen = False  # some came since the last window
        # The first window after the newest frame came, and windows in a row whose new frames were too old.
        self._came_ns, self._late_arrivals = 0, 0
        self._newest_seen_ns = NOTHING_YET
        self._texts: deque[TextPacket] = deque()
        self._silent_until_ns = NOTHING_YET  # the end of the newest gap in the sound, as was promised
        self._progress: dict[Modality, int] = dict.fromkeys(MODALITIES, NOTHING_YET)
        self._horizon_ns = NOTHING_YET  # nothing at or before this can enter a window any more
        self._discarded = 0

    def retune(
        self, shapes: FusionShapes, trained: frozenset[Modality], spans_s: Mapping[str, float]
    ) -> None:
        """Cut the next windows for another network; what was collected stays, where it has the same shape."""
        before, was = self._shapes, self._trained
        self._shapes, self._trained = shapes, trained
        self._set_spans(spans_s)
        self._no_text = np.zeros(shapes.text_dim, np.float32)
        # A modality that was only counted has no values yet: it starts again.
        if shapes.vision_dim != before.vision_dim or ("vision" in trained) != ("vision" in was):
            self._vision = FrameTrack(shapes.vision_dim, shapes.vision_frames, empty="vision" not in trained)
        if shapes.audio_dim != before.audio_dim or ("audio" in trained) != ("audio" in was):
            self._sound.use(FrameTrack(shapes.audio_dim, shapes.audio_frames, empty="audio" not in trained))

    def _set_spans(self, spans_s: Mapping[str, float]) -> None:
        self._spans_ns = {name: seconds_to_ns(span) for name, span in spans_s.items()}
        self._length_ns = seconds_to_ns(self._window_s)
        if self._spread:  # what has no span of its own has the window's
            self._spans_ns = dict.fromkeys(MODALITIES, self._length_ns) | self._spans_ns
            self._length_ns = max(self._length_ns, *self._spans_ns.values())

    @property
    def discarded(self) -> int:
        """Packets that came too late, later than was promised, or out of order."""
        return self._discarded + self._sound.discarded

    def progress_ns(self, modality: Modality) -> int:
        """How far the modality's stage has promised to be done."""
        return self._progress[modality]

    def ready(self, end_ns: int) -> bool:
        """Whether no packet that belongs into the window ending at `end_ns` can still come."""
        return all(progress >= end_ns for progress in self._progress.values())

    def close(self, modality: Modality) -> None:
        """Expect nothing of this modality any more."""
        self._progress[modality] = END_OF_STREAM

    def add(self, packet: Packet) -> None:
        """Take in one packet of the topics vision, audio or text."""
        if isinstance(packet, VisionPacket):
            self._add_vision(packet)
        elif isinstance(packet, AudioPacket):
            self._progress["audio"] = max(self._progress["audio"], packet.progress_ns)
            self._sound.add(packet, max(self._horizon_ns, self._silent_until_ns))
            if packet.t_ns < packet.progress_ns < END_OF_STREAM:
                self._silent_until_ns = max(self._silent_until_ns, packet.progress_ns)
        elif isinstance(packet, TextPacket):
            self._add_text(packet)
        else:
            raise TypeError(f"a window takes vision, audio and text packets, not {type(packet).__name__}")

    def with_breaks(self, end_ns: int, conditions: Mapping[Modality, Condition]) -> dict[Modality, Condition]:
        """The conditions with what is muted or paused at `end_ns`; doing it twice changes nothing."""
        merged = dict(conditions)
        for modality, condition in (self._breaks(end_ns) if self._breaks else {}).items():
            if condition.state == "paused" or merged.get(modality, condition).state == "ok":
                merged[modality] = condition
        return merged

    def assemble(self, end_ns: int, conditions: Mapping[Modality, Condition] | None = None) -> Window:
        """The window that ends at `end_ns`, from the packets added so far and not newer than that."""
        conditions = self.with_breaks(end_ns, conditions or {})
        start_ns = end_ns - self._length_ns
        self._forget(start_ns)
        self._sound.settle(end_ns)
        vision_times, vision = self._vision.shown(start_ns, end_ns, self._spans_ns.get("vision"))
        audio_times, audio = self._sound.frames.shown(start_ns, end_ns, self._spans_ns.get("audio"))
        text = next((packet for packet in reversed(self._texts) if packet.t_ns <= end_ns), None)

        face_ns = int(vision_times[-1]) if len(vision_times) else None
        sound_ns = int(audio_times[-1]) if len(audio_times) else None
        seen_ns, unread = next(((t, why) for t, why in reversed(self._seen) if t <= end_ns), (None, None))
        voice_ns = self._sound.voice_ns(end_ns)
        word_ns = None if text is None else text.last_word_ns
        embedding = None if text is None else text.embedding

        def recent(modality: Modality, t_ns: int | None) -> bool:
            return is_recent(t_ns, end_ns, self._dropout_ns[modality])

        def judged(modality: Modality, is_live: bool, why_missing: str) -> Verdict:
            return judge(is_live, conditions.get(modality, Condition()), why_missing)

        frames_come = recent("vision", seen_ns)
        if self._newly_seen:
            self._newly_seen, self._came_ns = False, end_ns
            self._late_arrivals = 0 if frames_come else self._late_arrivals + 1
        sound_comes = recent("audio", self._sound.processed_ns(end_ns))
        face = judged("vision", recent("vision", face_ns), self._why_no_face(frames_come, unread, end_ns))
        voiced = recent("audio", voice_ns)
        timely = is_recent(sound_ns, end_ns, self._dropout_ns["audio"] + LATE_NS)
        late = sound_ns is not None and not timely
        voice = judged("audio", voiced and timely, self._why_no_voice(sound_comes, voiced, late))
        words = judged(
            "text", recent("text", word_ns) and embedding is not None, self._why_no_words(text, end_ns)
        )
        arriving = [
            t for t, comes in ((seen_ns, frames_come), (sound_ns, sound_comes)) if comes and t is not None
        ]
        reports: dict[Modality, ModalityReport] = {
            "vision": self._report("vision", face, end_ns, face_ns, frames=len(vision_times)),
            "audio": self._report(
                "audio", voice, end_ns, sound_ns if voice.live else voice_ns, frames=len(audio_times)
            ),
            "text": self._report("text", words, end_ns, word_ns, text=text),
        }
        learned = {modality: baseline.learned(end_ns) for modality, baseline in self._baselines.items()}
        return Window(
            end_ns,
            self._stream(vision, audio, embedding, face.live, voice.live, words.live),
            self._shapes,
            reports,
            min(arriving, default=None),
            audio_times[max(0, len(audio_times) - self._shapes.audio_frames) :],
            max((self._gone(modality, report, learned) for modality, report in reports.items()), default=0.0),
            learned,
        )

    def _gone(self, modality: Modality, report: ModalityReport, learned: Mapping[Modality, Learned]) -> float:
        """How far a modality is on the way to being lost, in [0, 1]; 0 if it was never used.

        Its age counts from half its dropout time on; of words, half the share that may still change; of a
        neutral, a part of what is not known of it. Once it is missing, others still say something.
        """
        if report.used:
            self._ever_used.add(modality)
        if not report.used or report.age_ms is None:
            return LOST if modality in self._ever_used else 0.0
        stale = 2 * report.age_ms * NS_PER_MS / self._dropout_ns[modality] - 1
        committed, partial = len((report.committed or "").split()), len((report.partial or "").split())
        unsure = PARTIAL * partial / max(1, committed + partial)
        unlearned = UNLEARNED * (1 - learned[modality].share) if modality in learned else 0.0
        return min(1.0, max(0.0, stale, unsure, unlearned))

    def _stream(
        self,
        vision: FrameRun,
        audio: FrameRun,
        embedding: NDArray[np.float32] | None,
        vision_live: bool,
        audio_live: bool,
        text_live: bool,
    ) -> StreamWindow:
        shapes = self._shapes
        if self._spread:
            faces = FrameRun(vision.start, equidistant(vision.values, shapes.vision_frames))
        else:
            faces = vision.newest(shapes.vision_frames)
        return StreamWindow(
            vision=faces,
            vision_present=vision_live,
            audio=audio.newest(shapes.audio_frames),
            audio_present=audio_live,
            text=embedding
            if embedding is not None and text_live and "text" in self._trained
            else self._no_text,
            text_present=text_live,
        )

    def _report(
        self,
        modality: Modality,
        verdict: Verdict,
        end_ns: int,
        newest_ns: int | None,
        *,
        frames: int | None = None,
        text: TextPacket | None = None,
    ) -> ModalityReport:
        return ModalityReport(
            state=verdict.state,
            used=verdict.live and modality in self._trained,
            age_ms=None if newest_ns is None else (end_ns - newest_ns) / NS_PER_MS,
            reason=verdict.reason,
            frames=frames,
            committed=None if text is None else text.committed,
            partial=None if text is None else text.partial,
            language=None if text is None else text.language,
        )

    def _add_vision(self, packet: VisionPacket) -> None:
        promised_ns = self._progress["vision"]
        self._progress["vision"] = max(promised_ns, packet.progress_ns)
        if packet.faces < 0:
            return
        self._newly_seen, self._newest_seen_ns = True, max(self._newest_seen_ns, packet.t_ns)
        newest = self._seen[-1][0] if self._seen else self._horizon_ns
        if packet.t_ns <= max(newest, self._horizon_ns, promised_ns):
            self._discarded += 1
            return
        self._seen.append((packet.t_ns, packet.reason))
        self._late_faces = packet.behind and packet.faces > 0 and packet.reason is None
        if packet.features is not None:
            times, values = np.array([packet.t_ns]), packet.features[None]
            if (baseline := self._baselines.get("vision")) is not None:
                if packet.changes != self._followed:
                    self._followed = packet.changes
                    baseline.restart(packet.t_ns)
                values = baseline.push(times, values)
            self._vision.append(times, values)

    def _add_text(self, packet: TextPacket) -> None:
        self._progress["text"] = max(self._progress["text"], packet.progress_ns)
        # It says that no words will come, or that no sound has come yet; not that there are no words.
        if packet.progress_ns == END_OF_STREAM or packet.t_ns == NOTHING_YET:
            return
        if self._texts and packet.t_ns < self._texts[-1].t_ns:
            self._discarded += 1
            return
        self._texts.append(packet)

    def _forget(self, start_ns: int) -> None:
        """Drop what lies before the window, but keep the newest of each kind: ages are counted from it."""
        self._horizon_ns = max(self._horizon_ns, start_ns)
        self._vision.forget_until(start_ns)
        self._sound.forget(start_ns)
        while len(self._seen) > 1 and self._seen[1][0] <= start_ns:
            self._seen.popleft()
        while len(self._texts) > 1 and self._texts[1].t_ns <= start_ns:
            self._texts.popleft()

    def _why_no_face(self, frames_come: bool, unread: str | None, end_ns: int) -> str:
        if self._late_faces:
            return "the encoder is behind"
        if frames_come:
            return unread or "no face"
        if self._late_arrivals > 1 and is_recent(self._came_ns, end_ns, LATE_NS):
            return f"frames come {(self._came_ns - self._newest_seen_ns) / NS_PER_S:.0f} s late"
        return "no frames"

    def _why_no_voice(self, sound_comes: bool, voiced: bool, late: bool) -> str:
        if self._sound.behind or (voiced and late):
            return "the encoder is behind"
        if voiced:
            return "no features yet"
        return "silence" if sound_comes else "no audio"

    def _why_no_words(self, text: TextPacket | None, end_ns: int) -> str:
        if text is not None and text.behind:
            left_out = f": {text.left_out_s:.0f} s left out" if text.left_out_s >= 1 else ""
            return f"recognition is behind{left_out}"
        if self._recognition_waits(text) and (waits_ns := self._unrecognised_ns(text, end_ns)) is not None:
            return f"recognising, {waits_ns / NS_PER_S:.0f} s behind"
        if text is None:
            # Text is not late: sound is expected and has not begun.
            waits_for_sound = self._progress["text"] >= end_ns and self._progress["audio"] < END_OF_STREAM
            return "no audio" if waits_for_sound and self._sound.processed_ns(end_ns) is None else "no words"
        return "no audio" if text.hearing == "no data" else "no words"

    def _recognition_waits(self, text: TextPacket | None) -> bool:
        """Whether words may still come."""
        return self._progress["text"] < END_OF_STREAM or (text is not None and text.behind_s > 0)

    def _unrecognised_ns(self, text: TextPacket | None, end_ns: int) -> int | None:
        """For how long a voice has been waiting for its words; None without one, or if it is not late yet.

        The recogniser sends nothing while it is busy. So the wait is counted from the voice that the audio
        stage found after the audio which the newest text packet covers.
        """
        covered_ns = None if text is None else text.t_ns - seconds_to_ns(text.behind_s)
        if self._uncovered_ns is None or (covered_ns is not None and covered_ns >= self._uncovered_ns):
            self._uncovered_ns = self._sound.voice_after(covered_ns, end_ns)
        if self._uncovered_ns is None and text is not None and text.behind_s:  # no other stage finds voice
            self._uncovered_ns = covered_ns
        if self._uncovered_ns is None or end_ns - self._uncovered_ns <= self._words_due_ns:
            return None
        return end_ns - self._uncovered_ns


class FrameTrack:
    """Frames of one modality with their capture times, oldest first, numbered from 0 in the order of arrival.

    They are in one array of twice the needed size, so that dropping old ones rarely needs a copy.
    """

    def __init__(self, dim: int, frames: int, *, empty: bool = False) -> None:
        """Room for `frames` of the window at first; `empty` counts frames, and keeps zeros as values."""
        self._empty = empty
        self._values = np.zeros((max(2 * frames, 16), dim), np.float32)
        self._times = np.zeros(len(self._values), np.int64)
        self._first = 0
        self._last = 0
        self._number = 0  # of the frame at `_first`

    @property
    def newest_ns(self) -> int | None:
        """Capture time of the newest frame; None when empty."""
        return int(self._times[self._last - 1]) if self._last > self._first else None

    def append(self, times_ns: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Add frames, times (n,) increasing and newer than all before, values (n, dim)."""
        count = len(times_ns)
        if self._last + count > len(self._times):
            self._make_room(count)
        self._times[self._last : self._last + count] = times_ns
        if not self._empty:
            self._values[self._last : self._last + count] = values
        self._last += count

    def replace_from(self, t_ns: int, times_ns: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Add frames as `append` does, in place of all that were captured after `t_ns`.

        If any are replaced, all frames get new numbers and one number is skipped: so a run of consecutive
        numbers has none in common with the runs before.
        """
        count = self._last - self._first
        kept = int(np.searchsorted(self._times[self._first : self._last], t_ns, side="right"))
        if kept < count:
            self._number += count + 1
            self._last = self._first + kept
        self.append(times_ns, values)

    def forget_until(self, t_ns: int) -> None:
        """Drop frames captured at or before `t_ns`."""
        forgotten = int(np.searchsorted(self._times[self._first : self._last], t_ns, side="right"))
        self._first += forgotten
        self._number += forgotten

    def shown(self, start_ns: int, end_ns: int, span_ns: int | None) -> tuple[NDArray[np.int64], FrameRun]:
        """Times (n,) and values (n, dim) of the frames of a window, as `shown_frames` chooses them.

        Both are views, valid until `append`.
        """
        times = self._times[self._first : self._last]
        rows = shown_frames(times, start_ns, end_ns, span_ns)
        values = self._values[self._first : self._last]
        return times[rows], FrameRun(self._number + rows.start, values[rows])

    def _make_room(self, count: int) -> None:
        kept = self._last - self._first
        size = len(self._times)
        while size < 2 * (kept + count):
            size *= 2
        times, values = self._times[self._first : self._last], self._values[self._first : self._last]
        self._times = np.concatenate((times, np.zeros(size - kept, np.int64)))
        self._values = np.concatenate((values, np.zeros((size - kept, values.shape[1]), np.float32)))
        self._first, self._last = 0, kept


class SoundTrack:
    """The audio frames; later packets may replace earlier frames (`replaces=True`).

    A packet that replaces takes effect only when a window needs it: those up to the first one that reaches
    the end of the window. So a window does not depend on how many more packets had arrived.
    """

    def __init__(self, frames: FrameTrack, baseline: Baseline | None = None) -> None:
        self._frames = frames
        self._baseline = baseline
        self._waiting: deque[AudioPacket] = deque()  # those that replace and are not in effect yet
        self._processed: deque[int] = deque()  # capture times up to which sound was processed
        self._voices: deque[int] = deque()  # ends of voice
        self.behind = False  # of the newest packet
        self.discarded = 0  # packets that came too late, or out of order

    @property
    def frames(self) -> FrameTrack:
        """The frames in effect."""
        return self._frames

    def use(self, frames: FrameTrack) -> None:
        """Keep frames there from now on; what is known of voice and of processed sound stays."""
        self._frames = frames

    def add(self, packet: AudioPacket, horizon_ns: int) -> None:
        """Take in one packet; frames at or before `horizon_ns` are left out, unless they replace others."""
        self.behind = packet.behind
        if packet.t_ns > (self._processed[-1] if self._processed else NOTHING_YET):
            self._processed.append(packet.t_ns)
        voice_ns = packet.last_voice_ns
        if voice_ns is not None and (not self._voices or voice_ns > self._voices[-1]):
            self._voices.append(voice_ns)
        if not packet.replaces:
            self._append(packet, horizon_ns)
        elif packet.t_ns > max(self._newest_ns(horizon_ns), horizon_ns):
            self._waiting.append(packet)
        else:
            self.discarded += 1

    def settle(self, end_ns: int) -> None:
        """Put into effect the packets that a window up to `end_ns` needs."""
        while self._waiting and (self._frames.newest_ns is None or self._frames.newest_ns < end_ns):
            packet = self._waiting.popleft()
            times = _times(packet)
            self._frames.replace_from(int(times[0]) - AUDIO_FRAME_NS // 2, times, packet.frames)

    def processed_ns(self, end_ns: int) -> int | None:
        """The newest capture time up to `end_ns` of processed sound; None if there is none."""
        return next((t for t in reversed(self._processed) if t <= end_ns), None)

    def voice_ns(self, end_ns: int) -> int | None:
        """The end of the newest voice up to `end_ns`; None if there is none."""
        return next((t for t in reversed(self._voices) if t <= end_ns), None)

    def voice_after(self, t_ns: int | None, end_ns: int) -> int | None:
        """The first end of voice after `t_ns`, up to `end_ns`; None if there is none."""
        return next((t for t in self._voices if (t_ns is None or t > t_ns) and t <= end_ns), None)

    def forget(self, start_ns: int) -> None:
        """Drop what lies before a window that starts there, but keep the newest of each kind."""
        self._frames.forget_until(start_ns)
        for stamps in (self._processed, self._voices):
            while len(stamps) > 1 and stamps[1] <= start_ns:
                stamps.popleft()

    def _append(self, packet: AudioPacket, horizon_ns: int) -> None:
        newest_ns = self._frames.newest_ns
        times = _times(packet)
        fresh = times > (horizon_ns if newest_ns is None else max(newest_ns, horizon_ns))
        if not fresh.all():
            self.discarded += 1
        if fresh.any():
            times, values = times[fresh], packet.frames[fresh]
            if self._baseline is not None:
                voice_ns = packet.last_voice_ns
                heard = np.full(len(times), voice_ns is not None and times[-1] - voice_ns <= VOICE_HEARD_NS)
                values = self._baseline.push(times, values, heard)
            self._frames.append(times, values)

    def _newest_ns(self, horizon_ns: int) -> int:
        """Capture time of the newest frame, in effect or not."""
        if self._waiting:
            return self._waiting[-1].t_ns
        return horizon_ns if self._frames.newest_ns is None else self._frames.newest_ns


def _times(packet: AudioPacket) -> NDArray[np.int64]:
    return packet.t_ns - AUDIO_FRAME_NS * np.arange(len(packet.frames) - 1, -1, -1, dtype=np.int64)
