"""Convert published, pickled scoring models to safetensors, once, outside the package.

    python recipes/convert_scoring_models.py wavlm wavlm_large_finetune.pth models/wavlm
    python recipes/convert_scoring_models.py utmos utmos22_strong_step7459_v1.pt models/utmos

The first is the speaker model of Seed-TTS-Eval (microsoft/UniSpeech), the second UTMOS22
(tarepan/SpeechMOS). PyTorch's unpickler is restricted to tensors (``weights_only``), so that
a checkpoint cannot run code. Then: ``moss-audio compare ... --speaker-model wavlm:models/wavlm``.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

_POSITIONS = "encoder.pos_conv_embed.conv"
# Names of fairseq and of Microsoft's WavLM, and those of transformers.
_RENAMED = [
    (r"^(?:feature_extract\.model\.|ssl_model\.|wav2vec2\.)", ""),
    (r"^mask_emb$", "masked_spec_embed"),
    (r"^post_extract_proj\.", "feature_projection.projection."),
    (r"^layer_norm\.", "feature_projection.layer_norm."),
    (r"^feature_extractor\.conv_layers\.(\d+)\.0\.", r"feature_extractor.conv_layers.\1.conv."),
    (
        r"^feature_extractor\.conv_layers\.(\d+)\.2\.(?:1\.)?",
        r"feature_extractor.conv_layers.\1.layer_norm.",
    ),
    (
        r"^encoder\.pos_conv\.0\.weight_g$",
        "encoder.pos_conv_embed.conv.parametrizations.weight.original0",
    ),
    (
        r"^encoder\.pos_conv\.0\.weight_v$",
        "encoder.pos_conv_embed.conv.parametrizations.weight.original1",
    ),
    (r"^encoder\.pos_conv\.0\.bias$", "encoder.pos_conv_embed.conv.bias"),
    (r"\.self_attn\.grep_linear\.", ".attention.gru_rel_pos_linear."),
    (r"\.self_attn\.grep_a$", ".attention.gru_rel_pos_const"),
    (r"\.self_attn\.relative_attention_bias\.", ".attention.rel_attn_embed."),
    (r"\.self_attn\.", ".attention."),
    (r"\.self_attn_layer_norm\.", ".layer_norm."),
    (r"\.fc1\.", ".feed_forward.intermediate_dense."),
    (r"\.fc2\.", ".feed_forward.output_dense."),
]
_WAVLM_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "do_stable_layer_norm": True,
    "feat_extract_norm": "layer",
    "conv_bias": False,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "wavlm": {
        "model_type": "wavlm-speaker-verification",
        "wavlm": _WAVLM_LARGE,
        "channels": 512,
        "bottleneck": 128,
        "embedding_size": 256,
    },
    "utmos": {
        "model_type": "utmos22-strong",
        "wav2vec2": {},
        "condition_size": 128,
        "hidden_size": 512,
        "projection_size": 2048,
    },
}


def renamed(kind: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors under the names that `evaluation.scoring_models.torch_models` reads."""
    inner = "wavlm" if kind == "wavlm" else "wav2vec2"
    marks = ("feature_extract.model.", "ssl_model.", "wav2vec2.")
    found = {}
    for name, tensor in tensors.items():
        if name.startswith("loss_calculator."):
            continue
        if name.startswith(marks):
            for pattern, replacement in _RENAMED:
                name = re.sub(pattern, replacement, name)
            name = f"{inner}.{name}"
        found[name] = tensor.contiguous()
    return found


def main() -> None:
    """Convert one checkpoint; fails where a layer is missing or left over."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=CONFIGS)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    content = torch.load(given.checkpoint, map_location="cpu", weights_only=True)
    for wrapper in ("model", "state_dict"):
        content = content.get(wrapper, content)
    tensors = renamed(given.kind, content)
    given.folder.mkdir(parents=True)
    save_file(tensors, given.folder / "model.safetensors")
    text = json.dumps(CONFIGS[given.kind], indent=1)
    (given.folder / "config.json").write_text(text + "\n", encoding="utf-8")
    from moss_audio_tokenizer.evaluation import scoring_models

    wavlm = given.kind == "wavlm"
    load = scoring_models.load_speaker_model if wavlm else scoring_models.load_opinion_model
    load(f"{given.kind}:{given.folder}")


if __name__ == "__main__":
    main()
