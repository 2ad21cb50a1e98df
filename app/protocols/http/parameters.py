"""The parameters of a field's value (RFC 9110, section 5.6.6): `type; name=value; name="value"`.

Pure. The text is that of the bytes in Latin-1.
"""

from __future__ import annotations

import re

_PARAMETER = re.compile(
    r"""[ \t]*;[ \t]*
    (?:(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)=
        (?:"(?P<quoted>(?:[^"\\]|\\.)*)"(?=[ \t]*(?:;|$)) | (?P<plain>[^;]*))
    | [^;]*)""",
    re.VERBOSE | re.DOTALL,
)
_PAIR = re.compile(r"\\(.)", re.DOTALL)


def parameters(value: str) -> tuple[str, dict[str, str]]:
    """Return the value without parameters, and the parameters by name, both in lower case. Of a
    repeated parameter the first one counts; one that is not valid is left out."""
    kind, _, _ = value.partition(";")
    found: dict[str, str] = {}
    for match in _PARAMETER.finditer(value, len(kind.rstrip(" \t"))):
        name, quoted, plain = match.group("name", "quoted", "plain")
        if name is not None:
            text = plain.strip(" \t") if quoted is None else _PAIR.sub(r"\1", quoted)
            found.setdefault(name.lower(), text)
    return kind.strip(" \t").lower(), found
