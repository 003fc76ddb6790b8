"""Re-exports only: `from utils import util; util.DataGenerator(data_dir="300W", target_size=256).run()`."""

from utils import DataGenerator

__all__ = ["DataGenerator"]
