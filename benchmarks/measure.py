"""How nets and tools find faces: `python benchmarks/measure.py NAME ...`.

kinds, blinks, visible, babies [NET ...]: photographs that are changed in one way at a time (--split val, --faces N);
eyes of real people, shut and open; photographs in which something covers a part of the face; babies, many of whom lie.
false_faces, upright [NET ...]: faces found where there is none; upright faces that are missed or seen upside down, and
what the own detection costs. There a NET may be `mediapipe` or `dlib`.
A NET is what demo.py --exp takes, or TITLE=NET; without one, the shipped nets are measured.
others, changed, turns [TOOL ...]: tools that a user could take instead, in photographs as taken or changed (--faces N);
their times.
face_boxes NET.onnx NAME=WEIGHTS ...: where detectors' boxes lie on the face.
scores NAME FLAG ...: the scores of a run of main.py with these flags.
photographs.py says where the data comes from. Figures are saved in results/NAME.json, with --into FILE in another file;
rows of other nets and tools stay.
"""

from record import main

MEASURES = {
    "kinds": "measures.kinds",
    "blinks": "measures.blinks",
    "visible": "measures.visible",
    **dict.fromkeys(("babies", "upright"), "measures.portraits"),
    "false_faces": "measures.false_faces",
    **dict.fromkeys(("others", "changed", "turns"), "measures.others"),
    "face_boxes": "measures.boxes",
    "scores": "measures.scores",
}

if __name__ == "__main__":
    main(MEASURES, __doc__)
