"""Steps in recorded shapes return what eager steps return, for any active slots."""

import pytest
import torch

from moss_audio_tokenizer.runtime.torch_steps import GraphedStep

pytestmark = pytest.mark.usefixtures("plain_steps")


def call_again(step):
    """Record nothing: replaying calls the step, as a CUDA graph would."""
    step()
    return step


def fixed(session):
    engine = session.engine
    engine._graphed = GraphedStep(engine._compute, engine._rings, call_again)
    return session


SCHEDULE = [{0: 2}, {0: 1, 2: 3}, {1: 4}, {0: 3, 1: 1, 2: 2}, {2: 1}, {0: 4, 2: 4}]


@pytest.mark.parametrize("side", ["decoder", "encoder"])
def test_recorded_shapes_change_nothing(make_model, side):
    model = make_model()
    random = torch.Generator().manual_seed(0)
    make = model.decoder_stream if side == "decoder" else model.encoder_stream
    plain, recorded = make(3, 4), fixed(make(3, 4))
    slots = [(plain.open(), recorded.open()) for _ in range(3)]
    for turn in SCHEDULE * 4:
        chunks = {
            row: torch.randint(16, (4, frames), generator=random)
            if side == "decoder"
            else torch.randn(1, 8 * frames, generator=random)
            for row, frames in turn.items()
        }
        expected = plain.step({slots[row][0]: chunk for row, chunk in chunks.items()})
        got = recorded.step({slots[row][1]: chunk for row, chunk in chunks.items()})
        for row in turn:
            torch.testing.assert_close(
                got[slots[row][1]], expected[slots[row][0]], atol=1e-5, rtol=1e-4
            )
    assert torch.equal(plain.engine.positions, recorded.engine.positions)


def test_a_shape_is_recorded_once(make_model):
    model = make_model()
    session = model.decoder_stream(4, 4)
    engine, shapes = session.engine, []

    def record(step):
        shapes.append(None)
        return call_again(step)

    engine._graphed = GraphedStep(engine._compute, engine._rings, record)
    slots = [session.open() for _ in range(4)]
    for frames in (1, 3, 4, 3, 1):
        session.step({slots[0]: torch.zeros(4, frames, dtype=torch.long)})
    assert len(shapes) == 2  # 1 frame, and up to 4 frames, of one row
    session.step({slot: torch.zeros(4, 4, dtype=torch.long) for slot in slots[1:]})
    assert len(shapes) == 3


def test_a_shape_recorded_in_inference_mode_serves_outside_it(make_model):
    session = fixed(make_model().decoder_stream(1, 1))
    chunks = {session.open(): torch.zeros(4, 1, dtype=torch.long)}
    with torch.inference_mode():
        session.step(chunks)
    session.step(chunks)
    assert session.engine.positions.tolist() == [2]
