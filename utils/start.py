"""The start of main.py and demo.py, until the packages are loaded. It needs no package, and older Pythons can read it."""
import os
import signal
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if sys.version_info < (3, 11):
    sys.exit("PIPNet needs Python 3.11 to 3.13, not %d.%d: `bash main.sh 1 ...` looks for another" % sys.version_info[:2])


def _stop(*_):
    os.write(2, b"stopped while packages are loaded; nothing is changed\n")
    os._exit(130)


def begin_loading():
    """Make Ctrl-C end the process at once: a KeyboardInterrupt inside a package that is being loaded would be a traceback."""
    signal.signal(signal.SIGINT, _stop)


def end_loading():
    """Undo `begin_loading`."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def stop_without(missing):
    """Go on in the environment that main.sh has made, if it has the missing package; else say what installs it."""
    if not isinstance(missing, ModuleNotFoundError):
        sys.exit("a package cannot be loaded: %s (cv2 without a desktop: pip install opencv-python-headless)" % missing)
    python = os.path.join(ROOT, ".venv", "bin", "python")
    if os.path.exists(python) and not sys.prefix.startswith(os.path.join(ROOT, ".venv")):
        os.execv(python, [python, *sys.argv])
    sys.exit("the package '%s' is missing: `bash main.sh 1 --list-nets` installs what is needed" % missing.name)
