"""Faces for `landmarks-open`, all drawn: `python weights/making/make.py open_faces OUT TRAIN TEST`.

OUT becomes a tree like that of 300W, with `visible.tsv`. The people differ more than those of the dataset `synthetic`.
"""

from record import ROOT

from extras.synthetic import generate

SEED = 2  # seeds 0 and 1 draw the dataset `synthetic` and the rare faces


def main(out: str, train: str, test: str) -> None:
    """Write TRAIN and TEST faces into OUT."""
    print(generate(ROOT / out, int(train), int(test), seed=SEED, varied=True))
