from __future__ import annotations

import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from emi_live.cli.config import keys_app as app
from emi_live.cli.config import write_private
from emi_live.cli.errors import run_app
from emi_live.config import load_config
from emi_live.errors import ConfigurationError
from emi_live.ports import CurveKeys


def test_the_pair_is_a_preset_that_works_and_is_new_each_time(tmp_path: Path) -> None:
    first, second = (CliRunner().invoke(app, []).stdout for _ in range(2))
    assert first != second
    preset = tmp_path / "keys.toml"
    preset.write_text(first)
    config = load_config(str(preset), ["bus.transport=tcp", "bus.host=0.0.0.0"])
    assert CurveKeys.of(config.bus) is not None


def test_a_file_is_private_and_never_overwritten_and_the_secret_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    done = CliRunner().invoke(app, ["--output", str(path)])
    assert done.exit_code == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    written = path.read_text()
    secret = load_config(str(path)).bus.curve_secret_key
    assert secret is not None
    assert secret not in done.output
    for unusable, message in ((path, "exists"), (tmp_path / "no" / "keys.toml", "cannot be written")):
        with pytest.raises(ConfigurationError, match=message):
            write_private(unusable, "")
    assert path.read_text() == written


def test_it_is_one_line_and_exit_code_2_for_who_types_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_app(app, ["--output", str(tmp_path)], "emi keys")
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
