"""What the packages say of themselves agrees with what stands elsewhere. Nothing is built or fetched."""

import ast
import pathlib
import re
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import fluxtorch

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


PROJECT = tomllib.loads(read("pyproject.toml"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
NEEDS = [Requirement(need) for needs in (PROJECT["dependencies"], *EXTRAS.values()) for need in needs]
PINS = [Requirement(line) for line in read("constraints.txt").splitlines() if line and line[0] != "#"]
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
# Where a package is imported by another name than it is installed by.
INSTALLED_AS = {"sklearn": "scikit-learn"}


def imports(folder):
    """The packages that the Python files of a folder import, those of Python itself aside."""
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.partition(".")[0])
    own = {"fluxtorch"} | {path.stem for path in (ROOT / folder).glob("*.py")}
    return {canonicalize_name(INSTALLED_AS.get(name, name)) for name in found - own - sys.stdlib_module_names}


def names(needs):
    return {canonicalize_name(Requirement(need).name) for need in needs}


def test_one_version():
    newest = re.search(r"^## (\S+)", read("CHANGELOG.md"), re.MULTILINE)[1]
    assert PROJECT["version"] == fluxtorch.__version__ == newest


def test_the_library_needs_what_it_imports():
    assert imports("fluxtorch") == names(PROJECT["dependencies"] + EXTRAS["progress"])


def test_the_examples_need_what_they_import():
    assert imports("examples") <= names(PROJECT["dependencies"] + EXTRAS["examples"])


def test_the_tests_bring_what_examples_and_extras_need():
    (own,) = [need for need in map(Requirement, EXTRAS["test"]) if need.name == PROJECT["name"]]
    assert own.extras == set(EXTRAS) - {"test", "docs", "dev"}


@pytest.mark.parametrize("need", NEEDS, ids=str)
def test_all_that_is_needed_has_a_pin_that_will_do(need):
    if need.name == PROJECT["name"]:
        assert need.extras <= set(EXTRAS)
    else:
        (pin,) = [pin for pin in PINS if canonicalize_name(pin.name) == canonicalize_name(need.name)]
        (exact,) = pin.specifier
        assert exact.operator == "==" and need.specifier.contains(exact.version)


def test_no_pin_is_left_over():
    assert {canonicalize_name(pin.name) for pin in PINS} <= {canonicalize_name(need.name) for need in NEEDS}


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md", ".ci/run", *(f"docs/{page}" for page in PAGES)])
def test_extras_that_are_named_exist(file):
    for extras in re.findall(r'(?:"\.|fluxtorch)\[([a-z,]+)\]', read(file)):
        assert set(extras.split(",")) <= set(EXTRAS)


def test_the_contributing_notes_have_what_ci_runs():
    environment, tests, lint, docs = re.search(r"```bash\n(.*?)```", read("CONTRIBUTING.md"), re.DOTALL)[1].splitlines()
    ci = read(".ci/run")
    assert environment.endswith('pip install -c constraints.txt -e ".[test,dev,docs]"')
    assert tests in ci and docs in ci
    assert all(f"\n{command}\n" in ci for command in lint.split(" && "))


def test_python_versions():
    minors = [int(c.rpartition(".")[2]) for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)]
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert PROJECT["requires-python"] == f">=3.{minors[0]}"


def test_the_sdist_has_what_its_tests_read():
    lines = [line.split() for line in read("MANIFEST.in").splitlines()]
    named = {name for command, *names in lines if command in ("include", "graft") for name in names}
    assert {"tests", "examples", "docs", "benchmarks", ".ci", "conftest.py", "constraints.txt", "mkdocs.yml"} <= named
    assert {"CHANGELOG.md", "CONTRIBUTING.md"} <= named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_wheel_has_every_module_and_says_that_it_is_typed():
    package = ROOT / "fluxtorch"
    assert {path.parent for path in package.rglob("*.py")} == {path.parent for path in package.rglob("__init__.py")}
    assert (package / "py.typed").exists()
