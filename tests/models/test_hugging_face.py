"""Every family against transformers, from stored results: tests/golden/make/hugging_face.py makes a newcomer's."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from t5x_like.features import Features
from t5x_like.models.hugging_face import convert
from t5x_like.models.hugging_face.table import FAMILIES, family_named, family_of
from t5x_like.models.hugging_face.tensors import Tensors
from t5x_like.models.parameters import merge, split
from t5x_like.partitioning.mesh import make_mesh
from tests.golden.hugging_face_batches import batch_of, compared, loss_of
from tests.golden.hugging_face_models import GOLDENS, golden, imported, model_of
from tests.golden.hugging_face_weights import weights

every_family = pytest.mark.parametrize("name", GOLDENS)


def batch(name):
    return batch_of(golden(name))


@every_family
def test_an_imported_model_computes_what_transformers_does(name):
    graphdef, params, _ = imported(name)
    found = compared(golden(name), jax.jit(lambda p, x: merge(graphdef, p)(x))(params, batch(name)))
    np.testing.assert_allclose(found, golden(name)["logits"], atol=1e-4, rtol=0)
    assert abs(loss_of(golden(name), found) - golden(name)["loss"]) < 1e-5


@pytest.mark.parametrize("name", [name for name in GOLDENS if "greedy" in golden(name)])
def test_it_decodes_the_same_tokens_from_its_cache(name):
    graphdef, params, _ = imported(name)
    expected = golden(name)["greedy"]
    num_new = len(expected[0])
    whole = batch(name)
    length = whole.tokens.shape[1] - len(golden(name)["inputs"]["tokens"][0]) + 4
    told = [None if x is None else x[:, :length] for x in whole[:6]]
    prompt = Features(*told, encoder=whole.encoder, patches=whole.patches)

    @jax.jit
    def decode(params, prompt):
        model = merge(graphdef, params)
        logits, cache = model.prefill(prompt, model.init_cache(2, length + num_new))
        tokens = []
        for _ in range(num_new):
            tokens.append(jnp.argmax(logits, axis=-1))
            logits, cache = model.decode_step(tokens[-1], cache)
        return jnp.stack(tokens, axis=1)

    assert decode(params, prompt).tolist() == expected


@every_family
def test_what_is_exported_is_what_was_imported(name):
    """The same names, and the same numbers but for the rows that are never read and the rounding of 1 + w."""
    _, params, module = imported(name)
    sizes, tensors = convert.export_tensors(family_named(name), module, params, np.float32)
    found, given = dict(tensors), weights(golden(name))
    assert found.keys() == given.keys() == sizes.keys()
    for key, value in found.items():
        unused = 2 if key.endswith(("embed_positions.weight", "roberta.embeddings.position_embeddings.weight")) else 0
        np.testing.assert_allclose(
            np.atleast_1d(value)[unused:], np.atleast_1d(given[key])[unused:], atol=2e-7, rtol=0, err_msg=key
        )
        assert value.shape == given[key].shape
        assert value.nbytes == sizes[key] and value.flags.c_contiguous


def approximately(bindings):
    return {name: round(value, 9) if isinstance(value, float) else value for name, value in bindings.items()}


@every_family
def test_the_exported_config_says_what_the_imported_one_said(name):
    _, _, module = imported(name)
    said, family = golden(name)["config"], family_named(name)
    exported = convert.config_json(family, module, np.float32)
    assert approximately(family.bindings(exported)) == approximately(family.bindings(said))
    assert exported["model_type"] == said["model_type"] and exported["architectures"] == said["architectures"]
    assert family_of(exported) == family_of(said) == name


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "default"},
        {"rope_type": "linear", "factor": 2.0},
        {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 64},
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 16, "beta_fast": 8.0},
        {
            "rope_type": "longrope",
            "factor": 4.0,
            "original_max_position_embeddings": 16,
            "short_factor": [1.0, 2.0],
            "long_factor": [2.0, 4.0],
        },
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_every_scaling_of_rotary_positions_goes_both_ways(tmp_path, rope):
    said = golden("llama")["config"] | {"rope_parameters": rope | {"rope_theta": 700.0}, "head_dim": None}
    (tmp_path / "config.json").write_text(json.dumps(said))
    module = nnx.eval_shape(lambda: model_of(tmp_path, "llama")(rngs=nnx.Rngs(params=0)))
    exported = convert.config_json(family_named("llama"), module, np.float32)
    assert exported["rope_parameters"].items() >= (rope | {"rope_theta": 700.0}).items()
    assert family_named("llama").bindings(exported) == family_named("llama").bindings(said)


@pytest.mark.parametrize("name", ["llama", "gemma2", "gemma3", "mixtral", "t5_1_1", "umt5", "clip"])
def test_scanned_layers_hold_the_same_weights(name):
    graphdef, params, module = imported(name, "scanned")
    assert any("/cycle/" in path for path in params)
    found = jax.jit(lambda p, x: merge(graphdef, p)(x))(params, batch(name))
    np.testing.assert_allclose(found, golden(name)["logits"], atol=1e-4, rtol=0)
    given = weights(golden(name))
    for key, value in convert.export_tensors(family_named(name), module, params, np.float32)[1]:
        np.testing.assert_allclose(value, given[key], atol=2e-7, rtol=0, err_msg=key)


@pytest.mark.parametrize("name", ["llama", "t5_1_1"])
@pytest.mark.parametrize("layer_loop", ["", "scanned"])
def test_each_device_gets_its_own_part(name, layer_loop):
    mesh = make_mesh(data=1, fsdp=4, devices=jax.devices()[:4])
    _, params, _ = imported(name, layer_loop, mesh)
    _, whole, _ = imported(name, layer_loop)
    for path, value in params.items():
        np.testing.assert_array_equal(value, whole[path], err_msg=path)
    assert any(len(value.sharding.device_set) == 4 and not value.is_fully_replicated for value in params.values())


def test_every_family_is_stored():
    assert set(FAMILIES) == set(GOLDENS)


# bad input


def copy(tmp_path, name="llama", change=lambda tensors: None, config=None):
    tensors = weights(golden(name))
    change(tensors)
    (tmp_path / "config.json").write_text(json.dumps(golden(name)["config"] | (config or {})))
    safetensors.numpy.save_file(tensors, str(tmp_path / "model.safetensors"))
    make = model_of(tmp_path, name)
    module = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(params=0)))
    shapes = split(module).params
    return lambda: convert.import_params(family_named(name), module, shapes, Tensors(tmp_path))


def test_missing_unknown_and_misshapen_tensors_are_listed_before_one_is_read(tmp_path):
    def change(tensors):
        del tensors["model.layers.1.mlp.up_proj.weight"]
        tensors["model.layers.0.extra"] = np.zeros(3, np.float32)
        tensors["model.norm.weight"] = np.zeros(25, np.float32)

    with pytest.raises(ValueError) as error:
        copy(tmp_path, change=change)()
    text = str(error.value)
    assert "1 missing: model.layers.1.mlp.up_proj.weight" in text
    assert "1 unknown: model.layers.0.extra" in text
    assert "1 of another shape: model.norm.weight [25], wanted [24]" in text


def test_a_vocabulary_that_does_not_fit_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=re.escape("model.embed_tokens.weight [53, 24], wanted [60, 24]")):
        copy(tmp_path, config={"vocab_size": 60})()


@pytest.mark.parametrize(
    "name, config, message",
    [
        ("llama", {"hidden_act": "relu"}, "hidden_act 'relu'; only 'silu'"),
        ("llama", {"rope_parameters": {"rope_type": "cubic", "rope_theta": 1e4}}, "rope_type 'cubic'"),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "mscale": 1.0}}, "mscale of YaRN"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window True"),
        ("gpt_neox", {"use_parallel_residual": False}, "use_parallel_residual False"),
    ],
)
def test_a_part_that_is_not_here_is_refused(name, config, message):
    with pytest.raises(ValueError, match=message):
        family_named(name).bindings(golden(name)["config"] | config)


def test_unknown_families_are_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="nearest is 'llama'"):
        family_named("lama")
    with pytest.raises(ValueError, match=r"model_type 'qwen9'.*nearest"):
        family_of({"model_type": "qwen9"})


def test_pickled_weights_are_never_opened(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch /tmp/owned'\ntR.")
    with pytest.raises(ValueError, match="can run any code and are not opened"):
        Tensors(tmp_path)


def test_an_index_leads_to_no_other_folder(tmp_path):
    index = {"weight_map": {"a": "../model.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FileNotFoundError, match="not in that folder"):
        Tensors(tmp_path)


def test_a_damaged_file_is_one_sentence(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match="is damaged: fetch it again"):
        Tensors(tmp_path)
