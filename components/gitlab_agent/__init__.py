"""The GitLab agent, through which jobs reach a cluster without its credentials."""
