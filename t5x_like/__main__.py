"""`python -m t5x_like` is `t5x_like`."""

from t5x_like.launch import console

console()
