"""Reads the docstrings of the standard library's public names, and writes them as JSON, one a line.

    python -P -s -S stdlib_corpus_gather.py

Run as a process of its own by `stdlib_corpus`: importing all of the standard library changes the process that does it.
Hence it imports nothing else. A line is {"progress": …}, {"record": …}, whose fields are in `record`, or {"error": …}.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import os
import pkgutil
import re
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

# Importing these opens windows or a browser, prints, or needs a display; or they are tests and demonstrations.
_DO_SOMETHING = {"antigravity", "this", "idlelib", "turtledemo", "turtle", "tkinter", "test", "ensurepip", "lib2to3"}
# The public names of these have their home elsewhere, or they are tables.
_BEHIND_OTHERS = {
    *("posix", "nt", "posixpath", "ntpath", "genericpath", "nturl2path", "opcode", "pyexpat", "pydoc_data"),
    *("encodings", "sre_compile", "sre_constants", "sre_parse", "distutils"),
}
_LEFT_OUT = _DO_SOMETHING | _BEHIND_OTHERS
_LEFT_OUT_INSIDE = {"test", "tests", "idle_test"}
_LONGEST_SIGNATURE = 400
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


@dataclass
class _Found:
    """One object, and every public name that leads to it."""

    thing: Any
    names: list[tuple[str, str]] = field(default_factory=list)  # (module, name within it)


def module_names() -> list[str]:
    """Names of the public modules, packages with what is inside, in order. Imports the packages."""
    names = []
    for top in sorted(sys.stdlib_module_names):
        if top.startswith("_") or top in _LEFT_OUT:
            continue
        names.append(top)
        names += _inside(top)
    names.append("os.path")
    return sorted(names)


def _inside(package: str) -> list[str]:
    module = _import(package)
    names: list[str] = []
    for found in pkgutil.iter_modules(getattr(module, "__path__", [])):
        if not found.name.startswith("_") and found.name not in _LEFT_OUT_INSIDE:
            name = f"{package}.{found.name}"
            names.append(name)
            if found.ispkg:
                names += _inside(name)
    return names


def _import(name: str) -> types.ModuleType | None:
    """The module, or None if it cannot be had on this machine, for whatever reason."""
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit):
        return None


def gather(progress: Callable[[int, int], None] = lambda done, total: None) -> Iterator[dict[str, str]]:
    """A record for every public module, class, function, method and property that has a docstring of its own.

    Something that is public under several names is listed once, under its home.
    """
    names = module_names()
    found: dict[int, _Found] = {}
    for position, name in enumerate(names):
        progress(position, len(names))
        if module := _import(name):
            if isinstance(module.__doc__, str):
                yield record(name, module=name, kind="module", origin=name, thing=module)
            for member, thing in _members(name, module):
                found.setdefault(id(_essence(thing)), _Found(thing)).names.append((name, member))
    progress(len(names), len(names))
    found = {key: each for key, each in found.items() if not _is_stand_in(each)}
    seen = set(found)
    for module_name, member, thing in sorted(
        ((*_home(each), each.thing) for each in found.values()), key=lambda at: at[:2]
    ):
        origin = str(getattr(thing, "__module__", None) or module_name)
        kind = "class" if inspect.isclass(thing) else "function"
        full = f"{module_name}.{member}"
        if _docstring(thing):
            yield record(full, module=module_name, kind=kind, origin=origin, thing=thing)
        if inspect.isclass(thing):
            for name, attribute in _methods(thing, found):
                if id(attribute) not in seen:
                    seen.add(id(attribute))
                    kind = "method" if inspect.isroutine(attribute) else "property"
                    yield record(f"{full}.{name}", module=module_name, kind=kind, origin=origin, thing=attribute)


def record(name: str, *, module: str, kind: str, origin: str, thing: object) -> dict[str, str]:
    """What is known of one name: its full name, the module that is its home, the one whose code it is, its texts."""
    return {
        "name": name,
        "module": module,
        "kind": kind,
        "origin": origin,
        "signature": "" if kind in ("module", "property") else _signature(thing),
        "docstring": _docstring(thing),
    }


def _members(name: str, module: types.ModuleType) -> Iterator[tuple[str, Any]]:
    """The public classes and functions of a module, by its `__all__`, or else those that it defines."""
    listed = set(getattr(module, "__all__", ()))
    # A package may forget to list what it shows of its own modules (asyncio.TaskGroup in 3.11); `open` is from io.
    looked_at = listed if listed and not hasattr(module, "__path__") else {*vars(module), *listed}
    for member in sorted(looked_at):
        if member.startswith("_"):
            continue
        try:
            thing = getattr(module, member)
        except Exception:  # noqa: S112 - a name that cannot be had is not public, whatever the module says
            continue
        is_form = type(thing).__name__.endswith("SpecialForm")
        if not (inspect.isclass(thing) or inspect.isroutine(_unwrapped(thing)) or is_form):
            continue
        if isinstance(thing, types.GenericAlias):
            continue
        is_own = _top(getattr(thing, "__module__", None) or name) == _top(name)
        if member in listed or is_own or name == "builtins":
            yield member, thing


def _methods(owner: type, public: dict[int, _Found]) -> Iterator[tuple[str, Any]]:
    """Methods and properties that a class defines, or that it has from a base which nobody sees."""
    unseen = [base for base in owner.__mro__[1:] if id(base) not in public and base is not object]
    taken: set[str] = set()
    for place in (owner, *unseen):
        for name, attribute in sorted(vars(place).items()):
            if name.startswith("_") or name in taken:
                continue
            taken.add(name)
            if _repeats_a_base(owner, name, said=str(attribute.__doc__), public=public):
                continue
            bare = attribute.__func__ if isinstance(attribute, classmethod | staticmethod) else attribute
            is_property = isinstance(bare, property) or inspect.isdatadescriptor(bare)
            if (inspect.isroutine(_unwrapped(bare)) or is_property) and isinstance(bare.__doc__, str):
                yield name, bare


def _repeats_a_base(owner: type, name: str, *, said: str, public: dict[int, _Found]) -> bool:
    """Whether a base that is listed too says the same of this name, word for word: then this says nothing new."""
    docstring = inspect.cleandoc(said)
    bases = (base for base in owner.__mro__[1:] if name in vars(base) and id(base) in public)
    return any(inspect.cleandoc(str(vars(base)[name].__doc__)) == docstring for base in bases)


def _is_stand_in(found: _Found) -> bool:
    """A base class shown under another name beside the class that is meant: socket.SocketType is _socket.socket."""
    thing = found.thing
    if not inspect.isclass(thing) or any(member == thing.__name__ for _, member in found.names):
        return False
    meant = (getattr(sys.modules.get(module), thing.__name__, None) for module, _ in found.names)
    return any(inspect.isclass(each) and each is not thing and issubclass(each, thing) for each in meant)


def _home(found: _Found) -> tuple[str, str]:
    """The name under which something is documented: under its own name, near its code, as short as can be."""
    own = getattr(found.thing, "__name__", "")
    origin = _top(getattr(found.thing, "__module__", None) or "")

    def distance(at: tuple[str, str]) -> tuple[bool, bool, bool, int, tuple[str, str]]:
        module, member = at
        return module != "builtins", member != own, _top(module) != origin, module.count("."), at

    return min(found.names, key=distance)


def _top(module: str) -> str:
    """The top-level package, without the underscore of an accelerator: `_asyncio` is asyncio."""
    return module.partition(".")[0].lstrip("_")


def _essence(thing: Any) -> Any:
    """What makes two names the same thing: a bound method is made anew each time that it is looked at."""
    if isinstance(thing, types.MethodType):
        return thing.__func__
    if isinstance(thing, types.BuiltinMethodType) and not isinstance(thing.__self__, types.ModuleType | type | None):
        # A compiled method of an instance that the module holds: random.random.
        return inspect.getattr_static(type(thing.__self__), thing.__name__, thing)
    return thing


def _unwrapped(thing: Any) -> Any:
    try:
        return inspect.unwrap(thing) if callable(thing) else thing
    except ValueError:
        return thing


def _docstring(thing: Any) -> str:
    """What it says of itself; nothing that it inherited. A class may do that where it is initialized."""
    if not inspect.isclass(thing):
        return thing.__doc__ if isinstance(thing.__doc__, str) else ""
    initialize = vars(thing).get("__init__")
    own = (vars(thing).get("__doc__"), initialize.__doc__ if isinstance(initialize, types.FunctionType) else None)
    return "\n\n".join(inspect.cleandoc(part) for part in own if isinstance(part, str))


class _NotShown:
    def __repr__(self) -> str:
        return "…"


_NOT_SHOWN = _NotShown()


def _signature(thing: Any) -> str:
    """Its parameters; empty where they are unknown or say nothing."""
    if "Enum" in type(thing).__name__:
        return ""
    try:
        signature = inspect.signature(thing)
        parameters = [
            # Some defaults are this process's own state, its environment with whatever secrets are in there among them.
            each.replace(default=_NOT_SHOWN) if isinstance(each.default, Mapping) and each.default else each
            for each in signature.parameters.values()
        ]
        text = str(signature.replace(parameters=parameters))
    except Exception:  # it evaluates what extension modules wrote, and some of that names what is not there
        return ""
    if text in ("(*args, **kwargs)", "(*args, **kwds)"):
        return ""
    text = _ADDRESS.sub("", text)
    return text if len(text) <= _LONGEST_SIGNATURE else f"{text[:_LONGEST_SIGNATURE]}…"


def main() -> None:
    """Writes the corpus to standard output; whatever the modules print on being imported goes nowhere."""
    warnings.simplefilter("ignore")
    with os.fdopen(os.dup(1), "w", encoding="ascii") as out:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)

        def progress(done: int, total: int) -> None:
            out.write(json.dumps({"progress": [done, total]}) + "\n")

        status = 0
        try:
            for line in gather(progress):
                out.write(json.dumps({"record": line}) + "\n")
        except Exception as error:  # whatever some module's objects do; the parent has to hear of it
            out.write(json.dumps({"error": repr(error)}) + "\n")
            status = 1
        with contextlib.suppress(BrokenPipeError):
            out.flush()
    # What the modules have set up for the end of the process (threads, atexit functions) is not wanted.
    os._exit(status)


if __name__ == "__main__":
    main()
