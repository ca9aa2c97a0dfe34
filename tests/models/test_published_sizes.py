"""The configs of models have as many parameters as the released ones; where ours differ, the sum says by what."""

import pytest
from flax import nnx

from t5x_like.models.parameters import split
from tests.golden.make.models_table import TABLE, model_of, sized


def shapes_of(name: str):
    model = model_of(name)
    return split(nnx.eval_shape(lambda: model(rngs=nnx.Rngs(params=0)))).params


def pooler(d: int) -> int:
    return d * d + d


def albert_head(d: int) -> int:
    """Dense to 128, norm, and a bias per token."""
    return d * 128 + 128 + 2 * 128 + 30_000


SIZES = {
    # ...ForCausalLM, and ...ForConditionalGeneration of T5, mT5 and ByT5; a tied head is counted once
    "gpt2_medium": 354_823_168,
    "gpt2_large": 774_030_080,
    "gpt2_xl": 1_557_611_200,
    "llama_7b": 6_738_415_616,
    "llama_13b": 13_015_864_320,
    "llama_65b": 65_285_660_672,
    "llama2_70b": 68_976_648_192,
    "llama3_3b": 3_212_749_824,
    "llama3_8b": 8_030_261_248,
    "llama3_70b": 70_553_706_496,
    "llama3_405b": 405_853_388_800,
    "mistral_7b": 7_241_732_096,
    "qwen2_0_5b": 494_032_768,
    "qwen2_1_5b": 1_543_714_304,
    "qwen2_7b": 7_615_616_512,
    "qwen3_0_6b": 596_049_920,
    "qwen3_8b": 8_190_735_360,
    "qwen3_moe_30b": 30_532_122_624,
    "mixtral_8x7b": 46_702_792_704,
    "gemma_2b": 2_506_172_416,
    "gemma_7b": 8_537_680_896,
    "gemma2_2b": 2_614_341_888,
    "gemma2_9b": 9_241_705_984,
    "gemma3_1b": 999_885_952,
    "pythia_70m": 70_426_624,
    "pythia_160m": 162_322_944,
    "pythia_410m": 405_334_016,
    "pythia_1b": 1_011_781_632,
    "pythia_1_4b": 1_414_647_808,
    "pythia_2_8b": 2_775_208_960,
    "pythia_6_9b": 6_857_302_016,
    "pythia_12b": 11_846_072_320,
    "bloom_560m": 559_214_592,
    "bloom_1b7": 1_722_408_960,
    "bloom_7b1": 7_069_016_064,
    "bloom_176b": 176_247_271_424,
    "t5_1_0_small": 60_506_624,
    "t5_1_0_base": 222_903_552,
    "t5_1_0_large": 737_668_096,
    "t5_1_0_3b": 2_851_598_336,
    "t5_1_0_11b": 11_307_321_344,
    "t5_1_1_small": 76_961_152,
    "t5_1_1_base": 247_577_856,
    "t5_1_1_large": 783_150_080,
    "t5_1_1_xl": 2_849_757_184,
    "t5_1_1_xxl": 11_135_332_352,
    "mt5_small": 300_176_768,
    "mt5_base": 582_401_280,
    "mt5_large": 1_229_581_312,
    "mt5_xl": 3_742_619_648,
    "mt5_xxl": 12_921_057_280,
    "byt5_small": 299_637_760,
    "byt5_base": 581_653_248,
    "byt5_large": 1_228_183_552,
    "byt5_xl": 3_737_801_728,
    "byt5_xxl": 12_906_899_328,
    "umt5_small": 306_601_984,
    "umt5_base": 592_043_520,
    "umt5_xl": 3_768_356_864,
    "umt5_xxl": 12_972_531_712,
    "ul2_20b": 19_591_209_984,
    # GLM: 110 M, 335 M and 10 B are published
    "glm_base": 109_338_624,
    "glm_large": 334_688_256,
    "glm_10b": 9_880_682_496,
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
    # ViTForImageClassification, CLIPModel, SiglipModel, PaliGemmaForConditionalGeneration
    "vit_b16": 86_567_656,
    "vit_l16": 304_326_632,
    "vit_h14": 632_045_800,
    "clip_b32": 151_277_313,
    "clip_b16": 149_620_737,
    "clip_l14": 427_616_513,
    "siglip_b16": 203_155_970,
    "siglip_so400m": 877_960_498,
    "paligemma_3b_224": 2_923_466_480,
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


@pytest.mark.parametrize("name, image, text", [("base", 86, 297), ("large", 303, 484)])
def test_coca_has_the_millions_of_its_table_and_beside_them_pools_and_projections(name, image, text):
    """Table 1 of arXiv:2205.01917. Of its largest it says 2.1 B, where its own sizes come to 2.2 B."""
    shapes = shapes_of(f"coca_{name}")

    def millions(*parts: str) -> int:
        return sum(shape.size for path, shape in shapes.items() if path.startswith(parts)) // 10**6

    assert millions("image/") in (image - 1, image)
    assert millions("embedding/", "unimodal/", "multimodal/", "head/") in (text - 1, text)


@pytest.mark.parametrize("name", [name for name in sized() if name in SIZES])
def test_the_table_of_models_says_so(name):
    """docs/models.md is made by a script, which a new config calls for: python -m tests.golden.make.models_table."""
    assert f"| {name} | {SIZES[name]:,} |" in TABLE.read_text()


def test_the_table_has_every_config_with_sizes():
    assert [line.split(" | ")[0].removeprefix("| ") for line in TABLE.read_text().splitlines()[7:]] == sized()
