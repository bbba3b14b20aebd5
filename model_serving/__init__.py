"""What the serving repository and those of models share: plain Python, without Pulumi and without a cloud."""
