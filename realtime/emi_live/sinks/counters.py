"""What each counter of `Health` counts: its unit and words, and whether that is a fault."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from emi_live.health import HealthSnapshot
from emi_live.rings.audio import SAMPLE_RATE_HZ

__all__ = ["Loss", "losses"]

Kind = Literal["fault", "skip", "fact"]

PICTURE_S: Final = 1 / 30
PACKET_S: Final = 0.1
HOP_S: Final = 0.2
SAMPLE_S: Final = 1 / SAMPLE_RATE_HZ


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that was lost, refused, late, or left out on purpose."""

    name: str  # of the counter
    count: int
    words: str  # with the number and its unit
    fault: bool  # False: as it should be, such as old pictures that newer ones replaced
    weight_s: float = 0.0  # about how much of the run it stands for: the largest is told first


@dataclass(frozen=True, slots=True)
class Meaning:
    """Of one counter, or of all that share the last part of their name.

    `words` holds {n}, the count, or {s}, seconds of sound; {part} is what stands before the last dot.
    A plural's [s] is left out when the count is 1. What happens while models load is not counted, unless it
    is `always` to be told.
    """

    words: str
    each_s: float = PACKET_S
    kind: Kind = "fault"
    always: bool = False


def _fact() -> Meaning:
    return Meaning("", kind="fact")


MEANINGS: Final[dict[str, Meaning]] = {
    # Sources.
    "camera.overwritten": Meaning("{n} picture[s] skipped (newer ones came first)", PICTURE_S, "skip"),
    "camera.buffered": Meaning("{n} old picture[s] in the camera's buffer skipped", PICTURE_S, "skip"),
    "camera.damaged": Meaning("{n} damaged picture[s]", PICTURE_S),
    "camera.lost": Meaning("camera lost {n} time[s]", 3.0, always=True),
    "microphone.lost": Meaning("microphone lost {n} time[s]", 3.0, always=True),
    "microphone.overflows": Meaning("{n} overflow[s] of the sound card", PACKET_S),
    "microphone.dropped": Meaning("{n} block[s] of sound lost on the way in", 0.02),
    "file.late": Meaning("{n} picture[s] skipped (too late for real pace)", PICTURE_S, "skip"),
    "file.damaged": Meaning("{n} damaged piece[s] of the file", 0.05, always=True),
    "file.discontinuities": Meaning("{n} jump[s] of the file's time stamps", 1.0, always=True),
    "file.refused_stamps": Meaning("{n} time stamp[s] of the file refused", PICTURE_S, always=True),
    "video.out_of_order": Meaning("{n} picture[s] out of order", PICTURE_S, always=True),
    "audio.out_of_order": Meaning("{n} block[s] of sound out of order", 0.02, always=True),
    "video.stamps_refused": Meaning("{n} picture[s] refused for their time stamps", PICTURE_S, always=True),
    "audio.stamps_refused": Meaning("{n} block[s] of sound refused for their time stamps", 0.02, always=True),
    "video.stamps_rebased": Meaning("{n} jump[s] of the pictures' time stamps", 1.0, always=True),
    "audio.stamps_rebased": Meaning("{n} jump[s] of the sound's time stamps", 1.0, always=True),
    "audio.clipped": Meaning("{s} s of sound too loud (clipped)", SAMPLE_S, always=True),
    "audio.not_finite": Meaning("{s} s of sound that was no number", SAMPLE_S, always=True),
    # Stages.
    "face.skipped": Meaning("{n} picture[s] skipped (above face.max_fps)", PICTURE_S, "skip"),
    "face.fell_behind": Meaning("the face encoder fell behind {n} time[s]", 1.0),
    "audio.fell_behind": Meaning("the voice encoder fell behind {n} time[s]", 1.0),
    "audio.skipped_samples": Meaning("{s} s of sound left out to catch up", SAMPLE_S),
    "speech.skipped_samples": Meaning("{s} s of speech left out to catch up", SAMPLE_S),
    "speech.shrunk": Meaning("{n} time[s] the smaller speech model had to answer", 1.0),
    "speech.given_up": Meaning("recognition given up for a while {n} time[s]", 1.0),
    "speech.no_data": Meaning("{n} time[s] no sound came", 1.0),
    "drift.skipped": Meaning("{n} check[s] of drift skipped", HOP_S, "skip"),
    # Window, fusion, sinks.
    "window.discarded": Meaning("{n} packet[s] too late for their window", PACKET_S),
    "fusion.missed_hops": Meaning("{n} estimate[s] left out (too slow)", HOP_S),
    "estimates.skipped": Meaning("{n} estimate[s] that the program did not take", HOP_S),
    "fusion.engine_failures": Meaning("{n} failure[s] of the fusion engine", HOP_S, always=True),
    "publish.refused": Meaning("{n} client[s] of the published port cut off", HOP_S, always=True),
    # Whatever they are of.
    "*.lost_samples": Meaning("{s} s of sound lost before {part}", SAMPLE_S),
    "*.gaps": Meaning("{n} gap[s] in the sound of {part}", 0.5),
    "*.dropped": Meaning("{n} message[s] lost on {part}", PACKET_S),
    "*.refused": Meaning("{n} broken message[s] refused on {part}", PACKET_S, always=True),
    "*.failures": Meaning("{part} failed {n} time[s]", 5.0, always=True),
    "*.lost": Meaning("{part} lost {n} time[s]", 3.0, always=True),
    # How much was done, and what the recogniser's guards and cuts decide.
    **{
        f"*.{name}": _fact()
        for name in ("frames", "crops", "estimates", "packets", "samples", "words", "utterances", "coalesced")
    },
    **{f"*.{name}": _fact() for name in ("checks", "erased", "cut_segment", "cut_word", "cut_limit")},
    "*.guard_carry_over": _fact(),
    "*.guard_": Meaning("{n} invented word[s] withheld ({part})", 0.3, "skip"),
}
PARTS: Final = {
    "audio": "the voice",
    "speech": "the words",
    "face": "the face",
    "text": "the text",
    "sink-json": "writing --json",
    "sink-picture": "writing --picture",
    "sink-publish": "--publish",
    "sink-terminal": "the view",
}


def losses(health: HealthSnapshot) -> tuple[Loss, ...]:
    """What was lost since the first estimate, faults first, the largest of them first.

    A counter that nobody described is shown by its name, as a fault.
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
        part=PARTS.get(part, part.replace(".", " ") or "?"),
        last=last.replace("_", " "),
    )
