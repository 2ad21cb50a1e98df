"""The converter behind `scripts/convert_model.py`: from a trained Whisper model to a ggml file.

Three readers (`ctranslate2`, `huggingface`, `ggmlfile`) each turn one kind of source into a
`source.Source`. `writer` writes it to disk, quantized by `blocks`; `mel` and `words` make the two
tables that the file has beside the weights. `documents` reads JSON. Each reader checks its source,
and every fault is a `source.ConvertError`: a damaged file gives one line on stderr, no traceback.

None of this is part of the running node: it needs numpy and gguf (requirements-convert.txt), never
torch. The layout of a file is that of `app.model_files.ggml`, so that the node's check accepts the
result. One tensor is in memory at a time.
"""
