"""Everything but the declaration of resources: plain Python, without Pulumi."""
