"""Tokens before a text that say what it is: its language, its task, its domain.

  tags=("lang:de", "mark:news")        targets  <lang:de> <mark:news> Guten Morgen
  field="language", a row with "de"    targets  <lang:de> Guten Morgen

Preprocessors of a SeqIO task, behind `seqio.preprocessors.tokenize`. A tag is a control piece of the tokenizer, which
no text can produce, and a part of the document, so that it counts in the length of rows. Where documents are cut to
pieces the tag stands before the first; cut them before (`readers`, per="paragraph") where every piece needs its own.
"""

import difflib
from collections.abc import Mapping, Sequence

import seqio
import tensorflow as tf

from t5x_like.tasks import vocabularies


def add_tags(
    dataset: tf.data.Dataset,
    output_features: Mapping[str, seqio.Feature],
    tags: Sequence[str],
    feature: str = "targets",
) -> tf.data.Dataset:
    """The same tags before every text: "lang:CODE", "mode:NAME", "mark:NAME", in this order."""
    ids = tags_of(output_features[feature].vocabulary)
    unknown = [tag for tag in tags if tag not in ids]
    if unknown:
        raise ValueError(_explain(unknown[0], ids))
    before = tf.constant([ids[tag] for tag in tags], tf.int32)
    return dataset.map(lambda row: {**row, feature: tf.concat([before, tf.cast(row[feature], tf.int32)], axis=0)})


def add_language_tag(
    dataset: tf.data.Dataset,
    output_features: Mapping[str, seqio.Feature],
    field: str = "language",
    feature: str = "targets",
) -> tf.data.Dataset:
    """Before every text the tag of the language that `field` names; a language without a tag is an error."""
    ids = {tag.removeprefix("lang:"): i for tag, i in tags_of(output_features[feature].vocabulary).items()}
    codes = sorted(code for code in ids if ":" not in code)
    if not codes:
        raise ValueError(_explain("lang:CODE", {}))
    known = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(codes, tf.constant([ids[code] for code in codes], tf.int32)), -1
    )

    def one(row):
        tag = known.lookup(row[field])
        message = f"a text has a language of which the vocabulary has no tag; it has {', '.join(codes)}; language:"
        with tf.control_dependencies([tf.debugging.Assert(tag >= 0, [message, row[field]])]):
            return {**row, feature: tf.concat([tag[None], tf.cast(row[feature], tf.int32)], axis=0)}

    return dataset.map(one)


def tags_of(vocabulary: seqio.Vocabulary) -> dict[str, int]:
    """Ids by tag: "lang:de", "mode:R", "mark:news"."""
    special = vocabularies.special_tokens(vocabulary)
    kinds = (("lang", special.languages), ("mode", special.modes), ("mark", special.markers))
    return {f"{kind}:{name}": token for kind, named in kinds for name, token in named.items()}


def _explain(tag: str, ids: Mapping[str, int]) -> str:
    nearest = difflib.get_close_matches(tag, ids, 1)
    hint = f"; nearest is {nearest[0]!r}" if nearest else ""
    return (
        f"the vocabulary has no tag {tag!r}, its tags are {sorted(ids)}{hint}: train the tokenizer with the control "
        f"piece <{tag}>, or extend it"
    )
