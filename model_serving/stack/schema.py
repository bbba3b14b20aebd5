"""Prints the JSON Schema of the stack files: ``python -m model_serving schema``."""

from __future__ import annotations

import argparse
import json
from typing import Any, Final

from model_serving.stack.settings import NAMESPACE, Settings

HELP: Final = "print the JSON Schema of the stack files"


def schema() -> dict[str, Any]:
    """What a stack file may say. Editors complete and check by it; the program itself checks more."""
    settings = Settings.model_json_schema(by_alias=True)
    definitions = settings.pop("$defs")
    keys = {f"{NAMESPACE}:{key}": value for key, value in settings["properties"].items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A stack of model-serving",
        "type": "object",
        "properties": {
            "config": {
                "type": "object",
                "properties": keys,
                # Other projects' keys, such as gcp:project, are none of our business; our own are all here.
                "patternProperties": {f"^(?!{NAMESPACE}:)": {}},
                "additionalProperties": False,
            }
        },
        "$defs": definitions,
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Example: python -m model_serving schema > stacks/schema.json"


def run(_: argparse.Namespace) -> int:
    print(json.dumps(schema(), indent=2, ensure_ascii=False))
    return 0
