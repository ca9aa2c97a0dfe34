"""The rules of the house, checked by reading the source; the last tests import it in a fresh process."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path("t5x_like")
FILES = sorted(PACKAGE.rglob("*.py"))
TASK_FILES = sorted(pathlib.Path("data_tasks").rglob("*.py"))
MAX_LINES = 500
MAX_FUNCTION_LINES = 60
FORBIDDEN_NAMES = {"utils", "util", "common", "base", "helpers", "misc", "core", "lib"}
FORBIDDEN_LIBRARIES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "torch"}

# A part may import from itself and from the parts before it, never from those after it.
ORDER = [
    "features",
    "device_parts",
    "losses",
    "blockwise_cross_entropy",
    "vocabularies",
    "data",
    "models",
    "objectives",
    "partitioning",
    "optimizers",
    "metrics",
    "train",
    "planning",
    "decoding",
    "evaluation",
    "reporting",
    "tasks",
    "corpus",
    "configurables",
    "config_types",
    "config_graph",
    "configs",
    "commands",
    "launch",
    "__main__",
]
# Parts that may import less than what stands before them.
ONLY_FROM = {
    "models": {"features", "device_parts", "losses", "models"},
    "tasks": {"features", "vocabularies", "data", "objectives", "tasks"},
}
# Library -> the only places that may import it: a folder with a slash at its end, or a file.
HOMES = {
    "gin": ["configs.py"],
    "beartype": ["config_types.py"],
    "orbax": ["train/checkpoints.py"],
    "seqio": ["tasks/"],
    "tensorflow": ["tasks/"],
    "tensorflow_datasets": ["tasks/"],
    "pyarrow": ["tasks/", "corpus/"],
    "ray": ["corpus/ray_engine.py"],
    "zstandard": ["tasks/", "corpus/curate.py"],
    "ftfy": ["corpus/cleaning.py"],
    "py3langid": ["corpus/cleaning.py"],
    "fasttext": ["corpus/fasttext_model.py"],
    "kenlm": ["corpus/kenlm_file.py"],
    "fastwarc": ["corpus/warc.py"],
    "resiliparse": ["corpus/warc.py"],
    "defusedxml": ["corpus/markup.py"],
    "mwparserfromhell": ["corpus/wiki.py"],
    "qwix": ["models/eight_bit.py"],
    "scipy": ["corpus/linear_model.py"],
    "rjieba": ["vocabularies/train.py", "tasks/segment_text.py"],
    "xxhash": [
        "corpus/exact_duplicates.py",
        "corpus/minhash.py",
        "corpus/repeated_lines.py",
        "corpus/url_lists.py",
    ],
    "grain": ["data/"],
    "array_record": ["data/"],
    "safetensors": ["models/hugging_face/tensors.py"],
    "sentencepiece": ["vocabularies/", "tasks/vocabularies.py", "corpus/perplexity.py"],
    "tokenizers": ["vocabularies/", "tasks/vocabularies.py"],
    "matplotlib": ["reporting/plots.py"],
    "tensorboardX": ["metrics/writers.py"],
    "rich": ["commands/", "metrics/", "tasks/", "train/", "partitioning/placement.py", "reporting/"],
}
# The one line by which an objective is a SeqIO preprocessor too: it runs only where SeqIO already does.
BRIDGE = "t5x_like.tasks.bridge.as_preprocessor"


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def nodes_run_by_import(tree):
    """Everything but the bodies of functions."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from nodes_run_by_import(node)


def part(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def is_at_home(path, homes):
    inside = path.relative_to(PACKAGE).as_posix()
    return any(inside.startswith(home) if home.endswith("/") else inside == home for home in homes)


@pytest.mark.parametrize("path", FILES + TASK_FILES, ids=str)
def test_a_file_answers_one_question(path):
    source = path.read_text()
    tree = ast.parse(source)
    assert source.count("\n") <= MAX_LINES, f"{path} is over {MAX_LINES} lines: split it by method"
    assert not FORBIDDEN_NAMES & {*path.with_suffix("").parts}, f"{path}: name the thing the code does"
    if path.name != "__init__.py":
        assert ast.get_docstring(tree), f"{path} has no module docstring"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= MAX_FUNCTION_LINES, f"{path}:{node.lineno} {node.name} has {lines} lines"


@pytest.mark.parametrize("path", FILES + TASK_FILES, ids=str)
def test_no_file_runs_what_it_reads(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"eval", "exec"}, f"{path}:{node.lineno} calls {node.func.id}"
        if isinstance(node, ast.keyword):
            assert node.arg != "allow_pickle", f"{path}:{node.lineno}: say nothing; NumPy's default is False"
    for name in imports(tree):
        assert name.split(".")[0] not in FORBIDDEN_LIBRARIES, f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_go_one_way(path):
    assert part(path) in [*ORDER, "__init__"], f"{path}: say in ORDER where {part(path)} stands"
    for name in imports(ast.parse(path.read_text())):
        package, *rest = name.split(".")
        assert package not in {"tests", "data_tasks"} or part(path) in {"commands", "launch"}, (
            f"{path} imports {package}"
        )
        if package != PACKAGE.name or not rest or rest[0] not in ORDER:
            continue
        if part(path) == "objectives" and name == BRIDGE:
            continue
        assert ORDER.index(rest[0]) <= ORDER.index(part(path)), f"{path} imports {rest[0]}, which is downstream"
        allowed = ONLY_FROM.get(part(path), ORDER)
        assert rest[0] in allowed, f"{path} imports {rest[0]}; {part(path)} may import only {sorted(allowed)}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_dependency_has_one_home(path):
    for name in imports(ast.parse(path.read_text())):
        homes = HOMES.get(name.split(".")[0])
        assert homes is None or is_at_home(path, homes), f"{path} imports {name}, at home in {homes}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "objectives").glob("*.py")), ids=str)
def test_an_objective_reaches_tasks_only_inside_its_preprocessor(path):
    names = [name for node in nodes_run_by_import(ast.parse(path.read_text())) for name in imports_of(node)]
    assert not [name for name in names if name.startswith("t5x_like.tasks")], (
        f"{path}: import the bridge where it is used"
    )


def imports_of(node):
    return imports(ast.Module(body=[node], type_ignores=[])) if isinstance(node, ast.Import | ast.ImportFrom) else []


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("launch.py")) + sorted(PACKAGE.glob("__main__.py")), ids=str)
def test_the_command_line_imports_jax_only_inside_a_command(path):
    names = [name for node in nodes_run_by_import(ast.parse(path.read_text())) for name in imports_of(node)]
    assert not [
        name for name in names if name.split(".")[0] in {"jax", "flax", "optax", "orbax", "grain", "matplotlib"}
    ]


LOADED = "; import sys; print(sorted({name.split('.')[0] for name in sys.modules}))"
HELP = """
import contextlib, runpy, sys
sys.argv = ["t5x_like", "--help"]
with contextlib.suppress(SystemExit):
    runpy.run_module("t5x_like", run_name="__main__")
pass"""
TRAIN_ENTRIES = [path for path in (PACKAGE / "train/loop.py", PACKAGE / "configurables.py") if path in FILES]


def loaded_by(code):
    """The libraries that a fresh process has loaded after `code`, and what it printed before."""
    done = subprocess.run([sys.executable, "-c", code + LOADED], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    printed, _, last = done.stdout.rstrip("\n").rpartition("\n")
    return set(ast.literal_eval(last)), printed


@pytest.mark.parametrize("path", TRAIN_ENTRIES, ids=str)
def test_training_loads_no_tensorflow(path):
    libraries, _ = loaded_by(f"import {'.'.join(path.with_suffix('').parts)}")
    assert not libraries & {"tensorflow", "seqio", "tensorflow_datasets", "torch"}


@pytest.mark.parametrize("path", [path for path in (PACKAGE / "__main__.py",) if path in FILES], ids=str)
def test_help_loads_neither_jax_nor_tensorflow(path):
    libraries, printed = loaded_by(HELP)
    assert "usage" in printed.lower()
    assert not libraries & {"jax", "jaxlib", "flax", "optax", "orbax", "grain", "tensorflow", "seqio", "matplotlib"}


def test_an_objective_is_known_to_its_table_alone():
    """A newcomer is a file of its own, an import and a row in the table; nothing that is there is edited."""
    rest = {"table", "__init__", "seqio_preprocessor", "terms", "supervised"}
    own = {path.stem for path in (PACKAGE / "objectives").glob("*.py")} - rest
    outside = [path for path in FILES if path.parent.name != "objectives"]
    named = {name for path in outside for name in imports(ast.parse(path.read_text())) if ".objectives." in name}
    assert len(own) > 30 and not own & {name.split(".")[2] for name in named}
