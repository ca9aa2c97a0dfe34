"""Supervised pairs from JSON lines, {"inputs": ..., "targets": ...}: a plain SeqIO task, no objective of ours."""

import seqio

from t5x_like.tasks import held_out, readers, sources, vocabularies

EXTRA_IDS = 100


def register(*, name: str, paths: list[str], tokenizer: str | None, held_out_fraction: float = 0.05) -> None:
    feature = seqio.Feature(vocabularies.seqio_vocabulary(tokenizer, extra_ids=EXTRA_IDS), add_eos=True)
    reader = readers.JsonLines(paths, fields=("inputs", "targets"))
    seqio.TaskRegistry.add(
        name,
        source=sources.Corpus(reader, hold_out=held_out.ByDocument(held_out_fraction)),
        preprocessors=[
            seqio.preprocessors.tokenize,
            seqio.CacheDatasetPlaceholder(),
            seqio.preprocessors.append_eos_after_trim,
        ],
        output_features={"inputs": feature, "targets": feature},
    )
