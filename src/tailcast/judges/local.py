"""A judge model on this machine, loaded by transformers.

Rows are filled up behind their last token, so that no row's positions depend on its
neighbours; all texts of a call are sorted by length and go in batches of a fixed size.
"""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from tailcast.errors import JudgeError, ModelError
from tailcast.judges.readings import Replies, Reply
from tailcast.judges.recipes import Recipe, readable
from tailcast.models import load_model, weights_fingerprint, widen_head
from tailcast.types import ModelSettings, Query

__all__ = ["LocalModel"]

_ROWS = 16
_MARKS = ("", "\u2581", "\u0120")  # how vocabularies write "no space before" and "a space before"
_CHARACTERS = 16  # that a token has at most, to cut long texts before they are tokenised


class LocalModel:
    """A causal language model that answers a recipe's prompts.

    Args:
        recipe: What it is asked.
        settings: Which model; the dtype auto, as for targets.

    Raises:
        JudgeError: If it cannot be loaded, or its tokenizer cannot give the recipe's answers.
    """

    def __init__(self, recipe: Recipe, settings: ModelSettings) -> None:
        self.recipe = recipe
        self.name = settings.model
        try:
            self.model, self.tokenizer = load_model(settings)
        except ModelError as error:
            raise JudgeError(f"the judge's {error}") from error
        widen_head(self.model)
        if recipe.layout != "plain" and not getattr(self.tokenizer, "chat_template", None):
            raise JudgeError(
                f"judge model {self.name!r} has no chat template: use a recipe of layout plain."
            )
        self.answers = self._answers()
        self.limit = getattr(self.model.config, "max_position_embeddings", None) or 10**9

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the weights and the dtype."""
        return f"{weights_fingerprint(self.model)} in {self.model.dtype}"

    def ask(self, query: Query, completions: Sequence[str]) -> list[Replies]:
        """Each completion with a reply to every prompt about it."""
        rows = [self._rows(query, self._cut(completion)) for completion in completions]
        flat = [row for each in rows for row in each]
        order = sorted(range(len(flat)), key=lambda place: len(flat[place]))
        replies: dict[int, Reply | Exception] = {}
        for first in range(0, len(order), _ROWS):
            some = order[first : first + _ROWS]
            replies.update(zip(some, self._replies([flat[place] for place in some]), strict=True))
        found = iter(replies[place] for place in range(len(flat)))
        return [
            (text, [next(found) for _ in each])
            for text, each in zip(completions, rows, strict=True)
        ]

    def _cut(self, completion: str) -> str:
        """The first tokens of a completion, as the judge counts them."""
        most = self.recipe.completion_tokens
        some = readable(completion[: _CHARACTERS * most])
        tokens = self.tokenizer(some, add_special_tokens=False)["input_ids"]
        return some if len(tokens) <= most else self.tokenizer.decode(tokens[:most])

    def _rows(self, query: Query, completion: str) -> list[list[int]]:
        """Tokens of every prompt about a completion."""
        recipe = self.recipe
        if recipe.layout == "conversation":
            whole = [*query.messages, {"role": "assistant", "content": completion}]
            return [self._templated(whole)]
        texts = recipe.texts(query, completion)
        if recipe.layout == "plain":
            return [list(self.tokenizer(text + recipe.opening)["input_ids"]) for text in texts]
        system = [{"role": "system", "content": recipe.system}] if recipe.system else []
        return [self._templated([*system, {"role": "user", "content": text}]) for text in texts]

    def _templated(self, messages: list[dict[str, str]]) -> list[int]:
        text = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )
        tokens: list[int] = self.tokenizer(text + self.recipe.opening, add_special_tokens=False)[
            "input_ids"
        ]
        return tokens

    def _replies(self, rows: list[list[int]]) -> list[Reply | Exception]:
        """Replies to a batch; rows that pass the model's context fail alone."""
        room = self.limit - (self.recipe.answer_tokens if self._writes else 1)
        fit = [row for row in rows if len(row) <= room]
        found = iter((self._written(fit) if self._writes else self._first(fit)) if fit else ())
        return [
            next(found)
            if len(row) <= room
            else JudgeError(
                f"the prompt has {len(row)} tokens, the judge's context is {self.limit}"
            )
            for row in rows
        ]

    @property
    def _writes(self) -> bool:
        """Whether an answer is written out, not read off the next token's law."""
        return self.recipe.reading in ("text", "rubric") or not self.answers

    def _first(self, rows: list[list[int]]) -> list[Reply]:
        """The likeliest next token, and the log-probabilities of the answers."""
        logps = self._next(rows).log_softmax(-1)
        known = {name: logps[:, ids].logsumexp(-1).tolist() for name, ids in self.answers.items()}
        return [
            Reply(
                self.tokenizer.decode([int(law.argmax())]),
                {name: values[number] for name, values in known.items()},
            )
            for number, law in enumerate(logps)
        ]

    def _next(self, rows: list[list[int]]) -> Tensor:
        """Logits after the last token of each row, [n, V], float32."""
        width, device = max(map(len, rows)), self.model.device
        tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
        last = torch.tensor([len(row) - 1 for row in rows], device=device)
        mask = torch.arange(width, device=device) <= last[:, None]
        places = torch.tensor(sorted({len(row) - 1 for row in rows}), device=device)
        with torch.no_grad():
            logits: Tensor = self.model(
                input_ids=tokens, attention_mask=mask, use_cache=False, logits_to_keep=places
            ).logits
        return logits[
            torch.arange(len(rows), device=device), torch.searchsorted(places, last)
        ].float()

    def _written(self, rows: list[list[int]]) -> list[Reply]:
        """Greedy answers, each row by itself: no padding in front of any."""
        found = []
        for row in rows:
            with torch.no_grad():
                tokens = self.model.generate(
                    torch.tensor([row], device=self.model.device),
                    attention_mask=torch.ones((1, len(row)), device=self.model.device),
                    do_sample=False, max_new_tokens=self.recipe.answer_tokens,
                    temperature=None, top_p=None, top_k=None,
                    pad_token_id=self.tokenizer.pad_token_id or 0,
                )  # fmt: skip
            found.append(Reply(self.tokenizer.decode(tokens[0, len(row) :].tolist(), True), {}))
        return found

    def _answers(self) -> dict[str, list[int]]:
        """Tokens of every answer, with a space before it or none.

        None at all where answers are written out: the readings text and rubric, and number
        where the tokenizer splits numbers.
        """
        recipe = self.recipe
        if recipe.reading in ("text", "rubric"):
            return {}
        number = recipe.reading == "number"
        wanted = [str(one) for one in range(101)] if number else list(recipe.answers or {})
        vocabulary = self.tokenizer.get_vocab()
        found = {
            name: [vocabulary[mark + name] for mark in _MARKS if mark + name in vocabulary]
            for name in wanted
        }
        split = [name for name, tokens in found.items() if not tokens]
        if split and number:
            return {}
        if split:
            raise JudgeError(
                f"judge model {self.name!r} has no token for the answer {split[0]!r}: it is not "
                "the model that this judge was made for; or use reading text with a pattern."
            )
        return found
