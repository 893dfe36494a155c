"""The verb that rewords base queries, and what it shows."""

from pathlib import Path
from typing import TYPE_CHECKING

from tailcast.cli.screen import Screen
from tailcast.errors import ConfigError

if TYPE_CHECKING:
    from tailcast.pipeline.paraphrase import Reworded

__all__ = ["paraphrase"]


def paraphrase(
    queries: str, /, *, out: Path, model: str | None = None, server: str | None = None,
    n: int = 25, threshold: float | None = None, temperature: float = 0.7, seed: int = 0,
) -> None:  # fmt: skip
    """Reword base queries by a model, for tailcast analyse sensitivity.

    Duplicates (the same words, whatever case and punctuation) and rewordings that drifted off
    are dropped; all are shown with their changes, to be read. The file can be given to
    --queries. The same command goes on where it stopped.

    Args:
        queries: Base queries, as for --queries.
        out: File to write, *.jsonl; beside it, *.diff.txt holds what is shown.
        model: Directory, gguf file or hub id, "embedded", or the model's name at the server.
        server: An OpenAI-compatible server, http://HOST:PORT; its key is $OPENAI_API_KEY.
        n: Rewordings of each.
        threshold: Least similarity: cosine of letter trigrams, function words apart. 0.5 if
            not given.
        temperature: Of the model's answers; higher for more variety, lower for small models.
        seed: Of the random numbers, for a model on this machine.
    """
    from tailcast.analysis.wordings import THRESHOLD
    from tailcast.pipeline.paraphrase import local_writer, reword_file, server_writer

    if server is None and model is None:
        raise ConfigError("nothing to reword with: give --model, or --server.")
    if server is not None:
        writer = server_writer(server, model, temperature)
    else:
        writer = local_writer(str(model), temperature)
    least = THRESHOLD if threshold is None else threshold
    screen = Screen(soft_wrap=True)
    done = reword_file(
        queries, out, writer, n, threshold=least, seed=seed, told=lambda one: _show(screen, one)
    )
    for line in _summary(done, n, least):
        screen.print(line, highlight=False)
    text = f"Query file: {out}   what was kept and dropped: {out.with_suffix('.diff.txt')}"
    screen.print(text, highlight=False)


def _show(screen: Screen, one: "Reworded") -> None:
    for number, line in enumerate(one.lines()):
        style = "bold" if not number else "dim" if line.startswith("  -") else None
        screen.print(line, style=style, highlight=False)


def _summary(done: "list[Reworded]", n: int, threshold: float) -> list[str]:
    """How many were kept, dropped, and are missing."""
    tried = [one for each in done for one in each.tried]
    kept = sum(not one.dropped for one in tried)
    drifted = sum(one.dropped.startswith("similarity") for one in tried)
    lines = [
        f"Kept {kept} of {len(tried)} rewordings of {len(done)} base queries; {drifted} were "
        f"below the similarity of {threshold:g}."
    ]
    short = [one for one in done if len(one.kept) < n]
    if short:
        some = ", ".join(f"{one.query.id} {len(one.kept)}" for one in short[:6])
        lines.append(
            f"{len(short)} base queries have fewer than {n} ({some}): use a larger model, or a "
            "lower --threshold."
        )
    return lines
