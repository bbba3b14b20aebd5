"""Converters that read the models of other tools into releases: a module per tool.

They never unpickle: unpickling a file runs whatever code it contains.
"""
