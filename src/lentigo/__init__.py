"""Lentigo: small, honest skin-lesion classifiers. Research software, not a medical device.

    import lentigo

    prediction = lentigo.load().predict("image.jpg")[0]
    print(prediction.label, prediction.malignant_risk)

The names of `__all__` stay. Each is imported when it is first used (PEP 562), so that `import lentigo` is quick and
asks for no package that is not needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lentigo.api import (
        compare,
        evaluate,
        export,
        load,
        mine,
        predict,
        read_catalog,
        resume,
        show,
        split,
        synth,
        train,
    )
    from lentigo.core.errors import LentigoError
    from lentigo.core.run_dir import RunDir
    from lentigo.data.catalog import Catalog
    from lentigo.deploy.classifier import Classifier
    from lentigo.deploy.engine import Failure
    from lentigo.deploy.prediction import Prediction

# In the order of use, which is that of the reference.
__all__ = [  # noqa: RUF022
    "load",
    "Classifier",
    "Prediction",
    "predict",
    "Failure",
    "synth",
    "read_catalog",
    "Catalog",
    "split",
    "show",
    "train",
    "resume",
    "RunDir",
    "evaluate",
    "mine",
    "compare",
    "export",
    "LentigoError",
]

_HOMES = {
    "LentigoError": "lentigo.core.errors",
    "RunDir": "lentigo.core.run_dir",
    "Catalog": "lentigo.data.catalog",
    "Classifier": "lentigo.deploy.classifier",
    "Failure": "lentigo.deploy.engine",
    "Prediction": "lentigo.deploy.prediction",
}
"""Where the types are; the functions are in `lentigo.api`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "lentigo.api")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
