"""Which server samples, and what a target that runs at one cannot be asked for."""

from typing import Any, Literal

from pydantic import BaseModel, Field

__all__ = ["ServerSettings", "refused"]

_WITH_WEIGHTS = ("vector:", "adapter:", "model:", "learned:", "tilt:")  # streams
_HERE = (
    "steering", "pairs", "proposal", "adapter", "bits", "dtype", "device", "device_map", "memory",
    "roulette", "engine", "ray",
)  # fmt: skip


class ServerSettings(BaseModel, frozen=True, extra="forbid"):
    """Where the target runs, or its continuations, if not here."""

    engine: str = Field(
        "own",
        description="What samples past the switch: own, vllm, or an http:// address of a server "
        "with /v1/completions.",
    )
    engine_model: str | None = Field(None, description="Name of the model at that server.")
    engine_seeds: bool = Field(True, description="Send a server a seed with every request.")
    target_server: str | None = Field(
        None,
        description="http:// address where the target is served; --model then names its tokenizer "
        "only. See docs/grey-box.md.",
    )
    target_model: str | None = Field(
        None, description="Name of the target at that server; the only one there if not given."
    )
    target_api: Literal["tokens", "chat"] = Field(
        "tokens",
        description="tokens: /v1/completions with token ids; chat: /v1/chat/completions, for "
        "plain sampling of any API, where --model is its name there.",
    )
    target_workers: int = Field(32, ge=1, description="Requests to it under way at one time.")


def refused(config: Any) -> str:
    """What a run's config asks of a target at a server and cannot get there; empty if nothing."""
    if config.target_server is None:
        alone = config.target_model or config.target_api == "chat"
        return "target_model and target_api are of a server: give target_server too" * bool(alone)
    if not config.target_server.startswith(("http://", "https://")):
        return f"target_server {config.target_server!r} is no http:// address"
    if config.main_method not in ("mc", "mixture"):
        return f"method {config.main_method} needs the model here: take mc or mixture with a server"
    fields = type(config).model_fields
    given = [name for name in _HERE if getattr(config, name) != fields[name].default]
    given += [name for name in ("heats", "strengths") if name in config.model_fields_set]
    given += [one for one in config.streams if one.startswith(_WITH_WEIGHTS)]
    if given:
        return f"{given[0]} needs the model here: drop it, or target_server"
    return _refused_by_api(config)


def _refused_by_api(config: Any) -> str:
    """What the server's answers cannot carry."""
    if config.target_api == "chat" and config.plain_prompt:
        return "plain_prompt is no chat: take target_api tokens"
    if not config.mixes_proposals:
        return ""
    if config.target_api == "chat":
        return (
            "target_api chat gives texts and no log-probabilities of given tokens, which weights "
            "are made of: take method mc without streams, or target_api tokens"
        )
    if (config.temperature, config.top_k, config.top_p) != (1.0, 0, 1.0):
        return (
            "a server tells log-probabilities before temperature and truncation, so that weights "
            "are exact at temperature 1 without top_k and top_p only: take these, or method mc"
        )
    return ""
