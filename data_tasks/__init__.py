"""The explicit list of task modules: importing this package registers their tasks and mixtures with SeqIO.

Modules that need a path to data (text_corpus, shakespeare_char, instructions) register nothing by themselves: a task
file calls their `register`. `t5x_like prepare --corpus` and `t5x_like tasks new` write such a file.
"""

from data_tasks import every_objective, instructions, python_stdlib, shakespeare_char, text_corpus

MODULES = (every_objective, instructions, python_stdlib, shakespeare_char, text_corpus)
