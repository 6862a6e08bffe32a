"""The build step of the package: compile the runtime and put it into the wheel."""

from __future__ import annotations

import importlib.util
import platform
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILD = "src/tcbpf/native/build.py"


class RuntimeBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs tcbpf.native.build before hatchling collects files; the wheel is for this machine, for any Python 3."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and name the artifacts."""
        if self.target_name != "wheel":
            return
        spec = importlib.util.spec_from_file_location("tcbpf_native_build", Path(self.root) / BUILD)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.build(Path(self.root) / "src/tcbpf/native/_build")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-linux_{platform.machine()}"
        made = ("runtime.bc", "libtcbpf.so", "stamp")
        build_data["artifacts"] += [f"src/tcbpf/native/_build/{name}" for name in made]
