"""Export of one ONNX graph that takes a picture and returns its faces, for programs without Python.

The graph does what `Landmarker(net, detector, any_roll=False)` does. The steps below are written in ONNX Script, which
translates them to ONNX operators. Boxes and points are in continuous px of the picture. A direction (2,) is the cosine
and the sine of a roll, so that no angle has to be computed.
"""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import inliner, numpy_helper
from onnxscript import opset18 as op
from onnxscript import script
from onnxscript.values import Opset

from pipnet.chain import GATE
from pipnet.detector import LARGE_FACE, LARGE_SIDE, MOST_PIXELS, SHORT_SIDE, Detector
from pipnet.distinct import PART, TWICE, WITHIN
from pipnet.errors import UserError
from pipnet.geometry import border_px
from pipnet.landmark_net import LEVEL, NEAR, NEAR_TURN, SQUARE, LandmarkNet, open_net
from pipnet.landmarker import THRESHOLD
from pipnet.shipped import has_finder, shipped
from utils.export.files import OPSET, Source, folded, write_onnx

STEPS = Opset("pipnet.steps", 1)
FLOAT, DOUBLE, INT32, INT64, UINT8 = 1, 11, 6, 7, 2  # numbers of ONNX types
LEVEL_COSINE, LEVEL_SINE, TURN_COSINE = math.cos(LEVEL), math.sin(LEVEL), math.cos(NEAR_TURN)
GROW = SQUARE.scale_x
MOST_READS = 2  # of a face by the landmark net: it is read, and read again if its landmarks ask for another crop
LEAST_SIDE = 1e-3 / GROW  # px of a box; `crop_box` refuses smaller crops


@script(STEPS, default_opset=op)
def neighbors(count, scale):
    """Return the indices of the two px between which each px of a shrunken side lies, and their weights in 1/2048."""
    wanted = op.Cast(op.Round(op.Cast(count, to=DOUBLE) * scale), to=INT64)
    place = op.Cast((op.Cast(op.Range(0, wanted, 1), to=DOUBLE) + 0.5) / scale - 0.5, to=FLOAT)
    first = op.Floor(place)
    share = place - first
    index = op.Cast(first, to=INT64)
    return (
        op.Clip(index, 0, count - 1),
        op.Clip(index + 1, 0, count - 1),
        op.Cast(op.Round((1.0 - share) * 2048.0), to=INT32),
        op.Cast(op.Round(share * 2048.0), to=INT32),
    )


@script(STEPS, default_opset=op)
def along_rows(rows, left, right, before, after):
    """Return the weighted sums of two px in each of some rows; weights in 1/2048."""
    one = op.Cast(op.Gather(rows, left, axis=1), to=INT32) * op.Unsqueeze(before, [1])
    return one + op.Cast(op.Gather(rows, right, axis=1), to=INT32) * op.Unsqueeze(after, [1])


@script(STEPS, default_opset=op)
def resized(image, scale):
    """Return the image, resized by a scale below 1.
    Weights and rounding are those of cv2.resize, whose integers lose 1/8 of a grey level on average; without this loss,
    boxes of the detector differ by some tenths of a px.
    """
    shape = op.Shape(image, start=0, end=2)
    top, bottom, above, below = neighbors(op.Gather(shape, 0), scale)
    left, right, before, after = neighbors(op.Gather(shape, 1), scale)
    upper = along_rows(op.Gather(image, top), left, right, before, after)
    lower = along_rows(op.Gather(image, bottom), left, right, before, after)
    quarters = upper / 16 * op.Unsqueeze(above, [1, 2]) / 65536 + lower / 16 * op.Unsqueeze(below, [1, 2]) / 65536
    return op.Cast((quarters + 2) / 4, to=UINT8)


@script(STEPS, default_opset=op)
def halved(image):
    """Return what `resized` returns for a scale of 0.5, in less time: each px is the mean of four."""
    shape, half = op.Shape(image, start=0, end=2), op.Cast(0.5, to=DOUBLE)
    top, bottom, above, below = neighbors(op.Gather(shape, 0), half)
    left, right, before, after = neighbors(op.Gather(shape, 1), half)
    rows = op.Cast(op.Gather(image, top), to=INT32) + op.Cast(op.Gather(image, bottom), to=INT32)
    return op.Cast((op.Gather(rows, left, axis=1) + op.Gather(rows, right, axis=1) + 2) / 4, to=UINT8)


@script(STEPS, default_opset=op)
def looks(shape):
    """Return how often the detector looks at a picture of this shape (height, width), once or twice, and the scales of
    both looks: that of `Detector.once` and that of `Detector.large`.
    """
    sides = op.Cast(shape, to=DOUBLE)
    short, long = op.ReduceMin(sides, keepdims=0), op.ReduceMax(sides, keepdims=0)
    wanted = op.Min(
        SHORT_SIDE / short, op.Sqrt(MOST_PIXELS / op.ReduceProd(sides, keepdims=0)), op.Cast(1.0, to=DOUBLE)
    )
    usual = op.Max(wanted, 1.0 / short)
    count = op.Where(LARGE_SIDE / long * 1.5 > usual, op.Constant(value_int=1), op.Constant(value_int=2))
    return count, op.Cast(op.Cast(usual, to=FLOAT), to=DOUBLE), op.Max(LARGE_SIDE / long, 1.0 / short)


@script(STEPS, default_opset=op)
def shrink(image, look, usual, small):
    """Return the picture of the detector's first or second look, and its scale.
    The second is halved first, see `resized`.
    """
    scale = op.Where(look == 0, usual, small)
    rest, picture = op.Identity(scale), op.Identity(image)
    halve = op.And(look > 0, rest < 0.5)
    while halve:
        picture = halved(picture)
        rest = rest + rest
        halve = rest < 0.5
    if rest < 1.0:
        picture = resized(picture, rest)
    else:
        picture = op.Identity(picture)
    return picture, op.Cast(scale, to=FLOAT)


@script(STEPS, default_opset=op)
def area_of(sides):
    """Return the area (...) of boxes with sides (..., 2)."""
    wide, tall = op.Split(sides, axis=-1, num_outputs=2)
    return op.Squeeze(wide * tall, [-1])


@script(STEPS, default_opset=op)
def overlaps(boxes, others):
    """Return the share (M, K) of each box (M, 4) that lies in others (K, 4), their IoU, and the areas (M, 1) and (1,
    K).
    """
    low, high = op.Split(op.Unsqueeze(boxes, [1]), axis=2, num_outputs=2)
    other_low, other_high = op.Split(op.Unsqueeze(others, [0]), axis=2, num_outputs=2)
    common = area_of(op.Relu(op.Min(high, other_high) - op.Max(low, other_low)))
    area, other = area_of(high - low), area_of(other_high - other_low)
    return common / op.Max(area, 1e-9), common / op.Max(area + other - common, 1e-9), area, other


@script(STEPS, default_opset=op)
def any_of(pairs):
    """Return (M,) whether any boolean in a row of `pairs` (M, K) is true."""
    return op.ReduceSum(op.Cast(pairs, to=FLOAT), [1], keepdims=0) > 0.0


@script(STEPS, default_opset=op)
def join(look, boxes, scores, scale, found, found_scores, most):
    """Return the detections of a look, in px of the picture, joined with those found before, best first; see `joined`."""
    low, high = op.Split(boxes, axis=1, num_outputs=2)
    large = op.Or(look == 0, op.Sqrt(area_of(high - low)) >= LARGE_FACE)
    boxes, scores = op.Compress(boxes / scale, large, axis=0), op.Compress(scores, large, axis=0)
    share, iou, area, other = overlaps(found, boxes)
    part = op.And(share >= WITHIN, op.Unsqueeze(found_scores, [1]) <= op.Unsqueeze(scores, [0]))
    kept = op.Not(any_of(op.Or(iou > most, part)))
    boxes = op.Concat(boxes, op.Compress(found, kept, axis=0), axis=0)
    scores = op.Concat(scores, op.Compress(found_scores, kept, axis=0), axis=0)
    scores, order = op.TopK(scores, op.Shape(scores))
    return op.Gather(boxes, order), scores


@script(STEPS, default_opset=op)
def is_visible(box, size):
    """Return whether boxes (..., 4) give a crop that shows a part of a picture of `size` (2,), width and height: (...,
    1).
    """
    low, high = op.Split(box, axis=-1, num_outputs=2)
    wide, tall = op.Split(high - low, axis=-1, num_outputs=2)
    # no maximum: onnxruntime's needs a face
    inside_x, inside_y = op.Split(op.Min(size - low, high), axis=-1, num_outputs=2)
    return op.And(op.Min(inside_x, inside_y) > 0.0, op.Max(wide, tall) > LEAST_SIDE)


@script(STEPS, default_opset=op)
def upright_box(boxes, directions):
    """Return the upright boxes (..., 4) that hold boxes (..., 4) which are turned, see `upright_boxes`."""
    low, high = op.Split(boxes, axis=-1, num_outputs=2)
    centre, wide_high = (low + high) / 2.0, (high - low) / 2.0
    wide, tall = op.Split(wide_high * wide_high, axis=-1, num_outputs=2)
    cosine, sine = op.Split(directions * directions, axis=-1, num_outputs=2)
    half = op.Sqrt(op.Concat(wide * cosine + tall * sine, wide * sine + tall * cosine, axis=-1))
    return op.Concat(centre - half, centre + half, axis=-1)


@script(STEPS, default_opset=op)
def find(boxes, scores, down, grow, size):
    """Return the landmark boxes (M, 4) of detections, and their scores; see `FaceBox`."""
    low, high = op.Split(boxes, axis=1, num_outputs=2)
    centre, half = (low + high) / 2.0 + down * (high - low), grow * (high - low) / 2.0
    found = op.Concat(centre - half, centre + half, axis=1)
    visible = op.Squeeze(is_visible(found, size), [1])
    return op.Compress(found, visible, axis=0), op.Compress(scores, visible, axis=0)


@script(STEPS, default_opset=op)
def turn_by(direction):
    """Return the matrix (2, 2) that turns points (N, 2), from the left, clockwise as seen."""
    cosine, sine = op.Split(direction, axis=0, num_outputs=2)
    return op.Reshape(op.Concat(cosine, sine, -sine, cosine, axis=0), [2, 2])


@script(STEPS, default_opset=op)
def cut(image, size, box, direction, px, margin):
    """Return the square crop (1, S, S, 3) uint8 of a box (4,), its centre (2,), and the side (1,) of the nominal crop,
    as `cut`.

    px (1,): S, `margin` (1,): S as a multiple of the input size of the net.
    """
    low, high = op.Split(box, axis=0, num_outputs=2)
    centre, side = (low + high) / 2.0, GROW * op.ReduceMax(high - low, keepdims=1)
    reach = side * margin / 2.0
    # the part of the picture that the crop touches, as `cut` chooses it; what lies outside is black
    cosine, sine = op.Split(direction, axis=0, num_outputs=2)
    touched = op.Where(cosine < 1.0, 1.5 * reach, reach)
    first = op.Min(op.Max(op.Floor(centre - touched) - 2.0, 0.0), size - 1.0)
    last = op.Min(op.Max(op.Ceil(centre + touched) + 2.0, first + 1.0), size)
    part = op.Slice(image, op.Cast(first, to=INT64), op.Cast(last, to=INT64), [1, 0])
    rest = op.Identity(reach)
    halve = op.And(op.Squeeze(rest >= px), op.ReduceMin(op.Shape(part, start=0, end=2), keepdims=0) > 1)
    while halve:
        part = halved(part)
        rest = rest / 2.0
        halve = op.And(op.Squeeze(rest >= px), op.ReduceMin(op.Shape(part, start=0, end=2), keepdims=0) > 1)
    times = op.Max(op.Ceil(2.0 * rest / px - 1e-5), 1.0)  # samples per px of the crop
    steps = op.Range(0.0, op.Squeeze(times * px), 1.0)
    places = rest * ((2.0 * steps + 1.0) / (times * px) - 1.0)
    # GridSample counts from -1 to 1 across that part
    tall, wide = op.Split(2.0 / op.Cast(op.Shape(part, start=0, end=2), to=FLOAT), axis=0, num_outputs=2)
    from_x, from_y = op.Split(rest / reach * (centre - first), axis=0, num_outputs=2)
    part = op.Unsqueeze(op.Transpose(op.Cast(part, to=FLOAT), perm=[2, 0, 1]), [0])
    across, down = op.Unsqueeze(places, [0]), op.Unsqueeze(places, [1])
    x = (wide * from_x - 1.0 + wide * cosine * across) - wide * sine * down
    y = (tall * from_y - 1.0 + tall * sine * across) + tall * cosine * down
    grid = op.Unsqueeze(op.Concat(op.Unsqueeze(x, [2]), op.Unsqueeze(y, [2]), axis=2), [0])
    samples = op.Round(op.GridSample(part, grid, mode="bilinear", padding_mode="zeros", align_corners=0))
    blocks = op.Cast(op.Concat(op.Constant(value_floats=[3.0]), px, times, px, times, axis=0), to=INT64)
    mean = op.ReduceMean(op.Reshape(samples, blocks), [2, 4], keepdims=0)
    picture = op.Cast(op.Floor(mean + 0.5), to=UINT8)  # OpenCV's mean of 2 x 2 rounds up too
    return op.Unsqueeze(op.Transpose(picture, perm=[1, 2, 0]), [0]), centre, side


@script(STEPS, default_opset=op)
def to_image(landmarks, score, direction, centre, side):
    """Return the landmarks (N, 2) in the picture and their scores (N,)."""
    points = op.MatMul((op.Squeeze(landmarks, [0]) - 0.5) * side, turn_by(direction)) + centre
    return points, op.Clip(op.Squeeze(score, [0]), 0.0, 1.0)


@script(STEPS, default_opset=op)
def roll_of(points, mean_along, mean_across):
    """Return the direction of a face by which its crop is turned, see `LandmarkNet.roll_of`."""
    around = points - op.ReduceMean(points, [0])
    vector = op.Concat(
        op.Reshape(op.ReduceSum(around * mean_along), [1]), op.Reshape(op.ReduceSum(around * mean_across), [1]), axis=0
    )
    roll = vector / op.Sqrt(op.ReduceSum(vector * vector, keepdims=1))
    cosine, sine = op.Split(roll, axis=0, num_outputs=2)
    level = op.Sign(sine) * LEVEL_SINE
    less = op.Concat(cosine * LEVEL_COSINE + sine * level, sine * LEVEL_COSINE - cosine * level, axis=0)
    return op.Where(cosine >= LEVEL_COSINE, op.Constant(value_floats=[1.0, 0.0]), less)


@script(STEPS, default_opset=op)
def next_box(points, direction, shown, size):
    """Return the tight box of the landmarks, turned like the face, and its direction.
    If that box shows nothing of the picture, return the box `shown`, upright.
    """
    turn, middle = turn_by(direction), op.ReduceMean(points, [0])
    straight = op.MatMul(points - middle, op.Transpose(turn))
    low, high = op.ReduceMin(straight, [0], keepdims=0), op.ReduceMax(straight, [0], keepdims=0)
    centre, half = op.Squeeze(middle, [0]) + op.MatMul((low + high) / 2.0, turn), (high - low) / 2.0
    box = op.Concat(centre - half, centre + half, axis=0)
    visible = is_visible(box, size)
    return op.Where(visible, box, shown), op.Where(visible, direction, op.Constant(value_floats=[1.0, 0.0]))


@script(STEPS, default_opset=op)
def hull(points):
    """Return the upright box (4,) around points (N, 2)."""
    return op.Concat(op.ReduceMin(points, [0], keepdims=0), op.ReduceMax(points, [0], keepdims=0), axis=0)


@script(STEPS, default_opset=op)
def is_far(centre, side, direction, box, next_direction):
    """Return whether a face is cropped again: whether the crop of `box` (4,) lies far from the present one, see
    `LandmarkNet.is_far`.
    """
    low, high = op.Split(box, axis=0, num_outputs=2)
    off = op.ReduceMax(op.Abs((low + high) / 2.0 - centre), keepdims=1)
    grown = GROW * op.ReduceMax(high - low, keepdims=1) - side
    turned = op.ReduceSum(direction * next_direction, keepdims=0) < TURN_COSINE
    return op.Or(op.Squeeze(off + op.Abs(grown) / 2.0 > NEAR * side), turned)


@script(STEPS, default_opset=op)
def distinct(kept, boxes, means):
    """Return which of the faces that are `kept` (M,) show neither another one again nor a part of one, see
    `pipnet.distinct`.
    """
    share, iou, area, other = overlaps(boxes, boxes)
    score, better = op.Unsqueeze(means, [1]), op.Unsqueeze(means, [0])
    place = op.Range(0, op.Size(means), 1)
    earlier = op.Unsqueeze(place, [0]) < op.Unsqueeze(place, [1])
    again = op.And(iou >= TWICE, op.Or(score < better, op.And(score == better, earlier)))
    part = op.And(op.And(share >= WITHIN, area * PART < other), score <= better)
    return op.And(kept, op.Not(any_of(op.And(op.Or(part, again), op.Unsqueeze(kept, [0])))))


@script(STEPS, default_opset=op)
def best_first(kept, scores):
    """Return the places of the faces that are `kept` (M,), those with the highest scores (M,) first."""
    places = op.Compress(op.Range(0, op.Size(scores), 1), kept, axis=0)
    _, order = op.TopK(op.Gather(scores, places), op.Shape(places))
    return op.Gather(places, order)


FUNCTIONS = (
    neighbors,
    along_rows,
    resized,
    halved,
    looks,
    shrink,
    area_of,
    overlaps,
    any_of,
    join,
    is_visible,
    upright_box,
    find,
    turn_by,
    cut,
    to_image,
    roll_of,
    next_box,
    hull,
    is_far,
    distinct,
    best_first,
)
# det_*, aim_* and read_* are tensors of the detector, the finder and the landmark net, whose nodes are put in behind the
# node that makes their image; what stands between {{ and }} is for a net that predicts which landmarks are seen. NET_SCORE is
# what the landmark net says of the face, or for a net without `face` what the detector says. FIRST_CROP is AIMED or AS_FOUND
GRAPH = """
<ir_version: 10, opset_import: ["" : OPSET, "pipnet.steps" : 1]>
pipeline (uint8[height, width, 3] image)
    => (float[faces, 4] boxes, float[faces] scores, float[faces, COUNT, 2] landmarks, float[faces, COUNT] landmark_scores
        {{, float[faces, COUNT] visible}})
{
    height_width = Shape<start = 0, end = 2>(image)
    height, width = Split<num_outputs = 2>(height_width)
    width_height = Concat<axis = 0>(width, height)
    size = Cast<to = 1>(width_height)
    count, usual, small = pipnet.steps.looks(height_width)
    detected, detected_scores = Loop<body = each_look (int64 look, bool more, float[m, 4] before, float[m] before_scores) => (
            bool look_on, float[n, 4] after, float[n] after_scores) {
        look_on = Identity(more)
        det_image, scale = pipnet.steps.shrink(image, look, usual, small)
        after, after_scores = pipnet.steps.join(look, det_boxes, det_scores, scale, before, before_scores, det_overlap)
    }>(count, yes, none, none_scores)
    starts, start_scores = pipnet.steps.find(detected, detected_scores, box_down, box_grow, size)
    number = Size(start_scores)
    likely_ones, every_box, every_score, every_points, every_scores, {{every_seen,}} every_hull, every_mean = Loop<body =
            each_face (int64 index, bool go) => (
            bool go_on, bool shown, float[4] box, float score, float[COUNT, 2] points, float[COUNT] point_scores,
            {{float[COUNT] point_seen,}} float[4] hull, float mean_score) {
        go_on = Identity(go)
        start = Gather(starts, index)
        found = Gather(start_scores, index)
        FIRST_CROP
        last_place, last_turn, box, score, points, point_scores {{, point_seen}} = Loop<body = each_read (int64 trip, bool unused,
                float[4] place, float[2] turn, float[4] old_box, float old_score, float[COUNT, 2] old_points,
                float[COUNT] old_scores {{, float[COUNT] old_seen}}) => (
                bool again, float[4] next_place, float[2] next_turn, float[4] new_box, float new_score,
                float[COUNT, 2] new_points, float[COUNT] new_scores {{, float[COUNT] new_seen}}) {
            read_image, centre, side = pipnet.steps.cut(image, size, place, turn, read_px, read_margin)
            new_points, new_scores = pipnet.steps.to_image(read_landmarks, read_score, turn, centre, side)
            {{new_seen = Squeeze(read_visible)}}
            new_score = NET_SCORE
            new_box = pipnet.steps.upright_box(place, turn)
            roll = pipnet.steps.roll_of(new_points, read_along, read_across)
            next_place, next_turn = pipnet.steps.next_box(new_points, roll, new_box, size)
            again = pipnet.steps.is_far(centre, side, turn, next_place, next_turn)
        }>(most_reads, open, first, direction, first, no_score, no_points, no_scores {{, no_scores}})
        mean_score = ReduceMean<keepdims = 0>(point_scores)
        hull = pipnet.steps.hull(points)
        sure = GreaterOrEqual(score, threshold)
        sharp = GreaterOrEqual(mean_score, face_limit)
        shown = And(sure, sharp)
    }>(number, yes)
    kept = pipnet.steps.distinct(likely_ones, every_hull, every_mean)
    places = pipnet.steps.best_first(kept, every_score)
    boxes = Gather(every_box, places)
    scores = Gather(every_score, places)
    landmarks = Gather(every_points, places)
    landmark_scores = Gather(every_scores, places)
    {{visible = Gather(every_seen, places)}}
}
"""
AIMED = """aim_image, aim_centre, aim_side = pipnet.steps.cut(image, size, start, upright, aim_px, aim_margin)
        aim_points, aim_scores = pipnet.steps.to_image(aim_landmarks, aim_score, upright, aim_centre, aim_side)
        aim_roll = pipnet.steps.roll_of(aim_points, aim_along, aim_across)
        first, direction = pipnet.steps.next_box(aim_points, aim_roll, start, size)
        aim_sure = Squeeze(aim_face)
        open = GreaterOrEqual(aim_sure, gate)"""
AS_FOUND = """first = Identity(start)
        direction = Identity(upright)
        open = Identity(yes)"""


def write_pipeline_int8(source: Source, file: Path) -> None:
    """Write the graph of nets in 8 bits, see `write_pipeline`. A detector that is not shipped is taken as it is."""
    detector = source.detector or shipped("detector.onnx")
    if detector == shipped(detector.name):
        detector = shipped(f"{detector.stem}.int8.onnx")
    assert source.int8
    write_pipeline(source._replace(onnx=source.int8, detector=detector), file, ".int8.onnx")


def write_pipeline(source: Source, file: Path, suffix: str = ".onnx") -> None:
    """Write the graph: image (H, W, 3) uint8 BGR -> boxes (M, 4), scores (M,), landmarks (M, N, 2), landmark_scores (M,
    N), and where the net predicts it visible (M, N).

    These are `box`, `score`, `landmarks`, `scores` and `visible` of a `Face`. suffix: of the finder's file. The graph
    has no finder if `has_finder` says so. UserError for a net with another crop protocol than `square`.
    """
    finds = source.detector or shipped("detector.onnx")
    if finds.suffix != ".onnx":
        raise UserError(f"a pipeline needs an ONNX file of --task detect, not {finds}; give another --detector-weights")
    detector = Detector(weights=finds, threads=1)
    net, landmarks, crops = opened(source.onnx, "read_")
    aims, first_crops = has_finder(source.onnx, finds), {}
    if aims:
        _, aiming, first_crops = opened(shipped("finder" + suffix), "aim_")
    values = {
        "det_threshold": detector.threshold,
        "det_overlap": detector.overlap,
        "box_down": [0, detector.face_box.down],
        "box_grow": detector.face_box[1:],
        "upright": [1, 0],
        "none": np.zeros((0, 4)),
        "none_scores": [],
        "no_points": np.zeros((net.layout.count, 2)),
        "no_scores": np.zeros(net.layout.count),
        "no_score": -1,  # of a box that the finder drops
        "gate": GATE,
        "threshold": THRESHOLD if net.face else 0,
        "face_limit": net.face_limit,
        **crops,
        **first_crops,
    }
    constants = {name: np.asarray(value, np.float32) for name, value in values.items()}
    constants |= {"most_reads": np.array(MOST_READS), "yes": np.array(True)}
    seen = any(output.name == "visible" for output in landmarks.graph.output)
    graph = re.sub(r"\{\{(.*?)\}\}", r"\1" if seen else "", GRAPH)
    graph = graph.replace("FIRST_CROP", AIMED if aims else AS_FOUND)
    graph = graph.replace("NET_SCORE", "Squeeze(read_face)" if net.face else "Identity(found)")
    graph = graph.replace("COUNT", str(net.layout.count)).replace("OPSET", str(OPSET))
    model = onnx.parser.parse_model(graph)
    model.functions.extend(function.to_function_proto() for function in FUNCTIONS)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    each_look, each_face = loops(model.graph)
    insert(each_look, onnx.load(finds), "det_")
    insert(*loops(each_face), landmarks, "read_")
    if aims:
        insert(each_face, aiming, "aim_")
    metadata = source.metadata() | {
        "layout": net.layout.to_dict(),
        "task": "pipeline",
        "threshold": values["threshold"],
        "face_limit": net.face_limit,
        "overlap": detector.overlap,
        "channels": "BGR, uint8, of any size",
        "frame": "px of the picture; the centre of the first pixel is (0.5, 0.5)",
    }
    # each CastLike of a constant is a Cast now, which the next call folds
    once = folded(inliner.inline_local_functions(model))
    write_onnx(folded(once), file, metadata)


def opened(file: Path, prefix: str) -> tuple[LandmarkNet, onnx.ModelProto, dict[str, Any]]:
    """Return the landmark net of an ONNX file, its graph, and the constants of its crops by name, with a prefix.

    UserError for a net with another crop protocol than `square`.
    """
    net, model = open_net(file, 1), onnx.load(file)
    if net.protocol != SQUARE or not net.tight or net.meanface is None:
        raise UserError(
            f"{file}: a pipeline needs a net that was trained with --protocol square on tight boxes of the "
            "landmarks, and all landmarks of a layout; leave this format out"
        )
    px, mean = net.size + 2 * border_px(net.size, net.margin), net.meanface - net.meanface.mean(0)
    values = {"px": [px], "margin": [px / net.size], "along": mean, "across": mean[:, ::-1] * (-1, 1)}
    return net, model, {prefix + name: value for name, value in values.items()}


def loops(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    """Return the bodies of the loops of a graph."""
    return [node.attribute[0].g for node in graph.node if node.op_type == "Loop"]


def insert(graph: onnx.GraphProto, model: onnx.ModelProto, prefix: str) -> None:
    """Insert the nodes of a model, with a prefix before all names, behind the node of `graph` that makes their input
    image.
    """
    other = onnx.compose.add_prefix(model, prefix).graph
    place = 1 + next(i for i, node in enumerate(graph.node) if f"{prefix}image" in node.output)
    nodes = [*graph.node[:place], *other.node, *graph.node[place:]]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(other.initializer)
