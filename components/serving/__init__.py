"""Images, servers, contract checks and routes of the models."""
