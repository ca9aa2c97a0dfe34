"""What makes an objective a SeqIO preprocessor as well: a task lists the object itself, after its cache placeholder.

Objectives are `attrs` classes, not dataclasses: SeqIO sets `sequence_length` as a *field* of a dataclass, and calls any
other object with it.
"""

from typing import ClassVar


class SeqioPreprocessor:
    """reads   the features of a document that the method needs; others than inputs and targets have a number a token"""

    reads: ClassVar[tuple[str, ...]] = ("targets",)

    def __call__(self, dataset, sequence_length, output_features):
        """A `tf.data.Dataset` of documents to one of examples, from the same NumPy function that Grain runs."""
        from t5x_like.tasks.bridge import as_preprocessor

        return as_preprocessor(self, dataset, sequence_length, output_features)
