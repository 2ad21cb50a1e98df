"""scripts/dev/accuracy --conditions: the questions, the nodes that answer them, and the tables."""

from __future__ import annotations

import argparse
import io
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from benchmark import accuracy_cli, condition_report, conditions, conditions_cli, prompts
from benchmark.answers import Answer, Answers, Question, Task, collect
from benchmark.conditions import UNTOUCHED
from benchmark.corpus import Clip
from benchmark.environment import SetupError
from node import JFK

TEXT = "And so, my fellow Americans"
SECONDS = 2.9
RATE = 16_000


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    """Five words."""
    data, rate = soundfile.read(JFK, dtype="float32", always_2d=True)
    path = tmp_path / "jfk.wav"
    soundfile.write(path, data[: round(SECONDS * rate)], rate)
    return Clip("jfk", "speech", path, SECONDS, TEXT)


@pytest.fixture
def noise(tmp_path: Path) -> Clip:
    path = tmp_path / "noise.wav"
    soundfile.write(path, np.random.default_rng(1).normal(0, 0.01, RATE), RATE)
    return Clip("noise", "nonspeech", path, 1.0, "")


def read(question: Question) -> tuple[np.ndarray, int]:
    data, rate = soundfile.read(io.BytesIO(question.body), dtype="float32", always_2d=True)
    return data, rate


# Conditions.


def test_conditions_have_names_of_their_own(noise: Clip) -> None:
    names = [one.name for one in conditions.of_speech([noise])]
    assert names[0] == UNTOUCHED
    assert len(set(names)) == len(names) > 30


def test_conditions_change_every_recording_but_for_prompts(clip: Clip, noise: Clip) -> None:
    untouched, *others = conditions.of_speech([noise])
    plain = untouched.question(clip)
    assert plain.fields == {}
    seen: set[tuple[bytes, str]] = {(plain.body, "")}
    for one in others:
        question = one.question(clip)
        prompt = question.fields.get("prompt", "")
        assert (one.family == "prompt") == bool(prompt)
        assert (question.body == plain.body) == bool(prompt), one.name
        assert (question.body, prompt) not in seen, one.name
        seen.add((question.body, prompt))
        data, rate = read(question)
        assert len(data) >= SECONDS * rate * 0.99, one.name
        assert np.isfinite(data).all() == (one.name != "other channel: NaN")


def test_conditions_give_equal_recordings_every_time(clip: Clip, noise: Clip) -> None:
    for one in conditions.of_speech([noise]):
        first, second = (read(one.question(clip))[0] for _ in range(2))
        assert np.array_equal(first, second, equal_nan=True), one.name


def test_repetition_repeats_the_reference_as_well(clip: Clip) -> None:
    repetitions = [one for one in conditions.of_speech([]) if one.family == "repetition"]
    for one, times in zip(repetitions, (2, 3), strict=True):
        question = one.question(clip)
        assert question.text == " ".join([TEXT] * times)
        assert len(read(question)[0]) == pytest.approx(
            (SECONDS * times + 0.5 * (times - 1)) * RATE, abs=5
        )


def test_silence_is_the_clips_and_more_than_twenty_floors(noise: Clip) -> None:
    sets = conditions.of_silence([noise])
    assert [len(questions) for questions in sets.values()][:3] == [1, 1, 1]
    assert len(sets["noise floors"]) >= 20
    for questions in sets.values():
        for question in questions:
            assert question.text == ""
            assert np.abs(read(question)[0]).max() > 0, question.clip


def test_amplified_silence_is_clipped_in_integers_only(noise: Clip) -> None:
    sets = conditions.of_silence([noise])
    float_peak, integer_peak = (
        np.abs(read(sets[f"recorded, amplified by 40 dB, {kind}"][0])[0]).max()
        for kind in ("float", "clipped")
    )
    assert integer_peak <= 1.0 < float_peak


def test_vocabulary_has_150_words() -> None:
    assert len(set(prompts.VOCABULARY.split(", "))) == 150
    assert len(prompts.VOCABULARY.split()) == 150


# Choosing.


def parsed(*arguments: str) -> argparse.Namespace:
    return accuracy_cli.parser().parse_args(list(arguments))


def test_conditions_option_takes_all_or_names() -> None:
    assert parsed().conditions is None
    assert parsed("--conditions").conditions == ()
    assert parsed("--conditions", "level,range").conditions == ("level", "range")


def test_help_names_every_condition(noise: Clip) -> None:
    families = {one.family for one in conditions.of_speech([noise])} - {UNTOUCHED}
    help_text = accuracy_cli.parser().format_help()
    assert all(name in help_text for name in {*families, conditions_cli.NONSPEECH})


def test_unknown_condition_is_rejected() -> None:
    with pytest.raises(SetupError, match=r"unknown condition weather: use .*level"):
        conditions_cli.choose(conditions.of_speech([]), ("weather", "level"))


def test_untouched_clips_are_always_chosen() -> None:
    names = [one.family for one in conditions_cli.choose(conditions.of_speech([]), ("telephone",))]
    assert names == [UNTOUCHED, "telephone"]


@pytest.mark.parametrize(
    ("count", "kept"), [(0, 7), (1, 1), (3, 3), (7, 7), (50, 7)], ids=lambda value: str(value)
)
def test_fewer_clips_are_spread_over_the_list(count: int, kept: int) -> None:
    clips = [Clip(str(number), "speech", JFK, 1.0, "") for number in range(7)]
    chosen = conditions_cli.spread(clips, count)
    assert len(chosen) == kept
    assert chosen == sorted(set(chosen), key=clips.index)
    if count == 3:
        assert [clip.name for clip in chosen] == ["0", "2", "4"]


# Answers.


class FakeSubject:
    """A node that answers with its name and the clip's, and remembers what it was asked."""

    def __init__(self, name: str, log: list[tuple[str, str]]) -> None:
        self.name = name
        self._log = log

    def ask(self, question: Question, model: str, condition: str) -> Answer:
        self._log.append((self.name, question.clip))
        text = f"{self.name} {question.clip}"
        return Answer(self.name, model, condition, question.clip, text, question.text, "", 0.5, 1)


def task(clip: str) -> Task:
    return Task("level", clip, lambda: Question(clip, "a reference", b""))


def test_nodes_answer_in_turn() -> None:
    log: list[tuple[str, str]] = []
    subjects = [FakeSubject("old", log), FakeSubject("new", log)]
    answers = collect(subjects, [task("a"), task("b")], "tiny.en", Answers())
    assert log == [("old", "a"), ("new", "a"), ("new", "b"), ("old", "b")]
    assert [(one.node, one.clip) for one in answers] == log


def test_kept_answers_are_not_asked_for_again(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    log: list[tuple[str, str]] = []
    old, new = FakeSubject("old", log), FakeSubject("new", log)
    first = collect([old], [task("a")], "tiny.en", Answers(path))
    log.clear()
    again = collect([old, new], [task("a"), task("b")], "tiny.en", Answers(path))
    assert log == [("new", "a"), ("new", "b"), ("old", "b")]
    assert first[0] in again
    collect([old], [task("a")], "base", Answers(path))
    assert log[-1] == ("old", "a")


# Tables.


def answer(node: str, condition: str, text: str, **more: object) -> Answer:
    one = Answer(node, "tiny.en", condition, "a", text, "lamps are not rooms", "", 1.0, 1)
    return replace(one, **more)


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_speech_table_compares_each_node_with_its_own_untouched_clips() -> None:
    answers = [
        answer("old", UNTOUCHED, "lamps are not rooms"),
        answer("new", UNTOUCHED, "lamps are not", cpu_seconds=2.0),
        answer("old", "level", "", cpu_seconds=0.1),
        answer("new", "level", "lamps are", cpu_seconds=5.0),
        answer("old", "range", "", error="bad_audio"),
        answer("new", "range", "lamps are not rooms"),
    ]
    head, _, *rows = condition_report.speech_table(answers, ["old", "new"]).splitlines()
    assert cells(head)[:4] == ["condition", "clips", "errors, old", "errors, new"]
    assert cells(rows[0])[4:] == ["+0.00", "+0.00", "0", "0", "1.00", "1.00"]
    assert cells(rows[1])[2:4] == ["100.00 % (4 of 4)", "50.00 % (2 of 4)"]
    assert cells(rows[1])[4:] == ["+100.00", "+25.00", "1", "0", "0.10", "2.50"]
    assert cells(rows[2])[6] == "1, 1 bad_audio"


def test_silent_table_counts_texts_and_decodes() -> None:
    answers = [
        answer("new", "recorded", "", reference="", passes=0, cpu_seconds=0.25),
        answer("new", "recorded", "Thank you.", reference="", passes=3),
    ]
    *_, row = condition_report.silent_table(answers, ["new"]).splitlines()
    assert cells(row) == ["recorded", "2", "1", "3", "1.2"]


def test_speed_is_relative_to_the_first_node() -> None:
    answers = [
        answer("old", UNTOUCHED, "", cpu_seconds=2.0),
        answer("new", UNTOUCHED, "", cpu_seconds=1.5),
    ]
    assert "old 2.0 s (1.000), new 1.5 s (0.750)" in condition_report.speed(answers, ["old", "new"])


# With the real node.


@pytest.mark.slow
def test_conditions_of_the_real_node(
    tmp_path: Path, clip: Clip, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = "id\tset\tfile\tseconds\tlanguage\ttext"
    row = f"{clip.name}\tspeech\t{clip.path.name}\t{SECONDS}\ten\t{TEXT}"
    (clip.path.parent / "refs.tsv").write_text(f"{fields}\n{row}\n")
    kept = tmp_path / "kept.jsonl"
    arguments = ["--audio", str(clip.path.parent), "--conditions", "telephone"]
    arguments += ["--keep", str(kept), "--venv", sys.prefix, "--threads", "1"]
    assert accuracy_cli.main(arguments) == 0
    table = [cells(line) for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [row[0] for row in table[2:]] == [UNTOUCHED, "telephone, 8 kHz mu-law"]
    assert table[2][1:5] == ["1", "0.00 % (0 of 5)", "+0.00", "0"]
    assert {one.condition for one in Answers(kept)} == {row[0] for row in table[2:]}
    assert all(one.cpu_seconds > 0 and one.passes > 0 for one in Answers(kept))
