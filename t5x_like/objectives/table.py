"""THE list of objectives: name in a task.json or config -> class. Any other name is refused, never imported.

LOSSES are their device halves, for those that predict something else than the tokens of `targets`.
"""

from collections.abc import Callable

from t5x_like.objectives import (
    captioning,
    contrastive,
    document_coherence,
    entity_discrimination,
    entity_prediction,
    matching_the_blanks,
    multi_token,
    relation_contrast,
    replaced_token,
    sigmoid_contrastive,
    span_boundary,
    terms,
)
from t5x_like.objectives.bart import Bart
from t5x_like.objectives.blank_infilling import BlankInfilling
from t5x_like.objectives.causal_lm import CausalLM
from t5x_like.objectives.deshuffling import Deshuffling
from t5x_like.objectives.document_coherence import DocumentCoherence
from t5x_like.objectives.entity_discrimination import EntityDiscrimination
from t5x_like.objectives.entity_masking import EntityMasking
from t5x_like.objectives.entity_prediction import EntityPrediction
from t5x_like.objectives.fill_in_the_middle import FillInTheMiddle
from t5x_like.objectives.iid_denoising import IidDenoising
from t5x_like.objectives.instruction_lm import InstructionLM
from t5x_like.objectives.masked_lm import MaskedLM
from t5x_like.objectives.matching_the_blanks import MatchingTheBlanks
from t5x_like.objectives.next_sentence import NextSentence
from t5x_like.objectives.prefix_lm import PrefixLM
from t5x_like.objectives.random_replacement import RandomReplacement
from t5x_like.objectives.relation_contrast import RelationContrast
from t5x_like.objectives.replaced_token import ReplacedToken
from t5x_like.objectives.sentence_order import SentenceOrder
from t5x_like.objectives.sentence_unshuffling import SentenceUnshuffling
from t5x_like.objectives.similar_words import SimilarWords
from t5x_like.objectives.span_boundary import SpanBoundary
from t5x_like.objectives.span_corruption import SpanCorruption
from t5x_like.objectives.structural import Structural
from t5x_like.objectives.supervised import Supervised
from t5x_like.objectives.translation_lm import TranslationLM
from t5x_like.objectives.ul2 import UL2
from t5x_like.objectives.unilm import UniLM

OBJECTIVES: dict[str, type] = {
    "Bart": Bart,
    "BlankInfilling": BlankInfilling,
    "CausalLM": CausalLM,
    "Deshuffling": Deshuffling,
    "DocumentCoherence": DocumentCoherence,
    "EntityDiscrimination": EntityDiscrimination,
    "EntityMasking": EntityMasking,
    "EntityPrediction": EntityPrediction,
    "FillInTheMiddle": FillInTheMiddle,
    "IidDenoising": IidDenoising,
    "InstructionLM": InstructionLM,
    "MaskedLM": MaskedLM,
    "MatchingTheBlanks": MatchingTheBlanks,
    "NextSentence": NextSentence,
    "PrefixLM": PrefixLM,
    "RandomReplacement": RandomReplacement,
    "RelationContrast": RelationContrast,
    "ReplacedToken": ReplacedToken,
    "SentenceOrder": SentenceOrder,
    "SentenceUnshuffling": SentenceUnshuffling,
    "SimilarWords": SimilarWords,
    "SpanBoundary": SpanBoundary,
    "SpanCorruption": SpanCorruption,
    "Structural": Structural,
    "Supervised": Supervised,
    "TranslationLM": TranslationLM,
    "UL2": UL2,
    "UniLM": UniLM,
}

LOSSES: dict[str, Callable] = {
    "SumOfTerms": terms.SumOfTerms,
    "predict_tokens": terms.predict_tokens,
    "classify_pairs": terms.classify_pairs,
    "find_neighbours": document_coherence.find_neighbours,
    "predict_ahead": multi_token.predict_ahead,
    "predict_entities": entity_prediction.predict_entities,
    "contrast_relations": relation_contrast.contrast_relations,
    "find_tails": entity_discrimination.find_tails,
    "match_relations": matching_the_blanks.match_relations,
    "tell_relations_apart": matching_the_blanks.tell_relations_apart,
    "contrast_matches": matching_the_blanks.contrast_matches,
    "ContrastiveLoss": contrastive.ContrastiveLoss,
    "SigmoidContrastiveLoss": sigmoid_contrastive.SigmoidContrastiveLoss,
    "CaptioningLoss": captioning.CaptioningLoss,
    "predict_from_boundary": span_boundary.predict_from_boundary,
    "ReplacedTokenLoss": replaced_token.ReplacedTokenLoss,
}
