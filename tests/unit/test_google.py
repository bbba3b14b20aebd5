"""The light classes of components/google.py against those of Google's SDK, which they stand for."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pulumi
import pulumi_gcp
import pytest
from pulumi import _types

from components import cluster, edge, google, identity, network, observability, platform, registry, services, storage
from components.google import FREE, LIGHT, camel
from gcp import GcpSettings
from tests.unit.conftest import mocked
from tests.unit.test_gcp_components import ADOPTED, EVERYTHING, CloudRecorder

# Google's SDK marks modules as deprecated that it loads itself.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

CLASSES = [(module, name) for module, classes in LIGHT.items() for name in classes]
COMPONENTS = (cluster, edge, identity, network, observability, platform, registry, services, storage)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, set[str], set[str]]]:
    """Makes a resource of a class; hands out its type, its properties and which of its outputs are secret."""
    seen: list[tuple[str, Any, pulumi.ResourceOptions]] = []

    def record(self: object, token: str, name: str, properties: Any, opts: pulumi.ResourceOptions) -> None:
        seen.append((token, properties, opts))

    monkeypatch.setattr(pulumi.CustomResource, "__init__", record)

    def make(cls: Callable[..., object], **inputs: Any) -> tuple[str, set[str], set[str]]:
        cls("name", **inputs)
        token, properties, opts = seen.pop()
        names = properties if isinstance(properties, dict) else vars(properties)
        return token, {camel(name) for name in names}, {*(opts.additional_secret_outputs or ())}

    return make


@pytest.mark.parametrize(("module", "name"), CLASSES)
def test_a_light_class_registers_what_the_sdks_own_does(
    registered: Callable[..., tuple[str, set[str], set[str]]], module: str, name: str
) -> None:
    sdk = getattr(pulumi_gcp, module)
    parameters = inspect.signature(getattr(sdk, f"{name}Args").__init__).parameters.values()
    required = {each.name: "x" for each in parameters if each.default is each.empty and each.name != "__self__"}
    light = registered(getattr(getattr(google.gcp, module), name), **required)
    whole = registered(getattr(sdk, name), **required)
    assert (light[0], light[2]) == (whole[0], whole[2])
    assert light[1] <= whole[1], "it reads outputs that the SDK's class does not have"


@pytest.mark.parametrize(("module", "name"), CLASSES)
def test_every_name_below_is_spelt_as_the_sdk_spells_it(module: str, name: str) -> None:
    arguments = getattr(getattr(pulumi_gcp, module), f"{name}Args")
    for python, engine, expected in _properties(arguments):
        assert camel(python) == engine
        if typing.get_origin(expected) in (dict, Mapping):
            assert python in FREE, f"the keys below {python} are the user's own"
        elif _types.is_input_type(_element(expected)):
            assert python not in FREE, f"the keys below {python} are the SDK's"


def _properties(arguments: type, within: tuple[type, ...] = ()) -> Iterator[tuple[str, str, Any]]:
    """Every property below a type: as Python spells it, as the engine does, and its type."""
    types = _types.input_type_types(arguments)
    for python, engine in _types.input_type_py_to_pulumi_names(arguments).items():
        expected = _types.unwrap_type(types[engine])
        yield python, engine, expected
        below = _element(expected)
        if _types.is_input_type(below) and below not in within:
            yield from _properties(below, (*within, below))


def _element(expected: Any) -> Any:
    """What a list is of; anything else is that itself."""
    while typing.get_origin(expected) in (list, Sequence):
        expected = _types.unwrap_type(typing.get_args(expected)[0])
    return expected


@pytest.mark.parametrize("sections", [{}, EVERYTHING, ADOPTED])
def test_a_platform_of_light_classes_is_the_platform_of_the_sdks(
    monkeypatch: pytest.MonkeyPatch, sections: dict[str, Any]
) -> None:
    light = _declared(sections)
    for component in COMPONENTS:
        monkeypatch.setattr(component, "gcp", pulumi_gcp)
    monkeypatch.setattr(cluster, "_endpoint", lambda config: config.dns_endpoint_config.endpoint)
    assert light == _declared(sections)


def _declared(sections: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    settings = GcpSettings.model_validate({"project": "acme-models", "region": "europe-west1"} | sections)
    args = platform.PlatformArgs(settings=settings, namespace="models")
    with mocked(CloudRecorder()) as recorder:
        pulumi.runtime.test(lambda: platform.Platform("platform", args) and None)()  # type: ignore[no-untyped-call]
    return recorder.made


def test_what_is_not_light_is_the_sdks_own() -> None:
    assert google.gcp.Provider is pulumi_gcp.Provider
    assert google.gcp.compute.Firewall is pulumi_gcp.compute.Firewall


def test_an_output_that_was_not_named_is_refused_with_where_to_name_it(
    registered: Callable[..., tuple[str, set[str], set[str]]],
) -> None:
    network = google.gcp.compute.Network("network")
    with pytest.raises(AttributeError, match=r"gateway_ipv4 here: components/google\.py"):
        network.gateway_ipv4  # noqa: B018 - asked for, not used
