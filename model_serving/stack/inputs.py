"""Everything that people wrote, read and checked as a whole before anything is declared."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model_serving import catalog
from model_serving.problems import InvalidInput, Problem
from model_serving.stack import gitlab_agent, live, preflight, settings

MODELS: Final = Path("models")


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A stack's settings and the models that it serves.

    Attributes:
        kube_context: what this machine reaches the cluster through; None uses the kubeconfig's current one, or the
            platform's own if the stack has a platform.
    """

    settings: settings.Settings
    models: tuple[live.LiveModel, ...]
    kube_context: str | None

    @property
    def kubeconfig(self) -> str:
        """Path of the kubeconfig that the stack names; empty if it names none."""
        return str(preflight.kubeconfig_paths(self.settings)[0]) if self.settings.kubeconfig else ""

    @property
    def releases(self) -> list[catalog.Release]:
        """Everything that is deployed."""
        return [version.release for model in self.models for version in model.versions]


def read(stack: str, values: Mapping[str, str], *, secret: Collection[str] = ()) -> Inputs:
    """Reads the stack file and the models, and looks whether cluster and registry are there.

    Args:
        stack: the stack's name.
        values: its configuration, key with prefix -> text.
        secret: the keys that are encrypted in the stack file.

    Raises:
        InvalidInput: with every mistake of both; nothing was changed.
    """
    problems: list[Problem] = []
    file = settings.file_of(stack)
    chosen, released = None, None
    try:
        chosen = settings.read(stack, values, secret=secret)
    except InvalidInput as error:
        problems += error.problems
    try:
        released = catalog.read(MODELS)
    except InvalidInput as error:
        problems += error.problems
    if chosen and chosen.agent:
        problems += gitlab_agent.chart_problems(chosen.agent, stack=stack)
        problems += gitlab_agent.configuration_problems(chosen.agent, stack=stack, serving_namespace=chosen.namespace)
    if chosen is None or released is None or problems:
        raise InvalidInput(problems)
    models = live.resolve(chosen, released, file=file)
    # A platform of the stack's own may be there only after the first update.
    if chosen.gcp is None:
        preflight.check(chosen, file=file)
        context = chosen.kube_context
    else:
        context = chosen.kube_context if preflight.has_context(chosen) else None
    return Inputs(settings=chosen, models=models, kube_context=context)
