"""The start of main.py and demo.py, until the packages are loaded. It needs no package, and older Pythons can read it."""

import errno
import multiprocessing
import os
import shlex
import signal
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
if sys.version_info < (3, 11):
    sys.exit(
        "PIPNet needs Python 3.11 to 3.14, not %d.%d: `bash main.sh 1 ...` looks for another" % sys.version_info[:2]
    )
SIGNALS = signal.SIGINT, signal.SIGTERM
UNWRITABLE = errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO
STOPPED = "stopped; a training goes on from its last whole epoch: the same flags with --exp and --resume"
ALL_PACKAGES = " (`bash main.sh 1 --list-nets` installs all of requirements.txt)"
GOES_ON = "last.pt", "round0/last.pt", "fold0/last.pt", "sweep.yaml"  # files of a run that can be resumed
SWEPT = "PIPNET_SWEEP" in os.environ  # a run of a sweep
QUIET = SWEPT or "LOCAL_RANK" in os.environ  # what has started this process says for it that it was stopped
_says = "stopped"  # when a signal ends the process
_trained = None  # folder of the run that is trained
_begun = None  # id of the process that answers signals


def _stop(number, _):
    if not QUIET:
        os.write(2, b"stopped while packages are loaded; nothing is changed\n")
    os._exit(128 + number)


def begin_loading():
    """Make Ctrl-C and SIGTERM end the process at once. Else a package that is being loaded would print a traceback.

    No package is loaded from the current folder.
    """
    global _begun
    from pipnet.console import open_console
    from pipnet.module_path import own_path

    open_console()
    sys.path[:] = own_path()
    if "OMP_WAIT_POLICY" not in os.environ:  # beside other work, threads that spin while they wait take its cores
        os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    if QUIET:
        end_with(os.getppid())
    _begun = os.getpid()
    for number in SIGNALS:
        signal.signal(number, _stop)


def end_loading():
    """After `begin_loading`, make the first Ctrl-C or SIGTERM raise KeyboardInterrupt with its number."""
    if signal.getsignal(signal.SIGINT) is _stop:
        for number in SIGNALS:
            signal.signal(number, _interrupt)


def _interrupt(number, _):
    if os.getpid() != _begun:
        os._exit(128 + number)  # a loader process, forked from the one that answers the signal
    ignore_signals()
    raise KeyboardInterrupt(number)  # if a library does not let it through, `end_when_stuck` ends the process


def ignore_signals():
    """Ignore Ctrl-C and SIGTERM from now on: the process is ending."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # torch's handler raises an error where the signal ended a loader process
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def end_with(starter):
    """Stop this process as soon as the one that has started it, of that id, has ended, even by SIGKILL: nobody could
    stop it then.
    """

    def wait():
        while os.getppid() == starter:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def when_stopped(text):
    """Say this when a signal ends the process."""
    global _says, _trained
    _says, _trained = text, None


def names_training(folder):
    """From now on, let a stopped command print the whole command that goes on with the training in `folder`."""
    global _trained
    _trained = str(folder)


def _last_words():
    """Return what a signal makes the process say. A progress bar may stand in the last line."""
    if QUIET:
        return ""
    if not _trained:
        return "\n%s\n" % _says
    flags, argv = [], iter(sys.argv[1:])
    for flag in argv:
        if flag == "--exp":
            next(argv, None)
        elif flag not in ("--resume", "--overwrite") and not flag.startswith("--exp="):
            flags.append(flag)
    begun = any(os.path.isfile(os.path.join(_trained, file)) for file in GOES_ON)
    says = "stopped; the training goes on from its last whole epoch" if begun else "stopped in the first epoch; anew"
    command = ["python", sys.argv[0], *flags, "--exp", _trained, *["--resume"] * begun]
    return "\n%s: %s\n" % (says, shlex.join(command))


def run_command(main):
    """Run main(flags) as a command: an error or a signal gives one line on stderr and an exit status."""
    from pipnet.errors import printable
    from pipnet.stop import end_when_stuck

    try:
        end_when_stuck(_last_words)
        try:
            main(sys.argv[1:])
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt as stopped:
        os.write(2, _last_words().encode(errors="surrogateescape"))
        for child in multiprocessing.active_children():
            child.terminate()
        os._exit(128 + (stopped.args or SIGNALS)[0])  # threads of libraries could abort Python's clean-up
    except Exception as error:
        text = _explained(error)
        if text is None:
            raise
        if os.environ.get("LOCAL_RANK", "0") != "0":
            # the node's first process says the same; the launcher ends this one, and its loader processes, before it
            # repeats it
            for number in (signal.SIGTERM, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            time.sleep(30)
        sys.exit("error: %s" % "\n  ".join(map(printable, text.split("\n  "))))  # a list may stand below the error
    finally:
        ignore_signals()


def _explained(error):
    """Return what the user is told about an error: what is wrong and what to do. None for an error of the program."""
    from pipnet.console import load_failure
    from pipnet.errors import UserError, limit_reached

    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ImportError):
        return load_failure(error) + ALL_PACKAGES * isinstance(error, ModuleNotFoundError)
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        return "%s: %s; free some space, or name another place" % (error.filename or "a file", error.strerror)
    return limit_reached(error)


def stop_without(missing, remedy=""):
    """Restart in the environment that main.sh has made, if a package is missing here.

    If there is none, and where a package does not load, end with a line that says what to do. remedy: in place of
    pip install.
    """
    from pipnet.console import load_failure

    python = os.path.join(ROOT, ".venv", "bin", "python")
    lacks = isinstance(missing, ModuleNotFoundError)
    if lacks and os.path.exists(python) and not sys.prefix.startswith(os.path.join(ROOT, ".venv")):
        os.execv(python, [python, *sys.argv])
    if remedy:
        sys.exit("error: the package '%s' is missing; %s" % (missing.name, remedy))
    sys.exit("error: %s%s" % (load_failure(missing), ALL_PACKAGES * lacks))
