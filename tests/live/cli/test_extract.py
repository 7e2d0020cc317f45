"""`emi extract` as its user meets it: sound alone, whose encoder needs no download and loads the fastest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from emi_models.data import open_clips
from tests.support.waiting import until

pytestmark = pytest.mark.slow

EMI = str(Path(sys.executable).with_name("emi"))
SOUND_ALONE = ("--without", "vision", "--without", "text", "--offline")
HEADER = "id,split,speaker,admiration,amusement,determination,empathic_pain,excitement,joy\n"


def command(videos: Path, *args: str | Path) -> list[str]:
    return [EMI, "extract", "--videos", str(videos), "--out", str(videos.parent / "out"), *map(str, args)]


def emi_extract(videos: Path, *args: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(videos, *args),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env=os.environ | environ,
    )


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Three short sounds, a file that is none, and what else lies in such folders."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for number, length_s in enumerate((0.5, 0.064, 1.0)):
        tone = ["-f", "lavfi", "-i", f"sine=frequency={200 + number}:sample_rate=16000", "-t", str(length_s)]
        subprocess.run(["ffmpeg", "-loglevel", "error", *tone, folder / f"{number}.wav"], check=True)
    (folder / "broken.mp4").write_text("no film", encoding="utf-8")
    (folder / "Thumbs.db").touch()
    return folder


def test_a_folder_of_clips_becomes_a_data_set_and_a_second_run_has_nothing_to_do(videos: Path) -> None:
    labels = videos.parent / "ratings.csv"
    labels.write_text(f"{HEADER}0,train,x,0,0,0,0,0,1\n1,valid,y,0,0,0,0,0.5,0\n", encoding="utf-8")
    base_alone = videos.parent / "base"  # as where no extra is installed, in the child processes too
    base_alone.mkdir()
    block = "import sys; sys.modules.update(dict.fromkeys(['torch', 'transformers', 'lightning']))"
    (base_alone / "sitecustomize.py").write_text(block, encoding="utf-8")
    asked = (*SOUND_ALONE, "--labels", labels, "--licence", "mine", "--workers", "2")
    done = emi_extract(videos, *asked, PYTHONPATH=str(base_alone))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"3 clips in {videos.parent / 'out'} (3 now, 0 before): 0 with a face, 3 with sound, 0 with words",
        "2 rated; 1 train, 1 valid, 1 without a split",
    ]
    lines = done.stderr.splitlines()
    assert lines[0] == "4 clips (ignored: 1 .db)"
    assert any(line.startswith("audio: prosody") for line in lines)
    assert lines[-2].startswith("  broken.mp4: is not a media file")
    assert lines[-1] == "1 warnings; 1 files left out"

    clips = open_clips(videos.parent / "out")
    assert (clips.ids("train"), clips.ids("valid")) == (("00000", "00002"), ("00001",))
    assert clips.encoders == {"audio": "emi-live/prosody-73@1"}
    assert clips.licence == "mine"
    assert clips.load("00001").audio.t_ns.tolist() == [25_000_000, 45_000_000]
    notes = json.loads((videos.parent / "out/dataset.json").read_text(encoding="utf-8"))["notes"]
    assert notes["recognizer"] == "none"
    assert "opencv-python-headless" in notes["versions"]

    again = emi_extract(videos, *SOUND_ALONE)
    assert again.returncode == 0, again.stderr
    assert "(0 now, 3 before)" in again.stdout
    assert "2 rated" in again.stdout  # what is known of a clip stays known


def test_an_interrupt_ends_it_with_one_line_and_nothing_half_written(videos: Path) -> None:
    for number in range(3, 40):
        (videos / f"{number}.wav").write_bytes((videos / "2.wav").read_bytes())
    ledger = videos.parent / "out/extracted.jsonl"
    with subprocess.Popen(
        command(videos, *SOUND_ALONE, "--workers", "2"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        until(lambda: ledger.exists() and ledger.stat().st_size > 0, 120)  # its first clip is done
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does: every process of the group gets it
        stdout, stderr = run.communicate(timeout=20)
    assert run.returncode == 130
    assert stdout == ""
    assert stderr.splitlines()[-1].startswith("stopped after ")
    assert "Traceback" not in stderr
    known = {json.loads(line)["id"] for line in ledger.read_text(encoding="utf-8").splitlines()}
    assert known
    done = emi_extract(videos, *SOUND_ALONE)
    assert done.returncode == 0, done.stderr
    assert f"({40 - len(known)} now, {len(known)} before)" in done.stdout
    assert len(open_clips(videos.parent / "out").ids("train")) == 40


def test_strict_fails_on_a_bad_file_and_nothing_usable_is_bad_use(videos: Path) -> None:
    strict = emi_extract(videos, *SOUND_ALONE, "--strict")
    assert strict.returncode == 3
    assert strict.stderr.splitlines()[-1].startswith("error: broken.mp4: is not a media file")
    for path in videos.glob("*.wav"):
        path.write_bytes(b"")
    none = emi_extract(videos, *SOUND_ALONE)
    assert none.returncode == 2
    assert none.stderr.splitlines()[-1].startswith("error: none of the 4 files")
    assert not (videos.parent / "out/manifest.csv").exists()


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("--offline",), "emi models pull face-landmarker"),
        (("--offline", "--without", "vision", "--set", "speech.backend=whisper"), "emi models pull"),
        (("--offline", "--bundle", "taemi", "--without", "vision"), "emi models pull wav2vec2-emotion"),
        (("--without", "smell"), "there are vision, audio, text"),
        (("--set", "fusion.engine=torch"), "means nothing here"),
        (("--split-by", "folder"), "lies in no folder"),
        (("--labels", "absent.csv"), "cannot be read"),
        (("--workers", "0"), "--workers"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_at_once(
    videos: Path, tmp_path: Path, args: tuple[str, ...], why: str
) -> None:
    run = emi_extract(videos, *args, EMI_MODEL_DIR=str(tmp_path / "no-models"))
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert line.startswith("error: ")
    assert why in line
    assert "cannot be extracted" not in line or "--without" in line
    assert not (videos.parent / "out").exists()


def test_help_teaches_by_examples_and_needs_no_torch() -> None:
    code = (
        "import sys; from emi_live.cli.extract import app; from emi_live.cli.errors import run_app\n"
        "try: run_app(app, ['--help'], 'emi extract')\n"
        "finally: assert not {'torch', 'numpy', 'av'} & set(sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "emi extract --videos clips --out features" in shown
    assert "--split-by" in shown
