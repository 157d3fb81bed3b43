"""Clips to stream, and what streams are held against: one pass over what they were fed."""

import torch


def random_codes(frames, seed=0, layers=4):
    """Codes (layers, frames) of the small models."""
    random = torch.Generator().manual_seed(seed)
    return torch.randint(16, (layers, frames), generator=random)


def random_audio(samples, channels=1, seed=0):
    """Audio (channels, samples)."""
    random = torch.Generator().manual_seed(seed)
    return 0.3 * torch.randn(channels, samples, generator=random)


def assert_close_audio(got, expected):
    """Within 1e-4 of the RMS of what is expected, everywhere."""
    assert got.shape == expected.shape
    if expected.numel():
        rms = expected.square().mean().sqrt()
        assert (got - expected).abs().max() <= 1e-4 * rms


def assert_decoded(model, codes, audio):
    """``audio`` is what the model makes of all these codes at once."""
    if codes.shape[1] == 0:
        assert audio.shape[1] == 0
    else:
        assert_close_audio(audio, model.decode(codes).audio[0])


def assert_encoded(model, audio, codes, frames=None):
    """``codes`` are what the model makes of all this audio at once, in its first frames."""
    if audio.shape[1] == 0:
        assert codes.shape[1] == 0
    else:
        expected = model.encode(audio[None]).audio_codes[:, 0]
        assert torch.equal(codes, expected[:, :frames])
