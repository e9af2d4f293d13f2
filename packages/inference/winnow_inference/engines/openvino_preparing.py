"""Makes an OpenVINO engine of a model, out of the cache if it was made before: then torch is not loaded, and it starts
in a second or two."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic

from pydantic import TypeAdapter
from tokenizers import Tokenizer

from winnow_inference import machine
from winnow_inference.engines.base import Engine
from winnow_inference.engines.openvino_conversion import NotConvertible, convert, quantize
from winnow_inference.engines.openvino_engine import CpuDtype, OpenVinoEngine, Plan
from winnow_inference.engines.openvino_planning import computes_bfloat16, make_plan
from winnow_inference.engines.padding import padded
from winnow_inference.models import fingerprint
from winnow_inference.models.cache_retention import Retention
from winnow_inference.models.facts import FactsT
from winnow_inference.models.loading import LoadedModel
from winnow_inference.models.model_cache import CacheEntry, ModelCache, content_key
from winnow_inference.parity import LOSSLESS, Parity
from winnow_inference.reference import Reference, make_reference, parity, sequences_of
from winnow_inference.sample_texts import lines_of, paragraphs
from winnow_inference.settings import InferenceSettings
from winnow_inference.tokenization import TextTokenizer
from winnow_rpc import telemetry
from winnow_rpc.faults import FailedPrecondition

log = telemetry.get_logger("winnow.inference")

# Raised whenever what is kept is made in another way.
_SCHEME = 5
_OBSTACLE = "obstacle"
_MODEL, _REFERENCE, _TOKENIZER = "model.xml", "reference.npz", "tokenizer.json"
# More texts move the ranges of int8 hardly any more, and each costs a forward pass.
_CALIBRATION_TEXTS = 256
# The parity texts are the first paragraphs of the sample; calibration takes others.
_PARITY_TEXTS = 64


class NotPrepared(Exception):
    """Something has to be made first; the message says what."""


class OpenVinoPreparation(Generic[FactsT]):
    """The steps from a model's folder to a running engine; each is looked up in the cache first."""

    def __init__(
        self,
        folder: Path,
        settings: InferenceSettings,
        *,
        load: Callable[[], LoadedModel[FactsT]],
        reference_engine: Callable[[LoadedModel[FactsT]], Engine],
        facts_type: type[FactsT],
        why: str,
    ) -> None:
        """`load` loads the model in float32 on the CPU; it is called only if something has to be made of it.

        `reference_engine` computes what the converted model is compared with; `why` says why this engine was chosen.
        """
        self._folder = folder
        self._settings = settings
        self._load = load
        self._reference_engine = reference_engine
        self._facts_type = TypeAdapter(facts_type)
        self._kind = facts_type.__name__
        self._why = why
        retention = Retention(days=settings.cache_keep_days, size=settings.cache_max_bytes)
        self._cache = ModelCache(settings.cache_dir, prepared=settings.prepared_dir, retention=retention)
        self._may_build = True

    @property
    def can_be_kept(self) -> bool:
        """What another process makes will be found here."""
        return self._cache.is_writable()

    def prepare(self, *, may_build: bool = True) -> tuple[FactsT, Any, Callable[[], OpenVinoEngine]]:
        """The model's facts, its tokenizer, and what makes the engine.

        Raises NotConvertible, FailedPrecondition for an int8 that strays too far, and NotPrepared if something is not
        in the cache and `may_build` is false.
        """
        self._may_build = may_build
        key = content_key(self._folder, self._made_by(max_token_count=self._settings.max_token_count))
        converted = self._cache.find(key) or self._make(key, self._convert, "converting the model for OpenVINO")
        if obstacle := converted.facts.get(_OBSTACLE):
            raise NotConvertible(obstacle)
        facts: FactsT = self._facts_type.validate_python(dict(converted.facts))
        tokenizer = Tokenizer.from_file(str(converted.folder / _TOKENIZER))
        entry = converted
        if self._settings.dtype == "int8":
            entry = self._quantized(key, converted, facts, tokenizer)
        planned, plan = self._planned(key, entry, facts, Reference.load(converted.folder / _REFERENCE))
        plan = dataclasses.replace(plan, reason=f"{self._why}; {plan.reason}")
        # All that a start needs is in use for as long as an engine may be made.
        used = (converted, entry, planned)

        def make_engine() -> OpenVinoEngine:
            return OpenVinoEngine(used[1].folder / _MODEL, plan, padding=facts.padding, width=facts.width)

        self._cache.remove_old()
        return facts, tokenizer, make_engine

    def _made_by(self, **more: Any) -> Mapping[str, Any]:
        return {
            "scheme": _SCHEME,
            "fingerprint": fingerprint.SCHEME,
            "kind": self._kind,
            "openvino": version("openvino"),
            **more,
        }

    def _make(self, key: str, build: Callable[[Path], Mapping[str, Any]], what: str) -> CacheEntry:
        if not self._may_build:
            raise NotPrepared(what)
        log.info(what, folder=str(self._folder))
        return self._cache.make(key, build)

    def _convert(self, place: Path) -> Mapping[str, Any]:
        loaded = self._load()
        try:
            return self._converted(loaded, place)
        except NotConvertible as obstacle:
            return {_OBSTACLE: str(obstacle)}  # kept too, or every start would try again

    def _converted(self, loaded: LoadedModel[FactsT], place: Path) -> Mapping[str, Any]:
        facts = loaded.facts
        tokenizer = TextTokenizer(loaded.tokenizer, max_token_count=facts.max_token_count)
        reference = make_reference(facts, tokenizer, self._reference_engine(loaded))
        tokenizer.close()
        convert(loaded, place / _MODEL)
        plain = Plan(dtype="float32", streams=1, threads=1, reason="")
        engine = OpenVinoEngine(place / _MODEL, plan=plain, padding=facts.padding, width=facts.width, express=False)
        found = parity(facts, reference, engine)
        if found.least < LOSSLESS[found.measure]:
            raise NotConvertible(f"OpenVINO computes something else ({found})")
        reference.save(place / _REFERENCE)
        # As the libraries set it up: the model's own file may say otherwise than the settings beside it.
        (place / _TOKENIZER).write_text(loaded.tokenizer.to_str(), encoding="utf-8")
        stored: dict[str, Any] = self._facts_type.dump_python(facts, mode="json")
        return stored

    def _quantized(self, key: str, converted: CacheEntry, facts: FactsT, backend: Any) -> CacheEntry:
        given = self._settings.calibration_texts
        texts = (
            lines_of(given, _CALIBRATION_TEXTS)
            if given
            else paragraphs(_PARITY_TEXTS + _CALIBRATION_TEXTS)[_PARITY_TEXTS:]
        )
        digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
        key = _derived(key, {"int8": version("nncf") if _has("nncf") else "", "texts": digest})

        def build(place: Path) -> Mapping[str, Any]:
            tokenizer = TextTokenizer(backend, max_token_count=facts.max_token_count)
            sequences = sequences_of(facts, tokenizer, texts)
            tokenizer.close()
            quantize(
                converted.folder / _MODEL, place / _MODEL, [padded([sequence], facts.padding) for sequence in sequences]
            )
            return {}

        return self._cache.find(key) or self._make(key, build, "quantising the model to int8")

    def _planned(self, key: str, entry: CacheEntry, facts: FactsT, reference: Reference) -> tuple[CacheEntry, Plan]:
        settings = self._settings
        cores = settings.threads or machine.usable_cores()
        key = _derived(
            key,
            {
                "plan": _SCHEME,
                "dtype": settings.dtype,
                "model": entry.folder.name,
                "cores": cores,
                "processor": machine.processor(),
            },
        )
        dtypes: dict[str, list[CpuDtype]] = {
            "auto": ["bfloat16", "float32"] if computes_bfloat16() else ["float32"],
            "bfloat16": ["bfloat16"],
            "float32": ["float32"],
            "int8": ["int8"],
        }

        def build(place: Path) -> Mapping[str, Any]:
            plan, close = make_plan(
                entry.folder / _MODEL,
                facts,
                reference,
                dtypes=dtypes[settings.dtype],
                cores=cores,
                must_be_lossless=settings.dtype == "auto",
            )
            return {"plan": dataclasses.asdict(plan), "parity": dataclasses.asdict(close)}

        found = self._cache.find(key) or self._make(key, build, "measuring how the model runs best here")
        plan = TypeAdapter(Plan).validate_python(found.facts["plan"])
        close = TypeAdapter(Parity).validate_python(found.facts["parity"])
        if plan.dtype == "int8" and close.least < settings.int8_agreement:
            raise FailedPrecondition(
                f"int8 strays too far from float32 with this model: {close}; at least "
                f"{settings.int8_agreement:g} is wanted. Give calibration texts like your own (calibration_texts), "
                "lower int8_agreement, or set another dtype",
                reason="INT8_PARITY",
                metadata={"measure": close.measure, "least": f"{close.least:.6f}", "mean": f"{close.mean:.6f}"},
            )
        return found, plan


def _derived(key: str, more: Mapping[str, Any]) -> str:
    """The key of something that was made of another entry."""
    text = "\n".join([key, *(f"{name}={more[name]}" for name in sorted(more))])
    return hashlib.sha256(text.encode()).hexdigest()


def _has(package: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(package) is not None
