"""The configuration of a language model inside that of a model which holds one."""

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from ..errors import ConfigError


def nested_config(values: Any) -> PreTrainedConfig:
    """The configuration from the plain values that config.json keeps, or as it is.

    Raises:
        ConfigError: transformers knows no such model.
    """
    if isinstance(values, PreTrainedConfig):
        return values
    if values is None:
        raise ConfigError("text_config is missing; give that of a decoder-only model")
    try:
        given = dict(values)
        return AutoConfig.for_model(given.pop("model_type"), **given)
    except (KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"text_config describes no language model ({reason}); expected the configuration of a "
            "decoder-only model of transformers, with its model_type"
        ) from error
