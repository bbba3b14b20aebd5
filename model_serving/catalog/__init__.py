"""The released models: the folder ``models/``, read and checked before anything is built or changed."""

from model_serving.catalog.releases import (
    LOCK,
    OTHER_VERSIONS,
    REQUEST,
    RESPONSE,
    SETTINGS,
    Catalog,
    Release,
    order,
    read,
)

__all__ = ["LOCK", "OTHER_VERSIONS", "REQUEST", "RESPONSE", "SETTINGS", "Catalog", "Release", "order", "read"]
