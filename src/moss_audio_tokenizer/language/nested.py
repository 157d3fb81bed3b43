"""The configuration of a language model inside that of a model which holds one."""

from typing import Any, Protocol

from transformers import AutoConfig, PreTrainedConfig

from ..errors import ConfigError

# What could make transformers load code, or kernels, that nobody here chose.
_LEFT_OUT = ("attn_implementation", "_attn_implementation", "auto_map", "quantization_config")


class Tokens(Protocol):
    """How many tokens a text has."""

    num_tokens: int


def check_whole(config: Any, least: dict[str, int], most: int = 1 << 20) -> None:
    """Refuse sizes that are no whole numbers, or that nothing could hold.

    Raises:
        ConfigError: see above.
    """
    for name, lowest in least.items():
        value = getattr(config, name)
        if type(value) is not int or not lowest <= value <= most:
            raise ConfigError(f"{name} is {value!r}; expected a whole number, {lowest} to {most}")


def checked_language_model(values: Any, text: Tokens) -> PreTrainedConfig:
    """`nested_config` of a model that knows all tokens of a text.

    Raises:
        ConfigError: it does not, or it is none.
    """
    config = nested_config(values)
    # Modules are made one by one: so many would never end.
    check_whole(config, {"num_hidden_layers": 1}, most=1024)
    if text.num_tokens > config.vocab_size:
        raise ConfigError(
            f"the text has {text.num_tokens} tokens, and the language model {config.vocab_size}; "
            "expected as many or more"
        )
    return config


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
        given = {key: value for key, value in dict(values).items() if key not in _LEFT_OUT}
        return AutoConfig.for_model(given.pop("model_type"), **given)
    # Whatever transformers and its validators raise about values from a file.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"text_config describes no language model ({reason}); expected the configuration of a "
            "decoder-only model of transformers, with its model_type"
        ) from error
