"""The keys of MLServer's settings: which of them a release may have, and why not the others.

As of https://github.com/SeldonIO/MLServer/blob/1.7.1/mlserver/settings.py; docs/runtimes.md has them in a table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple


class Refused(NamedTuple):
    """Why a key is refused; with the default values, it changes nothing."""

    consequence: str
    remedy: str
    defaults: tuple[object, ...] = (None, False)


_ENVIRONMENT: Final = Refused(
    "The packages of the lock are the only environment in the image: MLServer would ignore this one, or fail.",
    "Remove it, and lock what the model needs.",
)
_POOL: Final = Refused(
    "MLServer would start processes for it whose memory is not counted; each pod serves only one model anyway.",
    "Remove it.",
)
MODEL: Final[Mapping[str, Refused | None]] = {
    "name": None,
    "implementation": None,
    "parameters": None,
    "platform": None,
    "versions": None,
    "inputs": None,
    "outputs": None,
    "cache_enabled": None,
    "max_batch_size": Refused(
        "MLServer merges requests that ask for different outputs or parameters, so clients would get wrong answers.",
        "Remove it, together with max_batch_time. To serve more requests, add replicas or workers in the stack file.",
        (0, 1),
    ),
    "max_batch_time": Refused(
        "It has no effect without max_batch_size, which is refused because it gives clients wrong answers.",
        "Remove it.",
        (0,),
    ),
    "parallel_workers": Refused(
        "MLServer ignores it: the number of processes is a setting of the server.",
        "Remove it, and set workers for the model in the stack file.",
        (None, 0),
    ),
    "warm_workers": Refused("MLServer ignores it: workers always load the model before they serve.", "Remove it."),
}
"""Keys of model-settings.json."""
PARAMETERS: Final[Mapping[str, Refused | None]] = {
    "uri": None,
    "version": None,
    "format": None,
    "content_type": None,
    "extra": None,
    "environment_path": _ENVIRONMENT,
    "environment_tarball": _ENVIRONMENT,
    "inference_pool_gid": _POOL,
    "autogenerate_inference_pool_gid": _POOL,
}
"""Keys inside ``parameters``. A model's own code may have others."""
SERVER: Final = frozenset(
    {
        *("debug", "parallel_workers", "parallel_workers_timeout", "environments_dir"),
        *("model_repository_implementation", "model_repository_root", "model_repository_implementation_args"),
        *("load_models_at_startup", "server_name", "server_version", "extensions"),
        *("host", "http_port", "root_path", "grpc_port", "grpc_max_message_length", "cors_settings"),
        *("metrics_endpoint", "metrics_port", "metrics_rest_server_prefix", "metrics_dir"),
        *("use_structured_logging", "logging_settings", "tracing_server"),
        *("kafka_enabled", "kafka_servers", "kafka_topic_input", "kafka_topic_output"),
        *("cache_enabled", "cache_size", "gzip_enabled"),
    }
)
"""Keys of the server's own settings.json, which no release has."""
_OF_THE_SERVER: Final = Refused(
    "It is a setting of the server, and MLServer does not look for it there.",
    "Remove it; docs/runtimes.md says how a stack sets it.",
    (),
)

_OPTIONAL_TEXT: Final = (lambda value: isinstance(value, str | None), "text")
_FORMS: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "platform": (lambda value: isinstance(value, str), "text"),
    "versions": (
        lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
        "a list of text",
    ),
    "cache_enabled": (lambda value: not isinstance(value, list | dict | None), "true or false"),
    "parameters.format": _OPTIONAL_TEXT,
    "parameters.content_type": _OPTIONAL_TEXT,
    "parameters.extra": (lambda value: isinstance(value, dict | None), "an object"),
}
"""Key that a release may have -> what MLServer takes for it; other keys are compared with the release or its files."""


def refused(settings: Mapping[str, Any]) -> Iterator[tuple[str, Refused]]:
    """The keys of a model-settings.json that are ignored by MLServer or harmful: what is wrong, and why."""
    parameters = settings.get("parameters")
    for place, holder, keys, others in (
        ("", settings, MODEL, PARAMETERS),
        ("parameters.", parameters if isinstance(parameters, dict) else {}, PARAMETERS, MODEL),
    ):
        for key, value in holder.items():
            fits, form = _FORMS.get(f"{place}{key}", (None, ""))
            reason = keys[key] if key in keys else _misplaced(key, others)
            if fits and not fits(value):
                reason = Refused("MLServer would not load the model.", f"Write {form} there, or remove it.", ())
            if reason and value not in reason.defaults:
                yield f"{place}{key} is {json.dumps(value, ensure_ascii=False)}", reason


def _misplaced(key: str, others: Mapping[str, Refused | None]) -> Refused | None:
    if key == "version":
        # Common in models for KServe; its absence inside parameters is refused.
        return None
    if key in others:
        where = "inside" if others is PARAMETERS else "outside of"
        moved = Refused("MLServer ignores it there.", f"Move it {where} parameters.", ())
        return others[key] or moved
    return _OF_THE_SERVER if key in SERVER else None
