"""The machine and the commit that figures come from."""

import hashlib
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy", "opencv-python", "opencv-python-headless", "pillow")


def processor() -> str:
    """Return the name of the CPU."""
    info = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    return next((line.split(":")[1].strip() for line in info if line.startswith("model name")), platform.processor())


def commit(*left_out: str) -> str:
    """Return the checkout's commit, `-dirty` if files have changed since; empty without git.

    left_out: paths whose changes do not count.
    """
    root = Path(__file__).parents[2]

    def git(*words: str) -> str:
        try:
            return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=10).stdout.strip()
        except (OSError, subprocess.TimeoutExpired):
            return ""

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", *(f":!{path}" for path in left_out))
    return git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")


def software() -> dict[str, str]:
    """Return {name: version} of Python and the packages that change what a net learns, and a checksum of the code."""
    root, code = Path(__file__).parents[2], hashlib.sha256()
    for file in sorted(
        file for place in ("extras", "nets", "pipnet", "utils") for file in (root / place).rglob("*.py")
    ):
        code.update(file.read_bytes())
    found = {"version of python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[f"version of {name}"] = version(name)
        except PackageNotFoundError:
            continue
    return {**found, "checksum of the code": code.hexdigest()[:12]}
