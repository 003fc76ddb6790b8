"""The task `detect` of main.py: a face detector, trained, tested and exported as landmark nets are."""
import hashlib
import sys
from copy import copy
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import cv2
import numpy as np
import torch
from loguru import logger

from nets.detectors.faceboxes import FaceBoxesV2
from pipnet.draw import sheet, write_image
from pipnet.errors import UserError
from pipnet.files import write_text
from utils.config import ROOT, dump, load_layout, plain
from utils.data import sets
from utils.data.dataset import Order, train_loader
from utils.data.prepared_set import load_meta
from utils.data.scene_sources import Cutouts, backgrounds, decoded, portraits
from utils.data.scenes import Scenes, collate
from utils.data.wider import Picture, check_events, divide, is_wider, list_file, read_wider
from utils.test import detection_metric as metric
from utils.test import report
from utils.test.detectors import weights_of
from utils.test.export_detector import export_detector
from utils.test.find_faces import Found, completed, find, onnx_detector, torch_detector
from utils.test.report import FOUND, TRUTH
from utils.train import checkpoint, teacher
from utils.train import run_folder as run
from utils.train.batchnorm import share_batch_norm
from utils.train.loop import Job, fit
from utils.train.ranks import Ranks, worker_count
from utils.train.solver import Solver

AGREEMENT = 0.002  # by which figures of an export may differ from torch
COMPOSITES = 200  # test and validation pictures where there are no photographs
CALIBRATION = 16  # crops that batch norms folded into an export are measured on
LATER = 10 ** 6  # the epoch of these, which no training reaches
HEADER = ["test set", "model", "scale", "faces", "AP", "recall", "covered", "plain"]


class Data(NamedTuple):
    """What a detector learns from. val: pictures to validate on, if any; portraits: of landmark sets; checksums: of all."""

    pictures: list[Picture]
    cutouts: Cutouts
    val: list[Picture]
    checksums: list[str]
    portraits: list[Picture]


def run_modes(mode: SimpleNamespace, args: SimpleNamespace, here: run.Run | None, ranks: Ranks) -> None:
    """The modes of main.py for this task, in its order."""
    if mode.audit:
        raise UserError("--audit judges landmarks; leave it out of --task detect")
    if mode.predict or mode.compare:
        raise UserError("--predict and --compare are for landmark nets; demo.py --detector-weights shows what a detector finds")
    tests = mode.test or mode.test_onnx
    if mode.prepare or mode.train or mode.show_data:
        ranks.one_by_one(lambda: [places(args, args.train_data)])
    pictures = {}
    if tests or mode.train and args.val == "test" or mode.prepare and args.test_data:
        pictures = ranks.one_by_one(lambda: test_sets(args))
    if mode.show_data or mode.train:
        data = load(args, pictures, ranks)  # in all processes together: a teacher shares the pictures among them
    if mode.show_data:
        ranks.one_by_one(lambda: ranks.first and print(show(args, data, mode.show_data)))
    if mode.train:
        train(args, here, data, ranks, mode.resume)
    if tests:
        test(args, here, pictures, ranks, mode.test_onnx)


# ---------------------------------------------------------------------------------------------------------------- data
def places(args: SimpleNamespace, names: list[str], test: bool = False) -> tuple[list[Path], list[Path]]:
    """(folders in the WIDER layout, prepared landmark sets), of names and folders; what is missing is prepared."""
    wider = [Path(name) for name in names if is_wider(Path(name))]
    return wider, [sets.prepare(name, args, test) for name in names if not is_wider(Path(name))]


def load(args: SimpleNamespace, tests: dict[str, list[Picture]], ranks: Ranks) -> Data:
    """Training and validation data of the resolved args. tests: what `--val test` validates on."""
    wider, folders = places(args, args.train_data)
    pictures = [picture for folder in wider for picture in read_wider(folder, "train", tuple(args.partial_events))]
    check_events(tuple(args.partial_events), pictures)
    splits = ("train", "val") if args.val in ("test", "none") else ("train",)
    parts = [(folder, split) for folder in folders for split in splits]
    cutouts, val, alone = cut_faces(args, parts), [], []
    if args.val == "test":
        val = [picture for several in tests.values() for picture in several]
    elif args.val != "none" and pictures:
        pictures, val = divide(pictures, args.val, args.seed)
    elif args.val != "none":
        val = composites(args, folders, "val")
    if args.early_stop and not val:
        raise UserError("early_stop needs pictures to validate on; give --val 0.1, or --early-stop 0")
    if args.teacher and not pictures:
        raise UserError("--teacher finds the faces without a box in photographs, and no set of --train-data has any; leave it "
                        "out, or add a folder in the layout of WIDER FACE")
    if args.teacher:
        every = [*pictures, *portraits(parts, cutouts.known)]
        found = completed(torch_detector(weights_of(Path(args.teacher)), ranks.device, 0.1), every, ranks)
        more = sum(len(picture.boxes) for picture in found) - sum(len(picture.boxes) for picture in every)
        logger.info(f"{args.teacher}: {more} boxes more, sure ones and others")
        pictures, alone = found[:len(pictures)], found[len(pictures):]
    if not pictures and not len(cutouts):
        raise UserError(f"{', '.join(args.train_data)}: no face to train on")
    checksums = [hashlib.sha256(list_file(folder, "train").read_bytes()).hexdigest() for folder in wider]
    kept = decoded([*pictures, *alone], args.cache)
    return Data(kept[:len(pictures)] or backgrounds(args.input_size, args.seed), cutouts, val,
                checksums + run.checksums(folders) + teacher.checksums(args.teacher), kept[len(pictures):])


def cut_faces(args: SimpleNamespace, parts: list[tuple[Path, str]]) -> Cutouts:
    """Faces of splits of prepared landmark sets to paste."""
    layouts = {name: load_layout(args.tables["layouts"], name) for name in {load_meta(folder)["layout"] for folder, _ in parts}}
    return Cutouts(parts, layouts, args.cache)


def composites(args: SimpleNamespace, folders: list[Path], split: str) -> list[Picture]:
    """Pictures made of a split's faces on drawn backgrounds, the same every time."""
    plain = copy(args)
    plain.mosaic, plain.pasted = 0.0, max(args.pasted, 1)
    cutouts = cut_faces(args, [(folder, split) for folder in folders])
    if not len(cutouts):
        raise UserError(f"{', '.join(map(str, folders))} has no faces in its split {split}; give --val none or --val 0.1")
    scenes = Scenes(backgrounds(args.input_size, args.seed + 1), cutouts, plain, min(len(cutouts), COMPOSITES))
    made = [scenes.scene(LATER, index) for index in range(len(scenes))]
    return [Picture(Path(f"composite {index}"), split, scene.boxes, (none := np.zeros(len(scene.boxes), bool)), none,
                    image=scene.image) for index, scene in enumerate(made)]


def test_sets(args: SimpleNamespace) -> dict[str, list[Picture]]:
    """{name: pictures} of the validation photographs of WIDER folders, and of composites of the test faces of landmark sets."""
    wider, folders = places(args, args.test_data or args.train_data, test=True)
    alone = [sum(other.name == folder.name for other in wider) == 1 for folder in wider]
    names = [folder.name if one else "-".join(folder.parts[1:]) for folder, one in zip(wider, alone, strict=True)]
    found = {name: read_wider(folder, "val", tuple(args.partial_events)) for name, folder in zip(names, wider, strict=True)}
    if args.test_data or not wider:
        titles = sets.distinct([sets.title(folder) for folder in folders])
        found |= {f"{title}, composites": composites(args, [folder], "test")
                  for title, folder in zip(titles, folders, strict=True)}
    return found


# ------------------------------------------------------------------------------------------------------------ training
def start_solver(args: SimpleNamespace, scenes: Scenes, ranks: Ranks) -> tuple[Solver, Order]:
    """The net with its initial weights in a solver, and the order of its batches."""
    torch.manual_seed(args.seed)
    if args.weights == "imagenet":
        raise UserError("there are no ImageNet weights of a detector; give --weights none or a file")
    try:
        net = FaceBoxesV2() if args.weights == "none" else weights_of(Path(args.weights))
        if Path(args.weights).suffix == ".onnx":  # whose batch norms are folded
            crops = np.stack([scenes.scene(LATER, index).image for index in range(CALIBRATION)])
            net.measure_norms(torch.from_numpy(crops))
        order = Order(len(scenes), args.batch_size, args.accumulate, args.seed, ranks.rank, ranks.count)
        if ranks.count > 1:
            net = share_batch_norm(net, ranks.device)
        net = net.to(ranks.device, memory_format=torch.channels_last)
        if args.input_size <= 128 and args.amp == "auto" and ranks.device.type == "cpu":
            # in bf16 oneDNN leaves gradients of kernel taps that see padding only as they lay in memory, not zero
            args = SimpleNamespace(**{**vars(args), "amp": "off"})
        return Solver(net, args, len(order) // args.accumulate, ranks), order
    except ValueError as error:
        raise UserError(str(error)) from None


def train(args: SimpleNamespace, here: run.Run, data: Data, ranks: Ranks, resume: bool) -> None:
    """Epochs of training with validation, as of a landmark net."""
    scenes = Scenes(data.pictures, data.cutouts, args, args.crops, data.portraits)
    solve, order = start_solver(args, scenes, ranks)
    spec, figure = solve.net.spec, "val_miss"
    history = run.History.load(here, spec, None, data.checksums, figure) if resume else run.History.start(figure)
    if resume:
        solve.load_state_dict(history.solver)
        solve.step = history.epochs * (len(order) // args.accumulate)
    elif ranks.first:
        run.clear(here)
        write_text(here.folder / "args.yaml", dump(args))
    logger.info(f"{here.folder.name}: a face detector ({args.preset}), crops of {args.input_size} px, from "
                f"{'the checkpoint' if resume else args.weights}; {len(data.pictures)} pictures and {len(data.cutouts)} faces of "
                f"{', '.join(args.train_data)}, {len(data.val)} pictures to validate; {ranks.count} x {ranks.device}, "
                f"{solve.dtype or 'float32'}")
    tester = FaceBoxesV2()
    command = " ".join(["python main.py", *sys.argv[1:]])

    def pack(kept: dict, epoch: int, miss: float) -> dict:
        model = {name: tensor.detach().cpu() for name, tensor in kept.items()}
        return {"format": checkpoint.FORMAT, "net": spec, "layout": {}, "protocol": {}, "args": plain(args), "model": model,
                "epoch": epoch, figure: miss, "data": data.checksums, "command": command}

    def validate() -> tuple[dict, float]:
        kept = solve.tested()
        if not all(torch.isfinite(tensor).all() for tensor in kept.values()):
            raise UserError("the weights are not finite: the net has diverged, lower --learning-rate")
        tester.load_state_dict(kept)
        return kept, missed(tester, data.val, args.scales, ranks) if data.val else float("nan")

    loader = train_loader(scenes, order, worker_count(args.workers), ranks.device.type == "cuda", collate)
    fit(Job(solve, order, loader, scenes, history, validate, pack, "miss {:.2f} %"), args, here, ranks)


def missed(net: FaceBoxesV2, pictures: list[Picture], scales: list[float], ranks: Ranks) -> float:
    """What is missing to 100 %, over the scales, of the AP in whole pictures and the recall in others."""
    detect, figures = torch_detector(net, ranks.device), []
    for scale in scales:
        found = find(detect, pictures, scale, ranks)
        for whole in (True, False):
            part = [index for index, picture in enumerate(pictures) if picture.whole == whole]
            scores = metric.score([found[index] for index in part], [pictures[index] for index in part])
            figures.append(scores.ap if whole else scores.recall)
    return 100 * (1 - float(np.nanmean(figures)))


# --------------------------------------------------------------------------------------------------------------- tests
def export(here: run.Run) -> None:
    """Writes the run's ONNX file unless it is there and newer."""
    if here.exported:
        return
    stored, miss = checkpoint.load(here.weights), None
    if np.isfinite(stored["val_miss"]):
        miss = round(stored["val_miss"], 3)
    export_detector(weights_of(here.weights), here.onnx, {
        "task": "detect", "net": stored["net"]["net"], "epoch": stored["epoch"], "command": stored["command"],
        "figures": {"validation, 100 - AP %": miss, "scales": stored["args"]["scales"], "val": stored["args"]["val"]},
        "train_data": [Path(name).name for name in stored["args"]["train_data"]],
        "channels": "BGR, uint8, not normalised", "frame": "px of the image, which may have any size"})


def test(args: SimpleNamespace, here: run.Run, pictures: dict[str, list[Picture]], ranks: Ranks, with_onnx: bool) -> None:
    """AP and recall of each set, event by event, in torch and as ONNX; prints the table, leaves it and a sheet a set."""
    stored = checkpoint.load(here.weights)
    net = weights_of(here.weights)
    detectors = {"torch": torch_detector(net, ranks.device)}
    if with_onnx:
        ranks.one_by_one(lambda: ranks.first and export(here))
        detectors["onnx"] = onnx_detector(here.onnx, torch.get_num_threads())
    rows, differences = [], [0.0]
    for name, several in pictures.items():
        for scale in args.scales:
            found = {model: find(detect, several, scale, ranks) for model, detect in detectors.items()}
            for model in detectors:
                rows += score_rows(name, model, scale, found[model], several)
            if with_onnx:
                one, two = (metric.score(found[model], several) for model in detectors)
                differences += [abs(a - b) for a, b in zip(one, two, strict=True) if np.isfinite(a)]
        if ranks.first:
            write_sheet(here.folder / "report" / f"pictures_{name}.jpg", several, found["torch"])
    if not ranks.first:
        return
    report.write_csv(here.folder / "report" / "scores.csv", HEADER, rows)
    table = report.table(rows, HEADER)
    note = "; validated on these very pictures (--val test)" if stored["args"]["val"] == "test" else ""
    print(f"\n{table}\n\nfaces of at least {metric.LEAST:g} px, IoU {metric.OVERLAP:g}; AP where every face has a box{note}\n"
          f"{here.weights} of epoch {stored['epoch'] + 1}; pictures of the worst in {here.folder / 'report'}")
    if max(differences) > AGREEMENT:
        raise UserError(f"{here.onnx} differs from torch by {max(differences):.4f} (allowed: {AGREEMENT}); delete it and export "
                        "again")


def score_rows(name: str, model: str, scale: float, found: Found, pictures: list[Picture]) -> list[list[str]]:
    """A row for all pictures and, where there are several events, one for each."""
    events = sorted({picture.event for picture in pictures})
    rows = []
    for title in [name, *(events if len(events) > 1 else [])]:
        part = [index for index, picture in enumerate(pictures) if title in (name, picture.event)]
        scores = metric.score([found[index] for index in part], [pictures[index] for index in part])
        figures = ["" if np.isnan(value) else f"{value:.3f}" for value in scores[:4]]
        rows.append([name if title == name else f"  {title}", model, f"{scale:g}", str(scores.faces), *figures])
    return rows


def drawn(picture: np.ndarray, groups: list[tuple[np.ndarray, tuple]], size: int = 320) -> np.ndarray:
    """(size, size, 3): a picture, fitted in, with boxes [(M, 4), BGR]."""
    zoom = size / max(picture.shape[:2])
    method = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    small = cv2.resize(picture, None, fx=zoom, fy=zoom, interpolation=method)[:size, :size]
    canvas = np.zeros((size, size, 3), np.uint8)
    canvas[:small.shape[0], :small.shape[1]] = small
    for boxes, colour in groups:
        for x1, y1, x2, y2 in np.round(boxes * zoom).astype(int).tolist():
            cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, 1, cv2.LINE_AA)
    return canvas


def write_sheet(file: Path, pictures: list[Picture], found: Found, count: int = 12, sure: float = 0.5) -> None:
    """The pictures with the most faces missed and boxes too many: truth green, what is found with a score above `sure` red."""
    def faults(index: int) -> int:
        boxes, scores = found[index]
        match, counted = metric.matched(boxes[scores > sure], pictures[index])
        return int(counted.sum() - (match >= 0).sum() + pictures[index].whole * (match == -1).sum())

    worst = sorted(range(len(pictures)), key=faults, reverse=True)[:count]
    tiles = [drawn(pictures[index].read(), [(pictures[index].boxes, TRUTH), (found[index][0][found[index][1] > sure], FOUND)])
             for index in worst]
    file.parent.mkdir(exist_ok=True)
    write_image(file, sheet(tiles, min(4, len(tiles))))


def show(args: SimpleNamespace, data: Data, count: int) -> str:
    """Draws `count` training crops as the net gets them in the first epoch: faces green, regions that teach nothing red."""
    scenes = Scenes(data.pictures, data.cutouts, args, max(count, 1), data.portraits)
    made = [scenes.scene(0, index) for index in range(count)]
    tiles = [drawn(scene.image, [(scene.unknown, FOUND), (scene.boxes, TRUTH)]) for scene in made]
    file = ROOT / args.data_root / "detect" / "show" / "samples.jpg"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_image(file, sheet(tiles, min(6, count)))
    return f"{file}: {count} training crops, faces green, regions that teach nothing red"
