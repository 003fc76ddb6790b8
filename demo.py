"""Faces and landmarks in pictures, videos and cameras: `python demo.py --help`."""

from utils.settings.start import begin_loading, end_loading, stop_without

if __name__ == "__main__":
    begin_loading()
try:
    from extras import PLACES  # noqa: F401 the import fills the tables of the core; a foreign package has none
    from pipnet.app import demo
except (ImportError, OSError) as missing:
    stop_without(missing)

if __name__ == "__main__":
    end_loading()
    demo.command()
