"""The two-level vocabulary: a value, an encoder, a decoder, a grammar and exact likelihoods."""
