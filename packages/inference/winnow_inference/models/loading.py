"""Loads a model from its folder, checked, and says all that is to be known of it.

sentence-transformers builds the modules; around it stand the checks that it lacks: whole files before torch is
imported, and every weight that the architecture needs actually in them (it would make up a missing head, and warn).
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

from winnow_inference.models import fingerprint as fingerprints
from winnow_inference.models.facts import BiEncoderFacts, CrossEncoderFacts, FactsT, Padding
from winnow_inference.models.locating import ModelFolder
from winnow_inference.models.weights import check_folder, check_weights, unreadable
from winnow_rpc import telemetry
from winnow_rpc.faults import FailedPrecondition, Fault

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from winnow_inference.engines.torch_placement import Placement

log = telemetry.get_logger("winnow.inference")

# A model without any limit of its own (relative positions) reads this much, unless told to read less.
_UNLIMITED_READS = 8192
# What the tokenizers write for "no limit" is a huge number; nothing real comes near this.
_NO_LIMIT = 1_000_000


@dataclass(frozen=True, kw_only=True)
class LoadedModel(Generic[FactsT]):
    """A model as sentence-transformers built it."""

    facts: FactsT
    """What is known of it."""
    tokenizer: Tokenizer
    """Its tokenizer."""
    module: Any
    """The sentence-transformers model, in evaluation mode, on its device."""
    placement: Placement
    """Where it computes."""
    activation: Any = None
    """A cross-encoder's function over its raw outputs."""


def load_bi_encoder(
    folder: ModelFolder, *, device: str = "auto", dtype: str = "auto", threads: int = 0, max_token_count: int = 0
) -> LoadedModel[BiEncoderFacts]:
    """Loads a bi-encoder. Raises NotFound or FailedPrecondition, in one sentence that names the folder."""
    tensors = check_folder(folder.path)
    if folder.weights_sha256:
        check_weights(folder.path, folder.weights_sha256)
    with _quiet_libraries():
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

        from winnow_inference.engines.torch_placement import place

        placement = place(device=device, dtype=dtype, threads=threads)
        model: Any = _load(SentenceTransformer, folder, placement)
    _check_transformer(model, folder, tensors)
    prompts = {name: text or "" for name, text in model.prompts.items()}
    fallback = prompts.get(model.default_prompt_name or "", "")
    query = _first(prompts, ("query",), fallback)
    passage = _first(prompts, ("document", "passage", "corpus"), fallback)
    poolings = [module for module in model if isinstance(module, Pooling)]
    prompt_is_pooled = all(pooling.include_prompt for pooling in poolings)
    limit = _token_limit(model, folder, max_token_count)
    return LoadedModel(
        facts=BiEncoderFacts(
            fingerprint=fingerprints.fingerprint(
                folder.path, effective={"max_token_count": limit, "query_prompt": query, "passage_prompt": passage}
            ),
            max_token_count=limit,
            padding=_padding(model),
            dimension=int(model.get_embedding_dimension()),
            query_prompt=query,
            passage_prompt=passage,
            prompt_is_pooled=prompt_is_pooled,
            similarity=model.similarity_fn_name,
            # A stored truncation shortens the vectors after they were normalised.
            normalized=isinstance(list(model)[-1], Normalize) and model.truncate_dim is None,
        ),
        tokenizer=model.tokenizer.backend_tokenizer,
        module=model,
        placement=placement,
    )


def load_cross_encoder(
    folder: ModelFolder, *, device: str = "auto", dtype: str = "auto", threads: int = 0, max_token_count: int = 0
) -> LoadedModel[CrossEncoderFacts]:
    """Loads a cross-encoder. Raises NotFound or FailedPrecondition, in one sentence that names the folder."""
    tensors = check_folder(folder.path)
    if folder.weights_sha256:
        check_weights(folder.path, folder.weights_sha256)
    with _quiet_libraries():
        from sentence_transformers import CrossEncoder

        from winnow_inference.engines.torch_placement import place

        placement = place(device=device, dtype=dtype, threads=threads)
        model: Any = _load(CrossEncoder, folder, placement)
    _check_transformer(model, folder, tensors)
    prompt = model.prompts.get(model.default_prompt_name or "", "") or ""
    limit = _token_limit(model, folder, max_token_count)
    activation_name = _activation_name(model.activation_fn)
    return LoadedModel(
        facts=CrossEncoderFacts(
            fingerprint=fingerprints.fingerprint(
                folder.path, effective={"max_token_count": limit, "prompt": prompt, "activation": activation_name}
            ),
            max_token_count=limit,
            padding=_padding(model),
            labels=_labels(model),
            activation_name=activation_name,
            prompt=prompt,
        ),
        tokenizer=model.tokenizer.backend_tokenizer,
        module=model,
        placement=placement,
        activation=model.activation_fn,
    )


def _load(kind: Any, folder: ModelFolder, placement: Placement) -> Any:
    """The library's model in evaluation mode; whatever it raises becomes one fault."""
    try:
        model = kind(
            str(folder.path),
            device=placement.device,
            local_files_only=True,
            trust_remote_code=False,
            # Explicit, or transformers keeps the stored dtype and an fp16 file computes in fp16 on a CPU, slowly.
            model_kwargs={"dtype": placement.torch_dtype, "use_safetensors": True},
        )
    except Fault:
        raise
    except Exception as error:  # any library on the way may raise anything of a folder it does not understand
        log.warning("model not loaded", folder=str(folder.path), error=f"{type(error).__name__}: {error}")
        raise unreadable(folder.path, "sentence-transformers does not understand it (the log says why)") from error
    if "text" not in model[0].modality_config:
        raise FailedPrecondition(
            f"the model in {folder.path} does not read plain text",
            reason="MODEL_NOT_SUPPORTED",
            metadata={"folder": str(folder.path)},
        )
    return model.eval()


def _check_transformer(model: Any, folder: ModelFolder, tensors: Sequence[str]) -> None:
    """Refuses a model of which weights are missing in the file: the library would have made them up."""
    transformer = model[0].model
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    if get_checkpoint_conversion_mapping(transformer.config.model_type):  # type: ignore[no-untyped-call]
        return  # its file has other names than its modules; only the library knows which
    prefix = f"{transformer.base_model_prefix}."
    stored = {_plain(name, prefix) for name in tensors}
    tied = set(transformer.all_tied_weights_keys)
    missing = sorted(
        name
        for name, _ in transformer.named_parameters()
        # A bi-encoder's pooler is not used, and often not stored.
        if name not in tied and ".pooler." not in f".{name}" and _plain(name, prefix) not in stored
    )
    if missing:
        raise unreadable(
            folder.path,
            f"{len(missing)} of the weights that its architecture ({type(transformer).__name__}) needs are not in the "
            f"file, first {missing[0]}",
        )


def _plain(name: str, prefix: str) -> str:
    """A tensor's name without what differs between a bare encoder and one with a head, or an old file and a new one."""
    return (
        name.removeprefix(prefix)
        .replace("LayerNorm.gamma", "LayerNorm.weight")
        .replace("LayerNorm.beta", "LayerNorm.bias")
    )


def _token_limit(model: Any, folder: ModelFolder, wanted: int) -> int:
    """Tokens that are read at most: the least of what the tokenizer, the position embeddings and the caller say."""
    limits = [
        int(model.tokenizer.model_max_length),
        int(getattr(model[0].model.config, "max_position_embeddings", 0) or 0),
    ]
    for name, part in model[0].model.named_modules():
        if name.endswith("position_embeddings") and hasattr(part, "num_embeddings"):
            # RoBERTa and its kin count positions from after the padding index.
            limits.append(part.num_embeddings - (0 if part.padding_idx is None else part.padding_idx + 1))
    own = min((limit for limit in limits if 0 < limit < _NO_LIMIT), default=_UNLIMITED_READS)
    limit = min(own, wanted or own)
    special = model.tokenizer.num_special_tokens_to_add(pair=True)
    if limit <= special + 1:
        raise FailedPrecondition(
            f"the model in {folder.path} would read {limit} tokens, which leaves no room beside {special} special ones",
            reason="BAD_SETTING",
            metadata={"max_token_count": str(limit)},
        )
    return limit


def _padding(model: Any) -> Padding:
    tokenizer = model.tokenizer
    return Padding(
        # Without a padding token any id does: the attention mask hides it.
        token_id=tokenizer.pad_token_id or 0,
        segment_id=tokenizer.pad_token_type_id,
        left=tokenizer.padding_side == "left",
        segments="token_type_ids" in tokenizer.model_input_names,
    )


def _first(prompts: dict[str, str], names: Sequence[str], fallback: str) -> str:
    """The first prompt of these names that says something; where all are silent, the model's default."""
    return next((prompts[name] for name in names if prompts.get(name)), fallback)


def _labels(model: Any) -> tuple[str, ...]:
    named = model.config.id2label
    return tuple(str(named.get(at, f"LABEL_{at}")) for at in range(model.num_labels))


def _activation_name(activation: Any) -> str:
    name = getattr(activation, "__name__", None) or type(activation).__name__
    return str(name).lower()


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Libraries draw progress bars and warn of what is checked here; for a service that is noise."""
    import transformers
    from huggingface_hub.utils.tqdm import disable_progress_bars

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    disable_progress_bars()
    for name in ("sentence_transformers", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
