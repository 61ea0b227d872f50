"""Which code a result came from: a digest of all modules that it can reach.

Comments and docstrings do not count, nor does code that a point cannot reach,
so that polishing a page does not throw away a week of results.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("twin", "substrates", "pib", "validation")
WORK, SYNTHETIC = "validation.studies.work", "validation.studies.synthetic"
WORK_OF_COMPARISONS = "validation.studies.compare.work"
PREFIXES = ("faulty+", "broken+")
GROUP = "pib_twin.backends"
OURS = ("ideal", "memristor", "optics")


def code_version(*backends: str) -> str:
    """The version of what points on these backends run; none: synthetic points.

    Backends of other distributions count with their version number.
    """
    return version_of(*([WORK] if backends else [SYNTHETIC]), backends=backends)


@lru_cache(maxsize=64)
def version_of(*modules: str, backends: Sequence[str] = OURS) -> str:
    """The version of what functions of these modules run, on these backends."""
    seal = hashlib.blake2b(digest_size=16)
    roots, files = list(modules), set[Path]()
    for backend in backends:
        module, version = _entry(backend)
        seal.update(f"{backend} {version}\n".encode())
        if module:
            roots.append(module)
            files |= set(_path_of(module).parent.rglob("*.toml"))
    for name in sorted(_reachable(roots)):
        seal.update(f"{name} {_meaning(_path_of(name))}\n".encode())
    for path in sorted(files):
        seal.update(path.name.encode() + b"\n" + path.read_bytes())
    return seal.hexdigest()


def _entry(backend: str) -> tuple[str, str]:
    """Module of ours that makes the backend, or "" and a foreign version."""
    for prefix in PREFIXES:
        backend = backend.removeprefix(prefix)
    for point in entry_points(group=GROUP):
        if point.name == backend:
            if point.module.split(".")[0] in PACKAGES:
                return point.module, ""
            return "", "" if point.dist is None else point.dist.version
    return "", ""


def _reachable(roots: list[str]) -> set[str]:
    found, waiting = set[str](), [name for name in roots if _path_of(name).is_file()]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(_imported(_path_of(name)))
    return found


def _imported(path: Path) -> Iterator[str]:
    """Our own modules that a file imports, anywhere in it."""
    for node in ast.walk(_tree(path)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.split(".")[0] in PACKAGES and _path_of(name).is_file():
                yield name


def _path_of(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@lru_cache(maxsize=512)
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes())


def _meaning(path: Path) -> str:
    """A digest of a file's syntax tree without docstrings."""
    tree = _tree(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [line for line in node.body if not _is_text(line)]
    return hashlib.blake2b(ast.dump(tree).encode(), digest_size=16).hexdigest()


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
