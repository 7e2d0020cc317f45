"""Hearing clips: each in one piece, then through the speech stage by each clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from emi_bench.speech.clips import with_silence_after
from emi_bench.speech.drive import Playback, drive
from emi_bench.speech.history import history_of
from emi_bench.speech.lag import in_spans, slope
from emi_bench.speech.lateness import lateness
from emi_bench.speech.pace import make_pace
from emi_bench.speech.recognizers import Watched, offline_words, prepare
from emi_bench.speech.report import ClipReport, Hearing, Offline, WordErrors
from emi_bench.speech.score import score
from emi_bench.stats import Distribution
from emi_live.health import Health
from emi_live.rings.audio import SAMPLE_RATE_HZ
from emi_live.stages.speech import SpeechStage
from emi_models.encoders.voice import VoiceGate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emi_bench.speech.clips import Clip
    from emi_bench.speech.pace import ClockName, Pace
    from emi_live.config import SpeechConfig
    from emi_models.speech.recognizer import Recognizer

__all__ = ["OFFLINE_LIMIT_S", "Listener", "Progress"]

OFFLINE_LIMIT_S: Final = 120.0  # a longer clip is no utterance: PocketSphinx's lattice of it would not end
Progress = Callable[[str, float, float], None]  # what is heard, seconds of it that are through, all of them


class Listener:
    """Hears clips as the engine would, in the calling thread. It does not own its recognisers."""

    def __init__(
        self,
        recognizer: Recognizer,
        config: SpeechConfig,
        *,
        smaller: Recognizer | None = None,
        progress: Progress = lambda _what, _done_s, _of_s: None,
    ) -> None:
        """Use recognisers that are loaded, and warm."""
        self._recognizer = recognizer
        self._smaller = smaller
        self._config = config
        self._progress = progress
        self._gate = VoiceGate()

    def report(self, clip: Clip, clocks: Sequence[ClockName], *, offline: bool = True) -> ClipReport:
        """All of one clip; `offline`: in one piece too, if it is not too long."""
        return ClipReport(
            name=clip.name,
            kind=clip.kind,
            seconds=clip.seconds,
            words=len(clip.words),
            times=clip.times,
            note=clip.note,
            offline=self._whole(clip) if offline and clip.seconds <= OFFLINE_LIMIT_S else None,
            heard=[self.hear(clip, name, make_pace) for name in clocks],
        )

    def hear(self, clip: Clip, clock: ClockName, make: Callable[[ClockName], Pace] = make_pace) -> Hearing:
        """Stream one clip through the stage, from a recogniser that remembers nothing."""
        for recognizer in (self._recognizer, self._smaller):
            if recognizer is not None:
                prepare(recognizer)
        self._gate.reset()
        samples, health = with_silence_after(clip.samples), Health()
        what = f"{clip.name}, {clock}"
        play = Playback(samples, make(clock))
        recognizer = Watched(self._recognizer, play.tick)
        smaller = None if self._smaller is None else Watched(self._smaller, play.tick)
        stage = SpeechStage(
            play.reader,
            self._gate,
            recognizer,
            self._config,
            exact=clock == "unaware",  # where nothing is late, nothing is to be given up
            health=health,
            smaller=smaller,
        )
        done = drive(stage, play, lambda done_s: self._progress(what, done_s, samples.size / SAMPLE_RATE_HZ))
        stage.close()
        history = history_of(done.shown)
        found = score([word.text for word in clip.words], [word.text for word in history.committed])
        late = lateness([word.end_s for word in clip.words], history.committed, found)
        lags = [(one.packet.t_ns / 1e9, one.lag_ms) for one in done.shown]
        return Hearing(
            clock=clock,
            errors=WordErrors.of(found),
            text=history.text,
            committed=len(history.committed),
            commit_ms=[round(word.committed_ms, 1) for word in late],
            first_seen_ms=[round(word.seen_ms, 1) for word in late],
            audio_s=samples.size / SAMPLE_RATE_HZ,
            busy_s=sum(done.steps_ns) / 1e9,
            calls=recognizer.calls + (0 if smaller is None else smaller.calls),
            steps_ms=Distribution.of([step / 1e6 for step in done.steps_ns]),
            max_backlog_s=done.max_backlog_s,
            taken_back=history.taken_back,
            rewritten=history.rewritten,
            broken=history.broken,
            lag_ms=Distribution.of([lag for _, lag in lags]),
            lag_over_time=[(at_s, round(lag, 1)) for at_s, lag in in_spans(lags)],
            lag_slope=slope(in_spans(lags)),
            commit_slope=slope(in_spans((word.said_s, word.committed_ms) for word in late)),
            counters={
                name: count
                for name, count in sorted(health.snapshot().counters.items())
                if name.startswith("speech.")
            },
        )

    def _whole(self, clip: Clip) -> Offline:
        self._progress(f"{clip.name}, in one piece", 0.0, clip.seconds)
        start_s = time.perf_counter()
        words = offline_words(self._recognizer, clip.samples)
        took_s = time.perf_counter() - start_s
        found = score([word.text for word in clip.words], words)
        return Offline(WordErrors.of(found), took_s, " ".join(words))
