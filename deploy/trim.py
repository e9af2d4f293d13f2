"""Takes out of an image, while it is built, what no service reads.

    python trim.py system          # of the base's root: installers, documentation, parts of the standard library
    python trim.py libraries SITE  # of the installed packages: headers, other devices' plugins, what training needs

What goes is listed here with its reason. `rehearse.py` runs afterwards, in the same build, and proves that what is left
loads, converts and computes models; the tests of the images prove that it computes the same as outside.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

SYSTEM = (
    # Wheels that a base image may carry for pip, and every installer: nothing is installed once an image is made.
    "wheels",
    "usr/lib/python3/dist-packages/*",
    "usr/local/lib/python3.*/site-packages/*",
    "usr/local/bin/pip*",
    "usr/bin/pip*",
    "usr/share/python-wheels",
    "usr/bin/apt*",
    "usr/bin/dpkg*",
    "usr/bin/gpgv",
    "usr/bin/localedef",
    "usr/bin/openssl",
    "usr/lib/apt",
    "usr/lib/dpkg",
    "usr/lib/*-linux-gnu/libapt-*",
    "usr/lib/*-linux-gnu/libdb-5*",
    "usr/lib/*-linux-gnu/libext2fs.*",
    "usr/lib/*-linux-gnu/libgcrypt.*",
    "usr/lib/*-linux-gnu/libgmp.*",
    "usr/lib/*-linux-gnu/libgnutls.*",
    "usr/lib/*-linux-gnu/libhogweed.*",
    "usr/lib/*-linux-gnu/libgssapi_krb5.*",
    "usr/lib/*-linux-gnu/libk5crypto.*",
    "usr/lib/*-linux-gnu/libkrb5*",
    "usr/lib/*-linux-gnu/libnettle.*",
    "usr/lib/*-linux-gnu/libp11-kit.*",
    "usr/lib/*-linux-gnu/libsemanage.*",
    "usr/lib/*-linux-gnu/libsepol.*",
    "usr/lib/*-linux-gnu/libsystemd.*",
    "usr/lib/*-linux-gnu/libunistring.*",
    # For the superuser, whom nobody becomes here; ldconfig is how Python finds libraries.
    "usr/sbin/[!l]*",
    "var/cache/*",
    "var/lib/apt",
    "var/log/*",
    # The list of packages stays, for scanners; which file is whose does not.
    "var/lib/dpkg/info",
    # For people at a terminal.
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/i18n",
    "usr/share/bash-completion",
    "usr/share/lintian",
    "usr/lib/*-linux-gnu/gconv",
    # Perl, which Debian's installers are written in, and init's parts.
    "usr/bin/perl*",
    "usr/share/perl*",
    "usr/lib/*-linux-gnu/perl*",
    "usr/lib/systemd",
    "usr/lib/udev",
    # The standard library's own tests, editors and build tools.
    *(
        f"{prefix}/lib/python3.*/{part}"
        for prefix in ("usr", "usr/local")
        for part in ("config-3*", "distutils", "ensurepip", "idlelib", "lib2to3", "test", "tkinter", "turtledemo")
    ),
)
"""Patterns below the root."""

LIBRARIES = (
    # Read by compilers and type checkers.
    "**/*.pyi",
    "**/*.h",
    "**/*.hpp",
    "**/*.pxd",
    "**/*.a",
    "openvino/include",
    "torch/include",
    "torch/share",
    # Tests and what they use.
    "**/tests",
    "torch/bin/[!t]*",
    "torch/bin/test*",
    "torch/test",
    "torch/lib/*_test.so",
    "torch/testing/_internal/common_methods_invocations.py",
    "torch/testing/_internal/generated",
    "torch/testing/_internal/opinfo",
    # OpenVINO for devices and file formats that are not asked for: models come from torch and run on the processor.
    "openvino/libs/cache.json",
    "openvino/libs/*auto_batch_plugin*",
    "openvino/libs/*auto_plugin*",
    "openvino/libs/*gpu_plugin*",
    "openvino/libs/*hetero_plugin*",
    "openvino/libs/*npu_plugin*",
    "openvino/libs/*_gguf_frontend*",
    "openvino/libs/*_jax_frontend*",
    "openvino/libs/*_onnx_frontend*",
    "openvino/libs/*_paddle_frontend*",
    "openvino/libs/*_tensorflow_frontend*",
    "openvino/libs/*_tensorflow_lite_frontend*",
    # Sources that transformers generates its own modules from, and readers of images, sounds and films; the folder
    # `auto` says which model has which, and stays.
    "transformers/models/*/modular_*.py",
    "transformers/models/[!a]*/image_processing_*.py",
    "transformers/models/[!a]*/video_processing_*.py",
    "transformers/models/[!a]*/feature_extraction_*.py",
    # Evaluation and training of models need these; converting and computing do not.
    "joblib",
    "narwhals",
    "scipy",
    "scipy.libs",
    "sklearn",
    "threadpoolctl.py",
    # Quicker downloads from the hub; without it they go over plain HTTPS.
    "hf_xet",
    # Compiling extensions and graphs, exporting to ONNX, drawing in colour.
    "networkx",
    "numpy/distutils",
    "numpy/f2py",
    "pygments",
    "rich",
    "setuptools",
    "sympy/physics",
    "sympy/stats",
    "torch/_inductor/codegen",
    "torch/_inductor/fx_passes",
    "torch/_inductor/kernel",
    "torch/onnx",
    "torch/utils/benchmark",
    "transformers/cli",
    "transformers/exporters",
    "typer",
)
"""Patterns below the folder of installed packages."""

MODELS = "transformers/models"
"""Below it a folder for each architecture."""

LAZY = {
    "sentence_transformers/util/similarity.py": "from sklearn.metrics import pairwise_distances",
    "sentence_transformers/util/tensor.py": "from scipy.sparse import coo_matrix",
}
"""File → the import at its top that only functions nobody calls here need."""


def remove(root: Path, patterns: Iterable[str]) -> None:
    """Removes what matches below `root`, folders whole. A pattern that matches nothing is no error: bases differ."""
    for pattern in patterns:
        for found in list(root.glob(pattern)):
            if found.is_dir() and not found.is_symlink():
                shutil.rmtree(found)
            else:
                found.unlink(missing_ok=True)


def remove_those_without_text(models: Path) -> None:
    """Removes the architectures that read images or sounds and no text: a reader of those, and no tokenizer."""
    for folder in list(models.glob("[!a]*/")):
        senses = [*folder.glob("image_processing_*.py"), *folder.glob("feature_extraction_*.py")]
        texts = [*folder.glob("tokenization_*.py"), *folder.glob("processing_*.py")]
        if senses and not texts:
            shutil.rmtree(folder)


def leave_out_import(file: Path, line: str) -> None:
    """Takes an import of one name from the top of a module, where the name is None from then on.

    Raises ValueError if the module does not hold exactly that line: then a new version has to be looked at.
    """
    text = file.read_text(encoding="utf-8")
    if text.split("\n").count(line) != 1:
        raise ValueError(f"{file} does not import as expected: {line}")
    file.write_text(text.replace(f"{line}\n", f"{line.rpartition(' ')[2]} = None\n"), encoding="utf-8")


def main(what: str, *folder: str) -> None:
    """Trims the root of this file system, or a folder of packages."""
    if what == "system":
        remove(Path("/"), SYSTEM)
        return
    site = Path(*folder)
    remove_those_without_text(site / MODELS)
    remove(site, LIBRARIES)
    for name, line in LAZY.items():
        if (site / name).exists():
            leave_out_import(site / name, line)


if __name__ == "__main__":
    main(*sys.argv[1:])
