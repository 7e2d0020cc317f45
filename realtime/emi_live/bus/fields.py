"""Field-by-field reading of an untrusted record: each value is checked for type and range before use."""

from __future__ import annotations

from typing import Final, TypeVar

from emi_live.errors import WireError

__all__ = ["INT64_MAX", "INT64_MIN", "Fields"]

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
NUMBER_LIMIT: Final = 1e12  # no time, age or latency of ours is larger; keeps every number printable

Choice = TypeVar("Choice", bound=str)


class Fields:
    """The unread fields of one record. Each getter takes its field out; `end` refuses what is left over.

    Every getter raises `WireError`, which names the field, when it is absent or not what was asked for.
    """

    def __init__(self, record: object, where: str) -> None:
        if not isinstance(record, dict):
            raise WireError(
                f"{where} is {_name(record)}, not a record: not a packet of this version of emi-live"
            )
        self._left = dict(record)
        self._where = where

    def integer(self, name: str, low: int = INT64_MIN, high: int = INT64_MAX) -> int:
        """A whole number in [low, high]."""
        value = self._take(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(name, value, "a whole number")
        if not low <= value <= high:
            raise self._wrong(name, value, f"within [{low}, {high}]")
        return value

    def integers(self, name: str, max_count: int) -> tuple[int, ...]:
        """At most `max_count` 64-bit whole numbers."""
        items = self.items(name, max_count)
        fields = Fields({str(index): item for index, item in enumerate(items)}, f"{self._where}.{name}")
        return tuple(fields.integer(str(index)) for index in range(len(items)))

    def optional_integer(self, name: str) -> int | None:
        """A 64-bit whole number, or None."""
        return None if self._is_null(name) else self.integer(name)

    def number(self, name: str, low: float = -NUMBER_LIMIT, high: float = NUMBER_LIMIT) -> float:
        """A finite number in [low, high]."""
        return self._number(name, self._take(name), low, high)

    def optional_number(self, name: str) -> float | None:
        """A finite number, or None."""
        return None if self._is_null(name) else self.number(name)

    def numbers(self, name: str, count: int, low: float, high: float) -> tuple[float, ...]:
        """Exactly `count` finite numbers in [low, high]."""
        items = self.items(name, count)
        if len(items) != count:
            raise WireError(f"{self._where}.{name} has {len(items)} values, not {count}")
        return tuple(self._number(f"{name}[{index}]", item, low, high) for index, item in enumerate(items))

    def optional_numbers(self, name: str, count: int, low: float, high: float) -> tuple[float, ...] | None:
        """Exactly `count` finite numbers in [low, high], or None."""
        return None if self._is_null(name) else self.numbers(name, count, low, high)

    def boolean(self, name: str) -> bool:
        """True or False."""
        value = self._take(name)
        if not isinstance(value, bool):
            raise self._wrong(name, value, "true or false")
        return value

    def text(self, name: str, max_length: int) -> str:
        """A string of at most `max_length` characters."""
        value = self._take(name)
        if not isinstance(value, str):
            raise self._wrong(name, value, "a string")
        if len(value) > max_length:
            raise WireError(
                f"{self._where}.{name} has {len(value)} characters; at most {max_length} are allowed"
            )
        return value

    def optional_text(self, name: str, max_length: int) -> str | None:
        """A string of at most `max_length` characters, or None."""
        return None if self._is_null(name) else self.text(name, max_length)

    def choice(self, name: str, allowed: tuple[Choice, ...]) -> Choice:
        """One of `allowed`."""
        value = self._take(name)
        if value not in allowed:
            raise self._wrong(name, value, f"one of {', '.join(allowed)}")
        return allowed[allowed.index(value)]

    def items(self, name: str, max_count: int) -> list[object]:
        """A list of at most `max_count` values, not checked any further."""
        value = self._take(name)
        if not isinstance(value, (list, tuple)):
            raise self._wrong(name, value, "a list")
        if len(value) > max_count:
            raise WireError(f"{self._where}.{name} has {len(value)} values; at most {max_count} are allowed")
        return list(value)

    def record(self, name: str) -> Fields:
        """A record inside this one."""
        return Fields(self._take(name), f"{self._where}.{name}")

    def optional_record(self, name: str) -> Fields | None:
        """A record inside this one, or None."""
        return None if self._is_null(name) else self.record(name)

    def end(self) -> None:
        """Refuse the record if it has a field that nothing asked for."""
        if self._left:
            raise WireError(
                f"{self._where} has unknown fields: {', '.join(sorted(map(repr, self._left)))[:200]}"
            )

    def _take(self, name: str) -> object:
        if name not in self._left:
            raise WireError(f"{self._where} has no field {name!r}: not a packet of this version of emi-live")
        return self._left.pop(name)

    def _is_null(self, name: str) -> bool:
        if name in self._left and self._left[name] is None:
            del self._left[name]
            return True
        return False

    def _number(self, name: str, value: object, low: float, high: float) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise self._wrong(name, value, "a number")
        if not low <= value <= high:  # never true of NaN
            raise self._wrong(name, value, f"a finite number within [{low:g}, {high:g}]")
        return float(value)

    def _wrong(self, name: str, value: object, wanted: str) -> WireError:
        return WireError(f"{self._where}.{name} must be {wanted}, got {_name(value)} {str(value)[:40]!r}")


def _name(value: object) -> str:
    return type(value).__name__
