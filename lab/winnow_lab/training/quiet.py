"""The libraries' own bars, advice and warnings, which say nothing to whoever trains a model with one command."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

_LOUD = ("sentence_transformers", "transformers", "accelerate", "datasets", "torch.distributed")


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Inside, what they say below an error is not shown."""
    import datasets
    import transformers
    from huggingface_hub.utils.tqdm import disable_progress_bars

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    datasets.disable_progress_bars()
    disable_progress_bars()
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
