"""A clone's folders `models` and `analysis` are the packages `els.models` and `els.analysis`.

In a clone both names can be imported: els/models is a link to models, and the clone is on the path.
They must be one module, or there would be two of every class.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType


def alias(name: str) -> None:
    """Make the top-level package `name` the package `els.<name>`, with all that is in it.

    Called by the package itself with its own name; does nothing under the name `els.<name>`.
    """
    if "." in name:
        return
    sys.meta_path.insert(0, _Alias(name))
    sys.modules[name] = import_module(f"els.{name}")


class _Alias(MetaPathFinder, Loader):
    """Finds `<package>.x` as the module `els.<package>.x`."""

    def __init__(self, package: str) -> None:
        self.prefix = f"{package}."

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `MetaPathFinder`."""
        return spec_from_loader(name, self) if name.startswith(self.prefix) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module under its real name."""
        module = import_module(f"els.{spec.name}")
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has run already; give it back the description that importing it again took away."""
        if module.__spec__ is not None:
            module.__spec__ = module.__spec__.loader_state
