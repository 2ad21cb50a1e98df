"""The containers and codecs that FFmpeg may read: its demuxers and decoders by name.

Only demuxers of files are listed. Playlists, image sequences and network formats name other files,
so none of them may ever be chosen. Pure; used by the node and by the child process.
"""

from __future__ import annotations

DEMUXERS = {
    "mp4/m4a": "mov",
    "webm/Matroska": "matroska",
    "AAC": "aac",
    "AMR": "amr",
    "WMA": "asf",
    "AVI": "avi",
    "MPEG-TS": "mpegts",
    # These two only if libsndfile does not support the codec.
    "CAF": "caf",
    "Ogg": "ogg",
}
"""FFmpeg's demuxer for each container of `app.audio.sniff`."""

PRECISE = frozenset({"mov", "matroska", "asf", "avi", "caf"})
"""Demuxers that seek to a time and report the same timestamps afterwards. The others estimate them
from bytes."""

TIMED = frozenset({"mov", "matroska", "mpegts", "asf"})
"""Containers that give each frame a time, so that a gap between two frames is one of the sound."""

EXACT = frozenset({"mov", "caf"})
"""Demuxers that know the length of a track, and not only that of the whole file or an estimate."""

CODECS = frozenset(
    {
        *("aac", "alac", "opus", "vorbis", "flac", "speex", "mp1", "mp1float", "mp2", "mp2float"),
        *("mp3", "mp3float", "ac3", "eac3", "amrnb", "amrwb", "gsm", "gsm_ms", "g722", "g723_1"),
        *("g726", "g726le", "g729", "ilbc", "qcelp", "evrc", "truespeech", "nellymoser", "dvaudio"),
        *("wmav1", "wmav2", "wmapro", "wmalossless", "wmavoice", "tta", "wavpack", "dca", "mlp"),
        *("truehd", "mace3", "mace6", "qdm2", "qdmc", "adpcm_ima_qt", "adpcm_ima_wav", "adpcm_ms"),
        *("adpcm_swf", "adpcm_yamaha", "pcm_alaw", "pcm_mulaw", "pcm_u8", "pcm_s8", "pcm_s16le"),
        *("pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be", "pcm_f32le"),
        *("pcm_f32be", "pcm_f64le", "pcm_f64be", "pcm_bluray", "pcm_dvd"),
    }
)
"""Decoders of speech and music. None of them decodes pictures."""
