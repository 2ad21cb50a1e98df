"""Languages in requests and options: codes, lists of codes, and Whisper's English names.

Every port and the command line read their languages with this module. `app/requests/failures.py`
checks that the loaded model has them. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_LANGUAGES = 16
"""Most languages in one list; a longer one would restrict nothing."""

WANTED = "a code such as en or en-GB, auto or multi"
"""The valid values of a single language, for messages."""

_CODE = re.compile(r"(auto|multi|[a-z]{2,3})(?:[-_][A-Za-z0-9_-]{1,32})?", re.IGNORECASE)

_ALIASES = {"nb": "no", "jv": "jw", "fil": "tl", "iw": "he"}
"""Whisper's codes by those of BCP 47, if they differ."""

_TABLE = """
    af afrikaans    am amharic      ar arabic       as assamese     az azerbaijani  ba bashkir
    be belarusian   bg bulgarian    bn bengali      bo tibetan      br breton       bs bosnian
    ca catalan      cs czech        cy welsh        da danish       de german       el greek
    en english      es spanish      et estonian     eu basque       fa persian      fi finnish
    fo faroese      fr french       gl galician     gu gujarati     ha hausa        haw hawaiian
    he hebrew       hi hindi        hr croatian     ht haitian_creole hu hungarian  hy armenian
    id indonesian   is icelandic    it italian      ja japanese     jw javanese     ka georgian
    kk kazakh       km khmer        kn kannada      ko korean       la latin        lb luxembourgish
    ln lingala      lo lao          lt lithuanian   lv latvian      mg malagasy     mi maori
    mk macedonian   ml malayalam    mn mongolian    mr marathi      ms malay        mt maltese
    my myanmar      ne nepali       nl dutch        nn nynorsk      no norwegian    oc occitan
    pa punjabi      pl polish       ps pashto       pt portuguese   ro romanian     ru russian
    sa sanskrit     sd sindhi       si sinhala      sk slovak       sl slovenian    sn shona
    so somali       sq albanian     sr serbian      su sundanese    sv swedish      sw swahili
    ta tamil        te telugu       tg tajik        th thai         tk turkmen      tl tagalog
    tr turkish      tt tatar        uk ukrainian    ur urdu         uz uzbek        vi vietnamese
    yi yiddish      yo yoruba       yue cantonese   zh chinese
"""

_WORDS = [word.replace("_", " ") for word in _TABLE.split()]

NAMES: dict[str, str] = dict(zip(_WORDS[::2], _WORDS[1::2], strict=True))
"""English names by code, as whisper.cpp writes them."""

CODES: dict[str, str] = {name: code for code, name in NAMES.items()}


class LanguageError(ValueError):
    """An invalid list of languages; the message gives the reason, in words to follow its name."""


def language_code(value: str) -> str | None:
    """Return `value` as Whisper's code, in lower case and without a region, or as `auto` or
    `multi`; None if it cannot be a language."""
    match = _CODE.fullmatch(value)
    if match is None:
        return None
    code = match[1].lower()
    return _ALIASES.get(code, code)


def language_codes(values: Iterable[str]) -> tuple[str, ...]:
    """Return the codes of a list of languages, each once, in the order given. A value may hold
    several codes, separated by commas. Raises `LanguageError`."""
    codes = []
    for part in (part.strip() for value in values for part in value.split(",")):
        code = CODES.get(part.lower()) or language_code(part)
        if code in (None, "auto", "multi"):
            raise LanguageError(f"must be codes such as en or en-GB, not {part[:40]!r}")
        codes.append(code)
    if not 1 <= len(codes) <= MAX_LANGUAGES:
        raise LanguageError(f"must be 1 to {MAX_LANGUAGES} codes, not {len(codes)}")
    return tuple(dict.fromkeys(code for code in codes if code is not None))


def contradiction(language: str | None, languages: tuple[str, ...]) -> str | None:
    """Return why a request cannot have both, in words to follow the list's name; None if it can."""
    if languages and language not in (None, "auto", "multi"):
        return f"restrict a detection, so language must be auto or multi, not {language}"
    return None
