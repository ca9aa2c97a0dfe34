"""Which pieces begin a word: what whole-word masking and its relatives ask of a vocabulary.

  pieces           begins a word                        vocabulary
  ▁inter national  ▁inter                               SentencePiece, Metaspace: pieces with the space before them
  Ġinter national  Ġinter                               byte-level BPE: the same, its space is Ġ, its newline Ċ
  inter ##national inter                                WordPiece: all but the continuing ones
  i n t e r        the byte of a space (or other white space)   bytes

The first piece of a text begins a word whatever it is, and so does what follows a special token; that is told by its
place and not by this table. Chinese has no spaces: give the task a feature made by a segmenter instead.
"""

import json

import numpy as np
import sentencepiece

_BYTE_LEVEL_SPACES = "ĠĊĉč"


def of_sentencepiece(processor: sentencepiece.SentencePieceProcessor) -> np.ndarray:
    """bool [pieces]. White space that is a byte or a piece of its own begins one too."""
    pieces = [processor.id_to_piece(token) for token in range(processor.get_piece_size())]
    white = {"<0x20>", "<0x0A>", "<0x09>", "<0x0D>", "\n", "\t", "\r"}
    return np.array([piece.startswith("▁") or piece in white for piece in pieces])


def of_bytes(size: int, first_byte: int) -> np.ndarray:
    """bool [size], where byte b has the id first_byte + b."""
    table = np.zeros(size, bool)
    table[[first_byte + byte for byte in b" \n\t\r"]] = True
    return table


def of_tokenizers(definition: str, pieces: dict[str, int], size: int) -> np.ndarray:
    """bool [size], from the JSON of a `tokenizers` file and its vocabulary."""
    model = json.loads(definition)["model"]
    table = np.zeros(size, bool)
    if model.get("type") == "WordPiece":
        prefix = model.get("continuing_subword_prefix", "##")
        begins = [token for piece, token in pieces.items() if not piece.startswith(prefix)]
    else:
        begins = [token for piece, token in pieces.items() if piece.startswith(("▁", *_BYTE_LEVEL_SPACES))]
    table[begins] = True
    return table
