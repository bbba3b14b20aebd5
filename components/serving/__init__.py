"""What serves the models: images, servers, contract checks and routes."""
