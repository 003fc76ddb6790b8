"""Faces and landmarks in pictures, videos and cameras: `python demo.py --help`."""

from utils.settings.start import begin_loading, end_loading, stop_without

if __name__ == "__main__":
    begin_loading()
try:
    from pipnet.app import demo
except (ImportError, OSError) as missing:
    stop_without(missing)

if __name__ == "__main__":
    end_loading()
    demo.command()
