"""The Kubernetes providers of a stack's cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pulumi
import pulumi_kubernetes as kubernetes

from model_serving.stack.inputs import Inputs

if TYPE_CHECKING:
    from components.google.cluster import Cluster


class Reach:
    """One provider, or two when jobs deploy through the agent, whose rights do not cover everything.

    Attributes:
        administrator: for the namespaces, RBAC and the agent itself.
        kubeconfig: of the models' cluster: its content, or a path; empty for the one that kubectl would read.
        context: of that kubeconfig; None uses its current one.
    """

    def __init__(self, stack: Inputs, cluster: Cluster | None) -> None:
        settings = stack.settings
        self._settings = settings
        self.kubeconfig: pulumi.Input[str] = stack.kubeconfig
        self.context = stack.kube_context
        if cluster and not (stack.kubeconfig or stack.kube_context):
            self.kubeconfig = cluster.kubeconfig
        self._has_two = True
        if cluster and settings.kube_context:
            self.administrator = self._provider("administrator", cluster.kubeconfig, None)
        elif settings.agent and settings.agent.administrator_context:
            context = settings.agent.administrator_context
            self.administrator = self._provider("administrator", stack.kubeconfig, context)
        else:
            self._has_two = False
            self.administrator = self._provider("cluster", self.kubeconfig, self.context)

    def models(self, *, after: Sequence[pulumi.Resource]) -> pulumi.ResourceOptions:
        """For the gateway and the models.

        Args:
            after: the agent: created before, and deleted after, whatever is reached through it.
        """
        if not self._has_two:
            return self.administrator
        return self._provider("cluster", self.kubeconfig, self.context, after)

    def _provider(
        self, name: str, kubeconfig: pulumi.Input[str], context: str | None, after: Sequence[pulumi.Resource] = ()
    ) -> pulumi.ResourceOptions:
        provider = kubernetes.Provider(
            name,
            # Empty rather than None, for which the SDK fills in KUBECONFIG: the provider finds that file itself, and
            # only copies a given one to /tmp.
            kubeconfig=kubeconfig,
            context=context,
            # Plain and constant: a preview replaces everything in a cluster whose identity it does not know.
            cluster_identifier=pulumi.get_stack(),
            # ConfigMaps, because previews may not read Secrets, where the agent's token is.
            helm_release_settings={"driver": "configmap"} if self._settings.agent else None,
            opts=pulumi.ResourceOptions(depends_on=[*after]),
        )
        return pulumi.ResourceOptions(providers=[provider])
