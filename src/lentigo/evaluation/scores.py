"""What every judgement of images has in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from lentigo.data.synthetic import SYNTHETIC_NOTICE


class Scores(BaseModel):
    """Scores of images; `synthetic` where these are drawings, whose scores must never pass for those of patients."""

    model_config = ConfigDict(frozen=True)

    synthetic: bool = False

    @property
    def notice(self) -> str:
        """What every surface must print beside scores of drawings; empty for photographs."""
        return SYNTHETIC_NOTICE if self.synthetic else ""

    def as_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers."""
        return self.model_dump(mode="json")
