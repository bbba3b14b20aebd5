"""The commands of a model's repository: releasing, converting and reporting."""
