"""Tables of conditions, as Markdown: rows are conditions, columns are measures of each node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from benchmark.answers import Answer
from benchmark.conditions import UNTOUCHED
from benchmark.scoring import Score, score


def speech_table(answers: Sequence[Answer], nodes: Sequence[str]) -> str:
    """The table of clips with speech. A rejected request counts as an empty answer.

    Points and processor times are relative to those of the same node's untouched clips.
    """
    head = ["condition", "clips"]
    for measure in ("errors", "points more than untouched", "empty", "times the CPU seconds"):
        head += [f"{measure}{_of(node, nodes)}" for node in nodes]
    rows = [_row(head), "|---" * len(head) + "|"]
    for condition in _in_order(answers):
        cells = [_answers(answers, node, condition) for node in nodes]
        clean = [
            _same_clips(_answers(answers, node, UNTOUCHED), own)
            for node, own in zip(nodes, cells, strict=True)
        ]
        row = [condition, str(len(cells[0]))]
        row += [str(_score(own)) for own in cells]
        pairs = list(zip(cells, clean, strict=True))
        row += [f"{_score(own).percent - _score(base).percent:+.2f}" for own, base in pairs]
        row += [_empty(own) for own in cells]
        row += [f"{_cpu(own) / _cpu(base):.2f}" for own, base in pairs]
        rows.append(_row(row))
    return "\n".join(rows)


def silent_table(answers: Sequence[Answer], nodes: Sequence[str]) -> str:
    """The table of recordings without speech: texts, decodes and processor time."""
    head = ["without speech", "recordings"]
    for measure in ("with text", "decodes", "CPU seconds"):
        head += [f"{measure}{_of(node, nodes)}" for node in nodes]
    rows = [_row(head), "|---" * len(head) + "|"]
    measures: list[Callable[[Sequence[Answer]], str]] = [
        lambda own: str(sum(bool(one.text) for one in own)) + _errors(own),
        lambda own: str(sum(one.passes for one in own)),
        lambda own: f"{_cpu(own):.1f}",
    ]
    for condition in _in_order(answers):
        cells = [_answers(answers, node, condition) for node in nodes]
        row = [condition, str(len(cells[0]))]
        for measure in measures:
            row += [measure(own) for own in cells]
        rows.append(_row(row))
    return "\n".join(rows)


def speed(answers: Sequence[Answer], nodes: Sequence[str]) -> str:
    """The nodes' processor time for the untouched clips, relative to that of the first node."""
    first = _cpu(_answers(answers, nodes[0], UNTOUCHED))
    parts = []
    for node in nodes:
        seconds = _cpu(_answers(answers, node, UNTOUCHED))
        parts.append(f"{node} {seconds:.1f} s ({seconds / first:.3f})")
    return "CPU seconds for the untouched clips: " + ", ".join(parts) + "."


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _of(node: str, nodes: Sequence[str]) -> str:
    return f", {node}" if len(nodes) > 1 else ""


def _in_order(answers: Sequence[Answer]) -> list[str]:
    return list(dict.fromkeys(one.condition for one in answers))


def _answers(answers: Sequence[Answer], node: str, condition: str) -> list[Answer]:
    return [one for one in answers if one.node == node and one.condition == condition]


def _same_clips(base: Sequence[Answer], own: Sequence[Answer]) -> list[Answer]:
    clips = {one.clip for one in own}
    return [one for one in base if one.clip in clips]


def _score(answers: Sequence[Answer]) -> Score:
    return score((one.reference, one.text) for one in answers)


def _cpu(answers: Sequence[Answer]) -> float:
    return sum(one.cpu_seconds for one in answers)


def _empty(answers: Sequence[Answer]) -> str:
    return str(sum(not one.text for one in answers)) + _errors(answers)


def _errors(answers: Sequence[Answer]) -> str:
    codes = Counter(one.error for one in answers if one.error)
    return "".join(f", {count} {code}" for code, count in codes.items())
