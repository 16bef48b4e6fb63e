"""The house rules that a reader of the code relies on, read from its imports and its lines."""

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from places import ROOT
from source_code import PACKAGES, PRODUCT, TESTS, imports, roots, tree_of

MOST_LINES = 300
HEAVY = {"av", "boto3", "botocore", "kaldi_native_fbank", "librosa", "ray", "safetensors", "scipy", "sklearn"}
HEAVY |= {
    "matplotlib",
    "soundfile",
    "soxr",
    "tensorboardX",
    "threadpoolctl",
    "torch",
    "transformers",
    "huggingface_hub",
    "httpx",
}
RAY_ON_TOP = {"pipeline/execution/ray_executor.py", "pipeline/training/train.py"}  # imported when a verb runs
NETS = {f"model/{name}.py" for name in ("hubert", "net", "whisper")} | {
    f"model/token_lm/{name}.py" for name in ("generate", "loss", "mixing", "running_max", "samout", "upstream")
}  # torch on top
RAY_INSIDE = {
    "cluster/connect.py",
    "cluster/private_ray.py",
    "cluster/ray_address.py",
    "pipeline/execution/claims.py",
    "pipeline/execution/nodes.py",
    "pipeline/exports/samples.py",
    "pipeline/execution/resources.py",
    "pipeline/execution/worker_errors.py",
}
COMES_WITH = {
    "botocore": "boto3",
    "urllib3": "boto3",
    "jsonschema": "ray",
    "grpc": "ray",
    "huggingface_hub": "transformers",
    "httpx": "transformers",
}  # imported, and pinned by what is declared
NEVER_IMPORTED = {
    "ruff",
    "mypy",
    "import-linter",
    "pre-commit",
    "pytest-xdist",
    "setuptools",
    "swift",
}  # tools, and a server of its own

every_file = pytest.mark.parametrize("path", PRODUCT, ids=str)


def normal(requirement: str) -> str:
    """The name of what is required, as registries compare it."""
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


def required(*groups: str) -> list[str]:
    """What pyproject.toml asks for; the group "" is what everybody needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {"": project["dependencies"], **project["optional-dependencies"]}
    return [one for group in groups for one in wanted[group]]


def declared(*groups: str) -> set[str]:
    return {*map(normal, required(*groups))}


def distributions(paths: list[Path]) -> set[str]:
    """The distributions that files import from."""
    stems = {path.stem for path in TESTS} - {*packages_distributions()}  # a hostile soundfile.py stands for soundfile
    own = {*PACKAGES, "wavmill", *stems}
    names = {name for path in paths for name in roots(imports(path))} - own - sys.stdlib_module_names
    provided = packages_distributions()
    found = {COMES_WITH.get(name) or provided.get(name, [name])[0] for name in names}
    return {*map(normal, found)}


def test_there_is_a_product_to_look_at():
    assert len(PRODUCT) > 20


def module_of(path: Path) -> str:
    return ".".join(("wavmill", *path.with_suffix("").parts)).removesuffix(".__init__")


def test_no_modules_import_each_other_in_a_circle():
    """Not even from inside a function. Which folder may import which is import-linter's, in pyproject.toml."""
    modules = {module_of(path): path for path in PRODUCT}
    graph = {}
    for module, path in modules.items():
        nodes = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.ImportFrom)]
        names = {f"{node.module}.{name.name}" for node in nodes for name in node.names}
        graph[module] = {name if name in modules else name.rpartition(".")[0] for name in names} & {*modules} - {module}
    assert len(graph) > 200
    TopologicalSorter(graph).prepare()


def test_the_clock_imports_nothing():
    assert imports(Path("model/clock.py")) == set()


@every_file
def test_ray_is_imported_only_where_it_is_allowed(path):
    where = {False: RAY_ON_TOP, True: RAY_ON_TOP | RAY_INSIDE}
    assert all("ray" not in roots(imports(path, inside)) or str(path) in allowed for inside, allowed in where.items())


@pytest.mark.parametrize("path", sorted(RAY_ON_TOP | RAY_INSIDE))
def test_the_list_of_files_with_ray_is_up_to_date(path):
    assert "ray" in roots(imports(Path(path)))


@every_file
def test_heavy_libraries_are_imported_where_they_are_used(path):
    allowed = {"ray"} if str(path) in RAY_ON_TOP else {"torch"} if str(path) in NETS else set()
    assert roots(imports(path, inside=False)) & HEAVY <= allowed


@every_file
def test_what_loads_ray_on_top_is_imported_inside_a_function(path):
    modules = {name.removesuffix(".py").replace("/", ".") for name in RAY_ON_TOP}
    assert str(path) in RAY_ON_TOP or not imports(path, inside=False) & modules


def test_the_verbs_answer_without_ray_torch_or_librosa():
    """What a job file is checked by loads none of them, however it imports what."""
    asked = (
        "import sys, wavmill.cluster.cli, wavmill.cluster.load;"
        "sys.exit(str([*{'ray', 'torch', 'librosa'} & {*sys.modules}]))"
    )
    ended = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True)
    assert ended.stderr.strip() == "[]"


@every_file
def test_the_first_line_says_what_a_file_is_for(path):
    first = (ROOT / path).read_text().partition("\n")[0]
    assert re.match(r'"""\S.*[.:"]', first)


@every_file
def test_no_file_is_longer_than_a_few_screens(path):
    assert len((ROOT / path).read_text().splitlines()) <= MOST_LINES


def test_the_product_is_small():
    assert sum(len((ROOT / path).read_text().splitlines()) for path in PRODUCT) < 25_000


TYPED = (
    "contracts",
    "dataset_json",
    "model_json",
    "trained_model",
    "generate",
    "run",
    "fit",
    "recheck",
    "exports/clips",
)


@pytest.mark.parametrize(
    "path",
    [
        *(
            path
            for path in PRODUCT
            if path.parts[:2] in {("pipeline", name) for name in ("job", "protocol", "execution", "training")}
        ),
        *(Path(f"pipeline/{name}.py") for name in TYPED),
        Path("wavmill/__init__.py"),
    ],
    ids=str,
)
def test_public_signatures_name_their_types(path):
    """No Any in what other files see: parameters, results, and the fields of classes."""
    assert [
        f"{name}: {ast.unparse(type_)}" for name, type_ in public_types(tree_of(path).body) if names_any(type_)
    ] == []


def public_types(body, of=""):
    """(name, annotation) of everything public that a module, or a class ``of`` it, declares."""
    for node in body:
        match node:
            case ast.FunctionDef(name=name) if name in ("__init__", "__call__") or not name.startswith("_"):
                given = node.args
                arguments = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
                yield from ((f"{of}{name}({one.arg})", one.annotation) for one in arguments if one is not None)
                yield f"{of}{name}()", node.returns
            case ast.ClassDef(name=name) if not name.startswith("_"):
                yield from public_types(node.body, f"{name}.")
            case ast.AnnAssign(target=ast.Name(id=name)) if not name.startswith("_"):
                yield f"{of}{name}", node.annotation


def names_any(annotation) -> bool:
    return any(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(annotation or ast.Pass()))


def test_any_is_found_wherever_a_signature_has_it():
    source = """
def f(a, b: Any, *c: list[Any], d: int = 1, **e: Any) -> dict[str, Any]: ...
def _g(a: Any) -> Any: ...
class A:
    x: Any
    _y: Any
    def m(self, z: Any) -> int: ...
    def __call__(self) -> Any: ...
"""
    found = [name for name, type_ in public_types(ast.parse(source).body) if names_any(type_)]
    assert found == ["f(b)", "f(c)", "f(e)", "f()", "A.x", "A.m(z)", "A.__call__()"]


def test_what_a_class_has_is_declared_and_not_probed_for():
    """getattr with a default and hasattr: of objects of other libraries alone, each with its reason beside it."""
    probes = [
        path
        for path in PRODUCT
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if node.func.id == "hasattr" or (node.func.id == "getattr" and len(node.args) == 3)
    ]
    assert len(probes) <= 5, probes


@every_file
def test_only_the_verbs_print(path):
    calls = (node.func for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call))
    prints = [call for call in calls if isinstance(call, ast.Name) and call.id == "print"]
    assert path.parts[0] == "cluster" or not prints


@every_file
def test_nothing_runs_when_a_file_is_imported(path):
    running = [node for node in tree_of(path).body if isinstance(node, ast.For | ast.While | ast.With | ast.Try)]
    assert not running


def test_every_import_of_the_product_is_declared():
    assert distributions(PRODUCT) - declared("") == set()


def test_every_declared_dependency_is_imported():
    assert declared("") - distributions(PRODUCT) == set()


def test_every_import_of_the_tests_is_declared():
    assert distributions(TESTS) - declared("", "dev") == set()


def test_every_declared_tool_of_the_tests_is_used():
    assert declared("dev") - distributions(TESTS) - NEVER_IMPORTED == set()


def test_every_dependency_is_pinned_for_those_who_want_what_was_tested():
    pinned = {normal(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    assert {normal(one) for one in required("", "dev") if "==" not in one} - pinned == set()


def test_every_template_of_a_page_is_in_the_wheel():
    packed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"][
        "wavmill.pipeline"
    ]
    there = {path for path in (ROOT / "pipeline").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert there and there == {path for glob in packed for path in (ROOT / "pipeline").glob(glob)}
