"""`python -m pipnet`: the command pipnet."""

from pipnet.app.demo import command

if __name__ == "__main__":
    command()
