"""The reference as Markdown, one page per room, made from the docstrings and from `flux-versions.tsv`.

That file has a line for each public name: the shortest path to it below `fluxtorch`, its name in
Julia, and the Flux versions that have it (or `julia` for what is Julia's own, `own` for what is ours).
"""

from __future__ import annotations

import csv
import importlib
import inspect
import pathlib
import re
from typing import Any, NamedTuple

import fluxtorch

VERSIONS = ("0.8", "0.10", "0.12", "0.14", "0.16")
PAGES = {
    "Layers": ("layers",),
    "Recurrent layers of Flux 0.16": ("v016",),
    "Activations and kernels": ("nnlib",),
    "Losses": ("losses",),
    "Gradients": ("zygote",),
    "Tracker": ("tracker",),
    "Training": ("train", "callbacks"),
    "Optimisers": ("optimisers",),
    "Older optimisers": ("optimise",),
    "Data": ("mlutils", "data"),
    "One-hot arrays": ("onehotarrays",),
    "Initial weights": ("initialisers",),
    "Structure": ("functors",),
    "Sizes and saving": ("outputsize", "autosize", "loading"),
    "Devices and element types": ("devices",),
    "To and from PyTorch": ("conversion",),
    "Julia's own": ("base", "pairs", "namedtuples", "errors"),
}
ROOMS = {room: importlib.import_module(f"fluxtorch.{room}") for rooms in PAGES.values() for room in rooms}
# Whose every name is public, and not only what the root has of it.
OPEN = ("base", "functors", "layers", "losses", "mlutils", "nnlib", "onehotarrays")
OPEN += ("optimise", "optimisers", "tracker", "train", "v016", "zygote")
LINES = {"own": "fluxtorch's own.", "julia": "Julia's own, with any Flux."}


class Entry(NamedTuple):
    path: str
    value: Any
    room: str
    julia: str
    versions: str

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def link(self) -> str:
        page = next((rooms[0] for rooms in PAGES.values() if self.room in rooms), self.room)
        return f"{page}.md#{self.name}"

    @property
    def line(self) -> str:
        """Says which Flux versions have the name, and how Julia spells it where that differs."""
        line = LINES.get(self.versions, f"Flux {self.versions.replace(' ', ', ')}.")
        return line + (f" There: `{self.julia}`." if self.julia not in ("", self.name) else "")


class Default:
    """The default of an argument, as it is shown."""

    def __init__(self, value: Any) -> None:
        text = getattr(value, "__name__", repr(value)) if callable(value) else repr(value)
        self.text = "..." if "<" in text or (" " in text and not isinstance(value, (str, tuple))) else text

    def __repr__(self) -> str:
        return self.text


def public() -> dict[str, Any]:
    """Every public object by its shortest path: the root's names, and what only an open room has."""
    found = {name: getattr(fluxtorch, name) for name in fluxtorch.__all__}
    names = {f"{room}.{name}": getattr(ROOMS[room], name) for room in OPEN for name in ROOMS[room].__all__}
    return found | {path: value for path, value in names.items() if found.get(path.partition(".")[2]) is not value}


def room_of(path: str, value: Any) -> str:
    """The room that a name is shown in: where it is defined, or for a second name the first room that has it."""
    room, _, name = path.rpartition(".")
    where = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", "")
    if room or (where.startswith("fluxtorch.") and getattr(value, "__name__", name) in (name, where)):
        return room or where.split(".")[1]
    return next(r for r in sorted(ROOMS) if name in ROOMS[r].__all__)


def entries() -> list[Entry]:
    text = (pathlib.Path(__file__).parent / "flux-versions.tsv").read_text(encoding="utf-8")
    rows = {row.pop("python"): row for row in csv.DictReader(text.splitlines(), delimiter="\t")}
    unknown = {"julia": "", "versions": ""}
    found = [Entry(path, value, room_of(path, value), **rows.get(path, unknown)) for path, value in public().items()]
    return sorted(found, key=lambda e: (e.name.lower(), e.path))


def call(name: str, value: Any) -> str:
    """How a function or class is called, without types: the docstring has the shapes."""
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    plain = [
        p.replace(annotation=p.empty, default=p.empty if p.default is p.empty else Default(p.default))
        for p in signature.parameters.values()
        if p.name not in ("self", "cls")
    ]
    return name + str(signature.replace(parameters=plain, return_annotation=signature.empty))


def markdown(doc: str) -> str:
    """A docstring with its doctests fenced."""
    return re.sub(r"^>>> .*?(?=\n\s*\n|\Z)", r"\n```pycon\n\g<0>\n```", inspect.cleandoc(doc), flags=re.M | re.S)


def section(entry: Entry, first: dict[int, Entry]) -> str:
    """What the reference says of one name. A second name of an object refers to the first."""
    head, doc = f"## {entry.name} {{ #{entry.name} }}", inspect.getdoc(entry.value) or ""
    place = f"`fluxtorch.{entry.path}`. {entry.line}"
    other = first[id(entry.value)]
    if other is not entry:
        return f"{head}\n\n{place} The same as [`{other.name}`]({other.link}): {doc.splitlines()[0]}\n\n"
    usage = "" if inspect.ismodule(entry.value) else call(entry.name, entry.value)
    own = vars(entry.value).items() if inspect.isclass(entry.value) else ()
    methods = [
        f"- `{call(name, getattr(entry.value, name))}`: {f.__doc__.splitlines()[0]}"
        for name, f in own
        if name[0] != "_" and inspect.isfunction(f) and f.__doc__ and not hasattr(entry.value.__mro__[1], name)
    ]
    parts = (head, usage and f"```python\n{usage}\n```", place, markdown(doc), "\n".join(methods))
    return "\n\n".join(filter(None, parts)) + "\n\n"


def pages() -> dict[str, str]:
    """The pages: Markdown by file name, the index first."""
    found = entries()
    own_name_last = sorted(found, key=lambda e: getattr(e.value, "__name__", e.name).rpartition(".")[2] == e.name)
    first = {id(entry.value): entry for entry in own_name_last}

    table = ["| | in Julia | Flux |", "|---|---|---|"]
    for e in found:
        julia = f"`{e.julia}`" if e.julia not in ("", e.name) else ""
        table.append(f"| [`{e.path}`]({e.link}) | {julia} | {LINES.get(e.versions, e.versions)} |")

    titles = {rooms[0]: title for title, rooms in PAGES.items()}
    texts = {f"{room}.md": f"# {title}\n\n" for room, title in titles.items()}
    contents = "".join(f"- [{title}]({room}.md)\n" for room, title in titles.items())
    for room in titles:
        if not any(entry.value is ROOMS[room] for entry in found):
            texts[f"{room}.md"] += markdown(inspect.getdoc(ROOMS[room]) or "") + "\n\n"
    for entry in sorted(found, key=lambda e: not inspect.ismodule(e.value)):
        page = entry.link.partition("#")[0]
        texts[page] = texts.get(page, f"# {page[:-3]}\n\n") + section(entry, first)
    intro = "Every public name, the Flux versions that have it, and its spelling in Julia where that is another.\n\n"
    return {"index.md": f"# Reference\n\n{intro}{contents}\n" + "\n".join(table) + "\n"} | texts
