"""TFDS package of the data set `spoken_digits`."""
