"""Prints the JSON Schema of the stack files: ``python -m ci.schema``."""

from __future__ import annotations

import json
import sys
from typing import Any

from settings import NAMESPACE, Settings


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


if __name__ == "__main__":
    json.dump(schema(), sys.stdout, indent=2, ensure_ascii=False)
    print()
