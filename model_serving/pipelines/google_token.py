#!/opt/model-serving/venv/bin/python
"""Hands the job's Google identity to kubectl's and Docker's clients, each in the form in which they ask for it.

The tool image has this file under the two names that they call, so it imports nothing of this project:
``gke-gcloud-auth-plugin`` (https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins)
and ``docker-credential-model-serving`` (https://github.com/docker/docker-credential-helpers#development). Google's own
plugin comes with the whole of gcloud, a gigabyte.
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import google.auth
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request

SCOPES: Final = (
    "https://www.googleapis.com/auth/cloud-platform",
    # Without it, GKE knows a service account only by its number, and no RoleBinding to its email applies.
    # https://cloud.google.com/kubernetes-engine/docs/how-to/role-based-access-control
    "https://www.googleapis.com/auth/userinfo.email",
)


def for_kubernetes(credentials: Any) -> dict[str, Any]:
    status = {"token": credentials.token, "expirationTimestamp": f"{credentials.expiry:%Y-%m-%dT%H:%M:%SZ}"}
    return {"apiVersion": "client.authentication.k8s.io/v1beta1", "kind": "ExecCredential", "status": status}


def for_docker(credentials: Any) -> dict[str, Any]:
    # https://cloud.google.com/artifact-registry/docs/docker/authentication#token
    return {"Username": "oauth2accesstoken", "Secret": credentials.token}


FORMS: Final[Mapping[str, Callable[[Any], dict[str, Any]]]] = {
    "gke-gcloud-auth-plugin": for_kubernetes,
    "docker-credential-model-serving": for_docker,
}
"""Name of the command -> what it prints."""


def main() -> int:
    try:
        credentials: Any = google.auth.default(scopes=SCOPES)[0]
        credentials.refresh(Request())
    except GoogleAuthError as error:
        print(
            f"Google gave no token: {error}\n"
            "  The cluster or the registry cannot be reached.\n"
            "  Compare the numbers under gcp.identity and ci.projectNumber of the stack with those of the repository "
            "and the project; docs/ci.md says how.",
            file=sys.stderr,
        )
        return 1
    print(json.dumps(FORMS[Path(sys.argv[0]).name](credentials)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
