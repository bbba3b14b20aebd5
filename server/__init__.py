"""What runs in the pods: Dockerfiles of their images, and the contract check."""
