"""Losses: pure functions of tensors. Every file here is loaded, so that it can register what the SR stage may weigh."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f".{_module.name}", __name__)
