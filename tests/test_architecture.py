"""The layers of the package: who may import whom, who knows which library, and how long a function may be."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "dd_sa_tokens"
ROOT = Path(__file__).resolve().parent.parent / PACKAGE

# From the bottom up: a module imports only from layers below its own, or from its own folder. Modules of the same
# layer do not know each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("_version", "models", "_clock"),
    ("errors",),
    ("results", "_validation", "_cancellation"),
    ("config",),
    ("_credentials",),
    ("_endpoint",),
    ("_protocol",),
    ("_ratelimit", "_http"),
    ("_execution",),
    ("_pagination", "_rotation"),
    ("_bulk",),
    ("client",),
    ("testing", "audit", "fleet"),
    ("cli",),
    ("__init__",),
    ("__main__",),
)
LAYER_OF = {name: level for level, names in enumerate(LAYERS) for name in names}

OWNERS = {
    "attrs": set(LAYER_OF),
    "cattrs": {"_protocol"},
    "orjson": {"_protocol"},
    "tenacity": {"_execution"},
    "aiohttp": {"_http", "testing", "client"},
    "multidict": {"_http"},  # aiohttp's own header types
    "yarl": {"_http", "testing"},  # aiohttp's own URL type
    "typer": {"cli", "__main__"},  # __main__ asks only whether the extra is installed
    "rich": {"cli", "__main__"},
    "jinja2": {"cli"},
    "uvloop": {"cli"},
    "pytest": {"testing"},  # the plugin for users' own tests
    "aioresponses": {"testing"},
    "redis": {"fleet"},
}

PURE = ("models", "errors", "results", "_validation", "_protocol", "audit")
PURE_FILES = (
    "_ratelimit/window.py",
    "_ratelimit/window_end.py",
    "_ratelimit/contention.py",
    "_ratelimit/pace.py",
    "_ratelimit/probe.py",
    "_ratelimit/store.py",
    "_ratelimit/leases.py",
    "fleet/circuit.py",
    "_execution/retry.py",
    "_execution/context.py",
)
IMPURE = {"asyncio", "time", "socket", "os", "random", "subprocess", "threading", "aiohttp", "logging"}

LONGEST_FUNCTION = 50

MODULES = sorted(ROOT.rglob("*.py"))


def dotted(path: Path) -> str:
    """Name a file as a module: `dd_sa_tokens.cli.tables`; a package by its own name."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    """Name the part of the package that a module belongs to: its own name, or its folder's."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def files_of(part: str) -> list[Path]:
    """Return the files of a part: one module, or all of a folder."""
    return [path for path in MODULES if part_of(dotted(path)) == part]


def existing(module: str) -> str:
    """Cut a dotted name down to the module that it names: the rest is something inside."""
    while module != PACKAGE:
        path = ROOT.parent / Path(*module.split("."))
        if path.is_dir() or path.with_suffix(".py").exists():
            return module
        module = module.rpartition(".")[0]
    return module


def imported(tree: ast.AST, module: str, *, is_package: bool) -> Iterator[str]:
    """Name all that a module imports, in full; at its top, in functions, for type checkers, and by name."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=origin, names=names, level=level):
                base = package.rsplit(".", level - 1)[0] if level else ""
                prefix = ".".join(filter(None, (base, origin)))
                yield from (f"{prefix}.{alias.name}" for alias in names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield package + name if name.startswith(".") else name
            case _:
                pass


def imports(path: Path) -> set[str]:
    """Name all that a file imports: modules of this package by module, others in full."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = imported(tree, dotted(path), is_package=path.name == "__init__.py")
    return {existing(name) if name.split(".")[0] == PACKAGE else name for name in found}


def own_imports(path: Path) -> set[str]:
    """Name the modules of this package that a file imports."""
    return {name for name in imports(path) if name.split(".")[0] == PACKAGE}


def third_party(path: Path) -> set[str]:
    """Name the third-party libraries that a file imports."""
    return {name.split(".")[0] for name in imports(path)} - {PACKAGE} - sys.stdlib_module_names


def test_each_part_has_a_layer() -> None:
    """A module or folder that is not in the list of layers has no place in the order of imports, so it fails here."""
    assert {part_of(dotted(path)) for path in MODULES} == set(LAYER_OF)


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_go_down_only(path: Path) -> None:
    """A module imports only from lower layers or from its own folder; lazy imports and those for type checkers too."""
    part = part_of(dotted(path))
    allowed = {name for name, level in LAYER_OF.items() if level < LAYER_OF[part]}
    if (ROOT / part).is_dir():
        allowed.add(part)

    assert {part_of(name) for name in own_imports(path)} <= allowed


def test_there_are_no_cycles() -> None:
    """No module imports itself by way of others, inside a folder neither."""
    graph = {dotted(path): own_imports(path) - {dotted(path)} for path in MODULES}

    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"modules import each other: {' <- '.join(error.args[1])}")
    assert set(order) == set(graph)


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_each_library_has_one_owner(path: Path) -> None:
    """A third-party library is known to the one part that wraps it, and no other library is used."""
    part = part_of(dotted(path))

    assert {name for name in third_party(path) if part not in OWNERS.get(name, set())} == set()


def test_private_names_of_aiohttp_are_in_one_file() -> None:
    """Only `_http/private.py` reads private attributes of aiohttp's objects."""
    for path in files_of("_http"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        foreign = {
            ast.unparse(node)
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and node.attr.startswith("_")
            and not node.attr.startswith("__")
            and ast.unparse(node.value) != "self"
        }
        assert not foreign or path.name == "private.py", (path.name, foreign)


def test_the_client_names_only_the_session_type() -> None:
    """The client knows of aiohttp nothing but the type of the session that it may borrow."""
    tree = ast.parse((ROOT / "client.py").read_text(encoding="utf-8"))
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    uses = [parents[node] for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "aiohttp"]

    assert {name for name in imports(ROOT / "client.py") if name.startswith("aiohttp")} == {"aiohttp"}
    assert {ast.unparse(use) for use in uses} == {"aiohttp.ClientSession"}


def test_the_fake_knows_only_the_server_half_of_aiohttp() -> None:
    """`FakeDatadog` is a server: it shares no client code with what it tests."""
    named = {name for path in files_of("testing") for name in imports(path)}

    assert {name for name in named if name.startswith("aiohttp")} == {"aiohttp.web"}


def test_a_store_knows_only_its_protocol() -> None:
    """The store in Redis is written against the protocol that any other store would be written against."""
    named = {name for path in files_of("fleet") for name in own_imports(path) if part_of(name) != "fleet"}

    assert named == {f"{PACKAGE}.{name}" for name in ("_ratelimit.store", "errors", "models")}


@pytest.mark.parametrize("part", PURE)
def test_pure_parts_touch_nothing_outside(part: str) -> None:
    """Pure parts know no loop, clock, socket, environment or chance, so they are tested with plain values."""
    assert {name.split(".")[0] for path in files_of(part) for name in imports(path)} & IMPURE == set()


@pytest.mark.parametrize("file", PURE_FILES)
def test_pure_files_touch_nothing_outside(file: str) -> None:
    """The model of the rate limit and the retry decision are pure, though their folders have a shell that is not."""
    assert {name.split(".")[0] for name in imports(ROOT / file)} & IMPURE == set()


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name each function of a file and count its lines, decorators aside."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield f"{path.name}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_a_function_fits_on_a_screen(path: Path) -> None:
    """No function is longer than 50 lines, its docstring included."""
    assert {name: lines for name, lines in functions(path) if lines > LONGEST_FUNCTION} == {}


def test_the_checks_see_hidden_imports() -> None:
    """Lazy imports, imports for type checkers, relative ones and those by name all count."""
    source = """
import dd_sa_tokens.errors
from . import client, RetryPolicy
from .. import _pagination
if TYPE_CHECKING:
    from ..models import Secret
def later():
    from rich.table import Table
    importlib.import_module("dd_sa_tokens.audit")
    __import__("orjson")
"""

    assert set(imported(ast.parse(source), "dd_sa_tokens.cli.commands", is_package=False)) == {
        "dd_sa_tokens.errors",
        "dd_sa_tokens.cli.client",
        "dd_sa_tokens.cli.RetryPolicy",
        "dd_sa_tokens._pagination",
        "dd_sa_tokens.models.Secret",
        "rich.table.Table",
        "dd_sa_tokens.audit",
        "orjson",
    }
    assert existing("dd_sa_tokens.models.Secret") == "dd_sa_tokens.models"
    assert existing("dd_sa_tokens.RetryPolicy") == "dd_sa_tokens"
