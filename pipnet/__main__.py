"""`python -m pipnet`: the command pipnet."""

import sys

from pipnet.module_path import own_path

if __name__ == "__main__":
    sys.path[:] = own_path()
    from pipnet.app.demo import command

    command()
