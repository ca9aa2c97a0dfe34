"""The Python standard library as a corpus of code: text that every machine has. Bytes as vocabulary need no file.

python_stdlib_span_corruption  python_stdlib_prefix_lm  python_stdlib_causal_lm  python_stdlib_denoising
"""

import sysconfig

from data_tasks import text_corpus
from t5x_like.tasks import held_out, readers

HELD_OUT_FILES = 0.05

CORPUS = {
    "reader": readers.CodeTree(sysconfig.get_paths()["stdlib"]),  # tests, caches and site-packages are left out
    "tokenizer": None,
    "hold_out": held_out.ByFile(HELD_OUT_FILES),
}
text_corpus.register_reader(name="python_stdlib", **CORPUS)
