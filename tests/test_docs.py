"""The README and the examples run, and say what they promise."""

import pathlib
import re
import runpy

import pytest
import torch

import fluxtorch as Flux

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
BASH = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def run(name, capsys):
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    return capsys.readouterr().out


@pytest.mark.parametrize("block", range(len(PYTHON)))
def test_readme_block(block, capsys):
    exec(compile(PYTHON[block], f"README block {block}", "exec"), {"__name__": "readme"})
    out = capsys.readouterr().out
    for line in re.findall(r"print\(.*\)  # (.+)", PYTHON[block]):
        assert line in out
    if "right:" in out:
        assert float(out.rpartition("right: ")[2]) > 0.9


def test_readme_begins_with_the_two_commands():
    assert len(BASH) == 3 and "python examples/xor.py" in BASH[2]
    assert all(block.count("\n") == 1 and "-c constraints.txt" in block for block in BASH)
    assert README.index(BASH[0]) < README.index(BASH[1]) < README.index("```python")
    assert "examples/overview.py" in BASH[0]


def test_ci_runs_the_readmes_test_command():
    assert BASH[1] in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_overview(capsys):
    out = run("overview.py", capsys)
    weight, bias = re.findall(r"parameters = Params\(\[\[(.+?);;\], \[(.+?)\]\]\)", out)[-1]
    assert abs(float(weight) - 4) < 0.1 and abs(float(bias) - 2) < 0.5
    assert "y_test =          tensor([[26, 30, 34, 38, 42]])" in out
    assert "True True" in out


def test_gradients_and_layers(capsys):
    out = run("gradients_and_layers.py", capsys)
    for line in [
        "14.0\n6.0\n(tensor([0., 2.]), tensor([-0., -2.]))\n",
        "(a = [0.0, 2.0], b = [-0.0, -2.0], c = nothing)\n",
        "((a = [0.0, 0.5], b = [-0.0, -1.0], c = nothing), tensor([-0.0000, -0.2500]))\n" * 2,
        "(val = 1, grad = ((a = [0.0, 2.0], b = [-0.0, -2.0], c = nothing),))\n",
        "\n26\n",
    ]:
        assert line in out


def test_model_building(capsys):
    out = run("model_building.py", capsys)
    assert out.startswith("14.0\n6.0\n(tensor([0., 2.]), tensor([-0., -2.]))\ntensor([0., 2.])\ntensor([-0., -2.])\n")
    assert out.endswith("26\n2\nTrue\nTrue\nTrue\nTrue\nTrue\n")


def test_recurrence_and_regularisation(capsys):
    out = run("recurrence_and_regularisation.py", capsys)
    assert out.startswith("14.0\n6.0\n(4.0, 1.0, 2.0)\n")
    assert "Grads(...)\n" in out and "\nRecur(RNNCell(10 => 5, tanh))\n" in out


def test_rooms_can_be_imported_by_their_julia_names():
    from fluxtorch.Losses import mse
    from fluxtorch.MLUtils import randn_like
    from fluxtorch.Optimisers import Adam
    from fluxtorch.Zygote import gradient

    assert (mse, randn_like, Adam, gradient) == (
        Flux.mse,
        Flux.MLUtils.randn_like,
        Flux.Adam,
        Flux.gradient,
    )


def test_every_example_is_shown():
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    programs = [p.name for p in (ROOT / "examples").glob("*.py") if "__main__" in p.read_text(encoding="utf-8")]
    assert len(programs) >= 15 and [name for name in programs if f"`{name}`" not in page] == []
    for picture in re.findall(r"\]\((images/[^)]+)\)", page):
        assert (ROOT / "docs" / picture).stat().st_size < 200_000
