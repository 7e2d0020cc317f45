"""The flame graph: threads as wide as their CPU time, without the samples in which they wait."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from tools.profile_live import draw, running

FOLDED = [
    "thread (7): emi-face;Thread.run (threading.py:9);step (a.py:3);conv <f32> (lib.so) 30",
    "thread (7): emi-face;step (a.py:4);0x7f (libc.so) 10",
    "thread (7): emi-face;wait (b.py:1);take_gil (libpython.so);0x7f (libc.so) 500",
    "thread (8): emi-file;push (c.py:1);lock_PyThread_release_lock (libpython.so);sem_post (libc.so) 900",
    "thread (8): emi-file;read (c.py:2) 5",
    "thread (1): MainThread;main (d.py:1) 99",
]


def test_a_thread_is_as_wide_as_its_cpu_time_and_waiting_is_left_out() -> None:
    root = running(FOLDED, {7: 4.0, 8: 1.0})
    assert root.seconds == pytest.approx(5.0)
    assert {name: node.seconds for name, node in root.calls.items()} == {"emi-face": 4.0, "emi-file": 1.0}
    (step,) = root.calls["emi-face"].calls.values()
    assert step.name == "step (a.py)"
    assert step.seconds == pytest.approx(4.0)
    assert step.calls["conv <f32> (lib.so)"].seconds == pytest.approx(3.0)


def test_the_picture_is_valid_and_names_each_bar() -> None:
    picture = ElementTree.fromstring(draw(running(FOLDED, {7: 4.0, 8: 1.0}), "a < b"))  # noqa: S314  # ours
    titles = [title.text for title in picture.iter("{http://www.w3.org/2000/svg}title")]
    assert "conv <f32> (lib.so), 60.0 %" in titles
    assert titles[0] == "all threads, 100.0 %"
