"""The house's rules, read from the syntax trees: who imports whom, and what never occurs."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("twin", "substrates", "pib", "validation")
MAY_IMPORT = {
    "twin": {"twin"},
    "substrates": {"substrates", "twin"},
    "pib": {"pib", "twin"},
    "validation": set(PACKAGES),
}
TWIN_THIRD_PARTY = {"numpy", "torch", "pydantic", "safetensors", "xarray", "scipy", "cheroot"}
NEVER_IMPORTED = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
LIGHTPIPES_ONLY_IN = {"substrates"}


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


ALL = [path for package in PACKAGES for path in files(package)]
NAMES = [str(path.relative_to(ROOT)) for path in ALL]


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Every absolute module that a file imports, anywhere in it, with the line."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write imports from the root"
            yield node.module or "", node.lineno


def dotted(node: ast.expr) -> str:
    """'torch.load' for such an expression, '' for anything else."""
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_in_one_direction_only(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in files(package)
        for module, line in imported(path)
        if module.split(".")[0] in {*PACKAGES, "tests"} - MAY_IMPORT[package]
    ]
    assert wrong == []


def test_twin_needs_little_from_others() -> None:
    allowed = TWIN_THIRD_PARTY | set(sys.stdlib_module_names) | {"twin"}
    wrong = {
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in files("twin")
        for module, line in imported(path)
        if module.split(".")[0] not in allowed
    }
    assert wrong == set()


def test_lightpipes_lives_in_the_substrates_only() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for package in PACKAGES
        if package not in LIGHTPIPES_ONLY_IN
        for path in files(package)
        for module, line in imported(path)
        if module.split(".")[0] == "LightPipes"
    ]
    assert wrong == []


@pytest.mark.parametrize("path", ALL, ids=NAMES)
def test_nothing_is_imported_that_runs_what_it_reads(path: Path) -> None:
    assert not {module.split(".")[0] for module, _ in imported(path)} & NEVER_IMPORTED


FORBIDDEN_CALLS = {
    "eval": "runs text",
    "exec": "runs text",
    "torch.load": "unpickles",
    "torch.save": "pickles",
    "yaml.load": "makes objects",
    "torch.manual_seed": "seeds the process",
    "torch.seed": "seeds the process",
    "torch.cuda.manual_seed": "seeds the process",
    "torch.cuda.manual_seed_all": "seeds the process",
    "random.seed": "seeds the process",
    "np.random.seed": "seeds the process",
    "numpy.random.seed": "seeds the process",
}
# With generator=, these draw from a key's stream; without, from the process.
DRAWS = {"rand", "randn", "randint", "randperm", "normal", "poisson", "bernoulli", "multinomial"}
DRAWS_LIKE = {"rand_like", "randn_like", "randint_like"}
DRAWING_METHODS = {
    "normal_",
    "uniform_",
    "random_",
    "bernoulli_",
    "exponential_",
    "log_normal_",
    "cauchy_",
    "geometric_",
}
NUMPY_STREAMS = {"default_rng", "Generator", "SeedSequence", "PCG64", "get_state"}


def complaints(call: ast.Call) -> Iterator[str]:
    name = dotted(call.func)
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    last = name.rsplit(".", 1)[-1]
    attribute = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    if name in FORBIDDEN_CALLS:
        yield f"{name} {FORBIDDEN_CALLS[name]}"
    pickles = keywords.get("allow_pickle")
    if pickles and not (isinstance(pickles, ast.Constant) and pickles.value is False):
        yield "allow_pickle unpickles"
    drawn = name.startswith("torch.") and last in DRAWS
    if (drawn or attribute in DRAWING_METHODS) and "generator" not in keywords:
        yield f"{name or attribute} without generator="
    if name.startswith("torch.") and last in DRAWS_LIKE:
        yield f"{name} takes no generator"
    if name.startswith(("np.random.", "numpy.random.")) and last not in NUMPY_STREAMS:
        yield f"{name} draws from the process"
    if name.endswith("default_rng") and not (call.args or call.keywords):
        yield "default_rng() without a seed"
    if name.startswith("random.") and last not in ("Random", "getstate"):
        yield f"{name} draws from the process"


@pytest.mark.parametrize("path", ALL, ids=NAMES)
def test_no_module_unpickles_evaluates_or_draws_from_the_process(path: Path) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {complaint}"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        for complaint in complaints(node)
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "eval('1')",
        "torch.load(f)",
        "np.load(f, allow_pickle=True)",
        "np.load(f, allow_pickle=trust)",
        "yaml.load(f)",
        "torch.manual_seed(0)",
        "np.random.seed(0)",
        "np.random.normal()",
        "numpy.random.rand(3)",
        "np.random.default_rng()",
        "torch.rand(3)",
        "torch.poisson(x)",
        "torch.randn_like(x)",
        "x.normal_()",
        "self.g[0].uniform_(0, 1)",
        "random.random()",
    ],
)
def test_the_rule_itself_finds_what_it_forbids(line: str) -> None:
    (call,) = [node for node in ast.walk(ast.parse(line)) if isinstance(node, ast.Call)]
    assert list(complaints(call))


def modules() -> list[str]:
    names = [".".join(Path(name).with_suffix("").parts) for name in NAMES]
    return [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]


# One process imports all: a change by any of them shows, and is named.
STATE = """
import importlib, os, random, sys, warnings
import numpy as np, torch
import rich.style  # itself draws from Python's generator when imported; not ours to mend

def state():
    return {
        "grad mode": torch.is_grad_enabled(),
        "default dtype": torch.get_default_dtype(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "torch generator": torch.get_rng_state().tolist(),
        "numpy generator": repr(np.random.get_state()),
        "python generator": random.getstate(),
        "threads": torch.get_num_threads(),
        "numpy errors": np.geterr(),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
    }

before = state()
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        # A package of an extra may be absent; one of ours may not.
        if (error.name or "").split(".")[0] in ("twin", "substrates", "pib", "validation"):
            raise
    after = state()
    changed = [what for what in before if before[what] != after[what]]
    if changed:
        sys.exit(f"importing {name} changed: {', '.join(changed)}")
"""


def test_importing_any_module_changes_nothing_of_the_process() -> None:
    # Without what other tests' imports have set here, which would hide that it is set.
    fresh = {name: value for name, value in os.environ.items() if not name.startswith("KMP_")}
    done = subprocess.run(
        [sys.executable, "-c", STATE, *modules()],
        cwd=ROOT,
        env=fresh,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_command_line_starts_without_torch() -> None:
    if importlib.util.find_spec("validation.cli") is None:
        pytest.skip("there is no command line yet")
    code = "import sys, validation.cli; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, "importing validation.cli imports torch"
