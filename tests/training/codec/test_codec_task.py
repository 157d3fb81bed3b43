from dataclasses import replace

import pytest
import torch
from micro_batch_rows import make_batch, make_rows

from moss_audio_tokenizer.llm import ByteText, random_language_model
from moss_audio_tokenizer.semantic import SemanticHead
from moss_audio_tokenizer.training.codec.codec_config import LossWeights, SpectraConfig, WarmStart
from moss_audio_tokenizer.training.codec.codec_task import CodecTask, MicroBatchPlanner

LAYERS = 4


@pytest.fixture
def make_task(make_recipe, make_codec):
    """A task on the tests' small codec, by default past its warm start."""

    def make(**changes) -> CodecTask:
        codec = make_codec().train().requires_grad_(requires_grad=True)
        recipe = make_recipe(**({"warm_start": WarmStart(steps=0)} | changes))
        return CodecTask(codec, None, recipe)

    return make


def make_audio(rows: int = 3) -> torch.Tensor:
    random = torch.Generator().manual_seed(5)
    time = torch.arange(1200) / 800
    tone = torch.sin(2 * torch.pi * 60 * time) * 0.3
    return tone + 0.05 * torch.randn(rows, 1, 1200, generator=random)


def losses_of(
    task: CodecTask, step: int = 0, audio: torch.Tensor | None = None, **batch
) -> dict[str, torch.Tensor]:
    """The losses of a step by name, with their total."""
    audio = make_audio() if audio is None else audio
    _, losses = task(make_rows(audio, task.config, task.codec.config, step, **batch))
    return losses | {"total": task.total(losses)}


def trained_by(task: CodecTask, name: str) -> set[str]:
    """Parts of the codec that the loss ``name`` alone has a gradient into."""
    task.codec.zero_grad()
    losses_of(task, 0)[name].backward()
    parts = set()
    for parameter_name, parameter in task.codec.named_parameters():
        if parameter.grad is not None and parameter.grad.any():
            part = parameter_name.split(".")
            parts.add(part[1] if part[0] == "quantizer" else part[0])
    return parts


PROJECTIONS = {"input_proj", "in_projs", "out_projs"}


def test_the_commitment_loss_trains_what_leads_to_the_codes(make_task):
    # out_projs too: the residual that later layers see is not detached.
    assert trained_by(make_task(), "commitment") == {"encoder", *PROJECTIONS}


def test_the_codebook_loss_trains_codebooks_alone(make_task):
    assert trained_by(make_task(), "codebook") == {"codebooks"}


def test_the_mel_loss_trains_everything_but_codebooks(make_task):
    expected = {"encoder", "decoder", "output_proj", *PROJECTIONS}
    assert trained_by(make_task(), "mel") == expected


def test_the_semantic_loss_trains_all_but_codebooks_and_decoder(make_task):
    reader = SemanticHead(random_language_model(16, 1, 2, 257), ByteText(), 12)
    task = make_task(losses=LossWeights(semantic=1.0))
    task.semantic = reader
    losses = losses_of(task, texts=("YES", "", "NO"))
    assert set(losses) >= {"semantic", "token_accuracy", "total"}
    losses["semantic"].backward()
    trained = {n.split(".")[0] for n, p in task.codec.named_parameters() if p.grad is not None}
    assert trained == {"encoder", "quantizer"}
    assert task.codec.quantizer.codebooks.grad is None
    assert all(parameter.grad is not None for parameter in reader.parameters())


def test_the_total_trains_every_parameter(make_task):
    task = make_task()
    losses_of(task, 0)["total"].backward()
    untouched = [
        name
        for name, parameter in task.codec.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert untouched == []


def test_the_total_is_the_weighted_sum(make_task):
    losses = losses_of(make_task(), 0)
    assert set(losses) == {"mel", "commitment", "codebook", "total"}
    expected = 15 * losses["mel"] + 0.25 * losses["commitment"] + losses["codebook"]
    torch.testing.assert_close(losses["total"], expected)


def test_the_warm_start_leaves_the_quantizer_out(make_task):
    task = make_task(warm_start=WarmStart(steps=3))
    losses = losses_of(task, 2)
    assert set(losses) == {"mel", "total"}
    losses["total"].backward()
    assert all(parameter.grad is None for parameter in task.codec.quantizer.parameters())
    assert "commitment" in losses_of(task, 3)


def test_noise_of_the_warm_start_is_in_proportion_to_the_hidden_states(make_task):
    task = make_task(warm_start=WarmStart(steps=1))
    hidden = 7.0 * torch.ones(2, 400, 12)
    noise = task._noisy(hidden, [0, 1]) - hidden
    assert float(noise.square().mean().sqrt()) == pytest.approx(0.3 * 7.0, rel=0.03)


@pytest.mark.parametrize("warm_steps", [0, 1])
def test_a_silent_row_has_a_finite_gradient(make_task, warm_steps):
    task = make_task(warm_start=WarmStart(steps=warm_steps), losses=LossWeights(phase=1.0))
    audio = make_audio()
    audio[1] = 0
    losses_of(task, audio=audio)["total"].backward()
    gradients = [p.grad for p in task.codec.parameters() if p.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("warm_steps", [0, 10])
def test_a_step_depends_on_seed_and_number_alone(make_task, warm_steps):
    task = make_task(warm_start=WarmStart(steps=warm_steps), quantizer_dropout=1.0)
    first, again, later = (
        float(losses_of(task, step, make_audio(8))["total"].detach()) for step in (4, 4, 5)
    )
    assert first == again
    assert first != later
    other = CodecTask(task.codec, None, replace(task.config, seed=1))
    assert float(losses_of(other, 4, make_audio(8))["total"].detach()) != first


def active_layers(recipe, codec, rows: int) -> torch.Tensor:
    plan = MicroBatchPlanner(recipe, codec, torch.device("cpu"))
    return plan._active_layers(rows, torch.Generator().manual_seed(0))


def test_dropout_takes_a_share_of_the_rows_and_every_num_quantizers(make_task):
    task = make_task(quantizer_dropout=0.5)
    active = active_layers(task.config, task.codec.config, 8000)
    shares = torch.bincount(active, minlength=LAYERS + 1) / len(active)
    expected = [0.0, 0.125, 0.125, 0.125, 0.625]
    assert shares.tolist() == pytest.approx(expected, abs=0.02)
    whole = active_layers(replace(task.config, quantizer_dropout=0.0), task.codec.config, 50)
    assert whole.tolist() == [LAYERS] * 50


def test_each_step_draws_its_windows_for_all_passes(make_task):
    task = make_task(
        accumulate=2,
        losses=LossWeights(phase=1.0),
        spectra=SpectraConfig(mel_windows=3, phase_windows=1),
    )
    plan = MicroBatchPlanner(task.config, task.codec.config, torch.device("cpu"))
    seen = set()
    for step in range(20):
        first, second = plan.passes(make_batch(make_audio(2)), step)
        assert first.mel_windows == second.mel_windows
        assert len(set(first.mel_windows)) == 3
        assert first.phase_windows == second.phase_windows
        seen |= set(first.mel_windows)
    assert seen == set(range(7))
    rows = make_rows(make_audio(2), make_task().config, task.codec.config)
    assert (rows.mel_windows, rows.phase_windows) == (None, None)


def test_inactive_layers_get_no_gradient(make_task, monkeypatch):
    task = make_task()
    monkeypatch.setattr(
        MicroBatchPlanner, "_active_layers", lambda _, rows, __: torch.full((rows,), 2)
    )
    losses_of(task, 0)["total"].backward()
    quantizer = task.codec.quantizer
    stacked = (quantizer.codebooks, *quantizer.in_projs.parameters())
    for parameter in (*stacked, *quantizer.out_projs.parameters()):
        assert parameter.grad[:2].any()
        assert not parameter.grad[2:].any()


def test_bf16_keeps_losses_in_float32_and_close(make_task):
    # Without the quantizer, in which rounding turns one code into another.
    warm = WarmStart(steps=1)
    exact = losses_of(make_task(warm_start=warm), 0)
    rounded = losses_of(make_task(warm_start=warm, precision="bf16"), 0)
    torch.testing.assert_close(rounded["mel"], exact["mel"], rtol=0.05, atol=0.0)
    losses = losses_of(make_task(precision="bf16"), 0)
    assert {value.dtype for value in losses.values()} == {torch.float32}


def test_overfitting_one_batch_lowers_the_total(make_task):
    task = make_task(quantizer_dropout=0.0)
    optimizer = torch.optim.AdamW(task.codec.parameters(), lr=3e-3)
    totals = []
    for _ in range(30):
        losses = losses_of(task, 0)
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
        totals.append(float(losses["total"].detach()))
    assert totals[-1] < 0.8 * totals[0]


def test_padding_counts_in_no_loss(make_task):
    task = make_task(losses=LossWeights(phase=1.0))
    audio = torch.cat((make_audio(), make_audio()), dim=-1)
    short = audio[..., :1600]
    expected = losses_of(task, audio=short)
    padded = torch.nn.functional.pad(short, (0, 800))
    # The estimate of the padding is anything but zero.
    got = losses_of(task, audio=padded, lengths=[1600] * 3)
    for name in ("commitment", "codebook"):
        torch.testing.assert_close(got[name], expected[name])
    # Centred windows of the last frames reach into the padding.
    torch.testing.assert_close(got["mel"], expected["mel"], rtol=0.2, atol=0.0)


def test_rows_weigh_the_same_however_long_they_are(make_task):
    task = make_task(quantizer_dropout=0.0)
    audio = make_audio(2)
    audio[1, :, 400:] = 0
    together = losses_of(task, audio=audio, lengths=[1200, 400])
    apart = [
        losses_of(task, audio=audio[:1]),
        losses_of(task, audio=audio[1:], lengths=[400]),
    ]
    for name in ("mel", "commitment"):
        mean = (apart[0][name] + apart[1][name]) / 2
        torch.testing.assert_close(together[name], mean, rtol=1e-4, atol=1e-6)


def test_a_phase_loss_is_there_when_it_has_a_weight(make_task):
    assert "phase" not in losses_of(make_task())
    assert "phase" in losses_of(make_task(losses=LossWeights(phase=2.0)))
    harmonics = LossWeights(stft=1.0, instantaneous_frequency=1.0)
    spectra = SpectraConfig(stft_windows=(256, 512))
    added = {"stft", "instantaneous_frequency"}
    assert added <= losses_of(make_task(losses=harmonics, spectra=spectra)).keys()


def test_phase_counts_less_where_fewer_layers_are_in_use(make_task):
    task = make_task(losses=LossWeights(phase=2.0), quantizer_dropout=0.0)
    rows = make_rows(make_audio(2), task.config, task.codec.config, 0)
    layers = task.codec.config.quantizer.num_quantizers
    whole, halved = (
        task(replace(rows, active=torch.tensor([count, count])))[1]["phase"]
        for count in (layers, layers // 2)
    )
    assert float(halved.detach()) < 0.5 * float(whole.detach())
