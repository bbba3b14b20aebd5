"""The keys of MLServer's settings that the catalog knows are those of the package itself."""

from __future__ import annotations

import json
import subprocess

from model_serving.catalog import mlserver_keys
from tests.release.repositories import interpreter

_KEYS = """
import json
from mlserver.settings import ModelParameters, ModelSettings, Settings
forms = (ModelSettings, ModelParameters, Settings)
keys = {form: [field.serialization_alias or key for key, field in form.model_fields.items()] for form in forms}
print(json.dumps({form.__name__: sorted(found) for form, found in keys.items()}))
"""


def test_every_key_of_mlservers_settings_is_known() -> None:
    done = subprocess.run([interpreter(), "-c", _KEYS], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == {
        "ModelSettings": sorted(mlserver_keys.MODEL),
        "ModelParameters": sorted(mlserver_keys.PARAMETERS),
        "Settings": sorted(mlserver_keys.SERVER),
    }
