"""The tables of the model card, made of what a run measured.

What older checkpoints had cannot be measured by this version, so it is written down here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from recipes.compact.tables import NONE, Run, as_span, as_table, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["CARD_TABLES"]

# Rows of the card: the score, and what it was for older versions.
OLDER: Final = (2, 3, 4)
CARD: Final[Sequence[tuple[str, str, tuple[str, ...]]]] = (
    (
        "FER+ `valid`: joy against the share who say happy, r",
        "ferplus_joy",
        (".77 (`test`)", ".860", ".860"),
    ),
    (
        "empathic pain against the share who say sad, r",
        "ferplus_empathic_pain",
        (".07 (`test`)", ".503", ".557"),
    ),
    (
        "excitement against the share who say surprised, r",
        "ferplus_excitement",
        (".38 (`test`)", ".785", ".796"),
    ),
    (
        "faces that 60 % call neutral: farthest mean from rest",
        "ferplus_neutral_from_rest",
        ("", ".010", ".005"),
    ),
    ("faces that 60 % call angry: farthest mean from rest", "ferplus_anger_from_rest", ("", ".049", ".043")),
    (
        "EmoDB, 4 speakers, gain ± 6 dB: excitement, high against low arousal, AUC",
        "emodb_excitement_auc",
        (".54 (all)", ".986", ".986"),
    ),
    ("joy, happiness against all others, AUC", "emodb_joy_auc", ("", ".766", ".766")),
    ("empathic pain, sadness against all others, AUC", "emodb_empathic_pain_auc", ("", ".989", ".989")),
    ("mean joy of happiness minus that of anger", "emodb_joy_happiness_above_anger", ("", ".003", ".003")),
    (
        "GoEmotions `dev`, words alone, written / spoken, mean r",
        "dev_{}_pearson_mean",
        (".523 / .528", ".524 / .529", ".524 / .529"),
    ),
    (
        "the same next to **real** neutral faces and voices",
        "dev_{}_beside_neutral_pearson_mean",
        ("", ".509 / .512", ".515 / .518"),
    ),
    (
        "own sentences that deny or imply an emotion, held out: on the right side of rest",
        "sentences_right",
        ("31 %", "76 %", "76 %"),
    ),
    ("joy against the smile of a clip, rank correlation", "smile_joy", ("", ".79", ".897")),
)


def _bounds(scores: Mapping[str, float], name: str) -> tuple[float, float] | None:
    """The 95 % interval of a score, if there is one."""
    low, high = scores.get(f"{name}_low"), scores.get(f"{name}_high")
    return None if low is None or high is None else (low, high)


def _card(run: Run) -> list[str]:
    older = [version for version in OLDER if version < run.scores.version]
    scores = run.scores.scores
    rows = []
    for label, name, before in CARD:
        if "{}" in name:
            now = " / ".join(shown(scores[name.format(way)], ".3") for way in ("written", "spoken"))
        else:
            now = shown(scores[name], "%" if name.startswith("sentences") else ".3")
        rows.append([label, *before[: len(older)], f"**{now}**", as_span(_bounds(scores, name))])
    versions = (f"version {version}" for version in (*older, run.scores.version))
    return as_table((":", *versions, "95 %"), rows)


def _steps(run: Run) -> list[str]:
    scores = run.scores.scores
    labels = {
        "words": "words of `dev` that show none of the six",
        "plain": "plain sentences of ours, held out",
        "face": "a neutral face (FER+ `valid`)",
        "voice": "a neutral voice, when 0.9 s of it were heard (EmoDB, 4 speakers, gain ± 6 dB)",
    }
    rows = [
        [
            label,
            shown(scores[f"step_{name}_n"], ","),
            shown(scores[f"step_{name}"], ".3"),
            f"{100 * scores[f'step_{name}_large']:.1f} %",
            shown(scores[f"step_{name}_max"], ".3"),
        ]
        for name, label in labels.items()
    ]
    head = (":what comes or goes", "n", "median of the largest step", "steps above .2", "largest of all")
    return as_table(head, rows)


def _together(run: Run) -> list[str]:
    labels = {
        "happy_face": "happy faces",
        "joyful_words": "joyful words",
        "happy_face_joyful_words": "happy faces, joyful words",
        "sad_face": "sad faces",
        "sad_words": "sad words",
        "sad_face_sad_words": "sad faces, sad words",
        "happy_face_sad_words": "a conflict: happy faces, sad words",
        "sad_face_joyful_words": "a conflict: sad faces, joyful words",
        "happy_voice": "happy voices",
        "happy_voice_joyful_words": "happy voices, joyful words",
        "sad_voice": "sad voices",
        "sad_voice_sad_words": "sad voices, sad words",
        "happy_voice_sad_words": "a conflict: happy voices, sad words",
        "sad_voice_joyful_words": "a conflict: sad voices, joyful words",
    }
    scores = run.scores.scores
    rows = [
        [label, *(shown(scores[f"{name}_{e}"], ".2") for e in ("joy", "empathic_pain", "excitement"))]
        for name, label in labels.items()
    ]
    return as_table((":", "mean joy", "mean empathic pain", "mean excitement"), rows)


def _beside_words(run: Run) -> list[str]:
    labels = {
        "alone": "the voice alone",
        "comments": "next to comments of `dev` that show none of the six",
        "plain": "next to plain sentences of ours, held out",
    }
    s = run.scores.scores
    rows = []
    for name, label in labels.items():
        cells = []
        for score in ("r", "auc", "kept"):
            place = f"arousal_{name}_{score}"
            cells += [shown(s[place], ".3"), as_span(_bounds(s, place))]
        rows.append([label, *(cells if name != "alone" else (*cells[:4], NONE, NONE))])
    return as_table(
        (":excitement against arousal", "r", "95 %", "AUC", "95 %", "r, share of alone", "95 %"), rows
    )


def _aims(run: Run) -> list[str]:
    """What was wanted, and whether it was reached, by the digits that are shown.

    Where the interval holds the bar too, it is not certain that people like these reach it.
    """
    s = run.scores.scores
    lost = max(
        s[f"dev_{w}_pearson_mean"] - s[f"dev_{w}_beside_neutral_pearson_mean"] for w in ("written", "spoken")
    )
    coverage = [row.coverage for row in run.intervals.rows]
    wider = sum(row.width >= row.constant for row in run.intervals.rows)
    at_least, at_most = True, False
    # The last is a score, or a number that has no interval.
    aims: Sequence[tuple[str, bool, float, str | float]] = (
        ("FER+ `valid`: joy, r", at_least, 0.86, "ferplus_joy"),
        ("empathic pain, r", at_least, 0.55, "ferplus_empathic_pain"),
        ("excitement, r", at_least, 0.78, "ferplus_excitement"),
        ("neutral faces: farthest mean from rest", at_most, 0.05, "ferplus_neutral_from_rest"),
        ("angry faces: farthest mean from rest", at_most, 0.05, "ferplus_anger_from_rest"),
        ("EmoDB: excitement, AUC", at_least, 0.9, "emodb_excitement_auc"),
        ("joy, AUC", at_least, 0.75, "emodb_joy_auc"),
        ("empathic pain, AUC", at_least, 0.88, "emodb_empathic_pain_auc"),
        ("mean joy of happiness minus that of anger", at_least, 0.0, "emodb_joy_happiness_above_anger"),
        (
            "r of excitement that is kept next to words of none of the six",
            at_least,
            0.8,
            "arousal_comments_kept",
        ),
        ("a weeping face: joy", at_most, 0.2, "weeping_joy"),
        ("a weeping face: empathic pain", at_least, 0.2, "weeping_empathic_pain"),
        ("joy against the smile of a clip, rank correlation", at_least, 0.9, "smile_joy"),
        ("words come or go: median of the largest step", at_most, 0.05, "step_words"),
        ("voices begin: the most that is added in their first second", at_most, 0.2, "onset_most"),
        ("GoEmotions `dev`, written", at_least, 0.523, "dev_written_pearson_mean"),
        ("GoEmotions `dev`, spoken", at_least, 0.528, "dev_spoken_pearson_mean"),
        ("lost next to neutral faces and voices", at_most, 0.005, lost),
        ("sentences that deny or imply: right", at_least, 0.8, "sentences_right"),
        ("intervals: least coverage", at_least, 0.87, min(coverage)),
        ("intervals: largest coverage", at_most, 0.93, max(coverage)),
        ("intervals wider than a constant one", at_most, 0.0, wider),
        ("size of the file, MB", at_most, 3.0, run.scores.size_mb),
    )
    rows = []
    for label, least, wanted, name in aims:
        found, span = (s[name], _bounds(s, name)) if isinstance(name, str) else (name, None)
        span = span and (round(span[0], 3), round(span[1], 3))
        wide = NONE if span is None else f"{span[0]:.3f} to {span[1]:.3f}"
        met = _reached(round(found, 3), wanted, span, least=least)
        rows.append([label, f"{'≥' if least else '≤'} {wanted:g}", f"{round(found, 3):g}", wide, met])
    return as_table((":", "wanted", "measured", "95 %", ":reached"), rows)


def _reached(found: float, wanted: float, span: tuple[float, float] | None, *, least: bool) -> str:
    """Whether what was found meets the bar; not certain if its interval has values on the other side."""
    met = found >= wanted if least else found <= wanted
    worst, best = (span if least else (span[1], span[0])) if span else (found, found)
    certain = all((end >= wanted if least else end <= wanted) == met for end in (worst, best))
    return ("yes" if met else "**no**") + ("" if certain else ", not certain")


CARD_TABLES: Final[Mapping[str, Callable[[Run], list[str]]]] = {
    "card": _card,
    "steps": _steps,
    "together": _together,
    "beside words": _beside_words,
    "aims": _aims,
}
