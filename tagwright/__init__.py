"""Tagwright: a website's pages all the way to a live tagger (collect, clean, train, compress, serve)."""

__version__ = "0.1.0"
