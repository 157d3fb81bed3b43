"""What MOSS-TTS does with a codec, written anew: its load sequence and its decoding loops."""

import pytest
import torch

from moss_audio_tokenizer import MossAudioTokenizerModel
from moss_audio_tokenizer.errors import InputError


def random_codes(frames, layers=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 16, (frames, layers), generator=generator)


@pytest.fixture
def codec(make_model):
    return make_model(channels=2)


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_load_sequence_of_the_processor(codec, tmp_path):
    codec.save_pretrained(tmp_path)
    loaded = MossAudioTokenizerModel.from_pretrained(
        tmp_path, trust_remote_code=True, codec_weight_dtype="fp32"
    )
    loaded.set_compute_dtype("fp32")
    loaded.set_attention_implementation("sdpa")
    device = next(loaded.parameters()).device
    clips = [torch.linspace(-0.5, 0.5, n).repeat(2, 1).to(device) for n in (160, 83)]
    encoded = loaded.batch_encode(clips, num_quantizers=3)
    lengths = [int(length) for length in encoded.audio_codes_lengths]
    rows = [encoded.audio_codes[:, i, :n].T.contiguous() for i, n in enumerate(lengths)]
    assert [row.shape for row in rows] == [(20, 3), (11, 3)]
    codes = torch.zeros(3, 2, 20, dtype=torch.long)
    mask = torch.zeros(2, 20, dtype=torch.bool)
    for index, row in enumerate(rows):
        codes[:, index, : len(row)] = row.T
        mask[index, : len(row)] = True
    decoded = loaded.decode(
        codes, padding_mask=mask, num_quantizers=3, return_dict=True, chunk_duration=0.08
    )
    assert decoded.audio_lengths.tolist() == [160, 88]
    close(decoded.audio[1, :, :88], loaded.decode(rows[1].T).audio[0])


def test_decoding_loop_of_the_local_model(codec):
    """One stream, masked and advanced chunk by chunk by the model's inner verbs."""
    codes = random_codes(23)
    block = codec.streaming(batch_size=1)
    block.__enter__()
    parts = []
    for start in range(0, 23, 4):
        chunk = codes[start : start + 4].T.unsqueeze(1).contiguous()
        codec._set_streaming_exec_mask(torch.tensor([chunk.shape[-1] > 0]))
        decoded = codec._decode_frame(chunk, torch.tensor([chunk.shape[-1]]))
        parts.append(decoded.audio[0, :, : int(decoded.audio_lengths[0])])
    block.__exit__(None, None, None)
    close(torch.cat(parts, -1), codec.decode(codes.T).audio[0])


@pytest.mark.parametrize("chunk_duration", [None, 0.03])
def test_decoding_loop_of_the_realtime_model(codec, chunk_duration):
    """`decode` inside a block continues the stream, for chunks that grow."""
    codes, parts, start = random_codes(30), [], 0
    with codec.streaming(batch_size=1):
        for size in (1, 2, 3, 4, 5, 6, 9):
            chunk = codes[start : start + size].permute(1, 0)
            parts.append(codec.decode(chunk, chunk_duration=chunk_duration)["audio"][0])
            start += size
    close(torch.cat(parts, -1), codec.decode(codes.T).audio[0])
    first = codec.decode(codes[:5].T).audio
    with codec.streaming(batch_size=1):  # begins new streams
        close(codec.decode(codes[:5].T).audio, first)


def test_rows_pause(codec):
    first, second = random_codes(6, seed=1), random_codes(6, seed=2)
    with codec.streaming(batch_size=2):
        both = torch.stack([first[:2].T, second[:2].T], 1)
        codec._set_streaming_exec_mask(torch.tensor([True, True]))
        start = codec._decode_frame(both)
        codec._set_streaming_exec_mask(torch.tensor([False, True]))
        paused = codec._decode_frame(torch.stack([first[:2].T * 0, second[2:4].T], 1))
        codec._set_streaming_exec_mask(torch.tensor([True, True]))
        end = codec._decode_frame(torch.stack([first[2:4].T, second[4:].T], 1))
    assert paused.audio_lengths.tolist() == [0, 16]
    found = torch.cat([start.audio[0], end.audio[0]], -1)
    close(found, codec.decode(first[:4].T).audio[0])
    found = torch.cat([start.audio[1], paused.audio[1], end.audio[1]], -1)
    close(found, codec.decode(second.T).audio[0])


def test_encoding_in_a_block(codec):
    audio = torch.linspace(-0.5, 0.5, 200).repeat(1, 2, 1)
    with codec.streaming():
        parts = [codec._encode_frame(audio[..., start : start + 40]) for start in range(0, 200, 40)]
    found = torch.cat([part.audio_codes for part in parts], -1)
    assert torch.equal(found, codec.encode(audio).audio_codes)
    outside = codec._encode_frame(audio, torch.tensor([160]), n_quantizers=2)
    assert torch.equal(outside.audio_codes, found[:2, :, :20])


def test_reset_of_the_continuous_batch(codec):
    codes = random_codes(5)
    codec.batch_decode([codes.T], streaming=True, max_batch_size=1)
    codec._reset_batch_decode_streaming_state()
    again = codec.batch_decode([codes.T], streaming=True, max_batch_size=2, use_cuda_graph=False)
    close(again.audio, codec.decode(codes.T).audio)


def test_misuse(codec):
    with pytest.raises(InputError, match="streaming"):
        codec._set_streaming_exec_mask(torch.tensor([True]))
    with codec.streaming(batch_size=2):
        with pytest.raises(InputError, match="got 1 rows"):
            codec.decode(random_codes(3).T)
        with pytest.raises(InputError, match="lengths are"):
            codec._decode_frame(torch.zeros(4, 2, 3, dtype=torch.long), torch.tensor([1, 4]))


def test_a_session_whose_arguments_are_not_public_names_its_replacement(codec):
    with pytest.raises(InputError, match="decoder_stream"):
        codec.create_decode_session(batch_size=1)
