"""Lists in form fields, in every shape that clients write."""

from __future__ import annotations

import pytest

from app.protocols.http import fields as form_fields
from app.protocols.http.form import FormError
from app.protocols.http.lists import list_of
from app.protocols.http.openai import OPENAI


@pytest.mark.parametrize(
    "fields",
    [
        {"x": ["a", "b"]},
        {"x[]": ["a", "b"]},
        {"x[0]": ["a"], "x[1]": ["b"]},
        {"x": ["a, b"]},
        {"x": ['["a", "b"]']},
        {"x[]": ["a"], "x": ["b"], "xy": ["c"], "x[a]": ["d"]},
        {"x": [" a ,, b ,"]},
    ],
)
def test_list_is_read_in_every_shape(fields: dict[str, list[str]]) -> None:
    assert list_of(fields, "x") == ["a", "b"]


@pytest.mark.parametrize("text", ["[1]", "[", '[["a"]]', '["a"', "[" * 100_000])
def test_list_that_is_not_one_is_an_error(text: str) -> None:
    with pytest.raises(FormError, match="x must be a list"):
        list_of({"x": [text]}, "x")


def test_granularities_and_languages_are_lists() -> None:
    options = OPENAI.read_options(
        {
            "response_format": ["verbose_json"],
            "timestamp_granularities": ['["word", "segment"]'],
        },
        "transcribe",
    )
    assert (options.words, options.segments) == (True, True)
    assert form_fields.languages({"languages[0]": ["en"], "languages[1]": ["german"]}, None) == (
        "en",
        "de",
    )


def test_keywords_and_hotwords_end_the_prompt() -> None:
    prompt = form_fields.prompt
    assert prompt({"prompt": [" as it is "]}) == " as it is "
    assert (
        prompt({"keywords": ["Zoë, Ava"], "hotwords": ['["Kiwi, green"]']})
        == "Zoë, Ava, Kiwi, green"
    )
    assert prompt({"prompt": ["Names:"], "keywords[]": ["Zoë", "Ava"]}) == "Names: Zoë, Ava"
    with pytest.raises(FormError):
        prompt({"keywords": ["x" * 20_000]})
