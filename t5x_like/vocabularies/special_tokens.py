"""The special tokens of a vocabulary: one table of role -> id, and the check that no two roles share an id.

role                     id of the T5 vocabulary with 100 extra ids
pad, eos, unk            0, 1, 2
sentinels                32099, 32098, ..., 32000 (in order of use)
cls, separator, mask, modes, languages, markers   control pieces of the tokenizer file, see `CONTROL_PIECE`
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

ROLE_OF_PIECE = {
    "<cls>": "cls",
    "[CLS]": "cls",
    "<sep>": "separator",
    "[SEP]": "separator",
    "<mask>": "mask",
    "[MASK]": "mask",
}
# A control piece is never produced from text, so a corpus that contains "<mode:R>" does not switch modes.
CONTROL_PIECE = re.compile(
    r"(?P<role><cls>|\[CLS\]|<sep>|\[SEP\]|<mask>|\[MASK\])|<extra_id_(?P<sentinel>\d+)>|"
    r"<mode:(?P<mode>[^<>\s]+)>|<lang:(?P<lang>[^<>\s]+)>|<mark:(?P<mark>[^<>\s]+)>"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """Ids by role. `sentinels` are in order of use: the first hidden span is marked by sentinels[0].

    cls       stands before a text for an encoder, and answers for all of it
    markers   what single methods need, by name: <mark:e1> around an entity, <mark:fim_middle>, <mark:sop>
    """

    pad: int
    eos: int
    unk: int | None = None
    sentinels: tuple[int, ...] = ()
    cls: int | None = None
    separator: int | None = None
    mask: int | None = None
    modes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    languages: Mapping[str, int] = dataclasses.field(default_factory=dict)
    markers: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def roles(self) -> list[tuple[str, int]]:
        """Every (role, id) that is set, e.g. ("sentinel 0", 32099)."""
        single = {name: getattr(self, name) for name in ("pad", "eos", "unk", "cls", "separator", "mask")}
        return [
            *((role, token) for role, token in single.items() if token is not None),
            *((f"sentinel {k}", token) for k, token in enumerate(self.sentinels)),
            *((f"mode {name!r}", token) for name, token in self.modes.items()),
            *((f"language {name!r}", token) for name, token in self.languages.items()),
            *((f"marker {name!r}", token) for name, token in self.markers.items()),
        ]

    def mask_token(self) -> int:
        """The mask; a vocabulary without one hides text behind its first sentinel."""
        if self.mask is None and not self.sentinels:
            raise ValueError("the vocabulary has neither a mask token nor sentinels: add <mask>, or extra ids")
        return self.sentinels[0] if self.mask is None else self.mask

    def cls_token(self) -> int:
        """What stands before a text; a vocabulary without one begins with pad, as T5's decoder does."""
        return self.pad if self.cls is None else self.cls

    def separator_token(self) -> int:
        """What stands behind a text or a part of it; a vocabulary without one ends with EOS, as RoBERTa's."""
        return self.eos if self.separator is None else self.separator

    def marker(self, name: str) -> int:
        if name not in self.markers:
            raise ValueError(
                f"the vocabulary has no marker {name!r}, its markers are {sorted(self.markers)}: train the tokenizer "
                f"with the control piece <mark:{name}>, or extend it"
            )
        return self.markers[name]

    def check(self, vocab_size: int) -> "SpecialTokens":
        """Itself, or ValueError when two roles share an id or an id lies outside the vocabulary."""
        owner: dict[int, str] = {}
        for role, token in self.roles():
            if not 0 <= token < vocab_size:
                raise ValueError(f"special token {role} has id {token}, outside the vocabulary of {vocab_size} ids")
            if token in owner:
                raise ValueError(f"special tokens {owner[token]} and {role} both have id {token}: give each its own id")
            owner[token] = role
        return self

    def to_json(self) -> dict:
        return dataclasses.asdict(self) | {"sentinels": list(self.sentinels)}

    @classmethod
    def from_json(cls, values: Mapping) -> "SpecialTokens":
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown special token roles {unknown}: the roles are {sorted(known)}")
        return cls(**{**values, "sentinels": tuple(values.get("sentinels", ()))})


def from_control_pieces(ids_of_pieces: Mapping[str, int], *, base: SpecialTokens) -> SpecialTokens:
    """`base` with what the tokenizer file defines; sentinels only if `base` has none."""
    roles, modes, languages, markers, sentinels = {}, {}, {}, {}, {}
    for piece, token in ids_of_pieces.items():
        match = CONTROL_PIECE.fullmatch(piece.removeprefix("▁"))
        if match is None:
            continue
        if match["role"]:
            roles[ROLE_OF_PIECE[match["role"]]] = token
        elif match["mode"]:
            modes[match["mode"]] = token
        elif match["lang"]:
            languages[match["lang"]] = token
        elif match["mark"]:
            markers[match["mark"]] = token
        else:
            sentinels[int(match["sentinel"])] = token
    in_order = tuple(sentinels[k] for k in sorted(sentinels))
    taken = {token: role for role, token in base.roles()}
    roles = {role: token for role, token in roles.items() if token not in taken}  # [SEP] may be the EOS of BERT's file
    named = {"modes": modes, "languages": languages, "markers": markers}
    return dataclasses.replace(base, **roles, **named, sentinels=base.sentinels or in_order)


def check_control_pieces(pieces: Sequence[str]) -> None:
    for piece in pieces:
        if not CONTROL_PIECE.fullmatch(piece):
            raise ValueError(
                f"control piece {piece!r}: write '<cls>', '<sep>', '<mask>', '<mode:NAME>', '<lang:CODE>', "
                "'<mark:NAME>' or '<extra_id_N>'"
            )
    if len(set(pieces)) != len(pieces):
        raise ValueError(f"control pieces {list(pieces)} name one piece twice")
