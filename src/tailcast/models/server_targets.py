"""From settings to a target at a server."""

import os
from pathlib import Path

from tailcast.errors import ModelError
from tailcast.http import JsonServer
from tailcast.kept_answers import KeptAnswers
from tailcast.models.chat import ChatTarget
from tailcast.models.engines import ServerEngine
from tailcast.models.loading import load_tokenizer
from tailcast.models.served import ServedTarget
from tailcast.server import ServerSettings
from tailcast.types import ModelSettings

__all__ = ["load_served"]


def load_served(
    model: ModelSettings, server: ServerSettings, *, weighs: bool, place: Path | None
) -> ServedTarget | ChatTarget:
    """A target at a server; of the model only the tokenizer is loaded, or nothing.

    Args:
        model: Which model.
        server: Where it is served.
        weighs: Whether its draws are to be weighted.
        place: Folder where answers are kept until a run has them; None to keep none.

    Raises:
        TailcastError: If server or tokenizer cannot be used, or do not fit together.
    """
    address = str(server.target_server)
    key = os.environ.get("TAILCAST_TARGET_KEY") or os.environ.get("OPENAI_API_KEY") or ""
    seeded, workers = server.engine_seeds, server.target_workers
    target: ServedTarget | ChatTarget
    if server.target_api == "chat":
        client = JsonServer(
            address, ModelError, flag="--target-server", connections=workers, key=key,
            rate=server.target_rate,
        )  # fmt: skip
        target = ChatTarget(
            client, server.target_model or model.model, system_prompt=model.system_prompt,
            seeded=seeded, workers=workers,
        )  # fmt: skip
    else:
        tokenizer, ends = load_tokenizer(model)
        engine = ServerEngine(
            address, ends, served_name=server.target_model, seeded=seeded, workers=workers,
            flags=("--target-server", "--target-model"), key=key, rate=server.target_rate,
        )  # fmt: skip
        target = ServedTarget(
            engine, tokenizer, system_prompt=model.system_prompt, plain_prompt=model.plain_prompt
        )
        target.check(weighs=weighs)
    if place is not None:
        target.kept = KeptAnswers(place / "answers.jsonl", {"model": target.fingerprint})
    return target
