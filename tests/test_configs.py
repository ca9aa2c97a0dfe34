"""Configs: what they mean, what is refused, what is written, and the battery of every run in configs/runs."""

import contextlib
import importlib.util
import inspect
import pathlib
from collections.abc import Callable
from dataclasses import dataclass

import gin
import optax
import pytest
from flax import nnx

from t5x_like import configs
from t5x_like.config_types import fits, signature


@dataclass(frozen=True)
class Decoder:
    """A stand-in for a model: `rngs` comes from the trainer, the sizes from the config."""

    rngs: object
    d_model: int
    num_layers: int = 2
    dropout_rate: float = 0.0
    activations: tuple[str, ...] = ("silu", "linear")
    norm: Callable = max


def adamw(learning_rate: float | tuple | Callable, b1: float = 0.9, weight_decay: float = 0.0):
    if not 0 <= b1 < 1:
        raise ValueError(f"b1 {b1} is not in [0, 1)")
    return "adamw", learning_rate, b1, weight_decay


def adafactor(learning_rate: float | tuple | Callable, decay_rate: float = 0.8):
    return "adafactor", learning_rate, decay_rate


def warmup(peak: float, steps: int = 10):
    return "warmup", peak, steps


def train(*, folder: str, model: Callable, optimizer: tuple, steps: int, seed: int = 0, note: str | None = None):
    return folder, model("key"), optimizer, steps, seed, note


TABLE = {f.__name__: f for f in (Decoder, adamw, adafactor, warmup, train)}

FILES = {
    "models/tiny.gin": """
        WIDTH = 32
        Decoder.d_model = %WIDTH
        Decoder.dropout_rate = 0  # an int is a fine float
        """,
    "run.gin": """
        include 'models/tiny.gin'
        train.model = @Decoder
        train.optimizer = @adamw()
        adamw:
          learning_rate = @warmup()
          weight_decay = 0.1
        warmup.peak = 1e-3
        train.steps = 4
        """,
}


@pytest.fixture
def resolve(tmp_path):
    """Resolves `run.gin` (or the text given) with overrides; files are in a search path, as on the command line."""

    def write(name, text):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(inspect.cleandoc(text) + "\n")

    for name, text in FILES.items():
        write(name, text)

    def run(*overrides, text=None, supplied=("folder",), **keywords):
        if text is not None:
            write("other.gin", text)
        file = "run.gin" if text is None else "other.gin"
        paths = [str(tmp_path)]
        return configs.resolve(
            TABLE, [file], overrides, root="train", search_paths=paths, supplied=supplied, **keywords
        )

    run.folder = tmp_path
    return run


@pytest.fixture
def refused(resolve):
    def run(*overrides, **keywords):
        with pytest.raises(ValueError) as caught:
            resolve(*overrides, **keywords)
        return str(caught.value)

    return run


def test_a_config_builds_what_it_says(resolve):
    value = resolve().call(folder="f")
    assert value == ("f", Decoder("key", 32), ("adamw", ("warmup", 1e-3, 10), 0.9, 0.1), 4, 0, None)


def test_the_resolved_text_has_every_value_and_its_origin(resolve):
    resolved = resolve("steps=8", "--gin.WIDTH=64")
    assert resolved.text.splitlines() == [
        configs.HEADER,
        "",
        "WIDTH = 64  # command line",
        "",
        "# train.folder: given by the code that calls it",
        "train.model = @Decoder  # run.gin:2",
        "train.optimizer = @adamw()  # run.gin:3",
        "train.steps = 8  # command line",
        "train.seed = 0  # default",
        "train.note = None  # default",
        "",
        "# Decoder.rngs: given by the code that calls it",
        "Decoder.d_model = %WIDTH  # models/tiny.gin:2",
        "Decoder.num_layers = 2  # default",
        "Decoder.dropout_rate = 0  # models/tiny.gin:3",
        "Decoder.activations = ('silu', 'linear')  # default",
        "# Decoder.norm: max by default",
        "",
        "adamw.learning_rate = @warmup()  # run.gin:5",
        "adamw.b1 = 0.9  # default",
        "adamw.weight_decay = 0.1  # run.gin:6",
        "",
        "warmup.peak = 0.001  # run.gin:7",
        "warmup.steps = 10  # default",
    ]
    assert resolved.origins["Decoder.d_model"] == "models/tiny.gin:2"


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["steps=9", 'note=it\'s "so"  # here', "WIDTH=8"],
        ["train.optimizer=@adafactor()", "adafactor.learning_rate=@slow/warmup", "slow/warmup.peak=1e999"],
        ["train.optimizer=@a/adamw()", "a/adamw.b1=0.5", "note=né\n\t", "Decoder.activations=('gelu',)"],
    ],
)
def test_the_resolved_text_alone_restarts_the_run(resolve, overrides):
    first = resolve(*overrides)
    again = resolve(text=first.text)
    assert again.text == first.text and again.origins == first.origins
    assert repr(again.call(folder="f")) == repr(first.call(folder="f"))


def test_gin_itself_reads_the_same_from_the_same_text(resolve):
    text = resolve("train.optimizer=@a/adamw()", "a/adamw.b1=0.5", "--gin.a/warmup.steps=3").text
    ours = resolve(text=text).call(folder="f")
    gin.clear_config()
    for name, function in TABLE.items():
        gin.external_configurable(function, name=name, module="test_configs")
    gin.parse_config(text)
    try:
        assert repr(gin.get_configurable("train")(folder="f")) == repr(ours)
    finally:
        gin.clear_config()


def test_an_uncalled_reference_is_built_anew_at_each_call(resolve):
    model = resolve("model=@Decoder").call.build_argument("model")
    assert model("a") == Decoder("a", 32) and model(rngs="b", num_layers=3) == Decoder("b", 32, 3)


def test_a_value_that_the_caller_sets_cannot_be_bound(resolve, refused):
    assert "Decoder.rngs (command line) is set by the code that calls it" in call_error(resolve("Decoder.rngs=1"))
    assert "train.folder (command line) is set by the command itself" in refused("folder=x")


def call_error(resolved):
    with pytest.raises(ValueError) as caught:
        resolved.call(folder="f")
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("--gin.train.steps=7", 7),
        ("--gin.train.note='a b'", "a b"),
        ('--gin.train.note="a"', "a"),
        ("note=/data/a b.txt", "/data/a b.txt"),
        ("train.note=c4-2024.v1", "c4-2024.v1"),
        ("note='quoted'", "quoted"),
        ("note=", ""),
        ("seed=-3", -3),
        ("note=a=b", "a=b"),
        ("note=None", None),
    ],
)
def test_overrides_are_read_as_written(resolve, override, expected):
    assert expected in resolve(override).call(folder="f")


def test_the_later_override_wins(resolve):
    assert resolve("steps=1", "train.steps=2", "steps=3").call(folder="f")[3] == 3


def test_an_override_without_a_dot_is_a_macro_where_the_config_has_one(resolve, refused):
    assert resolve("WIDTH=16").call(folder="f")[1].d_model == 16
    ambiguous = "include 'run.gin'\nsteps = 3\nwarmup.steps = %steps"
    assert "'steps' is a macro and a parameter; write train.steps=" in refused("steps=5", text=ambiguous)
    assert resolve("--gin.steps=5", text=ambiguous).call(folder="f")[2][1][2] == 5


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("Decodr.d_model=3", "unknown configurable 'Decodr' in Decodr.d_model (command line); did you mean 'Decoder'?"),
        ("Decoder.d_modle=3", "Decoder has no parameter 'd_modle' (command line); did you mean 'd_model'?"),
        ("train.model=@Decodr", "unknown configurable 'Decodr' in the value of train.model (command line)"),
        ("WITDH=3", "unknown name 'WITDH' (command line)"),
        ("stesp=3", "no macro of the config and no parameter of train; did you mean 'steps'?"),
        ("d_model=3", "no macro of the config and no parameter of train; did you mean Decoder.d_model?"),
        ("--gin.WITDH=3", "nothing uses the macro WITDH (command line); did you mean 'WIDTH'?"),
        ("steps=%STEP", "undefined macro %STEP in the value of train.steps (command line)"),
        (
            "adafactor.decay_rate=0.5",
            "nothing uses adafactor.decay_rate (command line): the run does not reach adafactor",
        ),
        ("eval/adamw.b1=0.5", "nothing uses eval/adamw.b1 (command line)"),
        ("steps=ten", "train.steps = 'ten' (command line): it must be int, not str"),
        ("steps='10'", "write 10 (no quotes)"),
        ("steps=true", "it must be int, not str"),
        ("steps=True", "it must be int, not bool"),
        ("steps=1.5", "it must be int, not float"),
        ("note=7", "it must be str | None, not int; write '7' (with quotes)"),
        ("WIDTH='x'", "Decoder.d_model = 'x' (models/tiny.gin:2, %WIDTH is set at command line): it must be int"),
        ("Decoder.activations=('a', 3)", "it must be tuple[str, ...]"),
        ("Decoder.activations=['a']", "it must be tuple[str, ...], not list"),
        (
            "train.optimizer=@adafactor()",
            "adafactor needs 'learning_rate' (command line); add `adafactor.learning_rate = ...`",
        ),
        ("adamw.learning_rate=@loop/adamw()", "@loop/adamw() is a part of itself"),
        ("--gin.WIDTH=%WIDTH", "macro %WIDTH (command line) is defined by itself"),
        ("steps=[1", "the override 'steps=[1' has no gin value"),
        ("--gin.train.note=/a", "has no gin value"),
        ("steps", "write name=value"),
        ("seed=%gin.REQUIRED", "a parameter without default is required anyway; remove the line"),
    ],
    ids=lambda value: value if "=" in str(value)[:30] else "",
)
def test_what_is_wrong_is_said_in_one_sentence(refused, override, sentence):
    message = refused(override)
    assert sentence in message and "\n" not in message, message


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "include 'models/tinny.gin'",
            "no config file 'models/tinny.gin' (other.gin:1); did you mean 'models/tiny.gin'?",
        ),
        ("train.steps = ten", "other.gin:1: syntax error"),
        ("train.steps = 3 4", "other.gin:1: syntax error: Expected newline in `train.steps = 3 4`"),
        ("train.steps = (3,", "other.gin"),
        ("a = 'x\nb = 3", "other.gin:1: syntax error"),
        ("import os", "other.gin:1: import of 'os' is refused, since it runs code; allowed are t5x_like, data_tasks"),
        ("import t5x_likeness.x", "import of 't5x_likeness.x' is refused"),
        ("from __gin__ import dynamic_registration", "other.gin:1: dynamic registration is refused"),
        ("train.folder = 'x'", "3 problems in the configuration"),
    ],
)
def test_a_bad_file_is_refused_by_line(refused, text, sentence):
    assert sentence in refused(text=text, supplied=())


def test_all_problems_are_told_at_once(refused):
    message = refused("steps=ten", "seed=x", "Decodr.d_model=3", "train.note=@addam()")
    assert message.startswith("4 problems in the configuration:") and message.count("\n") == 4


def test_a_refused_import_runs_no_code_even_beside_an_allowed_one(refused, resolve, monkeypatch):
    for name in ("evil_module", "data_tasks_extra"):
        (resolve.folder / f"{name}.py").write_text(f"open({str(resolve.folder / 'ran')!r}, 'w').close()")
    monkeypatch.syspath_prepend(resolve.folder)
    text = "import data_tasks_extra\nimport evil_module"
    assert "import of 'evil_module'" in refused(text=text, allow_imports=["data_tasks_extra"])
    assert not (resolve.folder / "ran").exists()


def test_an_allowed_import_is_printed_and_may_bring_names(resolve, monkeypatch, capsys):
    (resolve.folder / "my_project.py").write_text(
        "def sgd(rate: float): return 'sgd', rate\nCONFIGURABLES = {'sgd': sgd}"
    )
    monkeypatch.syspath_prepend(resolve.folder)
    text = "include 'run.gin'\nimport my_project\ntrain.optimizer = @sgd()\nsgd.rate = 0.5"
    resolved = resolve(text=text, allow_imports=["my_project"])
    assert resolved.call(folder="f")[2] == ("sgd", 0.5) and resolved.imports == ("my_project",)
    assert capsys.readouterr().out == "other.gin:2: importing my_project\n"
    assert "import my_project  # other.gin:2" in resolved.text
    (resolve.folder / "thief.py").write_text("CONFIGURABLES = {'adamw': print}")
    with pytest.raises(ValueError, match="an imported module redefines 'adamw'"):
        resolve(text="import thief\ninclude 'run.gin'", allow_imports=["thief"])


def test_includes_go_two_levels_deep_and_no_further(resolve, refused):
    for level in range(3):
        (resolve.folder / f"level{level}.gin").write_text(f"include 'level{level + 1}.gin'\n")
    (resolve.folder / "level3.gin").write_text("include 'run.gin'\n")
    assert "level2.gin:1: more than 2 levels of include" in refused(text="include 'level1.gin'")
    assert resolve(text="include 'run.gin'").call(folder="f")[3] == 4


def test_a_replaced_optimizer_excuses_its_settings_but_not_later_ones(resolve, refused):
    swap = ["train.optimizer=@adafactor()", "adafactor.learning_rate=0.1"]
    resolved = resolve(*swap)
    assert resolved.call(folder="f")[2] == ("adafactor", 0.1, 0.8)
    assert "adamw" not in resolved.text and "warmup" not in resolved.text
    assert "nothing uses adamw.b1 (command line)" in refused(*swap, "adamw.b1=0.5")
    assert "nothing uses adamw.b1 (command line)" in refused("adamw.b1=0.5", *swap)
    later = "include 'run.gin'\ntrain.optimizer = @adafactor()\nadafactor.learning_rate = 0.1\nadamw.b1 = 0.5"
    assert "nothing uses adamw.b1 (other.gin:4)" in refused(text=later)


def test_a_scope_gives_one_function_two_settings(resolve):
    text = """
        include 'run.gin'
        train.optimizer = (@fast/adamw(), @adamw())
        fast/warmup.steps = 1
        fast/adamw.b1 = 0.5
        """
    resolved = resolve(text=inspect.cleandoc(text))
    fast, plain = resolved.call(folder="f")[2]
    assert fast == ("adamw", ("warmup", 1e-3, 1), 0.5, 0.1) and plain == ("adamw", ("warmup", 1e-3, 10), 0.9, 0.1)
    assert "fast/adamw.weight_decay = 0.1  # run.gin:6" in resolved.text


def test_a_value_out_of_range_names_its_line(resolve):
    assert call_error(resolve("adamw.b1=2")) == "train.optimizer = @adamw() (run.gin:3): b1 2 is not in [0, 1)"


def test_a_built_value_of_the_wrong_type_is_refused(resolve):
    message = call_error(resolve("seed=@warmup()"))
    assert message == "train.seed = @warmup() (command line): it must be int, not tuple"


def test_a_named_tuple_is_built_whole():
    """Optax's transformations are named tuples of functions; a config holds them inside others."""
    table = {
        "chain": lambda parts: optax.chain(*parts),
        "adamw": optax.adamw,
        "clip": optax.clip,
        "train": lambda tx: tx,
    }
    overrides = [
        "train.tx=@chain()",
        "chain.parts=[@clip(), @adamw()]",
        "clip.max_delta=1.0",
        "adamw.learning_rate=0.1",
    ]
    built = configs.resolve(table, overrides=overrides, root="train").call()
    assert isinstance(built, optax.GradientTransformation)


def test_what_a_caller_forgot_is_named(resolve):
    resolved = resolve(
        text="include 'run.gin'\ntrain.model = @later/adamw\nlater/warmup.peak = 1.0\ntrain.seed = %WIDTH"
    )
    assert resolved  # an un-called reference may lack what its caller gives
    text = "train.model = @Decoder\ntrain.optimizer = @adamw()\nadamw.learning_rate = 0.1\ntrain.steps = 1"
    assert call_error(resolve(text=text)) == "Decoder needs d_model; add `Decoder.d_model = ...`"


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, float, True),
        (True, float, False),
        (True, bool | int, True),
        ([1, "a"] * 20, list[int], False),
        ({"a": 1, "b": "c"}, dict[str, int], False),
        ((1, "a"), tuple[int, str], True),
        ((1, 2), tuple[int, str], False),
        (None, int | None, True),
        ("x", "NotDefinedAnywhere", True),
    ],
)
def test_a_literal_fits_its_hint(value, hint, expected):
    assert all(fits(value, hint) is expected for _ in range(20))


def test_a_forward_reference_hides_no_other_hint():
    def function(a: "NoSuchName", b: "int" = 3): ...

    parameters = signature(function).parameters
    assert parameters["b"].hint is int and parameters["a"].hint is inspect.Parameter.empty


RUNS = sorted(pathlib.Path("configs/runs").glob("*.gin"))
GOLDEN = pathlib.Path("tests/golden/configs")
HAS_TABLE = importlib.util.find_spec("t5x_like.configurables") is not None


@pytest.mark.parametrize("path", RUNS if HAS_TABLE else [], ids=lambda path: path.stem)
def test_every_run_equals_its_golden_text(path):
    """Regenerate with `python -m tests.golden.make.configs`, and say in the commit why a value changed."""
    from tests.golden.make.configs import resolved

    assert resolved(path).text == (GOLDEN / f"{path.stem}.txt").read_text()


@pytest.mark.parametrize("path", RUNS if HAS_TABLE else [], ids=lambda path: path.stem)
def test_every_run_builds_its_arguments_and_its_model(path):
    """Without a byte of parameters: the model is built abstractly. Only prepared data may be absent here."""
    from tests.golden.make.configs import ROOT, resolved

    run = resolved(path)
    built = {}
    for key in (key for key in run.origins if key.startswith(f"{ROOT}.") and run.origins[key] != "default"):
        with contextlib.suppress(FileNotFoundError):
            built[key] = run.call.build_argument(key.removeprefix(f"{ROOT}."))
    model = built[f"{ROOT}.model"]
    nnx.eval_shape(lambda: model(rngs=nnx.Rngs(params=0)))


def test_no_golden_text_is_left_of_a_run_that_is_gone():
    assert {path.stem for path in GOLDEN.glob("*.txt")} <= {path.stem for path in RUNS}
