"""Velocity networks and autoencoders. Every file here is loaded, so that it can register what checkpoints may name."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f".{_module.name}", __name__)
