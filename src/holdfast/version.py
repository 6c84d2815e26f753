"""The version of this release; metadata of distributions takes long to read in a browser."""

__version__ = "0.1.0"
