"""The base of every configuration section: strict keys, immutable, with did-you-mean errors."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the configuration tree. Unknown keys are errors; see `agentrl.config.load`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
