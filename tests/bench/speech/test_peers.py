"""Peers in processes of their own: scored alike; one that crashes, hangs or babbles costs its clip only."""

from __future__ import annotations

import base64
import gzip
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from emi_bench.render import markdown
from emi_bench.report import read_report, write_report
from emi_bench.speech.clips import SaidWord, SpeechClip, real_clips
from emi_bench.speech.peer_report import PeerReport, PeerRun
from emi_bench.speech.peer_worker import alignment_heads, as_pytorch
from emi_bench.speech.peers import Contender, Limits, compare, peer_contenders
from emi_bench.speech.scoring import Display, displays, text_history

from .packets import shown

# Answers as a system does. Its argument says what happens at each clip after the warm-up, one letter each.
FAKE = """
import json, sys, time
def say(**line): print(json.dumps(line), flush=True)
manners = "g" + sys.argv[1]
if sys.argv[1] == "absent":
    sys.exit("no such model")
say(event="ready", settings={"policy": "fake"}, versions={"fake": "1"})
for line in sys.stdin:
    manner, manners = manners[0], manners[1:]
    if manner == "c":
        sys.exit("out of luck")
    if manner == "r":
        print("Loading checkpoint shards: 100%", flush=True)
    if manner == "s":
        say(event="show", at_s="soon")
    if manner == "h":
        time.sleep(60)
    say(event="show", at_s=0.5, changes=[0, "", 0, "Hello word"])
    say(event="show", at_s=1.0, changes=[0, "Hello", 0, "world."])
    say(event="show", at_s=1.3, changes=[5, " world.", 0, ""])
    say(event="end", at_s=2.5, behind_s=0.01, finished=manner != "u")
"""
WORDS = (SaidWord("hello", 0.25), SaidWord("world", 0.75))
LIMITS = Limits(load_s=30.0, after_clip_s=1.5)


def clip(name: str) -> SpeechClip:
    return SpeechClip(name, "yours", np.zeros(1600, np.float32), WORDS, "given")


def contender(folder: Path, name: str, manners: str) -> Contender:
    script = folder / "fake.py"
    script.write_text(FAKE)
    return Contender(name, (sys.executable, "-P", str(script), manners))


CLIPS = [clip("one"), clip("two")]


def outcome(report: PeerReport, system: str) -> list[str]:
    return [run.failure for run in report.runs if run.system == system]


def test_a_system_is_scored_from_what_it_showed_and_when(tmp_path: Path) -> None:
    report = compare([contender(tmp_path, "good", "gg")], CLIPS, "weights")
    assert [(run.clip, run.failure) for run in report.runs] == [("one", ""), ("two", "")]
    run = report.runs[0]
    assert run.errors is not None
    assert (run.errors.rate, run.committed, run.text) == (0.0, 2, "Hello world.")
    assert (run.commit_ms, run.first_seen_ms) == ([750.0, 550.0], [250.0, 250.0])
    assert (run.taken_back, run.broken) == (1, 0)  # "word"
    assert run.peak_mib > 1.0
    assert run.cpu_s >= 0.0
    assert report.systems[0].settings == {"policy": "fake"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("manners", "reason"),
    [("c", "out of luck"), ("r", "Loading checkpoint"), ("s", "soon"), ("h", "no end after")],
)
def test_a_clip_that_fails_is_recorded_and_the_rest_goes_on(
    tmp_path: Path, manners: str, reason: str
) -> None:
    """The system is started again, and the fake begins with its first manner again: so both clips fail."""
    bad, good = contender(tmp_path, "bad", manners), contender(tmp_path, "good", "gg")
    report = compare([bad, good], CLIPS, "weights", limits=LIMITS)
    assert [reason in each for each in outcome(report, "bad")] == [True, True]
    assert outcome(report, "good") == ["", ""]
    assert reason in markdown([report.page()])


def test_a_system_with_work_left_is_cut_off_and_the_page_says_so(tmp_path: Path) -> None:
    report = compare([contender(tmp_path, "slow", "ug")], CLIPS, "weights")
    assert [run.finished for run in report.runs] == [False, True]
    assert "slow, one: cut off" in markdown([report.page()])


def test_after_a_failure_the_next_clip_has_a_new_process(tmp_path: Path) -> None:
    report = compare([contender(tmp_path, "mixed", "gc")], [*CLIPS, clip("three")], "weights", limits=LIMITS)
    assert [bool(each) for each in outcome(report, "mixed")] == [False, True, False]


@pytest.mark.parametrize("missing", [False, True])
def test_a_system_that_does_not_start_says_why_once(tmp_path: Path, missing: bool) -> None:
    absent = contender(tmp_path, "absent", "absent")
    if missing:
        absent = replace(absent, command=("/nowhere/python",))
    report = compare([absent, contender(tmp_path, "good", "gg")], CLIPS, "weights", limits=LIMITS)
    reason = "nowhere" if missing else "no such model"
    assert all(reason in each for each in outcome(report, "absent"))
    assert reason in report.systems[0].failure
    assert outcome(report, "good") == ["", ""]


def test_a_run_is_resumed_where_it_stopped_and_failures_are_tried_again(tmp_path: Path) -> None:
    kept: list[PeerReport] = []
    compare([contender(tmp_path, "a", "gc")], CLIPS, "weights", keep=kept.append, limits=LIMITS)
    path = tmp_path / "peers.json"
    write_report(path, kept[-1])
    before = read_report(path)
    assert isinstance(before, PeerReport)
    assert before.partial
    assert outcome(before, "a")[0] == ""
    marked = replace(before, runs=[replace(before.runs[0], text="of the first run"), before.runs[1]])
    report = compare([contender(tmp_path, "a", "g")], CLIPS, "weights", before=marked)
    assert [(run.text, run.failure) for run in report.runs] == [
        ("of the first run", ""),
        ("Hello world.", ""),
    ]
    assert not report.partial


def test_a_resumed_run_that_is_cut_off_loses_nothing_of_the_run_before(tmp_path: Path) -> None:
    both = [contender(tmp_path, "a", "gg"), contender(tmp_path, "b", "gg")]
    before = compare(both, [clip("long")], "weights")
    kept: list[PeerReport] = []
    compare(both, [clip("short"), clip("long")], "weights", before=before, keep=kept.append)
    assert [(run.system, run.clip) for run in kept[0].runs] == [("a", "long"), ("a", "short"), ("b", "long")]
    assert [system.name for system in kept[0].systems] == ["a", "b"]
    assert len(kept) == 2


def test_the_page_has_both_systems_and_the_report_reads_back(tmp_path: Path) -> None:
    contenders = [contender(tmp_path, "emi-live", "g"), contender(tmp_path, "peer, fast", "g")]
    report = compare(contenders, CLIPS[:1], "whisper-base")
    path = tmp_path / "peers.json"
    write_report(path, report)
    assert read_report(path) == report
    page = markdown([report.page()])
    rows = [line for line in page.splitlines() if line.startswith("| yours")]
    assert len(rows) == 6  # errors, times and work of each
    assert all("emi-live" in row or "peer, fast" in row for row in rows)


def test_erasure_and_times_of_displays_follow_changed_commitments() -> None:
    history = text_history(
        [
            Display(1.0, "", "I scream"),
            Display(2.0, "I scream", ""),
            Display(3.0, "Ice cream", "is good"),  # a committed word is replaced
            Display(4.0, "Ice cream is good.", ""),
        ]
    )
    assert history.words == ["ice", "cream", "is", "good"]
    assert history.committed_s == [3.0, 3.0, 4.0, 4.0]
    assert history.seen_s == [3.0, 3.0, 3.0, 3.0]
    assert (history.taken_back, history.broken, history.erasure) == (2, 2, 0.5)


def test_displays_keep_committed_words_that_have_left_the_packets() -> None:
    packets = [shown("a b | c", 2.0), shown("b c d |", 40.0, first=1), shown("d e | f", 60.0, first=3)]
    assert [one.committed for one in displays(packets)] == ["a b", "a b c d", "a b c d e"]
    assert [one.partial for one in displays(packets)] == ["c", "", "f"]


def test_a_run_that_failed_counts_in_no_table() -> None:
    from emi_bench.measurement import Machine

    run = PeerRun(system="peer", clip="one", kind="real", seconds=3.0, failure="it hung")
    report = PeerReport(
        machine=Machine.here(), weights="w", normalisation="n", tail_s=2.0, systems=[], runs=[run]
    )
    page = report.page()
    assert page.figure is None
    assert "it hung" in markdown([page])


@pytest.mark.slow
@pytest.mark.assets
def test_our_own_stage_with_real_whisper_answers_as_a_peer_does(whisper_base: Path, assets: Path) -> None:
    jfk = next(each for each in real_clips() if each.name == "jfk")
    (ours,) = peer_contenders([], {}, whisper_base, [], Path())
    report = compare([ours], [jfk], "whisper-base")
    (run,) = report.runs
    assert run.failure == ""
    assert run.errors is not None
    assert (run.errors.words, run.errors.rate, run.broken) == (22, 0.0, 0)
    assert len(run.commit_ms) == 22
    assert run.children_mib > 100  # the recogniser's process holds the weights
    assert run.cpu_s > 0.5
    assert report.systems[0].settings["language"] == "en"


@pytest.mark.slow
def test_the_converted_weights_have_every_tensor_of_whisper_base(whisper_base: Path, tmp_path: Path) -> None:
    found = torch.load(as_pytorch(whisper_base, tmp_path), weights_only=True)
    sizes = found["dims"]
    assert (sizes["n_vocab"], sizes["n_text_state"], sizes["n_audio_layer"]) == (51865, 512, 6)
    assert (sizes["n_mels"], sizes["n_text_ctx"], sizes["n_audio_ctx"]) == (80, 448, 1500)
    # openai-whisper has 71,825,920 parameters in base, and the encoder's fixed positions: 1500 times 512.
    assert sum(tensor.numel() for tensor in found["model_state_dict"].values()) == 71_825_920 + 768_000
    mask = np.frombuffer(gzip.decompress(base64.b85decode(alignment_heads(whisper_base))), bool)
    heads = np.argwhere(mask.reshape(6, 8)).tolist()
    assert heads == [[3, 1], [4, 2], [4, 3], [4, 7], [5, 1], [5, 2], [5, 4], [5, 6]]
