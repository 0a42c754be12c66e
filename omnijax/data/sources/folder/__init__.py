"""A folder of files as a data set: a source, and the index of what lies in the folder."""

from omnijax.data.sources.folder.source import Folder

__all__ = ["Folder"]
