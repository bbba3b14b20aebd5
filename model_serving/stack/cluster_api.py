"""The Kubernetes API of a kubeconfig, read as kubectl does."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from kubernetes import client, config
from urllib3 import HTTPHeaderDict


class _Impersonating(client.rest.RESTClientObject):
    """Adds the identity that a kubeconfig names, which the client leaves out; each group is a header of its own."""

    def __init__(self, configuration: client.Configuration, identity: Sequence[tuple[str, str]]) -> None:
        super().__init__(configuration)
        self._identity = identity

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        post_params: Any = None,
        _request_timeout: Any = None,
    ) -> Any:
        sent = HTTPHeaderDict(headers or {})
        for name, value in self._identity:
            sent.add(name, value)
        return super().request(method, url, sent, body, post_params, _request_timeout)  # type: ignore[no-untyped-call]


def connect(kubeconfig: str, context: str | None) -> client.ApiClient:
    """A client of the cluster.

    Args:
        kubeconfig: its content, as JSON; or a path; empty for the one that kubectl would read.
        context: None uses its current context.

    Raises:
        kubernetes.config.ConfigException: if it cannot be used.
    """
    api: client.ApiClient
    if kubeconfig.startswith("{"):
        contents = [json.loads(kubeconfig)]
        api = config.new_client_from_config_dict(contents[0], context=context)
    else:
        paths = (kubeconfig or config.KUBE_CONFIG_DEFAULT_LOCATION).split(os.pathsep)
        api = config.new_client_from_config(os.pathsep.join(paths), context=context)
        existing = [path for name in paths if name and (path := Path(name).expanduser()).exists()]
        contents = [yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader) for path in existing]
    if identity := [*_identity(_user(contents, context))]:
        api.rest_client = _Impersonating(api.configuration, identity)
    return api


def _user(kubeconfigs: Sequence[Mapping[str, Any]], context: str | None) -> Mapping[str, Any]:
    """The user of a context; in several kubeconfigs, the first entry of a name counts."""
    name = context or next(each["current-context"] for each in kubeconfigs if each.get("current-context"))
    chosen = _named(kubeconfigs, "contexts", name)["context"]["user"]
    return dict(_named(kubeconfigs, "users", chosen)["user"])


def _named(kubeconfigs: Sequence[Mapping[str, Any]], kind: str, name: str) -> Mapping[str, Any]:
    entries = (entry for each in kubeconfigs for entry in each.get(kind) or [])
    return dict(next(entry for entry in entries if entry["name"] == name))


def _identity(user: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Headers, https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation."""
    for key, header in (("as", "Impersonate-User"), ("as-uid", "Impersonate-Uid")):
        if key in user:
            yield header, user[key]
    for group in user.get("as-groups") or []:
        yield "Impersonate-Group", group
    for key, values in (user.get("as-user-extra") or {}).items():
        for value in values:
            yield f"Impersonate-Extra-{quote(key, safe='')}", value
