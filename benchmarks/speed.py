"""Training against its pure-compute limit: the same steps fed by the loader and fed by batches that lie ready, in turn.

`python benchmarks/speed.py [--input-size 128] ...` takes the flags of main.py.
"""
import sys
import time
from itertools import chain, islice

from record import save

from main import choose_layout, start_solver
from utils.config import DEFAULT_FILE, parse, read_yaml, resolve
from utils.data import sets
from utils.data.augment import Recipe
from utils.data.dataset import Augmented, Faces, train_loader
from utils.data.prepared_set import load_meta
from utils.train.ranks import set_threads, start_ranks, worker_count

STEPS, ROUNDS = 20, 5


def main(flags: list[str]) -> None:
    _, given = parse(flags, lambda parser: None)
    args = resolve({"dataset": "synthetic", **given}, read_yaml(DEFAULT_FILE), given.get("preset", "quick"))
    ranks = start_ranks()
    set_threads(args.threads, args.deterministic)
    folder = sets.prepare(args.dataset, args)
    layout = choose_layout(args, [folder])
    faces = Faces([(folder, "train")], layout, args.input_size, args.cache, args.train_hidden, args.label_weights)
    solve, order, _ = start_solver(args, layout, faces, load_meta(folder)["protocol"], ranks, resume=False)
    augmented = Augmented(faces, Recipe.of(args), layout.flip_index, args.seed)
    loader = train_loader(augmented, order, worker_count(args.workers), ranks.device.type == "cuda")
    solve.net.train()
    ready = [batch for batch, _ in zip(loader, range(STEPS), strict=False)]

    def timed(batches) -> float:
        start = time.perf_counter()
        for batch in batches:
            losses = solve.train_step([batch])
        losses.read()
        return STEPS * order.batch / (time.perf_counter() - start)

    timed(ready[:3])
    fed, pure = [], []
    for _ in range(ROUNDS):
        batches = iter(loader)
        first = next(batches)  # starting the workers is not part of a step
        fed.append(timed(chain([first], islice(batches, STEPS - 1))))
        pure.append(timed(ready))
    middle = ROUNDS // 2
    save("speed", "python benchmarks/speed.py " + " ".join(flags), 0, {
        "net": args.net, "input_size": args.input_size, "batch_size": order.batch,
        "images_per_second": round(sorted(fed)[middle], 1), "pure_compute": round(sorted(pure)[middle], 1),
        "ratio": round(sorted(f / p for f, p in zip(fed, pure, strict=True))[middle], 3)})


if __name__ == "__main__":
    main(sys.argv[1:])
