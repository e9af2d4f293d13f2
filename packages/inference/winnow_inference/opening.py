"""From settings to a model that is ready to run: finds it, picks the engine, and says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic

from winnow_inference import machine
from winnow_inference.engines.base import Engine
from winnow_inference.models.facts import BiEncoderFacts, CrossEncoderFacts, FactsT
from winnow_inference.models.learned import FILE, NOTHING_LEARNED, Learned, read_learned
from winnow_inference.models.loading import LoadedModel, load_bi_encoder, load_cross_encoder
from winnow_inference.models.locating import ModelFolder, default_bi_encoder, locate
from winnow_inference.models.weights import check_folder, check_weights, legible
from winnow_inference.preparing_process import prepare_apart
from winnow_inference.settings import InferenceSettings
from winnow_rpc import telemetry
from winnow_rpc.faults import FailedPrecondition

if TYPE_CHECKING:
    from tokenizers import Tokenizer

log = telemetry.get_logger("winnow.inference")


@dataclass(frozen=True, kw_only=True)
class OpenModel(Generic[FactsT]):
    """A model and what computes it."""

    folder: ModelFolder
    """Where it came from."""
    facts: FactsT
    """What is known of it."""
    tokenizer: Tokenizer
    """Its tokenizer."""
    make_engine: Callable[[], Engine]
    """Makes what computes it, on the thread that will use it; anew whenever the old one is lost."""
    learned: Learned = NOTHING_LEARNED
    """What was learned of a cross-encoder's scores."""


def open_bi_encoder(
    settings: InferenceSettings, *, default: Callable[[], ModelFolder] = default_bi_encoder, apart: bool = True
) -> OpenModel[BiEncoderFacts]:
    """The bi-encoder that the settings name, or the default. Raises a Fault in one sentence if that cannot be.

    `apart`: what has to be made of the model first is made in a process of its own.
    """
    folder = _folder(settings, default)
    return _open(folder, settings, load_bi_encoder, BiEncoderFacts, _bi_encoder_engine, apart=apart)


def open_cross_encoder(
    settings: InferenceSettings, *, default: Callable[[], ModelFolder], apart: bool = True
) -> OpenModel[CrossEncoderFacts]:
    """The cross-encoder that the settings name, or the default. Raises a Fault in one sentence if that cannot be.

    `apart` as for `open_bi_encoder`.
    """
    folder = _folder(settings, default)
    with legible(folder.path):
        learned = read_learned(folder.path)
    opened = _open(folder, settings, load_cross_encoder, CrossEncoderFacts, _cross_encoder_engine, apart=apart)
    if learned.model_fingerprint not in ("", opened.facts.fingerprint):
        log.warning(
            "mixing and calibration were learned with another model; learn them anew: winnow calibrate",
            folder=str(folder.path),
            learned_with=learned.model_fingerprint[:12],
            loaded=opened.facts.fingerprint[:12],
        )
    if learned.calibration and len(opened.facts.labels) != 1:
        raise FailedPrecondition(
            f"{FILE} in {folder.path} has a calibration, but the model has {len(opened.facts.labels)} labels, not one",
            reason="MODEL_UNREADABLE",
            metadata={"folder": str(folder.path)},
        )
    return replace(opened, learned=learned)


def choose_engine(settings: InferenceSettings) -> tuple[str, str]:
    """(engine, why) for the settings and this machine. Raises FailedPrecondition for what does not go together."""
    on_gpu = settings.device.startswith("cuda")
    why = "no GPU is here"
    for_cpus = settings.engine == "openvino" or (settings.engine == "auto" and settings.dtype == "int8")
    if settings.device == "auto" and for_cpus:
        why = "asked for what computes on a CPU"
    elif settings.device == "auto" and machine.nvidia_device_count():
        on_gpu = machine.torch_is_built_for_gpus()
        why = "a GPU is here" if on_gpu else "a GPU is here, but torch is built for CPUs"
    if settings.device != "auto":
        why = f"device {settings.device} set"
    engine = settings.engine
    if engine == "auto":
        engine = "torch" if on_gpu or settings.dtype == "float16" else "openvino"
    else:
        why += f", engine {engine} set"
    wrong = ""
    if engine == "openvino" and on_gpu:
        wrong = f"engine openvino computes on a CPU, and {why}"
    elif engine == "torch" and settings.dtype == "int8":
        wrong = f"dtype int8 needs engine openvino, and {why}"
    elif engine == "openvino" and settings.dtype == "float16":
        wrong = "engine openvino computes float32, bfloat16 or int8 on a CPU, not float16"
    if wrong:
        raise FailedPrecondition(wrong, reason="BAD_SETTING", metadata={"engine": engine, "dtype": settings.dtype})
    return engine, why


def _folder(settings: InferenceSettings, default: Callable[[], ModelFolder]) -> ModelFolder:
    if not settings.model:
        return default()
    with legible(Path(settings.model)):
        return locate(settings.model, revision=settings.revision, offline=settings.offline)


def _open(
    folder: ModelFolder,
    settings: InferenceSettings,
    load: Callable[..., LoadedModel[FactsT]],
    facts_type: type[FactsT],
    torch_engine: Callable[[LoadedModel[FactsT], str], Engine],
    *,
    apart: bool,
) -> OpenModel[FactsT]:
    with legible(folder.path):
        check_folder(folder.path)
        if folder.weights_sha256:
            check_weights(folder.path, folder.weights_sha256)
    engine, why = choose_engine(settings)
    if engine == "openvino":
        from winnow_inference.engines.openvino_conversion import NotConvertible, is_available
        from winnow_inference.engines.openvino_preparing import NotPrepared, OpenVinoPreparation

        preparation = OpenVinoPreparation(
            folder.path,
            settings,
            load=lambda: load(
                folder,
                device="cpu",
                dtype="float32",
                threads=settings.threads,
                max_token_count=settings.max_token_count,
            ),
            reference_engine=lambda loaded: torch_engine(loaded, ""),
            facts_type=facts_type,
            why=why,
        )
        try:
            if not is_available():
                raise NotConvertible("the package openvino is not installed")
            try:
                facts, tokenizer, make_engine = preparation.prepare(may_build=False)
            except NotPrepared as missing:
                if apart and preparation.can_be_kept:
                    log.info(f"{missing}; once for this model and machine", folder=str(folder.path))
                    prepare_apart(folder.path, settings, facts_type)
                facts, tokenizer, make_engine = preparation.prepare()
        except NotConvertible as obstacle:
            if settings.engine == "openvino" or settings.dtype == "int8":
                raise FailedPrecondition(
                    f"OpenVINO cannot compute the model in {folder.path}: {obstacle}",
                    reason="MODEL_NOT_CONVERTIBLE",
                    metadata={"folder": str(folder.path)},
                ) from obstacle
            log.warning("OpenVINO cannot compute this model; torch does", reason=str(obstacle))
            why += f"; not OpenVINO: {obstacle}"
        else:
            return OpenModel(folder=folder, facts=facts, tokenizer=tokenizer, make_engine=make_engine)
    loaded = load(
        folder,
        device=settings.device,
        dtype=settings.dtype,
        threads=settings.threads,
        max_token_count=settings.max_token_count,
    )
    return OpenModel(
        folder=folder,
        facts=loaded.facts,
        tokenizer=loaded.tokenizer,
        make_engine=lambda: torch_engine(loaded, why),
    )


def _bi_encoder_engine(loaded: LoadedModel[BiEncoderFacts], why: str) -> Engine:
    from winnow_inference.engines.torch_engines import TorchBiEncoder

    facts = loaded.facts
    return TorchBiEncoder(
        loaded.module,
        padding=facts.padding,
        placement=loaded.placement.because(why),
        width=facts.width,
        prompt_is_pooled=facts.prompt_is_pooled,
    )


def _cross_encoder_engine(loaded: LoadedModel[CrossEncoderFacts], why: str) -> Engine:
    from winnow_inference.engines.torch_engines import TorchCrossEncoder

    facts = loaded.facts
    return TorchCrossEncoder(
        loaded.module,
        padding=facts.padding,
        placement=loaded.placement.because(why),
        width=facts.width,
        activation=loaded.activation,
    )
