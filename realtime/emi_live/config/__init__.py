"""Every setting of the live engine, with its unit, its limits and its only default.

A preset (TOML) and `--set section.key=value` hold only what differs; `load_config` merges them.
An unknown key is an error; messages name the key. `settings_of` lists what a model of settings declares, for
`emi config` and docs/settings.md.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from emi_live.config.settings import (
    AudioConfig,
    BusConfig,
    CameraConfig,
    FaceConfig,
    FusionConfig,
    LiveConfig,
    MicrophoneConfig,
    ModelsConfig,
    OutputConfig,
    RingConfig,
    SourceConfig,
    SpeechConfig,
    TextConfig,
    WindowConfig,
)
from emi_live.errors import ConfigurationError
from emi_models.console import printable

__all__ = [
    "AudioConfig",
    "BusConfig",
    "CameraConfig",
    "FaceConfig",
    "FusionConfig",
    "LiveConfig",
    "MicrophoneConfig",
    "ModelsConfig",
    "OutputConfig",
    "RingConfig",
    "Setting",
    "SourceConfig",
    "SpeechConfig",
    "TextConfig",
    "WindowConfig",
    "load_config",
    "origins",
    "read_settings",
    "settings_of",
    "validated",
]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as it is declared.

    Attributes:
        name: the full name, such as `window.hop_s`.
        kind: type and limits in words, such as `number, ≥ 0.02, ≤ 10`.
        default: None = unset.
        description: unit and effect, one sentence.
        secret: whether its value must not be printed.
    """

    name: str
    kind: str
    default: Any
    description: str
    secret: bool

    @property
    def section(self) -> str:
        """The part of the name before the last dot; empty for a setting of no section."""
        return self.name.rpartition(".")[0]

    def value_in(self, config: BaseModel) -> Any:
        """The value that a configuration has for this setting."""
        value: Any = config
        for part in self.name.split("."):
            value = getattr(value, part)
        return value


def settings_of(model: type[BaseModel], above: str = "") -> Iterator[Setting]:
    """Every setting of a model, those of its sections included, in the order of the declarations.

    Args:
        model: sections are fields whose type is a model.
        above: what stands before each name, with its dot.
    """
    described = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settings_of(field.annotation, f"{above}{name}.")
        else:
            yield Setting(
                above + name,
                _kind(described[name]),
                field.get_default(),
                field.description or "",
                secret=not field.repr,
            )


NAMES = {"integer": "whole number", "boolean": "true or false", "object": "table", "string": "text"}
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def _kind(schema: Mapping[str, Any]) -> str:
    """Type and limits of a JSON schema in words; that a setting may be unset is part of its default."""
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"] if each.get("type") != "null")
    if "enum" in schema:
        return " | ".join(str(each) for each in schema["enum"])
    if schema.get("format") == "path":
        return "path"
    limits = [f"{sign} {_number(schema[key])}" for key, sign in LIMITS.items() if key in schema]
    if "multipleOf" in schema:
        limits.append(f"in steps of {schema['multipleOf']:g}")
    return ", ".join([NAMES.get(schema["type"], schema["type"]), *limits])


def _number(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


Model = TypeVar("Model", bound=BaseModel)


MAX_TOML: Final = 1 << 20  # characters; a file of every setting has a few thousand


def load_config(
    preset: str | None = None,
    settings: Iterable[str] = (),
    overrides: Mapping[str, Mapping[str, Any] | Any] | None = None,
) -> LiveConfig:
    """The configuration from a preset, then `section.key=value` settings, then the CLI's own options.

    Args:
        preset: the name of a preset in `emi_configs`, or the path of a TOML file.
        settings: `section.key=value`, the value in TOML's spelling; a bare word is a string.
        overrides: nested values that win over both.

    Raises:
        ConfigurationError: a file that cannot be read, an unknown key or a value out of range.
    """
    merged: dict[str, Any] = {} if preset is None else _read_preset(preset)
    _merge(merged, read_settings(settings))
    _merge(merged, overrides or {})
    return validated(LiveConfig, merged)


def origins(preset: str | None = None, settings: Iterable[str] = ()) -> dict[str, str]:
    """Where each setting comes from that does not have its default: "--config NAME" or "--set", by full name.

    Raises:
        ConfigurationError: a file that cannot be read, or a setting of another form.
    """
    found = {} if preset is None else dict.fromkeys(_full_names(_read_preset(preset)), f"--config {preset}")
    return found | dict.fromkeys(_full_names(read_settings(settings)), "--set")


def read_settings(settings: Iterable[str], example: str = "window.hop_s=0.1") -> dict[str, Any]:
    """Nested values from `section.key=value` settings, of which a later one wins.

    Args:
        settings: the value in TOML's spelling; a bare word is a string.
        example: a setting that is right, for the message about one that is not.

    Raises:
        ConfigurationError: one is not of that form.
    """
    merged: dict[str, Any] = {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator or not key.strip():
            raise ConfigurationError(
                f"--set {setting!r} is not of the form section.key=value, e.g. --set {example}"
            )
        value = _toml_value(text.strip())
        for part in reversed(key.strip().split(".")):
            value = {part: value}
        _merge(merged, value)
    return merged


def validated(model: type[Model], values: Mapping[str, Any]) -> Model:
    """The settings that nested values make.

    Raises:
        ConfigurationError: an unknown key, or a value out of range; the message names it.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError(_describe(model, error)) from error


def _read_preset(preset: str) -> dict[str, Any]:
    path = Path(preset)
    if not path.exists():
        packaged = resources.files("emi_configs") / f"{preset}.toml"
        if not packaged.is_file():
            names = sorted(
                p.name[:-5] for p in resources.files("emi_configs").iterdir() if p.name.endswith(".toml")
            )
            raise ConfigurationError(f"no preset or file is called {preset!r}; presets: {', '.join(names)}")
        path = Path(str(packaged))
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_TOML + 1)
        if len(text) > MAX_TOML:
            raise ConfigurationError(
                f"{path} is longer than {MAX_TOML} characters; name a TOML file of settings"
            )
        return tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{path} cannot be read as TOML: {printable(error, 300)}") from error


def _full_names(values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _full_names(value, f"{above}{key}.")
        else:
            yield above + key


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def _merge(base: dict[str, Any], extra: Mapping[str, Any]) -> None:
    for key, value in extra.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = dict(value) if isinstance(value, Mapping) else value


def _describe(model: type[BaseModel], error: ValidationError) -> str:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        section: Any = model
        for part in problem["loc"][:-1]:
            # Sections within a section, or by name within a dictionary.
            fields = getattr(section, "model_fields", None)
            section = get_args(section)[-1] if fields is None else fields[str(part)].annotation
        closest = _closest(model, section, key)
        hint = f"did you mean {closest}? " if closest else ""
        return f"unknown setting {key!r}; {hint}known here: {', '.join(section.model_fields)}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key}: {message} (got {problem['input']!r})" if problem["type"] != "value_error" else message


def _closest(model: type[BaseModel], section: type[BaseModel], key: str) -> str | None:
    """The full name of the setting that was probably meant: first in the same section, then in any."""
    above, _, name = key.rpartition(".")
    if found := get_close_matches(name, section.model_fields, n=1):
        return f"{above}.{found[0]}" if above else found[0]
    names = {
        full.rpartition(".")[2]: full
        for first, field in model.model_fields.items()
        for full in [f"{first}.{each}" for each in getattr(field.annotation, "model_fields", {})]
    }
    found = get_close_matches(name, names, n=1)
    return names[found[0]] if found else None
