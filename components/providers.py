"""The ways into a stack's cluster: the providers that declare what is in it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pulumi
import pulumi_kubernetes as kubernetes

from model_serving.stack.inputs import Inputs
from model_serving.stack.settings import Settings

if TYPE_CHECKING:
    from components.google.cluster import Cluster


class Reach:
    """Two ways that are one, unless jobs go through an agent: then its own rights, and the namespaces, need another.

    Attributes:
        administrator: for what no agent may touch: the namespaces, rights, the agent itself.
    """

    def __init__(self, stack: Inputs, cluster: Cluster | None) -> None:
        self._stack = stack
        self._kubeconfig: pulumi.Input[str] = stack.kubeconfig
        if cluster and not (stack.kubeconfig or stack.kube_context):
            self._kubeconfig = cluster.kubeconfig
        apart = _administrator(stack, cluster)
        self._is_one = apart is None
        self.administrator = apart or self._of_jobs()

    def models(self, *, after: Sequence[pulumi.Resource]) -> pulumi.ResourceOptions:
        """For the gateway and the models.

        Args:
            after: what the way leads through, made before and deleted after whatever goes this way.
        """
        return self.administrator if self._is_one else self._of_jobs(after)

    @property
    def kubectl(self) -> list[str]:
        """The command that finds the models' cluster as their provider does; empty if there is none here.

        A kubeconfig that the platform makes is no file, and none is made of it: it would outlive a program that is
        killed.
        """
        if not isinstance(self._kubeconfig, str) or not shutil.which("kubectl"):
            return []
        given = {"kubeconfig": self._kubeconfig, "context": self._stack.kube_context}
        return ["kubectl", *(f"--{option}={value}" for option, value in given.items() if value)]

    def _of_jobs(self, after: Sequence[pulumi.Resource] = ()) -> pulumi.ResourceOptions:
        return _options("cluster", self._stack.settings, self._kubeconfig, self._stack.kube_context, after)


def _administrator(stack: Inputs, cluster: Cluster | None) -> pulumi.ResourceOptions | None:
    settings = stack.settings
    if cluster and settings.kube_context:
        return _options("administrator", settings, cluster.kubeconfig, None)
    if settings.agent and settings.agent.administrator_context:
        return _options("administrator", settings, stack.kubeconfig, settings.agent.administrator_context)
    return None


def _options(
    name: str,
    settings: Settings,
    kubeconfig: pulumi.Input[str],
    context: str | None,
    after: Sequence[pulumi.Resource] = (),
) -> pulumi.ResourceOptions:
    provider = kubernetes.Provider(
        name,
        # Empty and not None, for which the SDK fills in KUBECONFIG itself: the provider finds the same file by itself,
        # and leaves no copy of it in /tmp, as it does with one that it is given.
        kubeconfig=kubeconfig,
        context=context,
        # Plain and constant: a preview replaces everything in a cluster whose identity it does not know.
        cluster_identifier=pulumi.get_stack(),
        # In ConfigMaps, which a preview may read: beside Secrets there would be the agent's token.
        helm_release_settings={"driver": "configmap"} if settings.agent else None,
        opts=pulumi.ResourceOptions(depends_on=[*after]),
    )
    return pulumi.ResourceOptions(providers=[provider])
