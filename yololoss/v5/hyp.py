"""The hyperparameters of the loss: names, defaults and allowed ranges. Data only, no arithmetic."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Hyperparameters(BaseModel):
    """Hyperparameters of the loss, under upstream's names.

    Frozen and validated: an unknown name, a string, NaN or a value out of range raises
    ``pydantic.ValidationError`` (a ``ValueError``). The default gains are those of the article in
    ``golden/v5/article.json``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    box: float = Field(default=0.05, ge=0, description="gain of the box term")
    obj: float = Field(default=0.7, ge=0, description="gain of the objectness term")
    cls: float = Field(default=0.3, ge=0, description="gain of the class term")
    cls_pw: float = Field(default=1.0, gt=0, description="positive weight of the class BCE")
    obj_pw: float = Field(default=1.0, gt=0, description="positive weight of the objectness BCE")
    fl_gamma: float = Field(default=0.0, ge=0, description="focal gamma, 0 switches focal loss off")
    anchor_t: float = Field(default=4.0, gt=0, description="limit of the side ratio of target and anchor")
    label_smoothing: float = Field(default=0.0, ge=0, le=1, description="class label smoothing")

    @model_validator(mode="before")
    @classmethod
    def _name_the_closest(cls, data: Any) -> Any:
        for name in data if isinstance(data, Mapping) else ():
            if name not in cls.model_fields:
                close = get_close_matches(str(name), cls.model_fields, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                known = ", ".join(cls.model_fields)
                raise ValueError(f"unknown hyperparameter {name!r}{hint} (known: {known})")
        return data

    @classmethod
    def from_model(cls, hyp: object) -> "Hyperparameters":
        """Read the loss's hyperparameters from a training run's ``model.hyp``.

        Other keys (learning rates, augmentation) are ignored. ``label_smoothing`` may be missing, as
        in upstream. Raises ValueError that names missing keys, and TypeError if ``hyp`` is not a mapping.
        """
        if not isinstance(hyp, Mapping):
            raise TypeError(f"model.hyp: expected a dict of hyperparameters, got {type(hyp).__name__}")
        missing = [name for name in cls.model_fields if name not in hyp and name != "label_smoothing"]
        if missing:
            raise ValueError(f"model.hyp: missing {', '.join(missing)} (got: {', '.join(map(str, hyp))})")
        return cls(**{name: hyp[name] for name in cls.model_fields if name in hyp})
