"""The names of the loaded model: the settings that add to them, and what a request may name."""

from __future__ import annotations

import pytest

from app.decoding.transcriber import ModelInfo
from app.protocols.model_names import ModelNames
from app.settings.settings import read
from app.startup.model import names_of, wrong_language

MODEL = ModelInfo("tiny.en-q8_0", False, frozenset({"en"}))


def names(*arguments: str) -> ModelNames:
    return names_of(read(arguments, {}), MODEL)


def test_names_are_the_models_and_the_users() -> None:
    assert names().all == {"tiny.en-q8_0", "tiny.en", "whisper-1"}
    more = names("--served-model-name", "kitchen, hall", "--served-model-name", "home")
    assert more.all == names().all | {"kitchen", "hall", "home"}


def test_only_a_strict_node_refuses_another_model() -> None:
    strict = names("--strict-model")
    assert names().refusal("large-v3") is None
    failure = strict.refusal("large-v3")
    assert failure is not None
    assert (failure.code, "tiny.en-q8_0" in failure.message) == ("model_not_found", True)
    assert strict.refusal("tiny.en") is strict.refusal(None) is strict.refusal("") is None


@pytest.mark.parametrize("text", ["", "a,,b", ","])
def test_empty_name_is_refused(text: str) -> None:
    with pytest.raises(SystemExit):
        read(["--served-model-name", text], {})


def test_english_only_model_cannot_translate() -> None:
    fault = wrong_language(read(["--task", "translate"], {}), MODEL)
    assert fault is not None
    assert "cannot translate" in fault
    assert wrong_language(read([], {}), MODEL) is None
