"""The GitLab agent, through which jobs reach a cluster without credentials for it."""
