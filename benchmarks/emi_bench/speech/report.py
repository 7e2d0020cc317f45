"""What `emi bench speech` found, as plain types for machines."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from emi_bench.stats import Distribution

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emi_bench.machine import Machine
    from emi_bench.speech.clips import Kind, Times
    from emi_bench.speech.face import FaceIndependence
    from emi_bench.speech.lag import Slope
    from emi_bench.speech.pace import ClockName
    from emi_bench.speech.score import Score

__all__ = ["SCHEMA", "ClipReport", "Hearing", "Offline", "Pooled", "SpeechReport", "WordErrors", "pool"]

SCHEMA: Final = 1  # raised when a field changes its meaning or goes


@dataclass(frozen=True, slots=True)
class WordErrors:
    """Edits from what was said to what was heard."""

    words: int  # that were said
    substitutions: int
    deletions: int
    insertions: int
    rate: float | None  # word error rate; None where nothing was said

    @classmethod
    def of(cls, score: Score) -> WordErrors:
        """Of an alignment."""
        return cls(score.words, score.substitutions, score.deletions, score.insertions, score.rate)


@dataclass(frozen=True, slots=True)
class Offline:
    """The same recogniser on the whole clip as one utterance, with all the time that it wants."""

    errors: WordErrors
    seconds: float  # that it took
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hearing:
    """One clip heard by one clock."""

    clock: ClockName
    errors: WordErrors
    text: str  # all that became certain, as the recogniser writes it
    committed: int  # words that became certain
    # Of words that were heard rightly and have known times, in their order; ms since the word's end.
    commit_ms: list[float]
    first_seen_ms: list[float]
    audio_s: float  # the silence after the clip included
    busy_s: float
    calls: int  # in which the recogniser was asked for words
    steps_ms: Distribution | None
    max_backlog_s: float
    taken_back: int  # words shown and then not
    rewritten: int  # the same, case and punctuation counting too
    broken: int  # words that were certain and changed: must be 0
    lag_ms: Distribution | None  # of packets: emitted, after the capture of the newest sound they describe
    lag_over_time: list[tuple[float, float]] = field(default_factory=list)  # s, mean ms of spans
    lag_slope: Slope | None = None  # through them
    commit_slope: Slope | None = None  # through spans of the words' commit latency
    counters: dict[str, int] = field(default_factory=dict)  # speech.* of the engine's health

    @property
    def real_time_factor(self) -> float:
        """Share of the time that it works: above 1 it cannot keep up."""
        return self.busy_s / self.audio_s


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipReport:
    """One clip and all that was made of it."""

    name: str
    kind: Kind
    seconds: float
    words: int
    times: Times
    note: str
    offline: Offline | None
    heard: list[Hearing]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooled:
    """All clips of a kind by one clock: every word counts the same."""

    kind: Kind
    clock: ClockName
    clips: int
    audio_s: float
    errors: WordErrors
    offline: WordErrors | None  # of the same clips
    points_lost: float | None  # of the word error rate by streaming, in percentage points
    commit_ms: Distribution | None
    first_seen_ms: Distribution | None
    real_time_factor: float
    calls: int
    erasure: float | None  # words taken back for each word that became certain
    rewriting: float | None
    broken: int
    max_backlog_s: float
    counters: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechReport:
    """One run of the benchmark."""

    machine: Machine
    load_before: float
    recognizer: str
    settings: dict[str, Any]  # of the section `speech`
    normalisation: str
    tail_s: float  # silence after each clip
    clips: list[ClipReport]
    pooled: list[Pooled]
    conditions: list[ClipReport]
    face: FaceIndependence | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        plain = {"bench": "speech", "schema": SCHEMA, **asdict(self)}
        for clip in (*plain["clips"], *plain["conditions"]):
            for heard in clip["heard"]:
                heard["real_time_factor"] = heard["busy_s"] / heard["audio_s"]
        return plain


def pool(clips: Sequence[ClipReport]) -> list[Pooled]:
    """By kind and clock, in the order in which they first come."""
    keys = dict.fromkeys((clip.kind, heard.clock) for clip in clips for heard in clip.heard)
    return [_pooled(kind, clock, [clip for clip in clips if clip.kind == kind]) for kind, clock in keys]


def _pooled(kind: Kind, clock: ClockName, clips: Sequence[ClipReport]) -> Pooled:
    pairs = [(clip, heard) for clip in clips for heard in clip.heard if heard.clock == clock]
    runs = [heard for _, heard in pairs]
    errors = _summed([heard.errors for heard in runs])
    whole = [clip.offline.errors for clip, _ in pairs if clip.offline is not None]
    offline = _summed(whole) if len(whole) == len(runs) else None
    lost = None
    if offline is not None and offline.rate is not None and errors.rate is not None:
        lost = 100 * (errors.rate - offline.rate)
    committed = sum(heard.committed for heard in runs)
    counters: dict[str, int] = {}
    for heard in runs:
        for name, count in heard.counters.items():
            counters[name] = counters.get(name, 0) + count
    return Pooled(
        kind=kind,
        clock=clock,
        clips=len(runs),
        audio_s=sum(heard.audio_s for heard in runs),
        errors=errors,
        offline=offline,
        points_lost=lost,
        commit_ms=Distribution.of([ms for heard in runs for ms in heard.commit_ms]),
        first_seen_ms=Distribution.of([ms for heard in runs for ms in heard.first_seen_ms]),
        real_time_factor=sum(heard.busy_s for heard in runs) / sum(heard.audio_s for heard in runs),
        calls=sum(heard.calls for heard in runs),
        erasure=sum(heard.taken_back for heard in runs) / committed if committed else None,
        rewriting=sum(heard.rewritten for heard in runs) / committed if committed else None,
        broken=sum(heard.broken for heard in runs),
        max_backlog_s=max(heard.max_backlog_s for heard in runs),
        counters=counters,
    )


def _summed(parts: Sequence[WordErrors]) -> WordErrors:
    words = sum(part.words for part in parts)
    substitutions = sum(part.substitutions for part in parts)
    deletions = sum(part.deletions for part in parts)
    insertions = sum(part.insertions for part in parts)
    rate = (substitutions + deletions + insertions) / words if words else None
    return WordErrors(words, substitutions, deletions, insertions, rate)
