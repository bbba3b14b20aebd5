"""What a stack says, as the program gets it from Pulumi."""

from __future__ import annotations

import pulumi

from model_serving.problems import InvalidInput
from model_serving.stack import inputs


def read() -> inputs.Inputs:
    """The settings of the selected stack, and the releases that it serves.

    Raises:
        pulumi.RunError: with everything that is wrong, before anything is declared.
    """
    config = pulumi.runtime.config.get_config_env()
    try:
        return inputs.read(pulumi.get_stack(), config, secret=[*filter(pulumi.runtime.is_config_secret, config)])
    except InvalidInput as error:
        raise pulumi.RunError(f"nothing was changed.\n\n{error}\n") from None
