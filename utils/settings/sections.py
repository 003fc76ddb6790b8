"""The settings: a frozen dataclass for each section of args.yaml.

A field is a key. Its type, its range, its help, the task that reads it and who may change it are written there and
nowhere else. Flags, checks, --help and the comments of args.yaml follow from the fields.
"""

from dataclasses import dataclass

from nets.registry import ACTS, ERRORS, POOLS
from pipnet.bounds import MOST_PX, MOST_THREADS
from utils.settings import rules
from utils.settings.heads import HEADS
from utils.settings.keys import key, section
from utils.settings.rooms import added

# {published step of the augmentation: the keys of `augment` that it reads, beside fill and interpolation}
STEPS = {
    "sides": ("sides",),
    "translation": ("translation", "translation_prob"),
    "rotation": ("rotation", "rotation_prob"),
    "shear": ("shear", "shear_prob"),
    "flip": ("flip",),
    "occlusion": ("occlusion", "occlusion_size"),
    "padding": ("padding", "padding_prob"),
    "hsv": ("hue", "saturation", "brightness", "colour_prob"),
    "colour": ("hue", "saturation", "brightness", "contrast", "colour_prob"),
    "infrared": ("infrared",),
    "grayscale": ("grayscale",),
    "blur": ("blur", "blur_sigma"),
    "noise": ("noise", "noise_reach"),
}
ALL_STEPS = ("steps", "fill", "interpolation", "misplaced")  # keys that all of them read
ONLY_STEPS = ("sides", "shear", "shear_prob", "padding", "padding_prob", "noise_reach")  # keys that only steps read
STRIDES = sorted({stride for head in HEADS.values() for stride in head.strides})


@dataclass(frozen=True)
class DataSettings:
    """Faces and how they are prepared. A trained run can change only paths, the cache, and how raw files are read."""

    dataset: str = key(
        "row of the dataset table, prepared folder below data/, or a parser PACKAGE.MODULE:NAME of yours; auto: 300w if it is "
        "prepared with any settings, synthetic if no set is",
        path="kept",
        outside="datasets",
    )
    data_dir: str | None = key(
        "folder of the raw archive; null: the set must have been prepared (synthetic renders itself)",
        path="file",
        change="test",
    )
    train_data: list[str] | None = key(
        "[names or folders] training sets; null: the dataset", valid=rules.NAMES, path="set", outside="datasets"
    )
    test_data: list[str] | None = key(
        "[names or folders] test sets, a table row each; null: the test splits of the training sets",
        valid=rules.NAMES,
        path="set",
        outside="datasets",
        change="always",
    )
    layout: str | None = key(
        "row of `layouts` in args.yaml, or a .yaml file with one; null: the layout of the prepared set. If a trained net has "
        "several layouts (union): the one to test, export or predict",
        path="kept",
    )
    layouts: str | None = key(
        ".yaml file with rows of `layouts`, for own sets: a set has the row with its names of points, or with the name of its "
        "folder; null: args.yaml only",
        path="file",
        change="always",
    )
    selected_index: list[int] | None = key(
        "[index] landmarks to train, given as the flip index of that subset; null: the layout's own", task="landmarks"
    )
    protocol: str | None = key("row of `protocols` in args.yaml; null: square, or the preset's")
    labels: str = key(
        "exact: continuous px; published: read as PIPNet's authors do, in 300W truncated to whole px",
        choices=("exact", "published"),
        task="landmarks",
    )
    val: float | str = key(
        "share of the training identities that picks best.pt; none: train on all and keep the last epoch; test: the test set "
        "picks it",
        words=("test", "none"),
        valid=rules.VAL,
    )
    test_split: float | None = key(
        "own sets without a test split: share of the identities to test on; null: all are for training",
        0.01,
        0.9,
        sets=rules.OWN,
    )
    identity: str = key(
        "own sets: which faces are of one person or clip; folder, name (without its last number), picture, or auto: folder if "
        "no folder has most of the pictures, else name",
        choices=("auto", "folder", "name", "picture"),
        sets=rules.OWN,
    )
    allow_partial: bool = key("accept an incomplete official archive", sets=rules.OFFICIAL, change="always")
    data_root: str = key("folder of the prepared sets, relative to the project", path="kept", change="always")
    run_root: str = key("folder of the runs, relative to the project", path="kept", change="always")
    target_size: int = key("px, side of the nominal crop that data preparation stores", 32, 8192)
    margin: float = key("stored crop / nominal crop; with the margin, rotated and shifted crops show real pixels", 1, 4)
    frame_step: int = key("300vw: take every n-th frame of a video", 1, sets=rules.VIDEOS, change="test")
    first_pixel: float | None = key(
        "own .pts, CSV or COCO whose files do not state it: coordinate of the first pixel's centre, 0, 1 or 0.5; null: 0",
        choices=(0.0, 0.5, 1.0),
        sets=rules.AMBIGUOUS,
        change="test",
    )
    cache: float = key(
        "GiB of decoded crops that a process keeps in a temporary file; the crops of a larger set are decoded in every epoch",
        0,
        change="always",
    )
    label_shift: list[float] | None = key(
        "[px of the source image, per training set] by which labels lie to the right of the true point; null: known shift of the "
        "set (300w 0.75)",
        task="landmarks",
    )
    balance: bool = key(
        "repeat rare faces (closed eyes, open mouth, eyes close together) in each epoch, as Peppa's Slim does",
        task="landmarks",
    )
    least_box: float = key(
        "px of the source image; training faces whose box has a smaller width or height are left out",
        0,
        task="landmarks",
    )
    labelled_fraction: float = key(
        "share of the training identities that keep their labels; the others are unlabelled faces for --semi",
        0,
        1,
        valid=rules.ABOVE_ZERO,
        task="landmarks",
    )
    unlabelled: list[str] | None = key(
        "--semi: [datasets, prepared sets, folders of pictures, videos] to learn from without their labels",
        valid=rules.NAMES,
        read_by=rules.SEMI,
        path="set",
        task="landmarks",
    )
    backgrounds: list[str] | None = key(
        "[folders of pictures, videos] without a human face, from which `face` learns beside cuts of the training pictures and "
        "drawn backgrounds",
        valid=rules.NAMES,
        read_by=rules.FACE,
        path="file",
        task="landmarks",
    )
    synthetic_train: int = key("training faces of the set `synthetic`, which the project renders", 8)
    synthetic_test: int = key("test faces of the set `synthetic`", 3)

    @property
    def training_sets(self) -> list[str]:
        """Return `train_data`; [] where it is not known yet, since the dataset stands for it."""
        return self.train_data or []


@dataclass(frozen=True)
class NetSettings:
    """The net and its stages. A trained run cannot change these."""

    net: str = key(
        "backbone; `--list-nets` lists them; timm:NAME takes any timm net with feature maps, PACKAGE.MODULE:NAME a class of "
        "yours",
        outside="nets",
    )
    head: str = key(
        "pip, coordinate, parts (coordinates by facial part), heatmap, simcc, or a HeadRow PACKAGE.MODULE:NAME of yours",
        choices=HEADS,
        outside="heads",
    )
    stride: int | None = key(
        "px of the input per cell of the head's feature map, 4 to 128; null: the head's own (heatmap 4, others 32)",
        choices=STRIDES,
    )
    num_nb: int = key(
        "head pip: neighbors that each landmark predicts, 0 to num_lms - 1; the default becomes num_lms - 1 if there are fewer "
        "landmarks",
        0,
    )
    pool: str = key(
        "head coordinate: average of all cells, or depthwise (one filter over all cells per channel)", choices=POOLS
    )
    excite: bool = key("head coordinate: squeeze-excite before pooling")
    score_width: float = key(
        "heads heatmap (cells), simcc (bins): standard deviation of the Gaussian target; 0: the head's own", 0
    )
    num_lms: int | None = key("number of landmarks; null: that of the layout (any other number is an error)")
    input_size: int = key("px, side of the input", 32, MOST_PX, task="")
    meanface: str | None = key(
        "prepared set, .txt or .npy (x y x y ...) with the mean face, which selects the neighbors (pip) or is the start "
        "(coordinate); null: that of the training faces",
        path="set",
    )
    act: str | None = key("activation of IRNets: prelu or relu; null: prelu, as published", choices=ACTS)
    weights: str = key(
        "initialisation: imagenet (with a warning if it cannot be loaded), none, or what --exp takes (a trained or published "
        "net)",
        path="net",
        task="",
    )
    same_as: str = key(
        "an own layout that shares no landmark with the net of --weights: auto finds out which landmarks of that net its points "
        "are, and starts from these; none starts the head from random weights",
        choices=("auto", "none"),
        read_by=rules.BEGUN,
    )
    refine: bool = key("add the refiner: it corrects all landmarks with a stride-8 feature map; works with any head")
    reinit: bool = key("add a spatial transformer: it moves the face to its mean position before the net sees it")
    local_parts: bool = key("add local nets for eyes, nose and mouth (implies reinit)")


@dataclass(frozen=True)
class TrainSettings:
    """The course of a training. A resumed run may change these, except task, preset, seed, freeze, semi and teacher."""

    task: str = key(
        "landmarks, or detect: a face detector (FaceBoxesV2) from photographs with boxes and landmark sets",
        choices=("landmarks", "detect"),
        change="never",
    )
    preset: str | None = key(
        "row of `presets` in args.yaml; null: quick for synthetic faces, default for others", change="never"
    )
    epochs: int = key("passes over the training set; 0: the net is kept as it begins", 0)
    batch_size: int = key("samples per process and step", 1)
    shares: list[str] = key(
        "[NAME=NUMBER] shares of the training sets in a batch; a set that is not named has share 1; empty: in proportion to "
        "their numbers of faces",
        valid=rules.SHARES,
        read_by=rules.NO_ROUNDS,
        task="landmarks",
    )
    accumulate: int = key(
        "micro-batches per step; the gradient is that of one large batch, batch norm sees each micro-batch alone", 1
    )
    optimizer: str = key(
        "adam (weight decay in the gradient, as published) or adamw (decoupled)", choices=("adam", "adamw")
    )
    learning_rate: float = key("peak rate, per step; it is not scaled by the batch size", 0)
    final_learning_rate: float = key("rate at the end of the cosine", 0, read_by=rules.COSINE)
    warmup: float = key("epochs of linear warm-up", 0)
    warmup_learning_rate: float = key("rate at the first step of the warm-up", 0)
    schedule: str = key(
        "cosine, steps, or epochs (the IRNet fork's cosine: a step an epoch, not to its end)",
        choices=("cosine", "steps", "epochs"),
    )
    milestones: list[float] = key(
        "[epochs] at which `schedule: steps` changes the rate", valid=rules.RISING, read_by=rules.STEPPED
    )
    factors: list[float] = key(
        "[factors of learning_rate] from each milestone on; empty: 0.1, 0.01, ...", 0, read_by=rules.STEPPED
    )
    weight_decay: float = key("decay of the weights of convolutions and linear maps", 0)
    decay_norms: bool = key("decay biases, norms and PReLU slopes too, as in PIPNet and Slim")
    clip: float = key("maximum norm of the gradient; 0: no clipping", 0)
    ema: float = key(
        "decay of the moving average of the weights, which is tested and kept; 0: no averaging",
        0,
        1,
        valid=rules.BELOW_ONE,
    )
    ema_ramp: int = key("steps after which the decay reaches 63 % of its value", 1, read_by=rules.AVERAGED)
    amp: str = key(
        "bf16, fp16 (CUDA only) or off; auto: bf16 if it is faster on this machine",
        choices=("auto", "bf16", "fp16", "off"),
    )
    compile: bool = key("torch.compile the net (CUDA: faster after a slow first step)")
    graph: bool = key("GPU: launch a training step as one CUDA graph where it can be captured", change="always")
    seed: int = key("of initialisation, data order and augmentation", 0, 2**63 - 1, change="never")
    deterministic: bool = key(
        "deterministic kernels only (slower on CUDA; CPU runs are always deterministic)", change="always"
    )
    profile: bool = key(
        "measure 20 steps: print the shares of data, forward, backward, optimiser and idle; write weights/EXP/trace.json",
        change="always",
    )
    threads: int = key(
        "CPU threads per process; 0: cores / processes; without a GPU, cores that are busy at the start do not count",
        0,
        MOST_THREADS,
        change="always",
    )
    workers: int | None = key(
        "loader processes of each training process; null: up to 8 (with a GPU 16), by the number of cores. With pixels on the "
        "device: threads that decode crops",
        0,
        MOST_THREADS,
        change="always",
    )
    pixels: str = key(
        "where training crops are warped, coloured and blurred: cpu (loader processes) or device; auto: device on CUDA, cpu "
        "elsewhere",
        choices=("auto", "cpu", "device"),
        task="landmarks",
    )
    log: list[str] = key(
        "[csv, tensorboard, wandb or module:Class] where the figures of each epoch go; csv is always among them",
        valid=rules.LOGS,
    )
    early_stop: int = key("epochs without a better validation NME before stopping; 0: never", 0)
    epoch_steps: int | None = key("optimizer steps per epoch; null: one pass over the training faces", 1)
    freeze: str | None = key(
        "backbone: train only the head and the stages behind it; landmarks: those of --weights stay; outputs beside them are "
        "trained, or points of the training set are fitted to them and learnt behind them; norms: batch norms keep their "
        "statistics; null: train everything",
        choices=("norms", "backbone", "landmarks"),
        task="landmarks",
        change="never",
    )
    semi: str | None = key(
        "learn from unlabelled faces: gssl, self-training (rounds of pseudo-labels) or mean-teacher; null: from labels only",
        choices=(*rules.ROUNDS, rules.MEAN_TEACHER),
        task="landmarks",
        change="never",
    )
    teacher: str | None = key(
        "landmark net to learn from, what --exp takes; detect: FaceBoxesV2 weights that label faces without a box; null: none",
        path="net",
        change="never",
    )


@dataclass(frozen=True)
class LossSettings:
    """Weights of the loss terms. A resumed run may change these, except those that decide what the net has, and whether
    those of outputs beside the landmarks are 0.
    """

    cls: float = key("score maps (heads pip, heatmap, simcc); detect: face or background", 0, task="")
    reg: float = key(
        "offsets and neighbors (pip), coordinates (coordinate, parts), refiner, local parts; detect: boxes", 0, task=""
    )
    error: str = key(
        "form of the regression error: l1, l2, wing (as Slim), or a function PACKAGE.MODULE:NAME of yours",
        choices=ERRORS,
        outside="losses",
        change="never",
    )
    cls_error: str = key(
        "head pip: form of the error of its score maps: l2 or l1",
        choices=("l2", "l1"),
        change="never",
    )
    sigma: float = key(
        "heads pip, coordinate: predict the expected errors, with which pip weights its merge; 0: do not, as published",
        0,
        change="never",
    )
    alignment: float = key(
        "reinit, local_parts: distance of the labels from the mean face in the new crop; 0: the crop is not moved",
        0,
        read_by=rules.MOVES,
    )
    hard_landmarks: float = key(
        "a landmark's loss is weighted by (its error / the face's mean error) to the power of this; 0: equal weights, 1: as DPR",
        0,
        change="never",
    )
    openings: float = key(
        "refiner: distances of opposite lids and lips, so that shut eyes are predicted as shut; 0: none",
        0,
        change="never",
    )
    pose: float = key("head pose; 0: the net has no pose output", 0)
    eyes: float = key(
        "states of the eyes, each (closed or not); if eyes and mouth are 0, the net has no state outputs",
        0,
    )
    mouth: float = key("states of the mouth, each (closed or not, wide open or not)", 0)
    visible: float = key("refiner: whether each landmark is seen; 0: the net has no such output", 0)
    face: float = key("whether the crop shows a face in its place; 0: the net has no such output", 0)
    teacher_weight: float = key(
        "with a teacher: factor of all losses on what is learnt from it, see docs/training.md",
        0,
        valid=rules.ABOVE_ZERO,
        read_by=rules.TAUGHT,
    )


@dataclass(frozen=True)
class AugmentSettings:
    """The augmentation. A resumed run may change these; probabilities are per sample and pass over all samples."""

    flip: float = key("probability of a mirror image", 0, 1)
    rotation: float = key("degrees, uniform in +- this", 0)
    rotation_prob: float = key("probability of a rotation", 0, 1, task="landmarks")
    roll_prob: float = key(
        "probability of any angle, uniform in +-180 degrees, instead of `rotation`; detect: of a photograph or a pasted face",
        0,
        1,
    )
    scale: float = key("zoom, uniform in 1 +- this", 0, 1, valid=rules.BELOW_ONE, task="landmarks")
    translation: float = key("share of the crop, uniform in +- this, each axis", 0, 1, task="landmarks")
    translation_prob: float = key("probability of a translation", 0, 1, task="landmarks")
    brightness: float = key("share of the full range, uniform in +- this", 0, 1)
    contrast: float = key("gain, uniform in 1 +- this", 0, 1)
    saturation: float = key("gain, uniform in 1 +- this", 0, 1)
    hue: float = key("turns of the colour circle, uniform in +- this", 0)
    colour_prob: float = key("probability of brightness, contrast, saturation and hue together", 0, 1)
    gamma: float = key(
        "grey levels in [0, 1] are raised to a random power between 1 / this and this; above 1 it darkens; 1: off", 1
    )
    grayscale: float = key("probability of a grey image", 0, 1)
    infrared: float = key("probability of an infrared look: the blue channel, brightened, in all three channels", 0, 1)
    blur: float = key("probability of a Gaussian blur", 0, 1)
    blur_sigma: float = key("px at input size 256, largest sigma (scaled with the input size)", 0)
    noise: float = key("probability of Gaussian noise", 0, 1)
    noise_sigma: float = key("grey levels, largest sigma", 0)
    noise_size: float = key(
        "px at input size 256, largest grain of the noise (scaled with the input size); enlarged pictures have coarse noise",
        1,
    )
    occlusion: float = key("probability of one rectangle of a random colour", 0, 1)
    occlusion_size: float = key("share of the crop, largest side of the rectangle", 0, 1)
    occlusion_shapes: float = key(
        "share of these that are a turned ellipse, diamond or rectangle instead, plain or with a texture", 0, 1
    )
    shadow: float = key("probability of a shadow or of light of another colour on one side", 0, 1)
    edge: float = key(
        "probability that the picture ends inside the crop, as if it cut the face off", 0, 1, task="landmarks"
    )
    misplaced: float = key(
        "probability that the crop shows the face turned by more than 80 degrees, or a part of it: trains `face` only",
        0,
        1,
        read_by=rules.FACE,
        task="landmarks",
    )
    fill: str = key(
        "outside the crop: real pixels (within the margin), black or grey (127)",
        choices=("real", "black", "grey"),
        task="landmarks",
    )
    interpolation: str = key(
        "of the warp: nearest, linear, cubic, lanczos, random (one of the first three) or slim (as Slim: step sides any of the "
        "four, rotation cubic, shear linear)",
        choices=("nearest", "linear", "cubic", "lanczos", "random", "slim"),
        task="landmarks",
    )
    steps: list[str] = key(
        "published augmentation, in the given order: sides, translation, rotation, shear, flip, occlusion, padding, hsv, colour,"
        " infrared, grayscale, blur, noise; empty: our augmentation, which warps once, then changes colours, blurs, adds noise "
        "and an occlusion",
        choices=STEPS,
        task="landmarks",
    )
    sides: list[float] = key(
        "step sides: least and largest distance of the crop's sides from the box's centre, as shares of the box's width, then of "
        "its height",
        valid=rules.REACH,
        task="landmarks",
    )
    shear: float = key(
        "step shear: share of the crop's side, largest shift of each of three points; an affine map takes them back",
        0,
        0.5,
        task="landmarks",
    )
    shear_prob: float = key("step shear: probability", 0, 1, task="landmarks")
    padding: float = key(
        "step padding: largest share of the crop covered by a band along one side", 0, 1, task="landmarks"
    )
    padding_prob: float = key("step padding: probability", 0, 1, task="landmarks")
    noise_reach: float = key(
        "step noise: grey levels; instead of Gaussian noise, each level changes uniformly in +- this",
        0,
        task="landmarks",
    )


@dataclass(frozen=True)
class TestSettings:
    """How nets are tested. Every test may change these."""

    norm: str = key(
        "denominator of the NME: interocular, interpupil, box (root of its area), diagonal (of the box) or size (mean of its "
        "sides)",
        choices=("interocular", "interpupil", "box", "diagonal", "size"),
        change="test",
    )
    thresholds: list[float] = key("% NME, of the failure rate and the area under the curve", valid=rules.PERCENT)
    flip_test: bool = key("average the prediction with that of the mirror image")
    box: list[str] = key(
        "[true, perturbed, detector] boxes from which the test's crops are made, a table row each",
        choices=("true", "perturbed", "detector"),
        valid=rules.ONCE,
    )
    detector: str = key(
        "for --box detector and --predict: faceboxes, rfb320, mtcnn, yunet, scrfd, retinaface, faceboxes-v1; "
        "none: --predict takes each picture as one face",
        choices=("faceboxes", "rfb320", "mtcnn", "yunet", "scrfd", "retinaface", "faceboxes-v1", "none"),
    )
    detector_weights: str | None = key(
        "file of the detector's weights; null: the detector that comes with the project (faceboxes)", path="file"
    )


SECTIONS = {
    "data": section(DataSettings, "data"),
    "net": section(NetSettings, "net", "landmarks"),
    "train": section(TrainSettings, "recipe", change="resume"),
    "loss": section(LossSettings, "loss (weights of its terms)", "landmarks", "resume"),
    "augment": section(AugmentSettings, "augmentation", change="resume"),
    "test": section(TestSettings, "evaluation", "landmarks", "always"),
    **added("SECTION"),
}
KEYS = {name: row for section in SECTIONS.values() for name, row in section.keys.items()}
