"""The reference covers every public name, and the documentation's examples run."""

import ast
import doctest
import importlib.util
import pathlib
import re
import warnings

import pytest
import torch

import fluxtorch
from fluxtorch.layers import basic

DOCS = pathlib.Path(__file__).resolve().parent.parent / "docs"
spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)
PAGES = reference.pages()
ENTRIES = reference.entries()
BLOCKS = [
    pytest.param(block, id=f"{page.name} {n}")
    for page in sorted(DOCS.glob("*.md"))
    if page.name != "porting.md"
    for n, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
]
PORTING = (DOCS / "porting.md").read_text(encoding="utf-8")
PIECES = re.compile(
    r"^```(python|pycon)\n(.*?)^```|^\| Julia \| Python \|[^\n]*\n\|---[^\n]*\n((?:\|[^\n]*\n)+)", re.M | re.S
)
SECTIONS = (DOCS / "versions.md").read_text(encoding="utf-8").split("\n## ")[1:]


def test_every_public_name_is_there_once():
    paths = [entry.path for entry in ENTRIES]
    assert len(paths) == len(set(paths))
    assert set(fluxtorch.__all__) <= set(paths)
    assert {"v016.LSTM", "losses.mse", "tracker.back_", "optimisers.Lion", "optimise.WeightDecay"} <= {
        *paths,
        *("losses." + path for path in paths),
    }


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.path)
def test_entry(entry):
    page, _, anchor = entry.link.partition("#")
    _, head, rest = PAGES[page].partition(f"\n## {entry.name} {{ #{anchor} }}\n")
    text = rest.partition("\n## ")[0]
    assert head, "is on its page"
    assert re.search(r"Flux 0\.\d+(, 0\.\d+)*\.|fluxtorch's own\.|Julia's own", text), (
        "add it to docs/flux-versions.tsv"
    )
    said = re.sub(r"```.*?```", "", text, flags=re.DOTALL).replace(f"`fluxtorch.{entry.path}`. {entry.line}", "")
    assert len(said.split()) > 2, "has a docstring"


def test_anchors_are_unique_on_a_page():
    for text in PAGES.values():
        anchors = re.findall(r"\{ #(\S+) \}", text)
        assert len(anchors) == len(set(anchors))


def test_versions_are_known_ones():
    rows = (DOCS / "flux-versions.tsv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "python\tjulia\tversions"
    paths = [row.split("\t")[0] for row in rows[1:]]
    assert len(paths) == len(set(paths))
    for row in rows[1:]:
        versions = row.split("\t")[2]
        assert versions in reference.LINES or set(versions.split()) <= set(reference.VERSIONS)


def entry(path):
    return next(e for e in ENTRIES if e.path == path)


def test_what_a_line_says():
    assert entry("ADAM").line == "Flux 0.8, 0.10, 0.12."
    assert entry("testmode_").line == "Flux 0.8, 0.10, 0.12, 0.14, 0.16. There: `testmode!`."
    assert entry("to").line == "fluxtorch's own. There: `=>`."
    assert entry("vcat").line == "Julia's own, with any Flux."
    assert "The same as [`Adam`](optimisers.md#Adam)" in PAGES["optimise.md"]


def test_usage_and_examples_are_code():
    def f(self, x, *, init=torch.ones, n=(1, 2), missing=object(), **more): ...  # noqa: B008

    assert reference.call("f", f) == "f(x, *, init=ones, n=(1, 2), missing=..., **more)"
    assert reference.markdown("Adds.\n\n>>> 1 + 1\n2\n\nSo.") == "Adds.\n\n\n```pycon\n>>> 1 + 1\n2\n```\n\nSo."
    for text in PAGES.values():
        assert not re.search(r"^>>> ", re.sub(r"```pycon\n.*?```", "", text, flags=re.DOTALL), re.MULTILINE)


@pytest.mark.parametrize("block", BLOCKS)
def test_block(block, capsys):
    """Runs, and prints what a comment after `print(…)` says."""
    torch.manual_seed(0)
    exec(compile(block, "block", "exec"), {"__name__": "docs"})
    out = capsys.readouterr().out
    for line in re.findall(r"^ *print\(.*\)  # (.+)$", block, re.MULTILINE):
        assert line in out.splitlines()


def cells(row):
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def run_table(rows, names):
    """Runs the code in the second column, whose last value is what a third column of nothing but code says."""
    for julia, python, *gives in map(cells, rows.splitlines()):
        for code in re.findall(r"`([^`]+)`", python):
            tree = ast.parse(code)
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else ast.parse("None").body[0]
            exec(compile(tree, julia, "exec"), names)
            value = eval(compile(ast.Expression(last.value), julia, "eval"), names)
        if gives and (expected := re.fullmatch(r"`([^`]+)`", gives[0])):
            assert repr(value) == expected[1], julia


def run_session(code, names):
    """Runs a session at Python's prompt, errors and warnings included; lines may be broken anywhere."""
    test = doctest.DocTestParser().get_doctest(code, names, "session", None, 0)
    runner, said = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE), []
    runner.run(test, out=said.append, clear_globs=False)
    assert not runner.failures, "".join(said)
    names.update(test.globs)


@pytest.mark.parametrize("section", re.split(r"^(?=##+ )", PORTING, flags=re.M)[1:], ids=lambda s: s.splitlines()[0])
def test_porting(section, capsys, monkeypatch):
    """Code, sessions and tables run in the order they stand in, after the lines that begin the page."""
    torch.manual_seed(0)
    monkeypatch.setattr(basic, "_warned", set())  # what is said once is said here
    monkeypatch.setattr(warnings, "showwarning", lambda text, kind, *_, **__: print(f"{kind.__name__}: {text}"))
    warnings.simplefilter("always")
    warnings.filterwarnings("ignore", message="Converting a tensor")  # which torch says once
    names = {"__name__": "docs"}
    exec(PIECES.search(PORTING)[2], names)
    for kind, code, rows in PIECES.findall(section):
        if kind == "python":
            exec(compile(code, "block", "exec"), names)
        elif kind == "pycon":
            run_session(code, names)
        else:
            run_table(rows, names)
    out = capsys.readouterr().out.splitlines()
    for line in re.findall(r"^ *print\(.*\)  # (.+)$", section, re.MULTILINE):
        assert line in out


def spellings(text):
    """The code in the last column of the tables that are headed `fluxtorch`."""
    for rows in re.findall(r"^\|.*\| fluxtorch \|\n\|---.*\n((?:\|.*\n)+)", text, re.MULTILINE):
        for row in rows.splitlines():
            yield from re.findall(r"`([^`]+)`", re.split(r"(?<!\\)\|", row)[-2].replace("\\|", "|"))


@pytest.mark.parametrize("section", SECTIONS, ids=lambda s: s.splitlines()[0])
def test_every_spelling_is_run(section):
    code = "".join(re.findall(r"```python\n(.*?)```", section, re.DOTALL))
    found = list(spellings(section))
    assert found or section.startswith("Printing")
    assert not [spelling for spelling in found if spelling not in code]
