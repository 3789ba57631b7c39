"""The tasks of umlbuild for doit; the only package that imports doit.

Our own `dodo.py` and any other project's get the verbs with one line, next to tasks of their own:

    from umlbuild.tasks import *

or, name by name, `from umlbuild.tasks import DOIT_CONFIG, task_build, task_image, task_kernel, task_release,
task_rootfs, task_step` (the verbs need `task_step`). Then `doit build recipe=router.toml` works there. Without
DOIT_CONFIG the tasks work as well, with doit's own reporter and exit codes. DOIT_CONFIG makes `build` the
default task; a project with tasks of its own says `DOIT_CONFIG = {**DOIT_CONFIG, "default_tasks": ["mine"]}`.

A directory without `dodo.py` needs `umlbuild build router.toml` (see `main`), or a `doit.cfg` with
`[GLOBAL]` and `loader = umlbuild`.

Exit codes with our reporter: 0 ok, 1 a step failed, 2 recipe, lock or host problem, 3 a bug, 130/143 ended
by SIGINT/SIGTERM. What doit says before any task starts is its own: 3 for a word that is no task.
With another reporter doit's codes hold: 1 failed, 2 error (also for our 3).
"""

from __future__ import annotations

from umlbuild.tasks.config import config
from umlbuild.tasks.product import main
from umlbuild.tasks.verbs import task_build, task_image, task_kernel, task_release, task_rootfs, task_step

DOIT_CONFIG = config()

__all__ = [
    "DOIT_CONFIG",
    "main",
    "task_build",
    "task_image",
    "task_kernel",
    "task_release",
    "task_rootfs",
    "task_step",
]
