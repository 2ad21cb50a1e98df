"""The converter behind `scripts/convert_model.py`: from a trained Whisper model to a ggml file.

Three readers (`ctranslate2`, `huggingface`, `ggmlfile`) each turn one kind of source into
what `source.Source` describes; `writer` puts it on the disk, quantized by `blocks`; `mel`
and `words` make the two tables that the file carries beside the weights. `documents` reads JSON.
What a source says is checked where it is read, and all that can be wrong with it is a
`source.ConvertError`: a damaged file is one line on stderr, not a traceback.

None of this is part of the node: it needs numpy and gguf (requirements-convert.txt), never
torch. The shape of a file is `app.model_files.ggml`'s, so that what is written is exactly what the
node's check expects. One tensor is in memory at a time.
"""
