"""The two-level vocabulary: a value, an encoder, a decoder, a grammar and exact likelihoods.

A library of its own: it needs NumPy and JAX, and of omnijax nothing but the errors. These are its public names.
"""

from omnijax.vocab.assemble import assemble
from omnijax.vocab.assignment import Assignment, Frequency, Gray, Hilbert, Identity, Random, Transposed, Tree
from omnijax.vocab.cost import position_tokens
from omnijax.vocab.decode import Error, Kind, Reading, decode
from omnijax.vocab.documents import Documents, Segment
from omnijax.vocab.encode import count_tokens, encode
from omnijax.vocab.grammar import Grammar, SegmentRule
from omnijax.vocab.ids import GeneralIds, PrimaryIds, SecondaryIds
from omnijax.vocab.likelihood import item_bits, token_bits
from omnijax.vocab.vocabulary import Marker, Space, Vocabulary

__all__ = ["Assignment", "Documents", "Error", "Frequency", "GeneralIds", "Grammar", "Gray", "Hilbert", "Identity"]
__all__ += ["Kind", "Marker", "PrimaryIds", "Random", "Reading", "SecondaryIds", "Segment", "SegmentRule", "Space"]
__all__ += ["Transposed", "Tree", "Vocabulary", "assemble", "count_tokens", "decode", "encode", "item_bits"]
__all__ += ["position_tokens", "token_bits"]
