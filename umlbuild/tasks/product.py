"""doit as our own program: no dodo.py, no configuration files of the current directory.

`Loader` is also for plain doit in a directory without `dodo.py`: with `[GLOBAL]` and `loader = umlbuild`
in its `doit.cfg`, or `[tool.doit]` and `loader = "umlbuild"` in its `pyproject.toml`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from doit.cmd_base import NamespaceTaskLoader
from doit.doit_cmd import DoitMain

from umlbuild.host import offline
from umlbuild.tasks import request as requests
from umlbuild.tasks import verbs
from umlbuild.tasks.config import alone
from umlbuild.tasks.order import order_of


class Loader(NamespaceTaskLoader):  # type: ignore[misc]  # doit has no types
    """Our tasks and nothing else."""

    def setup(self, opt_values: Any) -> None:  # noqa: ARG002
        """The tasks are made by `load_tasks`; there is nothing to read."""
        names = ("task_build", "task_kernel", "task_rootfs", "task_image", "task_release", "task_step")
        self.namespace = {name: getattr(verbs, name) for name in names}
        self.namespace["DOIT_CONFIG"] = alone()


class _Product(DoitMain):  # type: ignore[misc]
    BIN_NAME = "umlbuild"


def main(argv: Sequence[str]) -> int:
    """Run doit's command line `argv` with our tasks only, e.g. ["build", "recipe=router.toml", "-n", "2"].

    A word that ends in `.toml` is a recipe too: ["build", "router.toml"]. Returns the exit code.
    """
    words = [word for word in argv if word]
    files = [word for word in words if word.endswith(".toml") and "=" not in word and word[0] != "-"]
    if files:
        words = [word for word in words if word not in files]
        words.append(f"recipe={','.join(files)}")
    order_of.cache_clear()
    before = os.environ.get(offline.VARIABLE)
    try:
        with requests.given("umlbuild", words):
            return int(_Product(Loader(), config_filenames=()).run(words))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 2
    finally:  # --offline is said to this build only
        if before is None:
            os.environ.pop(offline.VARIABLE, None)
        else:
            os.environ[offline.VARIABLE] = before
