from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from emi_live.config import LiveConfig, load_config, origins, settings_of
from emi_live.errors import ConfigurationError
from emi_models.training.config import TrainConfig


def test_defaults_are_those_of_the_design() -> None:
    config = LiveConfig()
    assert (config.window.length_s, config.window.hop_s) == (12.0, 0.2)
    assert (config.window.vision_dropout_s, config.window.audio_dropout_s, config.window.text_dropout_s) == (
        1,
        1,
        6,
    )
    assert config.rings.audio_s == 30
    assert config.bus.transport == "inproc"


@pytest.mark.parametrize(
    ("settings", "exact"),
    [
        ([], False),
        (['source.input="a.mp4"'], True),
        (['source.input="a.mp4"', "mode=live"], False),
        (["mode=exact"], True),
    ],
)
def test_files_default_to_exact_and_everything_else_to_live(settings: list[str], exact: bool) -> None:
    assert load_config(settings=settings).exact is exact


def test_settings_win_over_a_preset_and_options_over_settings(tmp_path: Path) -> None:
    preset = tmp_path / "mine.toml"
    preset.write_text("[window]\nhop_s = 0.5\nlength_s = 6\n[fusion]\nthreads = 2\n")
    config = load_config(str(preset), ["window.hop_s=0.25"], {"fusion": {"threads": 1}})
    assert (config.window.hop_s, config.window.length_s, config.fusion.threads) == (0.25, 6, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["window.hopp_s=1"], "did you mean window.hop_s"),
        (["windows.hop_s=1"], "did you mean window"),
        (["hop_s=1"], r"did you mean \w+\.hop_s"),
        (["zzz=1"], "unknown setting 'zzz'; known here"),
        (["window.hop_s"], "not of the form section.key=value"),
        (["window.hop_s=0"], "window.hop_s"),
        (["window.length_s=13"], "window.length_s"),
        (["speech.backend=google"], "speech.backend"),
        (["bus.transport=tcp", "bus.host=0.0.0.0"], "CURVE keys"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_config(settings=settings)
    assert "\n" not in str(caught.value)


def test_an_unknown_preset_lists_those_that_exist() -> None:
    with pytest.raises(ConfigurationError, match=r"presets: .*robot"):
        load_config("no-such-preset")


def test_a_preset_that_is_not_toml_says_where(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_bytes(b"\xff\xfe nonsense")
    with pytest.raises(ConfigurationError, match=r"broken\.toml"):
        load_config(str(broken))


def test_the_paper_s_preset_holds_only_what_differs() -> None:
    config = load_config("taemi")
    assert (config.bundle, config.speech.model) == ("taemi", "large-v3-turbo")
    assert config.audio.context == "cached"
    assert load_config("taemi", overrides={"audio": {"context": "full"}}).audio.context == "full"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (["face.crop_fps=3"], r"face\.crop_fps belongs to the bundle taemi, and compact runs"),
        (["audio.context=cached"], r"audio\.context belongs to the bundle taemi"),  # though it is the default
        (["text.model=bert"], r"text\.model belongs to the bundle taemi"),
        (
            ["bundle=taemi", "audio.context=full", "audio.hold_back_s=0.1"],
            r"audio\.hold_back_s means nothing",
        ),
        (["bundle=taemi", "audio.hop_s=0.51"], r"audio\.hop_s: .*multiple of 0\.02"),
        (["bundle=taemi", "face.crop_fps=50"], r"face\.crop_fps: .*less than or equal to 33"),
    ],
)
def test_a_setting_without_effect_or_out_of_range_is_refused(settings: list[str], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as caught:
        load_config(settings=settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["speech.trim_s=20"], "make it at least 1 s larger"),
        (["speech.edge_s=0.3"], "speech.edge_s has no effect with speech.commit=agreement"),
        (["speech.commit=alignment", "speech.agreement=3"], "speech.agreement has no effect"),
        (["speech.backend=pocketsphinx", "speech.smaller_model=tiny.en"], "is a Whisper model"),
        (["speech.backend=pocketsphinx", "speech.language=de"], "knows English only"),
        (["speech.backend=pocketsphinx", "speech.translate=true"], "knows English only"),
        (["speech.language=German"], "speech.language: .*'de'"),
        (["speech.language=xx"], "speech.language: .*choose from auto, af, .*zh"),
    ],
)
def test_speech_settings_that_contradict_each_other_are_refused(settings: list[str], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        load_config(settings=settings)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = " + "[" * 100_000, "cannot be read as TOML: maximum recursion depth"),
        ("#" * ((1 << 20) + 1), "is longer than 1048576 characters"),
    ],
    ids=["nested", "long"],
)
def test_a_hostile_file_of_settings_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=words):
        load_config(str(path))


def test_a_setting_nested_without_end_is_one_line() -> None:
    with pytest.raises(ConfigurationError, match=r"window\.hop_s"):
        load_config(settings=["window.hop_s=" + "[" * 100_000])


@pytest.mark.parametrize("model", [LiveConfig, TrainConfig])
def test_every_setting_is_described_by_one_sentence(model: type[BaseModel]) -> None:
    for setting in settings_of(model):
        text = setting.description
        assert text.endswith("."), setting.name
        assert ". " not in text, setting.name


def test_the_origin_of_a_value_is_the_last_that_set_it() -> None:
    found = origins("robot", ["window.hop_s=0.3"])
    assert found["window.hop_s"] == "--set"
    assert found["window.length_s"] == "--config robot"
    assert "fusion.engine" not in found
