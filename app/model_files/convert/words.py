"""The vocabulary of a ggml file: the bytes of each token, in id order.

Tokenizers write tokens in GPT-2's printable alphabet, which stands for bytes; a ggml file has the
bytes themselves. It ends before the special tokens, because the engine names those itself: 50,257
entries. The last is `<|endoftext|>` in an English-only model, which has 50,256 text tokens, and the
empty token before it in a multilingual one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.model_files.convert import documents
from app.model_files.convert.source import ConvertError

COUNT = 50257


def read(folder: Path, n_vocab: int) -> tuple[bytes, ...]:
    """Return the vocabulary of a model folder, from the first of these that it has: CTranslate2's
    vocabulary.txt or vocabulary.json, Hugging Face's vocab.json (with added_tokens.json) or
    tokenizer.json. Raises ConvertError."""
    if (folder / "vocabulary.json").is_file():
        found = _in_order(folder / "vocabulary.json")
    elif (folder / "vocabulary.txt").is_file():
        found = _lines(folder / "vocabulary.txt")
    elif (folder / "vocab.json").is_file():
        found = _by_id(folder / "vocab.json", documents.read(folder / "vocab.json"))
        if (added := folder / "added_tokens.json").is_file():
            found |= _by_id(added, documents.read(added))
    elif (folder / "tokenizer.json").is_file():
        found = _tokenizer(folder / "tokenizer.json")
    else:
        raise ConvertError(
            f"{folder} has no vocabulary: put vocab.json and added_tokens.json, or "
            "tokenizer.json, of the model it was trained from beside the weights"
        )
    return _words(folder, found, n_vocab)


def _words(folder: Path, found: dict[int, str], n_vocab: int) -> tuple[bytes, ...]:
    end = next((i for i, token in found.items() if token == "<|endoftext|>"), None)
    # The engine derives the ids of all special tokens from the size of the vocabulary, so
    # a model whose tokens were moved would answer nonsense.
    expected = 50256 if n_vocab == 51864 else 50257
    if end != expected:
        raise ConvertError(
            f"the vocabulary in {folder} has <|endoftext|> at {end}, but a Whisper model with "
            f"{n_vocab} entries has it at {expected}; the engine can load no other"
        )
    alphabet = _alphabet()
    words = []
    for index in range(COUNT):
        token = found.get(index)
        if token is None:
            raise ConvertError(f"the vocabulary in {folder} has no token number {index}")
        try:
            words.append(bytes(alphabet[character] for character in token))
        except KeyError as error:
            raise ConvertError(
                f"token {index} of the vocabulary in {folder} is {token!r}, which is not "
                "written in GPT-2's alphabet"
            ) from error
    return tuple(words)


def _alphabet() -> dict[str, int]:
    """Return GPT-2's alphabet: printable Latin-1 characters stand for themselves, the other bytes,
    in order, for the characters from 256 up. Source: openai/gpt-2, src/encoder.py."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + index): byte for index, byte in enumerate(others)}


def _in_order(path: Path) -> dict[int, str]:
    tokens = documents.read(path)
    if not documents.is_strings(tokens):
        raise ConvertError(f"{path} is not a list of tokens")
    return dict(enumerate(tokens))


def _lines(path: Path) -> dict[int, str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConvertError(f"{path} cannot be read as UTF-8 ({error})") from error
    # Not splitlines(): that would also cut at characters that are part of tokens.
    return dict(enumerate(text.removesuffix("\n").split("\n")))


def _tokenizer(path: Path) -> dict[int, str]:
    document = documents.read_object(path)
    model, added = document.get("model"), document.get("added_tokens", [])
    if not isinstance(model, dict) or not isinstance(added, list):
        raise ConvertError(f"{path} has no model with a vocabulary, or no list of added_tokens")
    contents = {}
    for token in added:
        if not isinstance(token, dict) or not isinstance(token.get("content"), str):
            raise ConvertError(f"{path}: {token!r} among its added_tokens is not a token")
        contents[token["content"]] = token.get("id")
    return _by_id(path, model.get("vocab")) | _by_id(path, contents)


def _by_id(path: Path, ids: Any) -> dict[int, str]:
    if not isinstance(ids, dict):
        raise ConvertError(f"{path} has no vocabulary: it gives no number for each token")
    for token, index in ids.items():
        if type(index) is not int:
            raise ConvertError(f"{path} has {index!r} as the number of the token {token!r}")
    return {index: token for token, index in ids.items()}
