"""What other tools leave of a model, read into releases: a module per tool.

Each only reads, and never unpickles: to unpickle a file is to run whatever it says.
"""
