"""The configs of models have as many parameters as the released ones; where ours differ, the sum says by what."""

from collections.abc import Callable

import pytest
from flax import nnx

from t5x_like import configs
from t5x_like.configurables import CONFIGURABLES
from t5x_like.models.parameters import split


def model_of(name: str) -> Callable:
    """What `train.model` is in configs/models/NAME.gin."""

    def train(*, model: Callable):
        return model

    table = CONFIGURABLES | {"train": train}
    return configs.resolve(table, [f"models/{name}.gin"], root="train", search_paths=["configs"]).call()


def shapes_of(name: str):
    model = model_of(name)
    return split(nnx.eval_shape(lambda: model(rngs=nnx.Rngs(params=0)))).params


def pooler(d: int) -> int:
    return d * d + d


def albert_head(d: int) -> int:
    """Dense to 128, norm, and a bias per token."""
    return d * 128 + 128 + 2 * 128 + 30_000


SIZES = {
    # BertForMaskedLM
    "bert_base": 109_514_298,
    "bert_large": 335_174_458,
    # RobertaForMaskedLM; two rows of its positions are never read
    "roberta_base": 124_697_433 - 2 * 768,
    "roberta_large": 355_412_057 - 2 * 1024,
    # AlbertModel has a pooler and no head
    "albert_base": 11_683_584 - pooler(768) + albert_head(768),
    "albert_large": 17_683_968 - pooler(1024) + albert_head(1024),
    "albert_xlarge": 58_724_864 - pooler(2048) + albert_head(2048),
    "albert_xxlarge": 222_595_584 - pooler(4096) + albert_head(4096),
    # ModernBertForMaskedLM
    "modernbert_base": 149_655_232,
    "modernbert_large": 395_881_664,
    # BartForConditionalGeneration, whose bias per token is no parameter and two rows of whose positions are never read
    "bart_base": 139_420_416 - 2 * 2 * 768 + 50_265,
    "bart_large": 406_291_456 - 2 * 2 * 1024 + 50_265,
    "mbart_large": 610_851_840 - 2 * 2 * 1024 + 250_027,
}


@pytest.mark.parametrize("name", SIZES)
def test_a_config_has_the_published_number_of_parameters(name):
    assert sum(shape.size for shape in shapes_of(name).values()) == SIZES[name]


@pytest.mark.parametrize(
    "name, encoder, d", [("small", 13_483_008, 256), ("base", 108_891_648, 768), ("large", 334_092_288, 1024)]
)
def test_electra_s_discriminator_is_the_published_encoder_and_a_head_of_one_logit(name, encoder, d):
    shapes = shapes_of(f"electra_{name}")
    found = sum(shape.size for path, shape in shapes.items() if not path.startswith("generator/"))
    assert found == encoder + d * d + d + d + 1
    assert not [path for path in shapes if path.startswith("generator/") and "table" in path]
