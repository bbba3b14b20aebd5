"""Images of releases: how they are built, what a registry has already, and large files on their way into them."""
