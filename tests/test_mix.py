"""The mix of several channels: in phase, without channels that hide speech, without steps.

The speech test takes a wave of 1 kHz for speech, so the speech in each channel is known.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from fakes import RATE, Samples, tone

from app.audio.mix import Mixer

VOICE, OTHER_VOICE, HUM = 1_000, 1_100, 300
SILENCE = np.zeros(RATE, dtype=np.float32)


def strength(samples: Samples, hertz: float) -> float:
    at = np.arange(len(samples)) / RATE
    return float(2 * abs(np.mean(samples * np.exp(-2j * np.pi * hertz * at))))


def speaks(samples: Samples) -> bool:
    """Whether a voice lasts for a quarter of a second somewhere in `samples`."""
    parts = [samples[at : at + 4_000] for at in range(0, len(samples) - 3_999, 800)]
    return any(
        strength(part, hertz) > 0.5 * float(part.std())
        for part in parts
        for hertz in (VOICE, OTHER_VOICE)
    )


def voice(seconds: float, hertz: int = VOICE, level: float = 0.5) -> Samples:
    return (tone(int(seconds * RATE), hertz=hertz) * np.float32(2 * level)).astype(np.float32)


def stack(*channels: Samples) -> Samples:
    return np.stack(channels, axis=1)


def mixed(samples: Samples, size: int = RATE, test: object = speaks, rate: int = RATE) -> Samples:
    mixer = Mixer(rate, samples.shape[1], test)  # type: ignore[arg-type]
    parts = [mixer.mix(samples[at : at + size]) for at in range(0, len(samples), size)]
    parts.append(mixer.flush())
    made = np.concatenate(parts)
    assert made.dtype == np.float32
    assert made.shape == (len(samples),)
    assert np.abs(made).max(initial=0.0) <= np.abs(samples).max(initial=0.0) + 1e-6
    return made


def test_single_channel_is_copied() -> None:
    samples = voice(2)[:, None]
    made = mixed(samples)
    assert np.array_equal(made, samples[:, 0])
    assert not np.shares_memory(Mixer(RATE, 1).mix(samples), samples)


@pytest.mark.parametrize("channels", [2, 6, 64])
def test_identical_channels_give_their_mean_without_a_speech_test(channels: int) -> None:
    samples = np.repeat(voice(2)[:, None], channels, axis=1)

    def asked(_: Samples) -> bool:
        raise AssertionError("the speech test was asked")

    assert np.array_equal(mixed(samples, test=asked), samples.mean(axis=1))


@pytest.mark.parametrize("level", [1.0, 0.5, 0.1])
def test_opposite_phase_does_not_cancel(level: float) -> None:
    one = voice(3)
    made = mixed(stack(one, -one * np.float32(level)))
    assert strength(made, VOICE) == pytest.approx(0.25 * (1 + level), rel=0.01)


def test_opposite_phase_needs_no_speech_test() -> None:
    one = voice(3)
    assert strength(mixed(stack(one, -one), test=None), VOICE) == pytest.approx(0.5, rel=0.01)


def test_opposite_phase_may_begin_later() -> None:
    random = np.random.default_rng(2)
    noise = random.normal(0, 0.001, (3 * RATE, 2)).astype(np.float32)
    one = voice(3)
    made = mixed(np.concatenate((noise, stack(one, -one))))
    assert strength(made[3 * RATE :], VOICE) > 0.4


@pytest.mark.parametrize("channel", [0, 1])
def test_hum_on_another_channel_is_left_out(channel: int) -> None:
    channels = [voice(5), voice(5, HUM)]
    made = mixed(stack(*(channels if channel == 0 else channels[::-1])))
    assert strength(made, VOICE) == pytest.approx(0.5, rel=0.02)
    assert strength(made, HUM) < 0.01


def test_hum_is_left_out_before_the_first_word() -> None:
    """Speech begins in the middle of a block; the hum ends half a second before it."""
    begin = 7 * RATE // 2
    speech = np.concatenate((SILENCE, SILENCE, SILENCE, SILENCE[: RATE // 2], voice(4)))
    made = mixed(stack(speech, voice(7.5, HUM)))
    assert strength(made[begin - RATE // 10 : begin], HUM) < 0.02
    assert strength(made[begin:], HUM) < 0.01
    assert strength(made[begin:], VOICE) > 0.45


def test_two_voices_are_kept() -> None:
    made = mixed(stack(voice(4), voice(4, OTHER_VOICE)))
    assert strength(made, VOICE) == pytest.approx(0.25, rel=0.05)
    assert strength(made, OTHER_VOICE) == pytest.approx(0.25, rel=0.05)


def test_alternating_voices_are_kept() -> None:
    gap = np.zeros(3 * RATE, dtype=np.float32)
    one = np.concatenate((voice(3), gap, voice(3), gap))
    other = np.concatenate((gap, voice(3, OTHER_VOICE), gap, voice(3, OTHER_VOICE)))
    made = mixed(stack(one, other))
    for number, hertz in enumerate((VOICE, OTHER_VOICE, VOICE, OTHER_VOICE)):
        part = made[(3 * number) * RATE : (3 * number + 3) * RATE]
        assert strength(part, hertz) > 0.2


def test_much_quieter_speaker_is_amplified() -> None:
    gap = np.zeros(3 * RATE, dtype=np.float32)
    one = np.concatenate((voice(3), gap, voice(3)))
    other = np.concatenate((voice(3, HUM, 0.001), voice(6, OTHER_VOICE, 0.5 / 30)))
    made = mixed(stack(one, other))[6 * RATE :]
    # It is 30 times quieter in the recording and is amplified 10 times.
    assert strength(made, VOICE) / strength(made, OTHER_VOICE) == pytest.approx(3, rel=0.05)


def test_quiet_echo_on_another_channel_is_not_amplified() -> None:
    one = np.concatenate((voice(3), SILENCE, voice(3)))
    echo = np.roll(one, 300) * np.float32(0.05)
    made = mixed(stack(one, echo))
    alone = mixed(stack(one, np.zeros_like(one)))
    assert np.abs(np.abs(made).max() / np.abs(alone).max() - 1) < 0.2


@pytest.mark.parametrize("dead", [SILENCE, np.full(RATE, 1e-6, dtype=np.float32)])
def test_dead_channel_does_not_change_the_speech(dead: Samples) -> None:
    made = mixed(stack(voice(3), np.tile(dead, 3)))
    assert strength(made, VOICE) >= 0.24


def test_speech_in_the_centre_of_six_channels_is_kept() -> None:
    random = np.random.default_rng(3)
    around = random.normal(0, 0.2, (5, 4 * RATE)).astype(np.float32)
    made = mixed(stack(around[0], around[1], voice(4), *around[2:]))
    assert strength(made, VOICE) == pytest.approx(0.5, rel=0.05)


def test_without_speech_all_channels_are_mixed() -> None:
    made = mixed(stack(voice(4, HUM), voice(4, 400)))
    assert strength(made, HUM) == pytest.approx(0.25, rel=0.02)
    assert strength(made, 400) == pytest.approx(0.25, rel=0.02)


def test_changes_of_the_mix_make_no_steps() -> None:
    gap = np.zeros(3 * RATE, dtype=np.float32)
    one = np.concatenate((gap, voice(3), gap))
    samples = stack(one, voice(9, HUM))
    made = mixed(samples)
    own = np.abs(np.diff(samples, axis=0)).max()
    assert np.abs(np.diff(made)).max() <= 1.1 * own


@pytest.mark.parametrize("size", [1_000, 5_000, 3 * RATE])
def test_mix_is_independent_of_the_block_size(size: int) -> None:
    made = mixed(stack(voice(6), voice(6, HUM)), size)
    assert strength(made[RATE:], VOICE) > 0.45
    assert strength(made[RATE:], HUM) < 0.02


def test_memory_does_not_grow_with_the_channels_or_the_length() -> None:
    for channels in (2, 64):
        random = np.random.default_rng(4)
        mixer = Mixer(48_000, channels, lambda _samples: False)
        block = random.normal(0, 0.1, (262_144 // channels, channels)).astype(np.float32)
        for _ in range(5):
            mixer.mix(block)
        assert mixer._held.nbytes <= 4 << 20


def test_known_channels_are_not_tested_again() -> None:
    count = itertools.count()

    def asked(samples: Samples) -> bool:
        next(count)
        return speaks(samples)

    mixed(stack(voice(9), voice(9, OTHER_VOICE)), test=asked)
    # Both are tested at first; the louder one again until speech was found in it.
    assert next(count) <= 4


def test_empty_stream_gives_no_samples() -> None:
    mixer = Mixer(RATE, 2, speaks)
    assert len(mixer.mix(np.empty((0, 2), dtype=np.float32))) == 0
    assert len(mixer.flush()) == 0


def test_equal_channels_keep_their_order_after_they_differed() -> None:
    one, hum = voice(6), voice(6, HUM)
    other = np.concatenate((hum[: 3 * RATE], one[3 * RATE :]))
    made = mixed(stack(one, other))
    assert np.abs(made[3 * RATE :] - one[3 * RATE :]).max() < 1e-3


def test_later_change_of_phase_makes_no_step() -> None:
    one = voice(8)
    other = one.copy()
    other[4 * RATE :] *= -1
    made = mixed(stack(one, other))
    assert strength(made[7 * RATE :], VOICE) > 0.4
    assert np.abs(np.diff(made)).max() < 1.1 * np.abs(np.diff(one)).max()
