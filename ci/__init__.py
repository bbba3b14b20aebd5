"""What the pipelines call; each command works on a laptop as well."""
