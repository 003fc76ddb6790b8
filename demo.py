"""Faces and landmarks in pictures, videos and cameras: `python demo.py --help`."""
import os
import sys

ROOT = os.path.dirname(os.path.abspath(__file__))
if sys.version_info < (3, 11):
    sys.exit("PIPNet needs Python 3.11 to 3.13, not %d.%d: `bash main.sh 1 ...` looks for another" % sys.version_info[:2])
try:
    from pipnet.app import demo
except ImportError as missing:
    if not isinstance(missing, ModuleNotFoundError):
        sys.exit("a package cannot be loaded: %s (cv2 without a desktop: pip install opencv-python-headless)" % missing)
    python = os.path.join(ROOT, ".venv", "bin", "python")
    if os.path.exists(python) and not sys.prefix.startswith(os.path.join(ROOT, ".venv")):
        os.execv(python, [python, *sys.argv])  # main.sh has made an environment
    sys.exit("the package '%s' is missing: `bash main.sh 1 --list-nets` installs what is needed" % missing.name)


def find_net(exp, threads):
    """The landmark net of a run or of a checkpoint; torch is loaded here and not before."""
    from utils.tools.inference import find_net
    return find_net(exp, ROOT, threads)


def find_detector(*values):
    """A detector by name."""
    from utils.tools.inference import find_detector
    return find_detector(*values)


if __name__ == "__main__":
    demo.command(find_net=find_net, find_detector=find_detector)
