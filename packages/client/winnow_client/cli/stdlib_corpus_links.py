"""Where something of the standard library stands in Python's own documentation, https://docs.python.org."""

from __future__ import annotations

# Modules inside packages that have a page of their own; the others stand on their package's.
_OWN_PAGES = frozenset({
    "collections.abc", "concurrent.futures", "curses.ascii", "curses.panel", "email.charset",
    "email.contentmanager", "email.encoders", "email.errors", "email.generator", "email.header",
    "email.headerregistry", "email.iterators", "email.message", "email.parser", "email.policy", "email.utils",
    "html.entities", "html.parser", "http.client", "http.cookiejar", "http.cookies", "http.server",
    "importlib.metadata", "importlib.resources", "importlib.resources.abc", "logging.config", "logging.handlers",
    "multiprocessing.shared_memory", "os.path", "string.templatelib", "unittest.mock", "urllib.error",
    "urllib.parse", "urllib.request", "urllib.robotparser", "xml.dom", "xml.dom.minidom", "xml.dom.pulldom",
    "xml.etree.elementtree", "xml.sax", "xml.sax.handler", "xmlrpc.client", "xmlrpc.server",
})  # fmt: skip

_ELSEWHERE = {
    "cProfile": "profile",
    "concurrent": "concurrent.futures",
    "email.mime": "email.mime",
    "encodings": "codecs",
    "pstats": "profile",
    "xml.etree": "xml.etree.elementtree",
    "xml.parsers": "pyexpat",
    "xml.sax.saxutils": "xml.sax.utils",
    "xml.sax.xmlreader": "xml.sax.reader",
}

# The pages of asyncio, by the module that a name comes from.
_ASYNCIO = {
    "base_events": "asyncio-eventloop",
    "events": "asyncio-eventloop",
    "exceptions": "asyncio-exceptions",
    "futures": "asyncio-future",
    "locks": "asyncio-sync",
    "protocols": "asyncio-protocol",
    "queues": "asyncio-queue",
    "runners": "asyncio-runner",
    "streams": "asyncio-stream",
    "subprocess": "asyncio-subprocess",
    "taskgroups": "asyncio-task",
    "tasks": "asyncio-task",
    "threads": "asyncio-task",
    "timeouts": "asyncio-task",
    "transports": "asyncio-protocol",
    "unix_events": "asyncio-policy",
}


def link(name: str, *, module: str, kind: str, origin: str, version: str) -> str:
    """The address of `name` in the documentation of a version of Python.

    `module` is the name's public home, `origin` the module whose code it is. A name that the documentation does not
    mention leads to the top of the right page.
    """
    anchor = f"module-{name}" if kind == "module" else name.removeprefix("builtins.")
    page = _page(name, module=module, kind=kind, origin=origin)
    return f"https://docs.python.org/{version}/library/{page}.html#{anchor}"


def _page(name: str, *, module: str, kind: str, origin: str) -> str:
    if module == "builtins":
        return _builtin_page(name.removeprefix("builtins."), kind=kind)
    package, _, inner = module.partition(".")
    if package == "asyncio":
        return _ASYNCIO.get((inner or origin.partition(".")[2]).partition(".")[0], "asyncio")
    # The longest part of the module's name that has a page.
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        part = ".".join(parts[:length])
        if part in _ELSEWHERE:
            return _ELSEWHERE[part]
        if part.lower() in _OWN_PAGES:
            return part.lower()
    return package.lower()


def _builtin_page(name: str, *, kind: str) -> str:
    owner = name.partition(".")[0]
    if owner.endswith(("Error", "Exception", "Warning", "Exit", "Interrupt", "Iteration", "ExceptionGroup")):
        return "exceptions"
    return "functions" if kind in ("class", "function") else "stdtypes"
