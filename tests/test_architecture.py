"""The plan of the house: who may import whom, who knows which library, and how long a function may be."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "dd_sa_tokens"
HOUSE = Path(__file__).resolve().parent.parent / PACKAGE

# From the top down: each room imports only from rooms above it.
ROOMS = (
    "_version",
    "models",
    "errors",
    "results",
    "config",
    "_arguments",
    "_codec",
    "_wire",
    "_boundary",
    "_contention",
    "_ledger",
    "_gate",
    "_retry",
    "_transport",
    "_pipeline",
    "_listing",
    "_inquiry",
    "_crew",
    "_bulk",
    "_rotate",
    "client",
    "testing",
    "audit",
    "cli",
    "__init__",
    "__main__",
)

OWNERS = {
    "attrs": set(ROOMS),
    "cattrs": {"_codec"},
    "orjson": {"_codec"},
    "tenacity": {"_retry"},
    "aiohttp": {"_transport", "testing", "client"},
    "yarl": {"_transport", "testing"},  # aiohttp's own URL type
    "typer": {"cli", "__main__"},  # which asks only whether the extra is there
    "rich": {"cli", "__main__"},
    "jinja2": {"cli"},
    "uvloop": {"cli"},
}

PURE = ("models", "errors", "results", "_arguments", "_codec", "_wire", "_boundary", "_contention", "_ledger", "audit")
WORLDLY = {"asyncio", "time", "socket", "os", "random", "subprocess", "threading", "aiohttp", "logging"}

LONGEST_FUNCTION = 50

MODULES = sorted(HOUSE.rglob("*.py"))


def dotted(path: Path) -> str:
    """Name a file as a module: `dd_sa_tokens.cli.tables`; a package by its own name."""
    parts = path.relative_to(HOUSE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """Name the room that a module stands in."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def files_of(room: str) -> list[Path]:
    """Name the files of a room: a module's one, or all of a package."""
    return [path for path in MODULES if room_of(dotted(path)) == room]


def existing(module: str) -> str:
    """Cut a dotted name down to the module that it names: the rest is something inside."""
    while module != PACKAGE:
        path = HOUSE.parent / Path(*module.split("."))
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
    """Name all that a file imports: modules of the house by module, others in full."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = imported(tree, dotted(path), is_package=path.name == "__init__.py")
    return {existing(name) if name.split(".")[0] == PACKAGE else name for name in found}


def neighbours(path: Path) -> set[str]:
    """Name the modules of the house that a file imports."""
    return {name for name in imports(path) if name.split(".")[0] == PACKAGE}


def strangers(path: Path) -> set[str]:
    """Name the libraries from outside that a file imports."""
    return {name.split(".")[0] for name in imports(path)} - {PACKAGE} - sys.stdlib_module_names


def test_every_room_is_on_the_plan() -> None:
    """A module that is not in the list of rooms has no place in the order of imports yet, so it fails here."""
    assert {room_of(dotted(path)) for path in MODULES} <= set(ROOMS)


def test_every_room_on_the_plan_is_built() -> None:
    """A room in the list exists."""
    assert set(ROOMS) <= {room_of(dotted(path)) for path in MODULES}


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_a_room_imports_only_from_rooms_above_it(path: Path) -> None:
    """Imports go up the list only, or stay in the room; lazy ones and those for type checkers included."""
    room = room_of(dotted(path))
    above = {*ROOMS[: ROOMS.index(room)], *([room] if (HOUSE / room).is_dir() else [])}

    assert {room_of(name) for name in neighbours(path)} <= above


def test_there_are_no_cycles() -> None:
    """No module imports itself by way of others, inside a room of several neither."""
    graph = {dotted(path): neighbours(path) - {dotted(path)} for path in MODULES}

    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"modules import each other: {' <- '.join(error.args[1])}")
    assert set(order) == set(graph)


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_each_library_has_one_owner(path: Path) -> None:
    """A library from outside is known to the one room that wraps it, and no other library is used."""
    room = room_of(dotted(path))

    assert {name for name in strangers(path) if room not in OWNERS.get(name, set())} == set()


def test_the_client_names_only_the_session_type() -> None:
    """The door knows of aiohttp nothing but the type of the session that it may be lent."""
    tree = ast.parse((HOUSE / "client.py").read_text(encoding="utf-8"))
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    uses = [parents[node] for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "aiohttp"]

    assert {name for name in imports(HOUSE / "client.py") if name.startswith("aiohttp")} == {"aiohttp"}
    assert {ast.unparse(use) for use in uses} == {"aiohttp.ClientSession"}


def test_the_fake_knows_only_the_server_half_of_aiohttp() -> None:
    """`FakeDatadog` is a server: it shares no client code with what it tests."""
    named = {name for path in files_of("testing") for name in imports(path)}

    assert {name for name in named if name.startswith("aiohttp")} == {"aiohttp.web"}


@pytest.mark.parametrize("room", PURE)
def test_pure_rooms_touch_nothing_outside(room: str) -> None:
    """Pure rooms know no loop, clock, socket, environment or chance, so they are tested with plain values."""
    assert {name.split(".")[0] for path in files_of(room) for name in imports(path)} & WORLDLY == set()


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
from .. import _wire
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
        "dd_sa_tokens._wire",
        "dd_sa_tokens.models.Secret",
        "rich.table.Table",
        "dd_sa_tokens.audit",
        "orjson",
    }
    assert existing("dd_sa_tokens.models.Secret") == "dd_sa_tokens.models"
    assert existing("dd_sa_tokens.RetryPolicy") == "dd_sa_tokens"
