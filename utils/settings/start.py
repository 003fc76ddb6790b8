"""The start of main.py and demo.py, until the packages are loaded. It needs no package, and older Pythons can read it."""

import errno
import multiprocessing
import os
import shlex
import shutil
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
if sys.version_info < (3, 11):
    sys.exit(
        "PIPNet needs Python 3.11 to 3.13, not %d.%d: `bash main.sh 1 ...` looks for another" % sys.version_info[:2]
    )
SIGNALS = signal.SIGINT, signal.SIGTERM
UNWRITABLE = errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO
STOPPED = "stopped; a training goes on from its last whole epoch: the same flags with --exp and --resume"
ALL_PACKAGES = " (`bash main.sh 1 --list-nets` installs all of requirements.txt)"
NO_THREADS = "error: no more threads and processes can be started; allow more (ulimit -u 4096)"
GOES_ON = "last.pt", "round0/last.pt", "fold0/last.pt", "sweep.yaml"  # files of a run that can be resumed
GRACE = 8  # seconds that a process has to leave after a signal
LAUNCHED = "LOCAL_RANK" in os.environ  # by torchrun
SWEPT = "PIPNET_SWEEP" in os.environ  # a run of a sweep
QUIET = LAUNCHED or SWEPT  # what has started this process says for it that it was stopped
_says = "stopped"  # when a signal ends the process
_sockets = None, ""  # id of the process that made a folder for sockets, and that folder
_at_once = False  # whether a signal ends the process without an exception
_trained = None  # folder of the run that is trained
_begun = None  # id of the process that answers signals


def _stop(number, _):
    if not QUIET:
        os.write(2, b"stopped while packages are loaded; nothing is changed\n")
    os._exit(128 + number)


def begin_loading():
    """Make Ctrl-C and SIGTERM end the process at once. Else a package that is being loaded would print a traceback.

    No package is loaded from the current folder. Exit with one line if the system allows no more threads, for which
    packages print pages.
    """
    global _begun
    from pipnet.console import open_console
    from pipnet.module_path import own_path

    open_console()
    sys.path[:] = own_path()
    if "OMP_WAIT_POLICY" not in os.environ:  # beside other work, threads that spin while they wait take its cores
        os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    _check_threads()
    if QUIET:
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    _begun = os.getpid()
    for number in SIGNALS:
        signal.signal(number, _stop)


def _end_with(starter):
    """Stop this process when the one that has started it has ended, even by SIGKILL: nobody could stop it then."""
    while os.getppid() == starter:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def _check_threads():
    """Exit with one line unless as many threads as there are cores can be started."""
    ended = threading.Event()
    try:
        for _ in range(os.cpu_count() or 1):
            threading.Thread(target=ended.wait, daemon=True).start()
    except RuntimeError:
        sys.exit(NO_THREADS)
    finally:
        ended.set()


def end_loading():
    """After `begin_loading`, make the first Ctrl-C or SIGTERM raise KeyboardInterrupt with its number; ignore later
    ones.
    """
    if signal.getsignal(signal.SIGINT) is _stop:
        for number in SIGNALS:
            signal.signal(number, _interrupt)


def _interrupt(number, _):
    if os.getpid() != _begun:
        os._exit(128 + number)  # a loader process, forked from the one that answers the signal
    ignore_signals()
    if _at_once:
        _leave(KeyboardInterrupt(number))
    sys.unraisablehook = lambda lost: _leave(lost.exc_value)  # Python drops an exception that a destructor raises
    raise KeyboardInterrupt(number)  # if a library does not let it through, `end_when_stuck` ends the process


@contextmanager
def stops_at_once():
    """In the body, let Ctrl-C and SIGTERM end the process without an exception: in a callback, one could make torch
    abort.
    """
    global _at_once
    _at_once = True
    try:
        yield
    finally:
        _at_once = False


def when_stopped(text):
    """Say this when a signal ends the process."""
    global _says, _trained
    _says, _trained = text, None


def names_training(folder):
    """From now on, let a stopped command print the whole command that goes on with the training in `folder`."""
    global _trained
    _trained = str(folder)


def _stopped():
    """Return the line that a stopped command prints."""
    if not _trained:
        return _says
    script = (
        ["bash", os.path.join(ROOT, "main.sh"), os.environ["LOCAL_WORLD_SIZE"]] if LAUNCHED else ["python", sys.argv[0]]
    )
    flags, argv = [], iter(sys.argv[1:])
    for flag in argv:
        if flag == "--exp":
            next(argv, None)
        elif flag not in ("--resume", "--overwrite") and not flag.startswith("--exp="):
            flags.append(flag)
    begun = any(os.path.isfile(os.path.join(_trained, file)) for file in GOES_ON)
    says = "stopped; the training goes on from its last whole epoch" if begun else "stopped in the first epoch; anew"
    return "%s: %s" % (says, shlex.join([*script, *flags, "--exp", _trained, *["--resume"] * begun]))


def _last_words():
    """Return what a signal makes the process say. A progress bar may stand in the last line."""
    speaks = not QUIET or (_trained and not SWEPT and os.environ.get("RANK") == "0")
    return "\n%s\n" % _stopped() if speaks else ""


def _leave(error):
    if isinstance(error, KeyboardInterrupt):
        os.write(2, _last_words().encode(errors="surrogateescape"))
        _exit(128 + (error.args or SIGNALS)[0])


def share_sockets():
    """Make one folder for the sockets of this process and its loader processes, which goes with this process.

    Each loader process would make its own, and leave it when a signal ends it.
    """
    global _sockets
    from multiprocessing.util import get_temp_dir

    if "tempdir" not in getattr(multiprocessing.current_process(), "_config", ()):
        with suppress(OSError):
            _sockets = os.getpid(), get_temp_dir()


def ignore_signals():
    """Ignore Ctrl-C and SIGTERM from now on: the process is ending."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(
        signal.SIGCHLD, signal.SIG_DFL
    )  # torch's handler raises an error where the signal ended a loader process


def _exit(status):
    """End the process without Python's clean-up, in which threads of libraries can abort it."""
    children = multiprocessing.active_children()
    for child in children:
        child.terminate()
    for child in children:
        child.join(1)
    if _sockets[0] == os.getpid():
        shutil.rmtree(_sockets[1], ignore_errors=True)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, RuntimeError):  # a closed pipe, or in the middle of a print
            stream.flush()
    os._exit(status)


def end_with_parent():
    """End this process, which multiprocessing has started, as soon as its parent has ended."""

    def wait():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def run_command(main):
    """Run main(flags) as a command: an error or a signal gives one line on stderr and an exit status."""
    from pipnet.console import load_failure
    from pipnet.errors import UserError, limit_reached, printable
    from pipnet.stop import end_when_stuck

    end_when_stuck(_last_words)
    try:
        try:
            main(sys.argv[1:])
        finally:
            sys.stdout.flush()
    except (UserError, ImportError) as error:
        if isinstance(error, ImportError):
            error = load_failure(error) + ALL_PACKAGES * isinstance(error, ModuleNotFoundError)
        if os.environ.get("LOCAL_RANK", "0") != "0":
            # the node's first process says the same; the launcher ends this one, and its loader processes, before it
            # repeats it
            for number in (signal.SIGTERM, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            time.sleep(30)
        sys.exit(
            "error: %s" % "\n  ".join(map(printable, str(error).split("\n  ")))
        )  # a list may stand below the error
    except OSError as error:
        if limit := limit_reached(error):
            sys.exit("error: %s" % limit)
        if error.errno == errno.EAGAIN:  # of fork()
            sys.exit(NO_THREADS)
        if error.errno not in UNWRITABLE:
            raise
        file = printable(str(error.filename or "a file"))
        sys.exit("error: %s: %s; free some space, or name another place" % (file, error.strerror))
    except RuntimeError as error:
        if str(error) != "can't start new thread":
            raise
        sys.exit(NO_THREADS)
    except KeyboardInterrupt as stopped:
        _leave(stopped)
    finally:
        ignore_signals()


def stop_without(missing):
    """Restart in the environment that main.sh has made, if a package is missing here.

    If there is none, and where a package does not load, end with a line that says what to do.
    """
    from pipnet.console import load_failure

    python = os.path.join(ROOT, ".venv", "bin", "python")
    lacks = isinstance(missing, ModuleNotFoundError)
    if lacks and os.path.exists(python) and not sys.prefix.startswith(os.path.join(ROOT, ".venv")):
        os.execv(python, [python, *sys.argv])
    sys.exit("error: %s%s" % (load_failure(missing), ALL_PACKAGES * lacks))
