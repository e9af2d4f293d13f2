from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from tests.models.tiny import build_bi_encoder, build_cross_encoder


@pytest.fixture(scope="session")
def tiny_bi_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_bi_encoder(tmp_path_factory.mktemp("bi") / "model", prompts={"query": "query: "})


@pytest.fixture(scope="session")
def tiny_cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_cross_encoder(tmp_path_factory.mktemp("cross") / "model")


@pytest.fixture(scope="session")
def backend(tiny_bi_encoder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tiny_bi_encoder / "tokenizer.json"))


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """Copies a model's folder, so that a test may spoil it."""
    import shutil

    def copy(folder: Path) -> Path:
        return Path(shutil.copytree(folder, tmp_path / "copy"))

    return copy


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of tiny models by name, each built once."""
    import torch
    import transformers

    from tests.unit.inference.torch_models import CROSS, MODELS, config

    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            build = build_cross_encoder if name in CROSS else build_bi_encoder
            made[name] = build(tmp_path_factory.mktemp(name) / "model")
            kind, configuration, more = MODELS[name]
            with torch.random.fork_rng():
                torch.manual_seed(0)
                model = getattr(transformers, kind)(config(configuration, **more))
            model.save_pretrained(made[name])
        return made[name]

    return folder
