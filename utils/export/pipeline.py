"""Export of the whole way from a picture to its faces as one ONNX graph, for programs without Python.

It does what `Landmarker(net, detector, any_roll=False)` does with a picture. The steps below are written in ONNX Script, which
translates them to ONNX operators. Boxes and points are in continuous px of the picture. A direction (2,) is the cosine and the
sine of a roll, so that no angle has to be computed.
"""
import math
from pathlib import Path

import numpy as np
import onnx
from onnx import inliner, numpy_helper
from onnxscript import opset18 as op
from onnxscript import script
from onnxscript.values import Opset

from pipnet.detector import MOST_PIXELS, SHORT_SIDE, Detector
from pipnet.errors import UserError
from pipnet.geometry import border_px
from pipnet.landmarker import FEW_CROPS, LEVEL, MOST_CROPS, NEAR, NEAR_LEANING, NEAR_TURN, SQUARE, open_net
from utils.export.files import OPSET, Source, folded, write_onnx

STEPS = Opset("pipnet.steps", 1)
FLOAT, DOUBLE, INT32, INT64, UINT8 = 1, 11, 6, 7, 2  # numbers of ONNX types
LEVEL_COSINE, LEVEL_SINE, TURN_COSINE = math.cos(LEVEL), math.sin(LEVEL), math.cos(NEAR_TURN)
GROW = SQUARE.scale_x
LEAST_SIDE = 1e-3 / GROW  # px of a box; `crop_box` refuses smaller crops


@script(STEPS, default_opset=op)
def neighbors(count, scale):
    """Return the indices of the two px between which each px of a shrunken side lies, and their weights in 1/2048."""
    wanted = op.Cast(op.Round(op.Cast(count, to=DOUBLE) * scale), to=INT64)
    place = op.Cast((op.Cast(op.Range(0, wanted, 1), to=DOUBLE) + 0.5) / scale - 0.5, to=FLOAT)
    first = op.Floor(place)
    share = place - first
    index = op.Cast(first, to=INT64)
    return (op.Clip(index, 0, count - 1), op.Clip(index + 1, 0, count - 1),
            op.Cast(op.Round((1.0 - share) * 2048.0), to=INT32), op.Cast(op.Round(share * 2048.0), to=INT32))


@script(STEPS, default_opset=op)
def shrink(image):
    """Return the detector's picture and its scale. Weights and rounding are those of cv2.resize, whose integers lose 1/8 of a
    grey level on average; without that, boxes of the detector differ by some tenths of a px."""
    shape = op.Shape(image, start=0, end=2)
    sides = op.Cast(shape, to=DOUBLE)
    short = op.ReduceMin(sides, keepdims=0)
    wanted = op.Min(SHORT_SIDE / short, op.Sqrt(MOST_PIXELS / op.ReduceProd(sides, keepdims=0)), op.Cast(1.0, to=DOUBLE))
    scale = op.Cast(op.Max(wanted, 1.0 / short), to=FLOAT)
    exact = op.Cast(scale, to=DOUBLE)
    top, bottom, above, below = neighbors(op.Gather(shape, 0), exact)
    left, right, before, after = neighbors(op.Gather(shape, 1), exact)
    if scale < 1.0:
        upper, lower = op.Gather(image, top), op.Gather(image, bottom)
        upper = (op.Cast(op.Gather(upper, left, axis=1), to=INT32) * op.Unsqueeze(before, [1])
                 + op.Cast(op.Gather(upper, right, axis=1), to=INT32) * op.Unsqueeze(after, [1]))
        lower = (op.Cast(op.Gather(lower, left, axis=1), to=INT32) * op.Unsqueeze(before, [1])
                 + op.Cast(op.Gather(lower, right, axis=1), to=INT32) * op.Unsqueeze(after, [1]))
        quarters = upper / 16 * op.Unsqueeze(above, [1, 2]) / 65536 + lower / 16 * op.Unsqueeze(below, [1, 2]) / 65536
        picture = op.Cast((quarters + 2) / 4, to=UINT8)
    else:
        picture = op.Identity(image)
    return picture, scale


@script(STEPS, default_opset=op)
def is_visible(box, size):
    """Return whether boxes (..., 4) give a crop that shows a part of a picture of `size` (2,), width and height: (..., 1)."""
    low, high = op.Split(box, axis=-1, num_outputs=2)
    wide, tall = op.Split(high - low, axis=-1, num_outputs=2)
    inside_x, inside_y = op.Split(op.Min(size - low, high), axis=-1, num_outputs=2)  # no maximum: onnxruntime's needs a face
    return op.And(op.Min(inside_x, inside_y) > 0.0, op.Max(wide, tall) > LEAST_SIDE)


@script(STEPS, default_opset=op)
def to_landmark_boxes(boxes, scores, scale, down, grow, size):
    """Return the landmark boxes (M, 4) of detections in px of the shrunken picture, and their scores; see `FaceBox`."""
    low, high = op.Split(boxes / scale, axis=1, num_outputs=2)
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
def crop(image, size, box, direction, px, margin):
    """Return the square crop (1, S, S, 3) uint8 of a box (4,), its centre (2,), and the side (1,) of the nominal crop, as `cut`.

    px (1,): S, `margin` (1,): S as a multiple of the net's input size.
    """
    low, high = op.Split(box, axis=0, num_outputs=2)
    centre, side = (low + high) / 2.0, GROW * op.ReduceMax(high - low, keepdims=1)
    reach = side * margin / 2.0
    times = op.Max(op.Ceil(2.0 * reach / px - 1e-5), 1.0)  # samples per px of the crop
    steps = op.Range(0.0, op.Squeeze(times * px), 1.0)
    places = reach * ((2.0 * steps + 1.0) / (times * px) - 1.0)
    # the part of the picture that the crop touches; what lies outside is black
    half = reach * op.ReduceSum(op.Abs(direction), keepdims=1)
    first = op.Min(op.Max(op.Floor(centre - half) - 2.0, 0.0), size - 1.0)
    last = op.Min(op.Max(op.Ceil(centre + half) + 2.0, first + 1.0), size)
    part = op.Slice(image, op.Cast(first, to=INT64), op.Cast(last, to=INT64), [1, 0])
    part = op.Unsqueeze(op.Transpose(op.Cast(part, to=FLOAT), perm=[2, 0, 1]), [0])
    # GridSample counts from -1 to 1 across that part
    zoom = 2.0 / (last - first)
    zoom_x, zoom_y = op.Split(zoom, axis=0, num_outputs=2)
    from_x, from_y = op.Split(zoom * (centre - first) - 1.0, axis=0, num_outputs=2)
    cosine, sine = op.Split(direction, axis=0, num_outputs=2)
    across, down = op.Unsqueeze(places, [0]), op.Unsqueeze(places, [1])
    x = (from_x + zoom_x * cosine * across) - zoom_x * sine * down
    y = (from_y + zoom_y * sine * across) + zoom_y * cosine * down
    grid = op.Unsqueeze(op.Concat(op.Unsqueeze(x, [2]), op.Unsqueeze(y, [2]), axis=2), [0])
    samples = op.Round(op.GridSample(part, grid, mode="bilinear", padding_mode="zeros", align_corners=0))
    blocks = op.Cast(op.Concat(op.Constant(value_floats=[3.0]), px, times, px, times, axis=0), to=INT64)
    mean = op.ReduceMean(op.Reshape(samples, blocks), [2, 4], keepdims=0)
    picture = op.Cast(op.Floor(mean + 0.5), to=UINT8)  # OpenCV's mean of 2 x 2 rounds up too
    return op.Unsqueeze(op.Transpose(picture, perm=[1, 2, 0]), [0]), centre, side


@script(STEPS, default_opset=op)
def to_picture(landmarks, score, box, direction, centre, side):
    """Return the landmarks (N, 2) in the picture, their scores (N,), and the upright box (4,) that holds the turned `box`."""
    turn = turn_by(direction)
    low, high = op.Split(box, axis=0, num_outputs=2)
    half = (high - low) / 2.0
    half = op.Sqrt(op.MatMul(half * half, turn * turn))
    points = op.MatMul((op.Squeeze(landmarks, [0]) - 0.5) * side, turn) + centre
    return points, op.Clip(op.Squeeze(score, [0]), 0.0, 1.0), op.Concat(centre - half, centre + half, axis=0)


@script(STEPS, default_opset=op)
def roll_of(points, mean_along, mean_across):
    """Return the direction of a face by which its crop is turned, see `LandmarkNet.roll_of`."""
    around = points - op.ReduceMean(points, [0])
    vector = op.Concat(op.Reshape(op.ReduceSum(around * mean_along), [1]), op.Reshape(op.ReduceSum(around * mean_across), [1]),
                       axis=0)
    roll = vector / op.Sqrt(op.ReduceSum(vector * vector, keepdims=1))
    cosine, sine = op.Split(roll, axis=0, num_outputs=2)
    level = op.Sign(sine) * LEVEL_SINE
    less = op.Concat(cosine * LEVEL_COSINE + sine * level, sine * LEVEL_COSINE - cosine * level, axis=0)
    return op.Where(cosine >= LEVEL_COSINE, op.Constant(value_floats=[1.0, 0.0]), less)


@script(STEPS, default_opset=op)
def next_box(points, direction, shown, size):
    """Return the tight box of the landmarks, turned like the face, and its direction; `shown`, upright, where that shows nothing
    of the picture."""
    turn, middle = turn_by(direction), op.ReduceMean(points, [0])
    straight = op.MatMul(points - middle, op.Transpose(turn))
    low, high = op.ReduceMin(straight, [0], keepdims=0), op.ReduceMax(straight, [0], keepdims=0)
    centre, half = op.Squeeze(middle, [0]) + op.MatMul((low + high) / 2.0, turn), (high - low) / 2.0
    box = op.Concat(centre - half, centre + half, axis=0)
    visible = is_visible(box, size)
    return op.Where(visible, box, shown), op.Where(visible, direction, op.Constant(value_floats=[1.0, 0.0]))


@script(STEPS, default_opset=op)
def is_sure(scores, least, errors, most, points):
    """Return whether a face has high scores (N,) and low expected errors (1, N), see `LandmarkNet.is_sure`."""
    extent = op.ReduceMax(points, [0], keepdims=0) - op.ReduceMin(points, [0], keepdims=0)
    size = op.Sqrt(op.ReduceProd(extent, keepdims=0))
    return op.And(op.ReduceMean(scores, keepdims=0) >= least, op.ReduceMean(errors, keepdims=0) <= most * size)


@script(STEPS, default_opset=op)
def needs_crop(trip, sure, likely, centre, side, direction, box, next_direction):
    """Return whether a face is cropped again: its first crop if it is unsure, others if that of `box` (4,) lies far from them.
    After FEW_CROPS only a `likely` face is."""
    low, high = op.Split(box, axis=0, num_outputs=2)
    off = op.ReduceMax(op.Abs((low + high) / 2.0 - centre), keepdims=1)
    grown = GROW * op.ReduceMax(high - low, keepdims=1) - side
    cosine = op.Gather(next_direction, 0)
    near = op.Where(cosine < TURN_COSINE, NEAR_LEANING, NEAR)
    far = op.Squeeze(off + op.Abs(grown) / 2.0 > near * side)
    far = op.Or(far, op.ReduceSum(direction * next_direction, keepdims=0) < TURN_COSINE)
    due = op.Or(far, op.And(trip == 0, op.Not(sure)))
    return op.And(due, op.Or(trip < FEW_CROPS, likely))


@script(STEPS, default_opset=op)
def faces(kept, boxes, scores, landmarks, landmark_scores):
    """Return the values of the faces that are `kept` (M,)."""
    return (op.Compress(boxes, kept, axis=0), op.Compress(scores, kept, axis=0), op.Compress(landmarks, kept, axis=0),
            op.Compress(landmark_scores, kept, axis=0))


FUNCTIONS = (neighbors, shrink, is_visible, to_landmark_boxes, turn_by, crop, to_picture, roll_of, next_box, is_sure, needs_crop,
             faces)
# det_* and net_* are tensors of the detector and the landmark net, whose nodes are put in behind the node that makes their image
GRAPH = """
<ir_version: 10, opset_import: ["" : OPSET, "pipnet.steps" : 1]>
pipeline (uint8[height, width, 3] image)
    => (float[faces, 4] boxes, float[faces] scores, float[faces, COUNT, 2] landmarks, float[faces, COUNT] landmark_scores)
{
    height_width = Shape<start = 0, end = 2>(image)
    height, width = Split<num_outputs = 2>(height_width)
    width_height = Concat<axis = 0>(width, height)
    size = Cast<to = 1>(width_height)
    det_image, scale = pipnet.steps.shrink(image)
    starts, start_scores = pipnet.steps.to_landmark_boxes(det_boxes, det_scores, scale, box_down, box_grow, size)
    number = Size(start_scores)
    kept, every_box, every_points, every_scores = Loop<body = each_face (int64 index, bool go) => (
            bool go_on, bool is_face, float[4] box, float[COUNT, 2] points, float[COUNT] point_scores) {
        go_on = Identity(go)
        start = Gather(starts, index)
        last_cut, last_turn, box, points, point_scores = Loop<body = each_crop (int64 trip, bool unused,
                float[4] cut, float[2] turn, float[4] old_box, float[COUNT, 2] old_points, float[COUNT] old_scores) => (
                bool again, float[4] next_cut, float[2] next_turn, float[4] new_box, float[COUNT, 2] new_points,
                float[COUNT] new_scores) {
            net_image, centre, side = pipnet.steps.crop(image, size, cut, turn, crop_px, crop_margin)
            new_points, new_scores, new_box = pipnet.steps.to_picture(net_landmarks, net_score, cut, turn, centre, side)
            roll = pipnet.steps.roll_of(new_points, mean_along, mean_across)
            next_cut, next_turn = pipnet.steps.next_box(new_points, roll, new_box, size)
            errors = Mul(SIGMA, side)
            sure = pipnet.steps.is_sure(new_scores, least_sure, errors, sure_error, new_points)
            new_mean = ReduceMean<keepdims = 0>(new_scores)
            likely = GreaterOrEqual(new_mean, face_least)
            again = pipnet.steps.needs_crop(trip, sure, likely, centre, side, turn, next_cut, next_turn)
        }>(most_crops, yes, start, upright, start, no_points, no_scores)
        mean_score = ReduceMean<keepdims = 0>(point_scores)
        is_face = GreaterOrEqual(mean_score, face_least)
    }>(number, yes)
    boxes, scores, landmarks, landmark_scores = pipnet.steps.faces(kept, every_box, start_scores, every_points, every_scores)
}
"""


def write_pipeline(source: Source, file: Path) -> None:
    """Write the graph: image (H, W, 3) uint8 BGR -> boxes (M, 4), scores (M,), landmarks (M, N, 2), landmark_scores (M, N).

    These are `box`, `score`, `landmarks` and `scores` of a `Face`. UserError for a net with another crop protocol than `square`.
    """
    if source.detector.suffix != ".onnx":
        raise UserError(f"a pipeline needs an ONNX file of --task detect, not {source.detector}; give another --detector-weights")
    net, detector = open_net(source.onnx, 1), Detector(weights=source.detector, threads=1)
    if net.protocol != SQUARE or not net.tight or net.meanface is None:
        raise UserError(f"{source.onnx}: a pipeline needs a net that was trained with --protocol square on tight boxes of the "
                        "landmarks; leave this format out")
    px = net.size + 2 * border_px(net.size, net.margin)
    mean = net.meanface - net.meanface.mean(0)
    values = {
        "det_threshold": detector.threshold, "det_overlap": detector.overlap, "box_down": [0, detector.face_box.down],
        "box_grow": detector.face_box[1:], "crop_px": [px], "crop_margin": [px / net.size], "mean_along": mean,
        "mean_across": mean[:, ::-1] * (-1, 1), "upright": [1, 0], "no_points": np.zeros((len(mean), 2)),
        "no_scores": np.zeros(len(mean)), "no_errors": [0], "face_least": net.face_least, "least_sure": net.sure,
        "sure_error": net.sure_error}
    constants = {name: np.asarray(value, np.float32) for name, value in values.items()}
    constants |= {"most_crops": np.array(1 + MOST_CROPS), "yes": np.array(True)}
    landmarks = onnx.load(source.onnx)
    sigma = "net_sigma" if "sigma" in [output.name for output in landmarks.graph.output] else "no_errors"
    graph = GRAPH.replace("COUNT", str(len(mean))).replace("OPSET", str(OPSET)).replace("SIGMA", sigma)
    model = onnx.parser.parse_model(graph)
    model.functions.extend(function.to_function_proto() for function in FUNCTIONS)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    insert(model.graph, onnx.load(source.detector), "det_")
    each_face = next(node for node in model.graph.node if node.op_type == "Loop").attribute[0].g
    insert(next(node for node in each_face.node if node.op_type == "Loop").attribute[0].g, landmarks, "net_")
    metadata = source.metadata() | {
        "task": "pipeline", "threshold": detector.threshold, "overlap": detector.overlap, "face_least": net.face_least,
        "channels": "BGR, uint8, of any size", "frame": "px of the picture; the centre of the first pixel is (0.5, 0.5)"}
    once = folded(inliner.inline_local_functions(model))  # which turns each CastLike of a constant into a Cast, to be folded too
    write_onnx(folded(once), file, metadata)


def insert(graph: onnx.GraphProto, model: onnx.ModelProto, prefix: str) -> None:
    """Put the nodes of a model, with a prefix before all names, behind the node of `graph` that makes their image."""
    other = onnx.compose.add_prefix(model, prefix).graph
    place = 1 + next(i for i, node in enumerate(graph.node) if f"{prefix}image" in node.output)
    nodes = [*graph.node[:place], *other.node, *graph.node[place:]]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(other.initializer)
