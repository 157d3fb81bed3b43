import pytest
import torch

from moss_audio_tokenizer.llm import ByteText, random_language_model
from moss_audio_tokenizer.semantic import SemanticHead

WIDTH = 6


@pytest.fixture
def head() -> SemanticHead:
    torch.set_num_threads(1)
    return SemanticHead(random_language_model(16, 2, 2, 257), ByteText(), WIDTH)


def hidden(rows: int = 3, frames: int = 5) -> torch.Tensor:
    return torch.randn(rows, frames, WIDTH, generator=torch.Generator().manual_seed(2))


def slow_loss(head: SemanticHead, frames: torch.Tensor, text: str, task: int) -> torch.Tensor:
    """One row by itself, a full forward pass for every token."""
    model, total = head.language_model, torch.zeros(())
    ids = [*text.encode(), 256]
    prompt = torch.cat((head.tasks.weight[task][None], head.adapter(frames)))
    for place, token in enumerate(ids):
        known = model.get_input_embeddings()(torch.tensor(ids[:place], dtype=torch.long))
        logits = model(inputs_embeds=torch.cat((prompt, known))[None]).logits[0, -1]
        total = total - torch.log_softmax(logits, -1)[token]
    return total


def test_the_loss_is_that_of_every_row_by_itself(head):
    states = hidden()
    texts, tasks, frames = ("HELLO", "", "OK"), ("asr", "", "caption"), [5, 4, 2]
    output = head(states, frames, texts, tasks)
    expected = slow_loss(head, states[0], "HELLO", 0) + slow_loss(head, states[2, :2], "OK", 2)
    torch.testing.assert_close(output.loss_sum, expected, rtol=1e-4, atol=1e-4)
    assert output.num_tokens == 6 + 3
    assert 0 <= float(output.num_correct) <= 9


def test_padding_and_company_change_nothing(head):
    states = hidden()
    alone = head(states[2:, :2], [2], ["OK"], ["asr"]).loss_sum
    states[2, 2:] = 1e3
    together = head(states, [5, 5, 2], ["", "", "OK"], ["", "", "asr"]).loss_sum
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_the_gradient_reaches_hidden_states_adapter_task_and_model(head):
    states = hidden().requires_grad_()
    head(states, [5, 5, 2], ("A", "", "B"), ("asr", "", "asr")).loss_sum.backward()
    assert states.grad[0].abs().sum() > 0
    assert states.grad[1].abs().sum() == 0
    assert states.grad[2, 2:].abs().sum() == 0
    assert all(p.grad is not None and p.grad.any() for p in head.parameters())
    assert head.tasks.weight.grad[0].any()
    assert not head.tasks.weight.grad[1:].any()


def test_without_a_text_there_is_no_loss_but_a_graph_through_everything(head):
    states = hidden().requires_grad_()
    output = head(states, [5, 5, 5], ("",) * 3, ("",) * 3)
    output.loss_sum.backward()
    assert (float(output.loss_sum.detach()), output.num_tokens) == (0.0, 0)
    assert not states.grad.any()
    assert all(p.grad is not None and not p.grad.any() for p in head.parameters())


def test_it_learns_to_read_one_batch_and_reads_it_back(head):
    states = hidden(2)
    texts, tasks = ("ONE", "TWO"), ("asr", "ms_asr")
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(60):
        output = head(states, [5, 5], texts, tasks)
        optimizer.zero_grad()
        output.loss_sum.backward()
        optimizer.step()
    assert float(output.num_correct) == output.num_tokens == 8
    assert head.read(states[0], "asr") == "ONE"
    assert head.read(states[1], "ms_asr") == "TWO"
    assert head.read(states[0], "asr", max_tokens=2) == "ON"
