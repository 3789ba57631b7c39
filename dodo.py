"""What `doit` can do in this directory; see `doit list`."""

from pathlib import Path
from typing import Any

from umlbuild.tasks import check, task_build, task_image, task_kernel, task_release, task_rootfs, task_step
from umlbuild.tasks.config import alone

DOIT_CONFIG = alone()

__all__ = [
    "DOIT_CONFIG", "task_build", "task_check", "task_image", "task_kernel", "task_release", "task_rootfs", "task_step",
]  # fmt: skip


def task_check() -> dict[str, Any]:
    """run all tests"""
    return check.task_of(Path(__file__).parent)
