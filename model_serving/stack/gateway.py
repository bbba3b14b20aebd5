"""Settings of the gateway, under ``model-serving:gateway``."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from model_serving.sections import Cidr, DnsName, HttpUrl, Section

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def _as_browsers_write_it(origin: str) -> str:
    parts = urlsplit(origin)
    is_default = parts.port is not None and parts.port == _DEFAULT_PORTS[parts.scheme]
    right = f"{parts.scheme}://{parts.hostname}" + ("" if parts.port is None or is_default else f":{parts.port}")
    if origin != right:
        raise ValueError(f"which browsers write {right}")
    return origin


Origin = Annotated[HttpUrl, AfterValidator(_as_browsers_write_it)]
"""The origin of a page, as in the header of a browser's request."""


class GatewaySettings(Section):
    """The gateway through which clients reach the models."""

    class_name: DnsName | None = Field(
        None,
        examples=["istio"],
        description="GatewayClass, which determines the implementation of the gateway. With a gcp section, it "
        "defaults to Google's load balancer.",
    )
    endpoint: HttpUrl | None = Field(
        None,
        json_schema_extra={
            "consequence": "The stack's outputs would show an address that no client can use.",
            "remedy": "Write scheme, host and port and nothing after them, e.g. http://127.0.0.1:8080.",
        },
        description="Address of the gateway for clients, if it differs from the address that the Gateway reports.",
    )
    cluster_endpoint: HttpUrl | None = Field(
        None,
        json_schema_extra={
            "consequence": "No version could be checked before it gets traffic, and no release would complete.",
            "remedy": "Write scheme, host and port and nothing after them, e.g. http://10.0.0.5.",
        },
        description="Address of the gateway for the pods that check a new version, if it differs from the address "
        "that the Gateway reports.",
    )
    client_ranges: list[Cidr] = Field(
        default_factory=list,
        json_schema_extra={
            "consequence": "The pods would reject the gateway, and every request would get 503.",
            "remedy": "Write ranges such as 10.0.0.0/24.",
        },
        description="Addresses from which the gateway's proxies connect to pods; only these are allowed.",
    )
    allowed_origins: list[Origin] = Field(
        default_factory=list,
        examples=["https://app.example.com"],
        json_schema_extra={
            "consequence": "Browsers would not let that page ask the models.",
            "remedy": "Write scheme and host, and the port if it is not the default, e.g. https://app.example.com.",
        },
        description="Origins of web pages whose scripts may ask the models (CORS). Defaults to none. Clients other "
        "than browsers need no permission.",
    )
    grpc: bool = Field(
        False,
        description="Let clients ask the models over gRPC as well, at the same address: the V2 protocol's "
        "`inference.GRPCInferenceService`, with the metadata `x-model-name` and, for a certain version, "
        "`x-model-version`. The gateway must speak HTTP/2 to Services whose appProtocol is kubernetes.io/h2c.",
    )
