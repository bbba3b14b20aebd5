"""The commands that this repository's pipelines call; each works on a laptop as well."""
