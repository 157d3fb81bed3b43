"""Loading a model from a folder or the hub, its refusals as this package's errors."""

import hashlib
from typing import Any

import torch

from ..errors import CheckpointError, MissingDependencyError


def load_pretrained(kind: str, path: str) -> Any:
    """A model of transformers by the name of its class, in evaluation mode, in float32.

    Raises:
        CheckpointError: nothing usable is at the path, or its weights are no safetensors file.
        MissingDependencyError: transformers is not installed, or too old for this model.
    """
    loader = transformers_class(kind)
    try:
        return loader.from_pretrained(path, use_safetensors=True).eval().float()
    except ImportError as error:  # torchaudio, which some models need
        reason = " ".join(str(error).split())[:300]
        raise MissingDependencyError(f"{kind} at {path!r}: {reason}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"no {kind} with safetensors weights at {path!r} ({reason}); "
            "expected a folder or a hub id"
        ) from error


def transformers_class(name: str) -> Any:
    """A class of transformers by name.

    Raises:
        MissingDependencyError: transformers is not installed, or has no such class.
    """
    try:
        import transformers

        # Workers share one terminal, which has a bar of its own.
        transformers.utils.logging.disable_progress_bar()
        return getattr(transformers, name)
    except (ImportError, AttributeError) as error:
        raise MissingDependencyError(
            f"{name} needs transformers (a recent one): pip install 'moss-audio-tokenizer[torch]'"
        ) from error


def load_feature_extractor(path: str) -> Any:
    """The preparation of samples that stands beside a model.

    Raises:
        CheckpointError: there is none.
        MissingDependencyError: transformers is not installed, or what it needs for this one.
    """
    try:
        return transformers_class("AutoFeatureExtractor").from_pretrained(path)
    except ImportError as error:  # torchaudio, which the one of X-Codec 2 needs
        reason = " ".join(str(error).split())[:300]
        raise MissingDependencyError(f"preparing samples for {path!r}: {reason}") from error
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"no preprocessor_config.json at {path!r} ({reason}); it says how to prepare samples"
        ) from error


def fingerprint(model: torch.nn.Module) -> str:
    """16 hexadecimal digits that tell one model's weights from another's."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
