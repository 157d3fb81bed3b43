"""Loading the codec that a command works with.

The one place of the command line that knows which runtime stands behind the Codec protocol;
tests put a toy codec here.
"""

from typing import TYPE_CHECKING

from ..errors import CodesError
from .failures import needs_extra

if TYPE_CHECKING:
    from ..codes.codec import Codec, CodecInfo


def load_codec(
    model: str, parts: str = "all", device: str = "cpu", deterministic: bool = False
) -> "Codec":
    """Load a model folder, a hub id, or "bundled".

    Raises:
        CheckpointError: nothing usable is there.
        ConfigError: the device does not exist here.
        MissingDependencyError: PyTorch is not installed.
    """
    with needs_extra("torch", "running a model"):
        from ..model.numpy_codec import TorchCodec
    return TorchCodec.from_pretrained(
        model, parts=parts, device=device, deterministic=deterministic
    )


def check_num_quantizers(count: int | None, info: "CodecInfo") -> None:
    """Refuse more layers than the model has, once and before any work.

    Raises:
        CodesError: see above.
    """
    if count is not None and not 1 <= count <= info.num_quantizers:
        raise CodesError(
            f"--num-quantizers is {count}; expected 1 to {info.num_quantizers} for this model"
        )
