"""Languages in requests and options: codes, English names, and lists of both.

Every port and the command line read their languages with this module. `app/requests/failures.py`
checks that the loaded model has them. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_LANGUAGES = 16
"""Most languages in one list; a longer one would restrict nothing."""

WANTED = "a code such as en or en-GB, a name such as english, auto or multi"
"""The valid values of a single language, for messages."""

_CODE = re.compile(r"(auto|multi|[a-z]{2,3})(?:[-_][a-z0-9_.@-]{1,32})?")
"""A code with a region or script, as in BCP 47 (`zh-Hant-TW`) or in a locale (`en_US.UTF-8`)."""

_REMARK = re.compile(r" *\([^()]*\)")
"""As in "Chinese (simplified)"."""

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

_MORE_NAMES = """
    my burmese      ca valencian    nl flemish      ht haitian      lb letzeburgesch
    ps pushto       pa panjabi      ro moldavian    ro moldovan     si sinhalese    es castilian
    zh mandarin     fa farsi        tl filipino     no bokm\u00e5l   no bokmal
    no norwegian_bokm\u00e5l          no norwegian_bokmal             nn norwegian_nynorsk
    pt brazilian_portuguese         zh simplified_chinese           zh traditional_chinese
"""
"""Further names: those of openai/whisper, and what menus of languages write."""

_MORE_CODES = """
    no nb   jw jv   he iw   id in   yi ji   ro mo
    af afr  am amh  ar ara  ar arb  as asm  az aze  az azj  ba bak  be bel  bg bul  bn ben  bo bod
    bo tib  br bre  bs bos  ca cat  cs ces  cs cze  cy cym  cy wel  da dan  de deu  de ger  el ell
    el gre  en eng  es spa  et est  eu eus  eu baq  fa fas  fa per  fa pes  fi fin  fo fao  fr fra
    fr fre  gl glg  gu guj  ha hau  he heb  hi hin  hr hrv  ht hat  hu hun  hy hye  hy arm  id ind
    is isl  is ice  it ita  ja jpn  jw jav  ka kat  ka geo  kk kaz  km khm  kn kan  ko kor  la lat
    lb ltz  ln lin  lo lao  lt lit  lv lav  lv lvs  mg mlg  mi mri  mi mao  mk mkd  mk mac  ml mal
    mn mon  mr mar  ms msa  ms may  ms zsm  mt mlt  my mya  my bur  ne nep  ne npi  nl nld  nl dut
    nn nno  no nor  no nob  oc oci  pa pan  pl pol  ps pus  pt por  ro ron  ro rum  ru rus  sa san
    sd snd  si sin  sk slk  sk slo  sl slv  sn sna  so som  sq sqi  sq alb  sr srp  su sun  sv swe
    sw swa  sw swh  ta tam  te tel  tg tgk  th tha  tk tuk  tl tgl  tl fil  tr tur  tt tat  uk ukr
    ur urd  uz uzb  vi vie  yi yid  yo yor  zh zho  zh chi  zh cmn
"""
"""Codes that Whisper does not have for languages that it has: withdrawn ones of ISO 639-1, those of
ISO 639-2 and 639-3, and Tagalog's for Filipino, which is its standard form."""

_WORDS = [word.replace("_", " ") for word in _TABLE.split()]

NAMES: dict[str, str] = dict(zip(_WORDS[::2], _WORDS[1::2], strict=True))
"""English names by code, as whisper.cpp writes them."""

_BY_NAME = {name: code for code, name in NAMES.items()}
_BY_NAME |= {
    name.replace("_", " "): code
    for code, name in zip(_MORE_NAMES.split()[::2], _MORE_NAMES.split()[1::2], strict=True)
}
_ALIASES = dict(zip(_MORE_CODES.split()[1::2], _MORE_CODES.split()[::2], strict=True))
"""Whisper's codes by others."""


class LanguageError(ValueError):
    """An invalid list of languages; the message gives the reason, in words to follow its name."""


def language_code(value: str) -> str | None:
    """Return Whisper's code of the language that `value` names, or `auto` or `multi`; None if it
    cannot be a language. A region or script does not count, and neither does case."""
    text = value.lower()
    if code := _BY_NAME.get(_REMARK.sub("", text.replace("_", " ").replace("-", " "))):
        return code
    match = _CODE.fullmatch(text)
    return None if match is None else _ALIASES.get(match[1], match[1])


def language_codes(values: Iterable[str]) -> tuple[str, ...]:
    """Return the codes of a list of languages, each once, in the order given. A value may hold
    several codes, separated by commas. Raises `LanguageError`."""
    codes = []
    for part in (part.strip() for value in values for part in value.split(",")):
        code = language_code(part)
        if code in (None, "auto", "multi"):
            raise LanguageError(
                f"must be codes or names such as en, en-GB or english, not {part[:40]!r}"
            )
        codes.append(code)
    if not 1 <= len(codes) <= MAX_LANGUAGES:
        raise LanguageError(f"must be 1 to {MAX_LANGUAGES} codes, not {len(codes)}")
    return tuple(dict.fromkeys(code for code in codes if code is not None))


def contradiction(language: str | None, languages: tuple[str, ...]) -> str | None:
    """Return why a request cannot have both, in words to follow the list's name; None if it can."""
    if languages and language not in (None, "auto", "multi"):
        return f"restrict a detection, so language must be auto or multi, not {language}"
    return None
