"""Speech recognition: where utterances begin and end, and which words are in them.

This file lists the languages that a multilingual Whisper model knows; settings are checked with them.
"""

from __future__ import annotations

from typing import Final

__all__ = ["AUTO", "LANGUAGES", "check_language"]

AUTO: Final = "auto"

# Source: the tokenizer of the published models (Radford et al. 2022, arXiv:2212.04356); `yue` since large-v3.
LANGUAGES: Final = {
    pair.partition(" ")[0]: pair.partition(" ")[2]
    for pair in (
        *("af Afrikaans", "am Amharic", "ar Arabic", "as Assamese", "az Azerbaijani", "ba Bashkir"),
        *("be Belarusian", "bg Bulgarian", "bn Bengali", "bo Tibetan", "br Breton", "bs Bosnian"),
        *("ca Catalan", "cs Czech", "cy Welsh", "da Danish", "de German", "el Greek", "en English"),
        *("es Spanish", "et Estonian", "eu Basque", "fa Persian", "fi Finnish", "fo Faroese", "fr French"),
        *("gl Galician", "gu Gujarati", "ha Hausa", "haw Hawaiian", "he Hebrew", "hi Hindi", "hr Croatian"),
        *("ht Haitian Creole", "hu Hungarian", "hy Armenian", "id Indonesian", "is Icelandic", "it Italian"),
        *("ja Japanese", "jw Javanese", "ka Georgian", "kk Kazakh", "km Khmer", "kn Kannada", "ko Korean"),
        *("la Latin", "lb Luxembourgish", "ln Lingala", "lo Lao", "lt Lithuanian", "lv Latvian"),
        *("mg Malagasy", "mi Maori", "mk Macedonian", "ml Malayalam", "mn Mongolian", "mr Marathi"),
        *("ms Malay", "mt Maltese", "my Burmese", "ne Nepali", "nl Dutch", "nn Nynorsk", "no Norwegian"),
        *("oc Occitan", "pa Punjabi", "pl Polish", "ps Pashto", "pt Portuguese", "ro Romanian"),
        *("ru Russian", "sa Sanskrit", "sd Sindhi", "si Sinhala", "sk Slovak", "sl Slovenian", "sn Shona"),
        *("so Somali", "sq Albanian", "sr Serbian", "su Sundanese", "sv Swedish", "sw Swahili", "ta Tamil"),
        *("te Telugu", "tg Tajik", "th Thai", "tk Turkmen", "tl Tagalog", "tr Turkish", "tt Tatar"),
        *("uk Ukrainian", "ur Urdu", "uz Uzbek", "vi Vietnamese", "yi Yiddish", "yo Yoruba"),
        *("yue Cantonese", "zh Chinese"),
    )
}
WITHOUT_SPACES: Final = frozenset({"zh", "ja", "th", "lo", "my", "yue"})  # between words


def check_language(code: str) -> str:
    """The code, if it is `auto` or one of `LANGUAGES`.

    Raises:
        ValueError: it is not; the message lists the codes.
    """
    if code != AUTO and code not in LANGUAGES:
        named = [known for known, name in LANGUAGES.items() if name.casefold() == code.casefold()]
        hint = f"did you mean {named[0]!r}?" if named else f"choose from {AUTO}, {', '.join(LANGUAGES)}"
        raise ValueError(f"{code!r} is not one of Whisper's language codes: {hint}")
    return code
