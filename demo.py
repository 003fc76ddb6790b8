"""Faces and landmarks in pictures, videos and cameras: `python demo.py --help`."""
import os
import sys

if sys.version_info < (3, 11):
    sys.exit("PIPNet needs Python 3.11 to 3.13, not %d.%d: `bash main.sh 1 ...` looks for another" % sys.version_info[:2])
try:
    from pipnet.app import demo
except ImportError as missing:
    if not isinstance(missing, ModuleNotFoundError):
        sys.exit("a package cannot be loaded: %s (cv2 without a desktop: pip install opencv-python-headless)" % missing)
    environment = os.path.join(os.path.dirname(os.path.abspath(__file__)), ".venv")  # main.sh makes it
    python = os.path.join(environment, "bin", "python")
    if os.path.exists(python) and not sys.prefix.startswith(environment):
        os.execv(python, [python, *sys.argv])
    sys.exit("the package '%s' is missing: `bash main.sh 1 --list-nets` installs what is needed" % missing.name)

if __name__ == "__main__":
    demo.command()
