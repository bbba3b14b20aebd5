"""GitLab as far as the agent needs it: agents, their tokens, files in a repository."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Final

import grpc

from tests.engine.provider import UNKNOWN, Path_, Provider, number_of
from tests.engine.store import Properties, Refused, Request

AGENT: Final = "gitlab:index/clusterAgent:ClusterAgent"
TOKEN: Final = "gitlab:index/clusterAgentToken:ClusterAgentToken"  # noqa: S105 - a type of resource
FILE: Final = "gitlab:index/repositoryFile:RepositoryFile"
GLAGENT: Final = "glagent-stand-in"
"""How every token begins that the stand-in makes up: whatever looks like it in a state file or an output is a leak."""
MOST_TOKENS: Final = 2

INPUTS: Final[dict[str, tuple[frozenset[str], frozenset[str]]]] = {
    AGENT: (frozenset({"project"}), frozenset({"name"})),
    TOKEN: (frozenset({"project", "agentId"}), frozenset({"name", "description"})),
    FILE: (
        frozenset({"project", "branch", "filePath", "content", "encoding"}),
        frozenset({"commitMessage", "overwriteOnCreate"}),
    ),
}
"""Type to what is required and what else this project uses, as the SDK spells it: tests compare both."""
_UPDATED: Final = {FILE: frozenset({"content", "commitMessage", "overwriteOnCreate"})}


class GitLab(Provider):
    """Refuses what GitLab refuses: a request without a token, and a third active token of an agent."""

    package: ClassVar[str] = "gitlab"

    def problems(self, token: str, inputs: Properties) -> Iterator[tuple[str, str]]:
        if token not in INPUTS:
            yield "", f"the stand-in for gitlab does not know {token}"
            return
        required, optional = INPUTS[token]
        for key in sorted(required - inputs.keys()):
            yield key, "is missing"
        for key in sorted(inputs.keys() - required - optional):
            yield key, "is no property that the stand-in knows"

    def identify(self, request: Request) -> str:
        return IDENTIFIERS[request.token](request.inputs)

    def computed(self, request: Request) -> Properties:
        return OUTPUTS[request.token](request)

    def planned(self, token: str, inputs: Properties) -> Properties:
        return {**inputs, **dict.fromkeys(UNKNOWN_BEFORE[token], UNKNOWN)}

    def replaced_by(self, token: str, path: Path_) -> bool:
        return path[0] not in _UPDATED.get(token, frozenset())

    def before_create(self, request: Request, content: dict[str, Any]) -> None:
        self._authorized()
        if request.token == TOKEN:
            active = [
                each
                for each in content["resources"].values()
                if each["token"] == TOKEN and each["inputs"]["agentId"] == request.inputs["agentId"]
            ]
            if len(active) >= MOST_TOKENS:
                raise Refused(
                    grpc.StatusCode.INVALID_ARGUMENT, "400: An agent can have only two active tokens at a time"
                )

    def before_delete(self, request: Request, content: dict[str, Any]) -> bool:
        self._authorized()
        return True

    def _authorized(self) -> None:
        if not self.environ.get("GITLAB_TOKEN"):
            raise Refused(grpc.StatusCode.UNAUTHENTICATED, "401 Unauthorized")


def _number(*parts: Any) -> int:
    return int(number_of(":".join(map(str, parts)))[:7])


def _agent(request: Request) -> Properties:
    return {"agentId": int(request.identifier.rpartition(":")[2]), "createdByUserId": 1}


def _token(request: Request) -> Properties:
    number = request.identifier.rpartition(":")[2]
    # Plain, as GitLab answers: it is the SDK that says that it is a secret.
    return {"token": f"{GLAGENT}-{number}", "tokenId": int(number), "status": "active"}


def _file(request: Request) -> Properties:
    commit = hashlib.sha256(str(request.inputs["content"]).encode()).hexdigest()[:40]
    return {"blobId": commit, "commitId": commit}


IDENTIFIERS: Final[Mapping[str, Callable[[Properties], str]]] = {
    AGENT: lambda inputs: f"{inputs['project']}:{_number(inputs['project'], inputs['name'])}",
    TOKEN: lambda inputs: f"{inputs['project']}:{inputs['agentId']}:{_number(inputs['agentId'], inputs['name'])}",
    FILE: lambda inputs: f"{inputs['project']}:{inputs['branch']}:{inputs['filePath']}",
}
OUTPUTS: Final[Mapping[str, Callable[[Request], Properties]]] = {AGENT: _agent, TOKEN: _token, FILE: _file}
UNKNOWN_BEFORE: Final[Mapping[str, tuple[str, ...]]] = {
    AGENT: ("agentId", "createdByUserId"),
    TOKEN: ("token", "tokenId", "status"),
    FILE: ("blobId", "commitId"),
}
"""What a preview of a new resource cannot know."""
