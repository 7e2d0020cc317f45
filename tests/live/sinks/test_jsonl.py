from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from emi_live.errors import ConfigurationError, LiveError
from emi_live.sinks.jsonl import JsonLinesSink
from tests.live.bus.packets import estimate


def test_one_object_a_line_at_once_as_the_contract_has_it(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old\n")
    sink = JsonLinesSink(path)
    sink.open()
    for t_s in (0.2, 0.4):
        sink.write(estimate(t_s))
        lines = path.read_text(encoding="utf-8").splitlines()  # before close: flushed
        assert json.loads(lines[-1]) == estimate(t_s).to_json()
    sink.close()
    sink.close()
    sink.write(estimate())
    assert len(path.read_text().splitlines()) == 2


def test_words_of_any_script_are_utf_8(tmp_path: Path) -> None:
    one = estimate()
    text = msgspec.structs.replace(one.modalities["text"], committed="déjà vu 日本 \ud800\n", partial='"')
    one = msgspec.structs.replace(one, modalities={**one.modalities, "text": text})
    sink = JsonLinesSink(tmp_path / "out")
    sink.write(one)
    sink.close()
    lines = (tmp_path / "out").read_bytes().decode("utf-8").splitlines()
    assert len(lines) == 1
    assert json.loads(lines[0])["modalities"]["text"]["committed"].startswith("déjà vu 日本")


def test_numbers_that_are_not_finite_never_reach_the_file(tmp_path: Path) -> None:
    sink = JsonLinesSink(tmp_path / "out")
    with pytest.raises(ValueError, match="nan"):
        sink.write(estimate(joy=float("nan")))
    sink.close()
    assert (tmp_path / "out").read_bytes() == b""


@pytest.mark.parametrize("name", ["missing/out.jsonl", ".", "nul\0byte"])
def test_a_path_that_cannot_be_written_is_refused_at_once(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="--json"):
        JsonLinesSink(f"{tmp_path}/{name}")


def test_a_full_disk_is_an_error_with_a_remedy() -> None:
    sink = JsonLinesSink("/dev/full")
    with pytest.raises(LiveError, match="space"):
        sink.write(estimate())
    assert sink.finished
    sink.close()


def test_standard_output_stays_open(capfd: pytest.CaptureFixture[str]) -> None:
    sink = JsonLinesSink("-")
    sink.write(estimate())
    sink.close()
    sys.stdout.write("after\n")
    sys.stdout.flush()
    line, after = capfd.readouterr().out.splitlines()
    assert json.loads(line)["seq"] == 0
    assert after == "after"


def test_a_reader_that_goes_away_ends_the_sink_quietly() -> None:
    reader, writer = os.pipe()
    sink = JsonLinesSink(f"/dev/fd/{writer}")
    os.close(writer)
    sink.write(estimate())
    assert os.read(reader, 10)
    os.close(reader)
    sink.write(estimate())
    assert sink.finished
    sink.write(estimate())
    sink.close()


def test_head_ends_a_program_without_a_word() -> None:
    program = (
        "from emi_live.sinks.jsonl import JsonLinesSink; from tests.live.bus.packets import estimate\n"
        "sink = JsonLinesSink('-')\n"
        "while not sink.finished: sink.write(estimate())\n"
        "sink.close()"
    )
    command = f'"{sys.executable}" -c "{program}" | head -n 1; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["engine"] == "onnxruntime-cpu"
