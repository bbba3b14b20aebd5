"""Serves the pipeline as MLServer serves any model of scikit-learn, and imports the module that its pickle names."""

# MLServer finds a release's modules only while it imports the implementation, which is this one.
import ratios  # noqa: F401
from mlserver_sklearn import SKLearnModel


class Model(SKLearnModel):
    """Nothing is different: the import above is the point."""
