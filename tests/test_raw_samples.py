"""Raw samples from bytes in pieces."""

from __future__ import annotations

import io
import itertools
from typing import Literal

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from app.audio.raw_samples import RawSamples
from app.messages import SAMPLE_BYTES, RawFormat, SampleEncoding

SUBTYPES = {"s16": "PCM_16", "s24": "PCM_24", "s32": "PCM_32", "f32": "FLOAT", "u8": "PCM_U8"}


def by_libsndfile(data: bytes, raw: RawFormat) -> np.ndarray:
    values, _ = soundfile.read(
        io.BytesIO(data),
        dtype="float32",
        always_2d=True,
        format="RAW",
        subtype=SUBTYPES[raw.encoding],
        samplerate=raw.sample_rate,
        channels=raw.channels,
        endian=raw.byteorder.upper(),
    )
    return values


@pytest.mark.parametrize("encoding", list(SUBTYPES))
@pytest.mark.parametrize("byteorder", ["little", "big"])
@given(data=st.data())
def test_raw_samples_equal_those_of_libsndfile_for_any_split(
    encoding: SampleEncoding, byteorder: Literal["little", "big"], data: st.DataObject
) -> None:
    channels = data.draw(st.integers(1, 3))
    raw = RawFormat(encoding, 16_000, channels, byteorder)
    body = data.draw(st.binary(max_size=200))
    if encoding == "f32":
        # Random bytes that are NaN compare unequal.
        count = len(body) // 4
        values = np.frombuffer(body[: count * 4], "<i4").astype(np.float32) / 1e6
        body = values.astype(">f4" if byteorder == "big" else "<f4").tobytes()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    reader = RawSamples(raw)
    edges = [0, *cuts, len(body)]
    parts = [reader.read(memoryview(body)[a:b]) for a, b in itertools.pairwise(edges)]
    whole = len(body) // (SAMPLE_BYTES[encoding] * channels) * SAMPLE_BYTES[encoding] * channels
    samples = np.concatenate(parts)
    assert samples.dtype == np.float32
    assert samples.flags.writeable
    assert np.array_equal(samples, by_libsndfile(body[:whole], raw))
    assert reader.is_incomplete == (whole != len(body))
