"""Starts MLServer with the one release of an image, so that no client can harm another one.

Who got it wrong decides an error's status, and no text of an exception is read for that:

- The client (4xx): the body is no request of the V2 protocol, it does not fit the inputs in the model's metadata, or it
  cannot be decoded. The same holds if an estimator that tells how many features it was fitted with gets another number.
- The model (5xx): everything that is raised after that. Only an exception that carries an HTTP status is believed, e.g.
  MLServer's InferenceError or MLflow's MlflowException.

The image has this package under another name, so that a model may have a module named server. Imports are relative.
"""
