"""A task for every objective that needs nothing but text: over the Python standard library, or, by `register`, yours.

NAME_bert NAME_roberta NAME_spanbert NAME_electra NAME_next_sentence NAME_unilm NAME_bart NAME_mass ...

Those that need more are a line in a task file of your own, beside what they need: marked names (`tasks/mention_text`),
questions and answers (`tasks/instruction_text`), or a tokenizer with markers (<mark:sop> for GLM, <mark:fim_prefix> to
fill in the middle, <mode:R> for UL2). `t5x_like tasks show TASK --objective RECIPE` shows any of them on any task.
"""

from data_tasks import python_stdlib, text_corpus
from t5x_like.objectives.table import OBJECTIVES
from t5x_like.tasks import held_out, readers

BYTE_OF_NEWLINE = 13  # of the byte vocabulary: 10, behind pad, eos and unk


def objectives(sentence_ends: tuple[int, ...]) -> dict[str, object]:
    """By the ends of the tasks' names; `sentence_ends` are the ids that end a sentence (in code: a line)."""
    pairs = {"sentence_ends": sentence_ends}
    return {
        "bert": OBJECTIVES["MaskedLM"](),
        "roberta": OBJECTIVES["MaskedLM"](budget="roberta", random_ids="text", documents="concatenated"),
        "whole_words": OBJECTIVES["MaskedLM"](units="words"),
        "ngrams": OBJECTIVES["MaskedLM"](units="words", ngrams=(6 / 11, 3 / 11, 2 / 11)),
        "spanbert": OBJECTIVES["SpanBoundary"](),
        "electra": OBJECTIVES["ReplacedToken"](),
        "next_sentence": OBJECTIVES["NextSentence"](**pairs),
        "sentence_order": OBJECTIVES["SentenceOrder"](**pairs),
        "structbert": OBJECTIVES["Structural"](**pairs),
        "conpono": OBJECTIVES["DocumentCoherence"](**pairs),
        "unshuffling": OBJECTIVES["SentenceUnshuffling"](**pairs),
        "unilm": OBJECTIVES["UniLM"](**pairs),
        "bart": OBJECTIVES["Bart"](**pairs),
        "iid_denoising": OBJECTIVES["IidDenoising"](),
        "mass": OBJECTIVES["IidDenoising"](style="mass"),
        "dropped_tokens": OBJECTIVES["IidDenoising"](style="drop"),
        "bert_style_denoising": OBJECTIVES["IidDenoising"](style="bert"),
        "deshuffling": OBJECTIVES["Deshuffling"](),
        "random_replacement": OBJECTIVES["RandomReplacement"](),
    }


TEXT_TO_TEXT = {"bart", "iid_denoising", "mass", "dropped_tokens", "bert_style_denoising", "deshuffling"}
TEXT_TO_TEXT |= {"random_replacement"}


def register(
    *,
    name: str,
    reader: readers.Reader,
    tokenizer: str | None,
    hold_out: held_out.Rule,
    sentence_ends: tuple[int, ...],
) -> None:
    for suffix, objective in objectives(sentence_ends).items():
        text_corpus.register_task(
            name=f"{name}_{suffix}",
            objective=objective,
            sides=("inputs", "targets") if suffix in TEXT_TO_TEXT else ("targets",),
            reader=reader,
            tokenizer=tokenizer,
            hold_out=hold_out,
        )


register(name="python_stdlib", sentence_ends=(BYTE_OF_NEWLINE,), **python_stdlib.CORPUS)
