"""What a model of settings declares, setting by setting: for `emi config` and docs/settings.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

__all__ = ["Setting", "settings_of"]


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
