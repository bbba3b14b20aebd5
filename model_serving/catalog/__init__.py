"""The released models: the folder ``models/``, read and checked before anything is built or changed."""

from model_serving.catalog.reader import read
from model_serving.catalog.release_folder import LOCK, OTHER_VERSIONS, REQUEST, RESPONSE, SETTINGS
from model_serving.catalog.releases import Catalog, Release, meant, object_name, order

__all__ = [
    "LOCK",
    "OTHER_VERSIONS",
    "REQUEST",
    "RESPONSE",
    "SETTINGS",
    "Catalog",
    "Release",
    "meant",
    "object_name",
    "order",
    "read",
]
