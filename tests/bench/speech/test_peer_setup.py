"""The peer's own environment: made once, with one clear line when uv fails; its weights, converted."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from emi_bench.cli import app
from emi_bench.speech.clips import long_talk
from emi_bench.speech.peer_worker import change, read_ctranslate2
from emi_bench.speech.peers import check_peers, peer_contenders, peer_environment
from emi_bench.speech.run import clips_to_play, make_settings
from emi_live.cli.errors import run_app
from emi_live.errors import ConfigurationError

UV = """#!/bin/sh
echo "$@" >> {log}
if [ "$1" = venv ]; then for last; do :; done; mkdir -p "$last/bin"; touch "$last/bin/python"; fi
if [ "$1" = pip ] && [ -n "{reason}" ]; then echo "Resolving" >&2; echo "{reason}" >&2; exit 1; fi
echo "Downloading torch (500MiB)" >&2
"""


def fake_uv(folder: Path, reason: str = "") -> dict[str, str]:
    """Variables with a uv on PATH that logs its calls; with a reason, it cannot install."""
    (folder / "bin").mkdir(exist_ok=True)
    uv = folder / "bin" / "uv"
    uv.write_text(UV.format(log=folder / "log", reason=reason))
    uv.chmod(0o755)
    return {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "XDG_CACHE_HOME": str(folder / "cache")}


def test_the_environment_is_made_once_and_its_progress_is_shown(tmp_path: Path) -> None:
    environ, said, lines = fake_uv(tmp_path), list[str](), list[str]()
    python = peer_environment("whisperlivekit", said.append, lines.append, environ)
    assert python.exists()
    assert "whisperlivekit==0.2.26" in said[0]
    assert "Downloading torch (500MiB)" in lines
    calls = (tmp_path / "log").read_text().count("\n")
    assert peer_environment("whisperlivekit", said.append, lines.append, environ) == python
    assert (tmp_path / "log").read_text().count("\n") == calls == 2


def test_a_failed_installation_gives_its_reason_in_one_line_and_is_tried_again(tmp_path: Path) -> None:
    environ = fake_uv(tmp_path, "error: Failed to fetch: dns error")
    with pytest.raises(ConfigurationError, match="dns error") as failed:
        peer_environment("whisperlivekit", lambda _: None, lambda _: None, environ)
    assert "\n" not in str(failed.value)
    environ = fake_uv(tmp_path)
    assert peer_environment("whisperlivekit", lambda _: None, lambda _: None, environ).exists()


def test_without_uv_the_line_says_how_to_get_it(tmp_path: Path) -> None:
    environ = {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    with pytest.raises(ConfigurationError, match="pip install uv"):
        peer_environment("whisperlivekit", lambda _: None, lambda _: None, environ)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--peer", "siri"], "whisperlivekit"),
        (["--peer", "whisperlivekit:fast"], "simulstreaming"),
        (["--peer", "whisperlivekit", "--clock", "aware"], "--clock"),
        (["--peer", "whisperlivekit", "--backend", "pocketsphinx"], "--backend"),
        (["--peer", "whisperlivekit", "--conditions"], "--conditions"),
        (["--peer", "whisperlivekit", "--nonstop"], "--minutes"),
        (["--peer", "whisperlivekit", "--resume"], "--json"),
        (["--resume"], "--peer"),
    ],
)
def test_bad_use_is_one_line_at_once(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_app(app, ["speech", *args], "emi bench")
    said = capsys.readouterr().err
    assert (ended.value.code, said.count("\n")) == (2, 1)
    assert message in said


def test_our_system_comes_first_then_each_policy_once() -> None:
    peers = ["whisperlivekit:localagreement", "whisperlivekit"]
    assert check_peers(peers) == ["whisperlivekit"]
    found = peer_contenders(peers, {"whisperlivekit": Path("py")}, Path("model"), ["a.b=1"], Path("tmp"))
    names = ["emi-live", "whisperlivekit, localagreement", "whisperlivekit, simulstreaming"]
    assert [each.name for each in found] == names
    assert "a.b=1" in found[0].command


def test_changes_of_a_text_put_together_give_the_text() -> None:
    before, now = "ask not what your", "ask not why your country"
    kept, text = change(before, now)
    assert before[:kept] + text == now
    assert change("same", "same") == (4, "")


def test_a_ctranslate2_file_is_read_as_written(tmp_path: Path) -> None:
    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    weights = np.arange(6, dtype=np.float16).reshape(2, 3)
    variable = text("a/weight") + struct.pack("<BIIBI", 2, 2, 3, 4, weights.nbytes) + weights.tobytes()
    data = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, 1) + variable
    data += struct.pack("<I", 1) + text("b/weight") + text("a/weight")
    (tmp_path / "model.bin").write_bytes(data)
    found = read_ctranslate2(tmp_path / "model.bin")
    assert found.keys() == {"a/weight", "b/weight"}
    np.testing.assert_array_equal(found["b/weight"], weights)


@pytest.mark.assets
def test_a_long_talk_is_of_whole_prompts_and_keeps_to_its_length(assets: Path) -> None:
    talk = long_talk(30.0, nonstop=True)
    assert 10.0 < talk.seconds <= 30.0
    ends = [word.end_s for word in talk.words if word.end_s is not None]
    assert ends == sorted(ends)
    assert ends[-1] <= talk.seconds
    with pytest.raises(ConfigurationError):
        long_talk(0.1, nonstop=True)


@pytest.mark.assets
def test_the_length_of_a_talk_goes_with_the_prompts_and_leaves_out_the_synthetic_monologue(
    assets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMI_TEST_ASSETS", str(assets))
    (talk,) = clips_to_play(make_settings(clips=["prompts-nonstop"], minutes=0.5, nonstop=True))
    assert talk.kind == "prompts-nonstop"
    assert 10.0 < talk.seconds <= 30.0
