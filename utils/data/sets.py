"""From names on the command line to prepared folders: what is missing or was prepared otherwise is prepared on first use."""
import hashlib
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from loguru import logger

from pipnet.errors import UserError
from pipnet.layout import Layout
from utils.config import DEFAULT_FILE, ROOT, load_layout, nearest, read_yaml
from utils.data.dataset import Faces
from utils.data.parsers import DATASETS, infer
from utils.data.prepare import DataGenerator, fingerprint
from utils.data.prepared_set import load_meanface, load_meta, mismatch
from utils.train.checkpoint import turn

SYNTHETIC = "synthetic"


def training_names(args: SimpleNamespace) -> list[str]:
    """What to train on: train_data, else the dataset; `auto`: what --data-dir holds, else 300w if prepared, else synthetic."""
    if args.train_data:
        return args.train_data
    if args.dataset != "auto":
        return [args.dataset]
    if args.data_dir:
        raw = _raw_folder(args.data_dir)
        return [str(raw) if _is_own(name := infer(raw)) else name]
    return ["300w" if not mismatch(_root(args) / _folder_name("300w", args)) else SYNTHETIC]


def prepare(name: str, args: SimpleNamespace, test: bool = False) -> Path:
    """The prepared folder of a dataset's name, a prepared or a raw folder; made now where need be. UserError if it cannot.

    test: only its test faces are wanted, so that it does not matter how many of the others are for validation.
    """
    if (Path(name) / "meta.yaml").is_file():
        if args.protocol and (why := mismatch(Path(name), protocol=args.protocol)):
            raise UserError(f"{why}; prepare it again from its raw folder, or leave --protocol out")
        return Path(name)
    if name != SYNTHETIC:
        _source(name, args)  # what is missing is said before anything is made
    with turn(_root(args) / ".lock"):  # another process may be preparing the same
        return _prepare(name, args, test)


def _prepare(name: str, args: SimpleNamespace, test: bool) -> Path:
    raw = _source(name, args)
    wanted = {"protocol": args.protocol or "square", "margin": args.margin, "target_size": args.target_size}
    if args.val not in ("test", "none") and not test:
        wanted["val"] = args.val
    dataset = name if name in DATASETS else infer(raw) if raw else None
    wanted |= {key: getattr(args, key) for key in (DATASETS[dataset].options if dataset else ())}
    named = name in DATASETS and not _is_own(name)
    target = _root(args) / _folder_name(name if named or not raw else raw.resolve().name, args)
    if raw:
        wanted |= {"source": str(raw.resolve()), "fingerprint": fingerprint(raw)}
        if name not in DATASETS:
            target = _own_place(target, raw)
    if _is_own(dataset) and args.layout:
        wanted["layout"] = load_layout(args.tables["layouts"], args.layout).stored
    for folder in (_root(args) / name, target):
        if not (why := mismatch(folder, **wanted)):
            return folder
    if raw is None:
        raw, dataset = _earlier_source(name, target, why)
    logger.info(f"preparing {target.name} from {raw} ({why})")
    val = 0 if args.val == "none" else args.val
    return DataGenerator(raw, args.target_size, dataset, target.name, target.parent, args.protocol or "square", args.margin, val,
                         args.allow_partial, args.layout if _is_own(dataset) else None, args.tables["layouts"],
                         frame_step=args.frame_step).run()


def _is_own(dataset: str | None) -> bool:
    """Whether a row of DATASETS is for own landmarks: of any layout, and named after its folder."""
    return dataset is not None and DATASETS[dataset].layout is None


def _root(args: SimpleNamespace) -> Path:
    return ROOT / args.data_root


def _folder_name(name: str, args: SimpleNamespace) -> str:
    """data/<name> for the default crops; other protocols and sizes, and other numbers of synthetic faces, stand beside them."""
    usual = read_yaml(DEFAULT_FILE)
    marks = [args.protocol or "square", str(args.target_size)]
    marks = [mark for mark, default in zip(marks, ("square", str(usual["target_size"])), strict=True) if mark != default]
    counts = ("synthetic_train", "synthetic_test")
    if name == SYNTHETIC and any(getattr(args, key) != usual[key] for key in counts):
        marks = [str(getattr(args, key)) for key in counts] + marks
    for key in DATASETS[name].options if name in DATASETS else ():
        marks += [f"{key.replace('_', '-')}-{getattr(args, key)}"] if getattr(args, key) != usual[key] else []
    return "-".join([name, *marks])


def _own_place(target: Path, raw: Path) -> Path:
    """`target`, unless it holds another raw folder of the same name that is still there: then with a mark of this one's place."""
    if not (target / "meta.yaml").is_file():
        return target
    source = Path(str(read_yaml(target / "meta.yaml").get("source")))
    if not source.is_dir() or source == raw.resolve():
        return target
    return target.with_name(f"{target.name}-{hashlib.sha256(bytes(raw.resolve())).hexdigest()[:6]}")


def _raw_folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise UserError(f"no folder {text}; give the folder that holds the unpacked dataset")
    return Path(text)


def _source(name: str, args: SimpleNamespace) -> Path | None:
    """The raw archive of a set, or None where only an earlier preparation may know it."""
    if name == SYNTHETIC:
        return _synthetic(args)
    if name in DATASETS:
        raw = _raw_folder(args.data_dir) if args.data_dir else None
        there = (_root(args) / _folder_name(name, args) / "meta.yaml").is_file()
        return None if raw and there and name not in (args.dataset, infer(raw)) else raw  # the archive of another set
    if Path(name).is_dir():
        return Path(name)
    if not (_root(args) / name / "meta.yaml").is_file():
        raise UserError(f"'{name}' is neither a dataset ({', '.join(DATASETS)}), a set in {args.data_root}, nor a folder"
                        f"{nearest(name, DATASETS)}")
    return None


def _earlier_source(name: str, target: Path, why: str) -> tuple[Path, str]:
    for folder in (target, target.with_name(name)):
        if (folder / "meta.yaml").is_file():
            meta = load_meta(folder)
            if Path(meta["source"]).is_dir():
                return Path(meta["source"]), meta["dataset"]
    raise UserError(f"{why}; name the unpacked archive: --data-dir FOLDER")


def _synthetic(args: SimpleNamespace) -> Path:
    """The rendered faces in 300W's folders; rendered now where they are not there."""
    from utils.data.synthetic import VERSION, generate
    folder = _root(args) / f"synthetic-raw{VERSION}-{args.synthetic_train}-{args.synthetic_test}"
    if not folder.is_dir():
        logger.info(f"rendering {args.synthetic_train} + {args.synthetic_test} synthetic faces into {folder}")
        generate(folder, args.synthetic_train, args.synthetic_test)
    return folder


def test_parts(args: SimpleNamespace) -> list[tuple[Path, str]]:
    """[(folder, split)] to test on: test_data, else what is trained on. UserError where nothing has a test split."""
    folders = [prepare(name, args, test=True) for name in args.test_data or args.train_data]
    without = [folder for folder in folders if not (folder / "test.tsv").is_file()]
    if without and (args.test_data or len(without) == len(folders)):
        raise UserError(f"{without[0]} has no test split; put faces into a folder test/ of the raw set, or give --test-data NAME")
    return [(folder, "test") for folder in folders if folder not in without]


def check_protocol(folder: Path, protocol: dict) -> None:
    """A net must be tested on crops like those it was trained on. UserError otherwise."""
    if (found := load_meta(folder)["protocol"]) != protocol:
        raise UserError(f"{folder} was cut with protocol {found}, but the net was trained with {protocol}; give --protocol")


def is_synthetic(folder: Path) -> bool:
    """Whether the faces are rendered."""
    return load_meta(folder)["dataset"] == SYNTHETIC


def title(folder: Path, net: Layout | None = None, compared: Layout | None = None) -> str:
    """How a set is called in tables: rendered faces say so, and so do landmarks of another layout than the net's."""
    name, stored = "synthetic faces" if is_synthetic(folder) else load_meta(folder)["name"], load_meta(folder)["layout"]
    if net is None or net.stored == stored:
        return name
    return f"{name}, net {net.name} as {compared.name}" if compared is not net else f"{name}, {stored} as {net.name}"


def distinct(names: list[str]) -> list[str]:
    """The same names, those that are there already with a number."""
    out: list[str] = []
    for name in names:
        numbered = (f"{name}-{number}" for number in count(2))
        out.append(name if name not in out else next(new for new in numbered if new not in out))
    return out


def make_lasting(given: dict[str, Any]) -> None:
    """Gives folders and files among typed keys their whole path: what a run keeps must mean the same from anywhere."""
    given |= {key: lasting(given[key]) for key in ("train_data", "test_data") if given.get(key)}
    files = ["data_dir", "label_weights", "detector_weights", "teacher"]
    if mean := given.get("meanface"):
        given["meanface"] = lasting([mean])[0]
        files += ["meanface"] * mean.endswith(".txt")
    given |= {key: str(Path(given[key]).resolve()) for key in files if given.get(key)}


def lasting(names: list[str]) -> list[str]:
    """Names of datasets as they are, folders with their whole path."""
    return [name if name in DATASETS or not Path(name).is_dir() else str(Path(name).resolve()) for name in names]


def meanface(args: SimpleNamespace, layout: Layout, faces: Faces) -> np.ndarray:
    """(N, 2) in [0, 1] of the crop: the mean face that chooses the neighbors, of `faces` unless --meanface names another.

    UserError where that has not the landmarks of the layout, or of the one it is a part of.
    """
    if args.meanface is None:
        return faces.meanface()
    file = Path(args.meanface)
    if file.suffix == ".txt":
        try:
            points = np.array(file.read_text(encoding="ascii").split(), np.float64).reshape(-1, 2)
        except (OSError, ValueError) as error:
            raise UserError(f"--meanface {file} holds no numbers x y x y ... ({error})") from None
    else:
        points = load_meanface(file if (file / "meta.yaml").is_file() else _root(args) / file)
    if len(points) == load_layout(args.tables["layouts"], layout.stored).count:
        points = points[list(layout.selected)]
    if len(points) != layout.count or not np.isfinite(points).all():
        raise UserError(f"--meanface {file} has {len(points)} landmarks, not the {layout.count} of layout {layout.name}")
    return points
