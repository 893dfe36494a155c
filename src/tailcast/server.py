"""What runs the target, and what a target that shows no whole laws cannot be asked for."""

from typing import Any, Literal

from pydantic import BaseModel, Field

__all__ = ["ServerSettings", "refused"]

_WITH_WEIGHTS = ("vector:", "adapter:", "model:", "learned:", "tilt:")  # streams
_OWN = ("pairs", "proposal", "bits", "roulette", "engine", "ray", "device", "device_map")
_HERE = ("steering", "adapter", "dtype", "memory")
_OF_LAWS = ("heats", "mixes")


class ServerSettings(BaseModel, frozen=True, extra="forbid"):
    """Where the target runs, or its continuations, if not here."""

    engine: str = Field(
        "own",
        description="What samples past the switch: own, vllm, or an http:// address of a server "
        "with /v1/completions.",
    )
    engine_model: str | None = Field(None, description="Name of the model at that server.")
    engine_seeds: bool = Field(True, description="Send a server a seed with every request.")
    target_engine: Literal["own", "vllm"] = Field(
        "own",
        description="What runs the target: own, or vllm, which draws and scores all of it; see "
        "docs/vllm.md.",
    )
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
    target_rate: float | None = Field(None, gt=0, description="Requests to it a second, at most.")

    @property
    def shows_no_laws(self) -> bool:
        """Whether the target samples and scores, without whole laws of the next token."""
        return self.target_server is not None or self.target_engine == "vllm"


def refused(config: Any) -> str:
    """What a run's config asks of its target and cannot get there; empty if nothing."""
    if config.target_server is None and (config.target_model or config.target_api == "chat"):
        return "target_model and target_api are of a server: give target_server too"
    if not config.shows_no_laws:
        return ""
    if config.target_engine == "vllm":
        if config.target_server is not None:
            return "target_engine vllm and target_server exclude each other: drop one of them"
        return _refused_of(config, "target_engine", "the own engine", _OWN, _OF_LAWS)
    if not config.target_server.startswith(("http://", "https://")):
        return f"target_server {config.target_server!r} is no http:// address"
    chosen = (*_OF_LAWS, "strengths")
    found = _refused_of(config, "target_server", "the model here", (*_HERE, *_OWN), chosen)
    return found or _refused_by_api(config)


def _refused_of(
    config: Any, name: str, needed: str, settings: tuple[str, ...], chosen: tuple[str, ...]
) -> str:
    """What needs whole laws, or weights where there are none.

    Args:
        config: The run's.
        name: The setting because of which it cannot have them.
        needed: What has them.
        settings: That need them, unless they are as by default.
        chosen: Settings that need them once they are named.
    """
    if config.main_method not in ("mc", "mixture"):
        return f"method {config.main_method} needs {needed}: take mc or mixture with {name}"
    fields = type(config).model_fields
    given = [one for one in settings if getattr(config, one) != fields[one].default]
    given += [one for one in chosen if one in config.model_fields_set]
    given += [one for one in config.streams if one.startswith(_WITH_WEIGHTS)]
    if given:
        return f"{given[0]} needs {needed}: drop it, or {name}"
    plain = (config.temperature, config.top_k, config.top_p) == (1.0, 0, 1.0)
    if config.mixes_proposals and not plain and config.target_api != "chat":
        who = "vLLM" if name == "target_engine" else "a server"
        return (
            f"{who} tells log-probabilities before temperature and truncation, so that weights are "
            "exact at temperature 1 without top_k and top_p only, where they are the sampling "
            "law: take these, or method mc"
        )
    return ""


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
    return ""
