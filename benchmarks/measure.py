"""How nets and tools find faces: `python benchmarks/measure.py NAME ...`.

kinds, traits, blinks, visible, babies [NET ...]: photographs that are changed in one way at a time; rendered people;
eyes of real people, shut and open; photographs in which something covers a part of the face; babies, many of whom lie.
false_faces, upright [NET ...]: faces found where there is none; upright faces that are missed or seen upside down, and
what the own detection costs. There a NET may be `mediapipe`.
A NET is what demo.py --exp takes, or TITLE=NET; without one, the shipped nets are measured.
others, changed, turns [TOOL ...]: tools that a user could take instead, in photographs as taken or changed; their
times.
detector NAME=WEIGHTS ...: detectors on photographs with
face boxes. face_boxes NET.onnx NAME=WEIGHTS ...: where detectors' boxes lie on the face. photographs.py says where the
data comes from. Rows of other nets and tools stay in results/NAME.json.
"""

from commands import Command, main

MEASURES = {
    "kinds": Command("measures.kinds", ("photographs",)),
    "traits": Command("measures.traits", ("faces",)),
    "blinks": Command("measures.blinks", ("eyes", "net")),
    "visible": Command("measures.visible", ("photographs", "net")),
    "babies": Command("measures.babies", ("face", "net")),
    "false_faces": Command("measures.false_faces", ("photographs",)),
    "upright": Command("measures.upright", ("photographs", "net")),
    "others": Command("measures.others", ("tool",)),
    "changed": Command("measures.others", ("tool", "photographs")),
    "turns": Command("measures.others", ("photographs", "tool")),
    **{name: Command("measures.detectors") for name in ("detector", "face_boxes")},
}

if __name__ == "__main__":
    main(MEASURES, __doc__)
