"""Whether the program has been called for a review instead of a stack."""

from __future__ import annotations

import os

from model_serving.stack.inputs import Inputs
from model_serving.stack.reviews import Review


def declared(stack: Inputs) -> bool:
    """Declares the review that the program has been called for; false if it serves a stack."""
    review = Review.of(os.environ)
    if review is None:
        return False
    # Imported here: a stack does not wait for it.
    from components.serving.review import ServedReview  # noqa: PLC0415

    ServedReview(stack, review).declare()
    return True
