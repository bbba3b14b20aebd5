"""The local cluster: real Kubernetes, an image registry, a builder and a gateway as processes of this machine."""
