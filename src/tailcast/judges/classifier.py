"""A sequence-classification model as a judge: the probability of one of its labels."""

from collections.abc import Sequence

import torch

from tailcast.errors import JudgeError, ModelError
from tailcast.judges.recipes import readable
from tailcast.models import load_classifier, weights_fingerprint
from tailcast.types import ModelSettings, Query

__all__ = ["Classifier"]

_ROWS = 32


class Classifier:
    """Any transformers sequence-classification model.

    Args:
        settings: Which model.
        label: Name or number of the label whose probability is the score; the last one if
            None.

    Raises:
        JudgeError: If the model cannot be loaded or has no such label.
    """

    def __init__(self, settings: ModelSettings, label: str | None = None) -> None:
        try:
            self.model, self.tokenizer = load_classifier(settings)
        except ModelError as error:
            raise JudgeError(f"the judge's {error}") from error
        names = {str(name): int(number) for number, name in self.model.config.id2label.items()}
        numbers = {str(number): number for number in names.values()}
        if label and label not in names | numbers:
            raise JudgeError(
                f"judge model {settings.model!r} has no label {label!r}: it has {', '.join(names)}."
            )
        self.label = (names | numbers)[label] if label else max(names.values())
        kind = self.model.config.problem_type == "multi_label_classification"
        self.several = kind or self.model.config.num_labels == 1
        self.fingerprint = f"{weights_fingerprint(self.model)} label {self.label}"

    def scores(self, query: Query, completions: Sequence[str]) -> list[tuple[str, float]]:
        """Each completion with the label's probability, of what fits the model's context."""
        order = sorted(range(len(completions)), key=lambda place: len(completions[place]))
        found = [0.0] * len(completions)
        for first in range(0, len(order), _ROWS):
            some = order[first : first + _ROWS]
            for place, score in zip(some, self._batch([completions[i] for i in some]), strict=True):
                found[place] = score
        return list(zip(completions, found, strict=True))

    def _batch(self, texts: list[str]) -> list[float]:
        limit = min(self.tokenizer.model_max_length, 4096)
        given = self.tokenizer(
            [readable(text[: 16 * limit]) for text in texts],
            padding=len(texts) > 1, truncation=True, max_length=limit, return_tensors="pt",
        ).to(self.model.device)  # fmt: skip
        with torch.no_grad():
            logits = self.model(**given).logits.float()
        law = logits.sigmoid() if self.several else logits.softmax(-1)
        scores: list[float] = law[:, self.label].tolist()
        return scores
