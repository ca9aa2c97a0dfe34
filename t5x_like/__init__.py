"""t5x_like: pretrain and evaluate language models in JAX.

Dimension letters, the same in every file:
  B batch   L length (queries)   M length (keys)   P position components   D model width   F feed-forward width
  N heads   G key/value heads    H head width      V vocabulary            X layers
"""
