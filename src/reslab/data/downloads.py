"""Downloads that one process makes, and why one has failed."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock


@contextmanager
def download_folder(root: Path, lock_name: str) -> Iterator[None]:
    """Make a folder in which one process downloads, while others wait. A failed download leaves no empty folder."""
    is_new, lock = not root.exists(), root / lock_name
    root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock):
            yield
    except BaseException:
        lock.unlink(missing_ok=True)
        for folder, _, _ in os.walk(root, topdown=False) if is_new else ():
            with suppress(OSError):  # it is not empty
                Path(folder).rmdir()
        raise


def failed_download(error: Exception) -> str:
    """Describe in one line why a download failed. torchvision lists what happened at each of its sites."""
    reasons = re.findall(r"urlopen error (?:\[Errno -?\d+\] )?([^>]+)", str(error))
    return ", ".join(dict.fromkeys(reasons)) or "; ".join(str(error).splitlines())
