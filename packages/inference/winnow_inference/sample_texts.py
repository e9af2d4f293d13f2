"""Text to try a model on where its user gave none: the language reference that every Python interpreter carries."""

from __future__ import annotations

import random
from pathlib import Path

from winnow_rpc.faults import FailedPrecondition, NotFound

_SHORTEST, _LONGEST = 80, 1200
_SEED = 20261
# A sample with fewer texts would say little of the model.
_LEAST = 32


def paragraphs(count: int) -> list[str]:
    """Up to `count` paragraphs of English, always the same ones, in a random order."""
    from pydoc_data.topics import topics

    found = {
        " ".join(paragraph.split())
        for text in topics.values()
        for paragraph in text.split("\n\n")
        if _SHORTEST <= len(paragraph) <= _LONGEST
    }
    chosen = sorted(found)
    random.Random(_SEED).shuffle(chosen)  # noqa: S311 - a sample, not a secret
    return chosen[:count]


def lines_of(file: Path, count: int) -> list[str]:
    """The first `count` lines of a text file that are not blank, in a random order. Raises NotFound or
    FailedPrecondition."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError as error:
        raise NotFound(
            f"there is no file {file} of calibration texts", reason="BAD_SETTING", metadata={"file": str(file)}
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise FailedPrecondition(
            f"{file} cannot be read as UTF-8 text", reason="BAD_SETTING", metadata={"file": str(file)}
        ) from error
    texts = [line for line in lines if line][:count]
    if len(texts) < _LEAST:
        raise FailedPrecondition(
            f"{file} holds {len(texts)} lines of text; at least {_LEAST} are needed to calibrate",
            reason="BAD_SETTING",
            metadata={"file": str(file)},
        )
    random.Random(_SEED).shuffle(texts)  # noqa: S311
    return texts


def pairs(texts: list[str]) -> tuple[list[str], list[str]]:
    """A query and a passage from each text and its neighbour: every second pair belongs together.

    The query is a text's first sentence. The passage is the same text, or the next one.
    """
    queries = [text.split(". ")[0][:200] for text in texts]
    passages = [texts[at] if at % 2 else texts[(at + 1) % len(texts)] for at in range(len(texts))]
    return queries, passages
