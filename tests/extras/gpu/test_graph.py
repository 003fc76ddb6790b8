"""Steps as CUDA graphs, with a graph that only remembers what to run: when they are used, checked and given up."""

from contextlib import contextmanager

import pytest
import torch

from extras.gpu.graph import EAGER, Graph
from utils.train.ranks import Ranks

RANKS = Ranks(0, 1, torch.device("cpu"))


class Step:
    """A step that moves a weight by the mean of its input, and counts how often it is run.
    wrong: what a replay adds to it.
    """

    def __init__(self, wrong: float = 0.0, error: str = ""):
        self.weight, self.moment, self.wrong, self.error = torch.zeros(3), torch.zeros(3), wrong, error
        self.result, self.replaying, self.runs = torch.zeros(1), False, 0

    def state(self):
        return [self.weight], [self.moment]

    def __call__(self, batch):
        ((images, labels),) = batch
        self.runs += 1
        self.moment += 1
        self.weight += images.mean() + labels["x"] + self.wrong * self.replaying
        self.result.copy_(self.weight[:1])
        return self.result


@pytest.fixture
def graph(monkeypatch):
    """Return a function that makes the Graph of a Step, whose capture runs nothing and whose replay runs the step."""

    def made(step: Step) -> Graph:
        found = Graph(step, step.state, RANKS)

        class Remembered:
            def replay(self):
                step.replaying = True
                step(self.batch)
                step.replaying = False

        @contextmanager
        def capture(remembered, capture_error_mode):
            def record(batch):
                remembered.batch = batch
                if step.error:
                    raise RuntimeError(step.error)
                return step.result

            found.step = record
            yield

        monkeypatch.setattr("torch.cuda.CUDAGraph", Remembered)
        monkeypatch.setattr("torch.cuda.graph", capture)
        original = found._capture

        def captured(batch):
            try:
                return original(batch)
            finally:
                found.step = step

        monkeypatch.setattr(found, "_capture", captured)
        return found

    monkeypatch.setattr("torch.cuda.get_rng_state", lambda: None)
    monkeypatch.setattr("torch.cuda.set_rng_state", lambda _: None)
    return made


def batch(value: float) -> list:
    return [(torch.full((2, 2), value), {"x": torch.tensor(value), "width": 1})]


def test_a_graph_takes_each_step_once_and_with_its_own_batch(graph):
    step = Step()
    replayed, expected = graph(step), 0.0
    for value in (1.0, 2.0, 3.0, 4.0, 5.0):
        expected += 2 * value
        assert replayed(batch(value)).item() == expected
    assert replayed.graph and step.moment.tolist() == [5.0] * 3
    assert step.runs == 6, "only the step of the check is run twice"


@pytest.mark.parametrize("step", [Step(wrong=1.0), Step(error="no kernel\ncan be captured")])
def test_without_a_right_graph_steps_are_taken_as_usual(graph, step, said):
    usual = graph(step)
    for value in range(1, EAGER + 3):
        usual(batch(float(value)))
    assert usual.graph is None and step.weight.tolist() == [30.0] * 3 and step.moment.tolist() == [5.0] * 3
    why = "no kernel can be captured" if step.error else "its graph differs from it by"
    assert f"launched kernel by kernel: {why}" in said[0]
