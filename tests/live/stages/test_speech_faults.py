from __future__ import annotations

from statistics import mean

import pytest

from tests.live.stages.room import NS, Room
from tests.models.speech.timed import Spoken, word_of


def speech(start_s: float, end_s: float, each_s: float = 0.3, pause_s: float = 0.1) -> list[Spoken]:
    """Somebody who speaks without a break."""
    words: list[Spoken] = []
    time_s = start_s
    while time_s + each_s <= end_s:
        words.append((word_of(round(time_s * 100)), time_s, time_s + each_s))
        time_s += each_s + pause_s
    return words


def within(spoken: list[Spoken], start_s: float, end_s: float) -> list[str]:
    return [text for text, start, end in spoken if start >= start_s and end <= end_s]


def test_speaking_silent_and_no_data_are_three_states() -> None:
    room = Room(speech(2.0, 5.0), gone=[(8.0, 11.0)]).run(14.0)
    assert room.hearing(1.0) == "silent"
    assert room.hearing(4.0) == "speaking"
    assert room.hearing(7.5) == "silent"
    assert room.hearing(10.0) == "no data"
    assert room.hearing(13.0) == "silent"
    assert 9.0 <= room.first("no data") < 9.1
    assert room.count("no_data") == 1


def test_muted_in_mid_word_it_falls_silent_and_keeps_what_was_said() -> None:
    spoken = speech(1.0, 12.0)
    room = Room(spoken, muted=[(4.1, 7.1)]).run(14.0)
    assert room.first("silent", after_s=2.0) < 4.1 + 0.5 + 0.1
    assert "no data" not in {packet.hearing for _, packet in room.packets}
    assert room.texts == [text for text in within(spoken, 1.0, 4.1) + within(spoken, 7.1, 12.0)]
    during = [packet for ns, packet in room.packets if 5 * NS < ns < 7 * NS]
    assert all(word.committed for packet in during for word in packet.words)


def test_a_device_gone_in_mid_word_is_no_silence_and_it_hears_again_when_it_is_back() -> None:
    spoken = speech(1.0, 12.0)
    room = Room(spoken, gone=[(4.1, 7.1)]).run(14.0)
    assert 5.0 < room.first("no data") < 5.2
    assert room.first("speaking", after_s=6.0) < 7.1 + 0.2
    texts = room.texts
    whole = within(spoken, 1.0, 4.1) + within(spoken, 7.2, 12.0)
    assert [text for text in texts if text in whole] == whole
    assert len(texts) <= len(whole) + 2  # at most the two halves of a word at either edge
    before = [packet for ns, packet in room.packets if 5.2 * NS < ns < 7 * NS]
    assert all(word.committed for packet in before for word in packet.words)


def test_sound_that_comes_late_is_not_lost() -> None:
    spoken = speech(1.0, 14.0)
    room = Room(spoken, late=[(4.0, 9.0)]).run(16.0)
    assert room.count("no_data") == 1
    assert room.count("lost_samples") == 0
    missing = set(within(spoken, 0.0, 20.0)) - set(room.texts)
    assert len(missing) <= 1  # the word under way when the sound stopped
    assert mean(room.lags_s(12.0, 14.0)) < 0.1


def test_after_a_gap_words_have_their_own_times() -> None:
    spoken = speech(1.0, 12.0)
    room = Room(spoken, gone=[(5.0, 8.0)], no_data_s=60.0).run(14.0)  # seen by its stamps alone
    assert room.count("gaps") == 1
    times = {text: start for text, start, _ in spoken}
    for word in room.committed:
        if word.text in times:
            assert abs(word.start_ns / NS - times[word.text]) < 0.05
    assert set(within(spoken, 8.2, 12.0)) <= set(room.texts)


def test_a_recogniser_that_hangs_for_5_s_loses_nothing_and_catches_up() -> None:
    spoken = speech(1.0, 28.0)
    room = Room(spoken, takes_s=0.1)
    room.run(5.0)
    room.recognizer.hangs_s = 5.0
    room.run(30.0)
    assert room.texts == [word[0] for word in spoken]
    assert room.count("coalesced") > 0
    assert (room.count("shrunk"), room.count("given_up"), room.count("lost_samples")) == (0, 0, 0)
    assert max(room.lags_s(5.0, 12.0)) > 3.0
    assert max(room.lags_s(15.0, 28.0)) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("drift_ppm", [500.0, -500.0])
def test_a_drifting_clock_moves_neither_words_nor_lag(drift_ppm: float) -> None:
    spoken = speech(1.0, 598.0, each_s=0.6, pause_s=0.05)
    room = Room(spoken, drift_ppm=drift_ppm, partial_every_s=1.0).run(602.0)
    times = {text: start * (1 + drift_ppm / 1e6) for text, start, _ in spoken}
    assert room.texts == list(times)
    assert max(abs(word.start_ns / NS - times[word.text]) for word in room.committed) < 0.02
    assert abs(mean(room.lags_s(540, 598)) - mean(room.lags_s(2, 60))) < 0.01


@pytest.mark.slow
def test_lag_does_not_grow_in_ten_minutes() -> None:
    spoken = speech(1.0, 598.0, each_s=0.6, pause_s=0.05)
    room = Room(spoken, takes_s=0.25, partial_every_s=1.0).run(602.0)
    assert room.texts == [word[0] for word in spoken]
    assert abs(mean(room.lags_s(540, 598)) - mean(room.lags_s(2, 60))) < 0.01  # 1 ms a minute


@pytest.mark.parametrize(("takes_s", "most_asked"), [(0.1, 62), (0.6, 32), (1.2, 17)])
def test_it_is_asked_as_often_as_it_can_answer_so_that_no_sound_queues_up(
    takes_s: float, most_asked: int
) -> None:
    spoken = speech(1.0, 30.0)
    room = Room(spoken, takes_s=takes_s).run(33.0)
    assert room.texts == [word[0] for word in spoken]
    assert most_asked / 2 < room.recognizer.asked <= most_asked
    assert max(room.lags_s(0.0, 30.0)) < takes_s + 0.3
    assert (room.count("shrunk"), room.count("given_up")) == (0, 0)


def test_slower_than_it_is_asked_it_is_asked_less_often() -> None:
    spoken = speech(1.0, 30.0)
    room = Room(spoken, takes_s=1.5).run(33.0)
    assert room.texts == [word[0] for word in spoken]
    assert room.count("coalesced") > 0
    assert room.count("given_up") == 0
    assert max(room.lags_s(0.0, 30.0)) < 1.5 + 0.4 + 0.3  # an answer, until it is asked, and one step
    assert room.recognizer.asked < 30 / 1.5 + 2


def test_too_slow_for_that_the_smaller_model_answers_and_the_large_one_comes_back() -> None:
    spoken = speech(1.0, 70.0)
    room = Room(spoken, takes_s=4.0, smaller_takes_s=0.1)
    room.run(35.0)
    assert room.count("shrunk") == 1
    assert "timed answers" in room.health.status("speech").detail
    assert max(room.lags_s(25.0, 35.0)) < 0.5
    room.recognizer.takes_s = 0.1
    room.run(72.0)
    assert "again" in room.health.status("speech").detail
    assert room.texts == [word[0] for word in spoken]
    assert room.count("given_up") == 0


def test_too_slow_altogether_words_are_left_out_visibly_and_tried_again() -> None:
    spoken = speech(1.0, 60.0)
    room = Room(spoken, takes_s=5.0)
    room.run(20.0)
    assert room.count("given_up") == 1
    assert room.packets[-1][1].behind
    assert "words are left out" in room.health.status("speech").detail
    assert all(word.committed for word in room.packets[-1][1].words)
    assert max(room.lags_s(19.0, 20.0)) < 0.2  # the packets come in time, without new words
    room.recognizer.takes_s = 0.1
    room.run(62.0)
    assert not room.packets[-1][1].behind
    assert room.count("skipped_samples") > 0
    assert set(within(spoken, 45.0, 60.0)) <= set(room.texts)


def test_packets_say_how_much_of_the_utterance_no_hypothesis_covers() -> None:
    quick = Room(speech(1.0, 6.0)).run(8.0)
    assert max(packet.behind_s for _, packet in quick.packets) <= 0.5
    assert quick.packets[-1][1].behind_s == 0  # silence needs no words
    slow = Room(speech(1.0, 6.0), takes_s=2.0).run(14.0)
    assert max(packet.behind_s for _, packet in slow.packets) > 0.8
    assert slow.packets[-1][1].behind_s == 0


def test_packets_say_how_much_was_left_out() -> None:
    room = Room(speech(1.0, 60.0), takes_s=8.0).run(60.0)
    left_out = [packet.left_out_s for _, packet in room.packets if packet.behind]
    assert max(left_out) > 1
    assert all(packet.left_out_s == 0 for _, packet in room.packets if not packet.behind)
