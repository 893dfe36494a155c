"""From a directory, hub id or gguf file, and perhaps an adapter, to a target."""

import importlib
import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tailcast.errors import MissingExtra, ModelError
from tailcast.models.huggingface import HuggingFaceTarget
from tailcast.models.prompt_format import end_tokens
from tailcast.types import ModelSettings

__all__ = [
    "Shape",
    "auto_dtype",
    "load_classifier",
    "load_model",
    "load_target",
    "load_tokenizer",
    "shape_of",
]


def load_target(settings: ModelSettings) -> HuggingFaceTarget:
    """Load a target: a model, its tokenizer and its adapter.

    Raises:
        ModelError: If any of them cannot be found, read or driven; one sentence.
    """
    model, tokenizer = load_model(settings)
    return HuggingFaceTarget(
        model,
        tokenizer,
        system_prompt=settings.system_prompt,
        plain_prompt=settings.plain_prompt,
    )


def load_model(settings: ModelSettings) -> tuple[Any, Any]:
    """A transformers model for text generation on its device, and its tokenizer.

    Raises:
        ModelError: If either of them, or the adapter, cannot be found or read; one sentence.
    """
    settings = _found(settings)
    place, options = _where(settings)
    device, _ = _device(settings.device), _dtype(settings.dtype)
    transformers = importlib.import_module("transformers")
    if settings.bits:
        options |= _quantised(settings, device, transformers)
    if settings.device_map:
        options |= _spread(settings)
    with _sentences(f"model {settings.model!r} cannot be loaded"), _quiet(transformers):
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, **options)
        options.setdefault("dtype", torch.float32 if "gguf_file" in options else "auto")
        model = transformers.AutoModelForCausalLM.from_pretrained(place, **options)
    if settings.device_map:
        _check_spread(model)
    stored = model.dtype
    if "gguf_file" in options:
        _forget_quantisation(model)
        stored = torch.bfloat16  # finer than any quantisation
    if settings.adapter:
        with _quiet(transformers):
            model = _with_adapter(model, settings.adapter)
    if not settings.bits:
        dtype = _dtype(settings.dtype) or _auto_dtype(stored, device)
        model = _cast(model, dtype)
        model = _arranged(model if settings.device_map else model.to(device))
    return model.eval(), tokenizer


def load_tokenizer(settings: ModelSettings) -> tuple[Any, frozenset[int]]:
    """A model's tokenizer and the tokens that end its responses; no weights are read.

    Raises:
        ModelError: If it cannot be found or read; one sentence.
    """
    settings = _found(settings)
    place, options = _where(settings)
    transformers = importlib.import_module("transformers")
    with _sentences(f"the tokenizer of {settings.model!r} cannot be loaded"), _quiet(transformers):
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, **options)
    config = None
    if "gguf_file" not in options:
        try:
            config = transformers.GenerationConfig.from_pretrained(place, **options)
        except OSError:  # not every model has one
            config = None
    return tokenizer, end_tokens(config, tokenizer)


def load_classifier(settings: ModelSettings) -> tuple[Any, Any]:
    """A transformers sequence-classification model in float32, and its tokenizer.

    Raises:
        ModelError: If either cannot be found or read; one sentence.
    """
    place, options = _where(settings)
    transformers = importlib.import_module("transformers")
    with _sentences(f"model {settings.model!r} cannot be loaded"), _quiet(transformers):
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, **options)
        kind = transformers.AutoModelForSequenceClassification
        model = kind.from_pretrained(place, dtype=torch.float32, **options)
    return model.to(_device(settings.device)).eval(), tokenizer


@dataclass(frozen=True)
class Shape:
    """Sizes of a model: numbers it has, keys and values it keeps of a token, tokens it knows."""

    layers: int
    parameters: int
    cache_numbers: int
    vocabulary: int


def shape_of(settings: ModelSettings) -> Shape:
    """The shape of a model from its config alone; no weights are read.

    Raises:
        ModelError: If the config cannot be found or read.
    """
    settings = _found(settings)
    place, options = _where(settings)
    transformers = importlib.import_module("transformers")
    with _sentences(f"model {settings.model!r} cannot be read"), _quiet(transformers):
        config = transformers.AutoConfig.from_pretrained(place, **options)
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config)
    text = config.get_text_config()
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    kept = 2 * text.num_hidden_layers * (getattr(text, "num_key_value_heads", None) or heads)
    numbers = sum(one.numel() for one in model.parameters())
    return Shape(text.num_hidden_layers, numbers, kept * width, text.vocab_size)


def _found(settings: ModelSettings) -> ModelSettings:
    """The settings, where the model is the embedded one with its own file and adapter."""
    if settings.model != "embedded":
        return settings
    from tailcast.models.embedded import embedded_settings

    return embedded_settings(settings)


def _where(settings: ModelSettings) -> tuple[str, dict[str, Any]]:
    """What from_pretrained is to be given for a path."""
    options: dict[str, Any] = {
        "revision": settings.revision,
        "trust_remote_code": settings.trust_remote_code,
    }
    path = Path(settings.model).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"gguf file {settings.model!r} does not exist: check the path.")
        return str(path.parent), options | {"gguf_file": path.name}
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(
                f"directory {settings.model!r} holds no model: config.json is missing."
            )
        return str(path), options
    looks_local = settings.model.startswith((".", "/", "~")) or settings.model.count("/") != 1
    if looks_local:
        raise ModelError(
            f"model {settings.model!r} is neither a directory nor a gguf file nor a hub id of the "
            "form owner/name: check the path."
        )
    return settings.model, options


def _quantised(settings: ModelSettings, device: torch.device, transformers: Any) -> dict[str, Any]:
    """Loading options for weights in four bits; products run in bfloat16."""
    if settings.bits != 4:
        raise ModelError(
            f"bits {settings.bits} cannot be used: LLM.int8 rounds a row by what else is in its "
            "batch, so that the target is no fixed law; use bits 4."
        )
    if settings.adapter or settings.model.endswith(".gguf"):
        raise ModelError(
            "bits 4 takes a model directory or a hub id without adapter: merge the adapter and "
            "save the model first, or leave bits out."
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtra("bitsandbytes", "bits", "bits 4")
    how = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)
    return {"quantization_config": how, "device_map": {"": device}}


def _spread(settings: ModelSettings) -> dict[str, Any]:
    """Loading options for a model on several devices, planned for the dtype that it will have."""
    if settings.adapter or settings.model.endswith(".gguf"):
        raise ModelError(
            "device_map takes a model directory or a hub id without adapter: merge the adapter and "
            "save the model first, or leave device_map out."
        )
    return {"device_map": settings.device_map, "dtype": _dtype(settings.dtype) or "auto"}


def _check_spread(model: Any) -> None:
    """No part of the model lies where it must be fetched from for every token."""
    places = list(map(str, getattr(model, "hf_device_map", {}).values()))
    slow = sum(place in ("cpu", "disk") for place in places)
    if "disk" in places or 0 < slow < len(places):
        raise ModelError(
            f"the model does not fit on the {torch.accelerator.device_count()} devices that are "
            f"seen here: {slow} of its {len(places)} parts would lie in main memory or on disk; "
            "use more GPUs, or --bits 4."
        )


def _forget_quantisation(model: Any) -> None:
    """A gguf file is dequantised on loading, but the model still calls itself quantised."""
    model.is_quantized = False
    model.hf_quantizer = None
    for holder, name in ((model.config, "quantization_config"), (model, "quantization_method")):
        if hasattr(holder, name):
            delattr(holder, name)


def _with_adapter(model: Any, adapter: str) -> Any:
    """The model in float32 with a PEFT adapter merged in."""
    if Path(adapter).is_dir() and not (Path(adapter) / "adapter_config.json").is_file():
        raise ModelError(f"directory {adapter!r} holds no adapter: adapter_config.json is missing.")
    peft = importlib.import_module("peft")
    with _sentences(f"adapter {adapter!r} does not fit this model or cannot be read"):
        wrapped = peft.PeftModel.from_pretrained(_cast(model, torch.float32), adapter)
        return wrapped.merge_and_unload()


def _cast(model: Any, dtype: torch.dtype) -> Any:
    """The model with its weights in a dtype; buffers, rotary frequencies above all, stay exact."""
    for weight in model.parameters():
        if weight.is_floating_point():
            weight.data = weight.data.to(dtype)
    return model


def _arranged(model: Any) -> Any:
    """The model with float32 weights on a CPU stored by column, which few rows multiply faster.

    Embeddings stay by row, because they are read by row.
    """
    embedding = model.get_input_embeddings().weight
    for module in model.modules():
        if not isinstance(module, torch.nn.Linear) or module.weight is embedding:
            continue
        weight = module.weight
        if weight.device.type == "cpu" and weight.dtype == torch.float32:
            weight.data = weight.data.t().contiguous().t()
    return model


@contextmanager
def _sentences(what: str) -> Iterator[None]:
    """Turn whatever a loader raises into one sentence."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, TypeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        first = " ".join(lines[:2])[:300] or type(error).__name__
        raise ModelError(f"{what}: {first}") from error


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No progress bars, advice and warnings while something loads."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _device(name: str) -> torch.device:
    if name != "auto":
        try:
            device = torch.device(name)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ModelError(f"device {name!r} cannot be used: {reason}") from error
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _dtype(name: str) -> torch.dtype | None:
    """The dtype of a name; None for auto."""
    if name == "auto":
        return None
    dtype: torch.dtype | None = getattr(torch, name, None)
    if dtype not in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        raise ModelError(f"dtype {name!r} is not one of auto, bfloat16, float16, float32, float64.")
    return dtype


def auto_dtype(settings: ModelSettings, device: torch.device) -> str:
    """The name of the dtype that auto stands for on a device; no weights are read.

    Raises:
        ModelError: If the model's config cannot be found or read.
    """
    place, options = _where(settings)
    transformers = importlib.import_module("transformers")
    with _sentences(f"model {settings.model!r} cannot be read"), _quiet(transformers):
        config = transformers.AutoConfig.from_pretrained(place, **options)
    stored = config.get_text_config().dtype or config.dtype or torch.float32
    return str(_auto_dtype(stored, device)).removeprefix("torch.")


def _auto_dtype(stored: torch.dtype, device: torch.device) -> torch.dtype:
    """The checkpoint's own, but float32 on a CPU that has no instructions for 16-bit products."""
    if device.type != "cpu" or stored not in (torch.bfloat16, torch.float16):
        return stored
    able = torch.cpu.get_capabilities()
    fast = any(
        able.get(name) for name in ("amx_bf16", "avx512_bf16", "avx10_2", "arm_bf16", "bf16")
    )
    return torch.bfloat16 if fast else torch.float32
