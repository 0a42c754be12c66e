"""The worked example of the source document (appendix 5.1): its vocabulary, its information, its tokens."""

from __future__ import annotations

import numpy as np

from omnijax.vocab.documents import Documents, Segment
from omnijax.vocab.encode import encode
from omnijax.vocab.ids import GeneralIds, SecondaryIds
from omnijax.vocab.vocabulary import Space, Vocabulary

GENERAL_TOKENS = ("A", "B", "C", "D")
FRAGMENTS = {
    "t_pad": ("t_pad",),
    "text": ("AB", "BC", "CD", "BCD", "CDA"),
    "image": ("img_sp1", "img_sp2"),
    "voice": ("voice_sp1", "voc_sp2"),
}
INFORMATION = ("A", "B", "C", "D", "BCD", "img_sp1", "img_sp2", "voice_sp1", "voc_sp2")


def example_vocabulary(printed: bool = False) -> Vocabulary:
    """The vocabulary that the document lists; `printed` adds the position token that its printed ids need."""
    return Vocabulary(
        general=len(GENERAL_TOKENS),
        general_names=GENERAL_TOKENS,
        positions=11 if printed else 10,
        digits=10,
        base=9,
        spaces=tuple(Space(name, len(fragments)) for name, fragments in FRAGMENTS.items()),
    )


def example_document() -> list[Segment]:
    """The information of the example, one segment without a marker."""
    parts: list[GeneralIds | SecondaryIds] = []
    for item in INFORMATION:
        sets = {"": GENERAL_TOKENS, **FRAGMENTS}.items()
        space, number = next((name, np.array([among.index(item)])) for name, among in sets if item in among)
        parts.append(SecondaryIds(space, number) if space else GeneralIds(number))
    return [Segment.of(example_vocabulary(), None, *parts)]


def worked_example(printed: bool = False) -> dict[str, list[str] | list[int]]:
    """Symbols and ids of the encoded example."""
    vocabulary = example_vocabulary(printed)
    ids = encode(vocabulary, Documents.of([example_document()])).tokens.array.tolist()
    symbols = vocabulary.symbols()
    return {"symbols": [symbols[i] for i in ids], "ids": ids}
