"""Replacing a method of one model or pipeline without touching its class."""

from typing import Any


class StandIn:
    """Kept as an attribute of a model or pipeline under the name of the method that it replaces.

    Copies and pickles go along with those of their model.
    """

    def __init__(self, model: Any, name: str) -> None:
        # Held strongly, as a bound method does: `load_model().save_pretrained(folder)` must keep the model alive.
        self.model, self.name = model, name

    def call_stock(self, *args: Any, **kwargs: Any) -> Any:
        """The method as the model's class has it."""
        return getattr(type(self.model), self.name)(self.model, *args, **kwargs)
