"""A folder of files as a data set: what lies in it, which modalities fit it, and an experiment file for it."""
