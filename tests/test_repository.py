"""The repository keeps its own rules: names, sizes, import direction, what `import caffe` costs."""

from __future__ import annotations

import ast
import importlib
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parent.parent
SRC = ROOT / "src"
LAYERS = SRC / "pycaffe" / "layers"
LAYER_LINES, FILE_LINES = 200, 450

# Imports point to the left only. What stands in one group may not import one another.
ORDER = [
    {"errors"},
    {"proto", "rng", "devices", "parallel", "threads", "glog", "timer"},
    {"blob"},
    {"filler"},
    {"images"},
    {"data"},
    {"layers"},
    {"graph"},
    {"engines"},
    {"net"},
    {"solvers"},
    {"export"},
    {"cv2dnn"},
    {"detection"},
    {"workers"},
    {"cluster"},
    {"cli"},
    {"__main__"},
    {"__init__"},
]

# Optional libraries, imported inside functions and only in these parts.
OPTIONAL = {
    "cv2": {"images", "cv2dnn"},
    "lmdb": {"data"},
    "matplotlib": {"cli"},
    "plyvel": {"data"},
    "pyarrow": {"cli", "cluster"},
    "ray": {"cluster"},
    "tensorboardX": {"cli"},
    "torch": {"engines", "layers", "solvers", "export"},
}
NEVER_AT_IMPORT = [
    "cv2",
    "h5py",
    "lmdb",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "pyarrow",
    "ray",
    "scipy",
    "skimage",
    "torch",
]

SOURCES = sorted(SRC.rglob("*.py"))
LAYER_FILES = sorted(path for path in LAYERS.glob("*.py") if not path.name.startswith("_"))


def name_of(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


def syntax(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def part_of(module: str) -> str:
    """`pycaffe.layers.pooling` -> `layers`."""
    return [*module.split("."), "__init__"][1]


def imports(path: pathlib.Path) -> Iterator[tuple[str, int, bool]]:
    """Every absolute module name that a file imports, with its line and whether it is imported at module level."""
    tree = syntax(path)
    inside = {id(child) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for child in ast.walk(node)}
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(path.relative_to(SRC).parent.parts[: -node.level + 1 or None]) if node.level else ""
            module = ".".join(part for part in (package, node.module) if part)
            names = [f"{module}.{alias.name}" if module in ("pycaffe", "caffe") else module for alias in node.names]
        for name in names:
            yield name, getattr(node, "lineno", 0), id(node) not in inside


@pytest.mark.parametrize("path", LAYER_FILES, ids=lambda path: path.stem)
def test_a_layer_file_is_named_after_its_type(path: pathlib.Path) -> None:
    decorators = [
        call for node in ast.walk(syntax(path)) if isinstance(node, ast.ClassDef) for call in node.decorator_list
    ]
    types = [
        name.value
        for call in decorators
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "register_layer"
        for name in call.args
        if isinstance(name, ast.Constant)
    ]
    assert {str(name).lower() for name in types} == {path.stem.replace("_", "")}, "one name, however it is spelled"
    assert len(set(types)) == len(types)


@pytest.mark.parametrize("path", LAYER_FILES, ids=lambda path: path.stem)
def test_a_layer_file_has_a_test_file(path: pathlib.Path) -> None:
    assert (ROOT / "tests" / "layers" / f"test_{path.name}").is_file()


def test_a_test_file_of_layers_has_a_layer_file() -> None:
    modules = {path.stem.lstrip("_") for path in LAYERS.glob("*.py")}
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests" / "layers").glob("test_*.py")}
    assert tests - modules == {"golden"}, "test_golden.py: the cases that are about no single layer"


def test_files_keep_to_a_size_that_is_read_in_one_sitting() -> None:
    files = [*SOURCES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    limits = {path: LAYER_LINES if path in LAYER_FILES else FILE_LINES for path in files}
    assert {name_of(path): lines[path] for path in files if lines[path] > limits[path]} == {}


def test_no_file_has_a_name_that_says_nothing() -> None:
    stems = {path.stem.strip("_"): name_of(path) for path in [*SOURCES, *(ROOT / "tests").rglob("*.py")]}
    assert [stems[stem] for stem in ("utils", "util", "helpers", "misc", "common", "manager") if stem in stems] == []


def public_definitions(tree: ast.Module) -> set[str]:
    definitions = [node for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    return {node.name for node in definitions if not node.name.startswith("_")}


def declared(tree: ast.Module) -> list[str] | None:
    """The literal `__all__` of a module; None where there is none."""
    for node in tree.body:
        named = isinstance(node, ast.Assign) and [t.id for t in node.targets if isinstance(t, ast.Name)] == ["__all__"]
        if named and isinstance(node, ast.Assign) and isinstance(node.value, ast.List):
            return [str(element.value) for element in node.value.elts if isinstance(element, ast.Constant)]
    return None


@pytest.mark.parametrize("path", [path for path in SOURCES if declared(syntax(path)) is not None], ids=name_of)
def test_all_is_sorted_and_complete(path: pathlib.Path) -> None:
    tree = syntax(path)
    names = declared(tree) or []
    assert names == sorted(set(names))
    assert public_definitions(tree) - set(names) == set(), "public by its name, but not in __all__"
    module = importlib.import_module(".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__"))
    assert [name for name in names if not hasattr(module, name)] == []


@pytest.mark.parametrize("package", ["caffe", "pycaffe"])
def test_the_packages_say_what_is_public(package: str) -> None:
    assert declared(syntax(SRC / package / "__init__.py"))


def test_imports_point_one_way() -> None:
    rank = {part: index for index, group in enumerate(ORDER) for part in group}
    against = []
    for path in SOURCES:
        module = ".".join(path.relative_to(SRC).with_suffix("").parts)
        if module.startswith("caffe."):
            continue  # on top of all
        part = part_of(module)
        assert part in rank, f"{name_of(path)}: say in ORDER where {part!r} stands"
        for name, line, _ in imports(path):
            other = part_of(name)
            if (name.split(".")[0] == "caffe" and part != "cli") or (  # the command stands beside the module
                name.split(".")[0] == "pycaffe" and other != part and rank.get(other, len(ORDER)) >= rank[part]
            ):
                against.append(f"{name_of(path)}:{line} imports {name}")
    assert against == []


def test_optional_libraries_are_imported_where_the_design_says() -> None:
    wrong = []
    for path in SOURCES:
        module = ".".join(path.relative_to(SRC).with_suffix("").parts)
        for name, line, at_module_level in imports(path):
            library = name.split(".")[0]
            elsewhere = library in OPTIONAL and part_of(module) not in OPTIONAL[library]
            if elsewhere or (at_module_level and library in NEVER_AT_IMPORT):
                wrong.append(f"{name_of(path)}:{line} imports {name}")
    assert wrong == []
