"""bagoftricks: which training tricks actually help on your images?

The public names below are imported when first used, so that `import bagoftricks` costs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bagoftricks.data.sources import open_data as open_data
    from bagoftricks.errors import RunError as RunError
    from bagoftricks.errors import UserError as UserError
    from bagoftricks.models.resnet import ResNet as ResNet
    from bagoftricks.recipe import Recipe as Recipe
    from bagoftricks.reports.report import write_report as write_report
    from bagoftricks.serving.classifier import Classifier as Classifier
    from bagoftricks.serving.classifier import Prediction as Prediction
    from bagoftricks.serving.classifier import load_model as load_model
    from bagoftricks.studies.design import Study as Study
    from bagoftricks.studies.run import run_study as run_study
    from bagoftricks.studies.study_file import load_study as load_study
    from bagoftricks.training.fit import Listener as Listener
    from bagoftricks.training.train import Result as Result
    from bagoftricks.training.train import train as train

__version__ = "0.1.0"

_HOMES = {
    "Classifier": "serving.classifier",
    "Listener": "training.fit",
    "Prediction": "serving.classifier",
    "Recipe": "recipe",
    "ResNet": "models.resnet",
    "Result": "training.train",
    "RunError": "errors",
    "Study": "studies.design",
    "UserError": "errors",
    "load_model": "serving.classifier",
    "load_study": "studies.study_file",
    "open_data": "data.sources",
    "run_study": "studies.run",
    "train": "training.train",
    "write_report": "reports.report",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'bagoftricks' has no attribute '{name}'")
    return getattr(import_module(f"bagoftricks.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
