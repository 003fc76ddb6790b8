"""A row of DATASETS: how an archive is read, and what is said about an incomplete one."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from loguru import logger

from extras.datasets.archive import MORE, NO_LAYOUTS, Archive
from pipnet.errors import UserError
from pipnet.layout import Layout
from utils.data.table import CONTINUOUS, RawSet, Splits, complain
from utils.settings.layouts import Layouts


class Dataset(NamedTuple):
    """A row of DATASETS. The modules of a parser and of the checks of own labels are imported when a set is read."""

    # adds the faces to an Archive; may return lines that replace its `shortfall`. A text: MODULE:FUNCTION of this package
    parser: Callable[..., list[str] | None] | str
    title: str  # in messages
    layout: str | None  # row of args.yaml's layouts; None: the layout with the file's number of landmarks
    origin: float | None  # annotated coordinate of the centre of the first pixel; None: that of each part
    expected: dict[str, int] = {}  # faces per subset in the official release; without any: any number
    splits: tuple[str, ...] = ("train", "test")  # splits of every archive; a parser may add others
    signs: tuple[str, ...] = ()  # file or folder patterns by which `infer` recognises the set
    states: tuple[str, ...] = ()  # names of the values of its column `states`
    options: tuple[str, ...] = ()  # fields of DataGenerator that are passed to `load`
    label_shift: float = 0.0  # px of the source image by which the annotations lie to the right of what they mark
    clipped: bool = False  # whether PIPNet's authors clip the landmarks to the image
    gssl: tuple[float, ...] = ()  # sets with boxes: PIPNet's crop in protocol `gssl`, see prepare.GSSL_CROP
    norms: tuple[str, ...] = ()  # norms that publications use for this set; reports mark them
    parts: tuple["Dataset", ...] = ()  # rows of the sets of which it consists; the parser gets them

    @property
    def origin_is_ambiguous(self) -> bool:
        """Return whether users may count the first pixel as 0 or 1: in own sets whose format does not say it."""
        return self.layout is None and self.origin == 0

    def read(
        self,
        data_dir: Path,
        count: int | None = None,
        origin: float | None = None,
        layouts: Layouts = NO_LAYOUTS,
        annotation: str | None = None,
        **options,
    ) -> tuple[Archive, list[str]]:
        """Return the parsed archive and a line for each missing part. Raise UserError for a fault in the annotation.
        annotation: the file of a user's own set that alone is read; None: all of them.
        """
        if count is None and self.layout is not None:
            count = int(self.layout)
        origin = self.origin if origin is None else origin
        archive = Archive(data_dir, origin, count, self.splits, layouts, annotation, self.expected)
        parser = self.parser
        if isinstance(parser, str):
            module, _, name = parser.partition(":")
            parser = getattr(import_module(f"extras.datasets.{module}"), name)
        missing = parser(archive, *self.parts, **options)
        complain(archive.faults)
        return archive, archive.shortfall() if missing is None else missing

    def load(self, data_dir: Path, allow_partial: bool = False, *given, identity: str = "auto", **options) -> Archive:
        """Return the parsed archive, with at least a face; a user's own with its labels checked and with identities by the
        rule `identity`. The rest is as in `read`.

        Raise UserError for a fault in the annotation, and for missing faces; with allow_partial, warn of these.
        """
        archive, missing = self.read(data_dir, *given, **options)
        require_complete(archive.root, self.title, missing, allow_partial)
        if not len(archive):
            left = "".join(f"; left out: {what} ({count})" for what, count in archive.left_out.items() if count)
            raise UserError(f"{archive.root}: no annotated face of {self.title} with its image in it{left}")
        if self.layout is None:
            from extras.datasets.own import check_labels

            check_labels(archive)
            archive.tell_identities(identity)
        return archive

    def parse(self, *given, **options) -> Splits:
        """Return the table of each split of an archive, see `load` and `Archive.tables`."""
        return self.load(*given, **options).tables()

    def read_set(
        self,
        folder: Path,
        allow_partial: bool,
        layout: Layout | None,
        layouts: Layouts,
        first_pixel: float | None,
        published: bool,
        **options,
    ) -> RawSet:
        """Return the faces of an archive, with landmarks in continuous px.

        layout: the one that they must have, None for that of a user's own files. first_pixel: see DataGenerator.
        published: coordinates are taken for continuous px, as PIPNet's authors do.
        """
        from extras.datasets.own_layout import layout_of

        origin = self.origin if first_pixel is None else first_pixel
        read_as = CONTINUOUS if published else origin
        archive = self.load(folder, allow_partial, layout and layout.count, read_as, layouts, **options)
        if origin is not None and self.origin_is_ambiguous:
            check_first_pixel(archive, origin, first_pixel is not None, published)
        found = layout.name if layout and self.layout else layout_of(archive, layout).name
        made = None if found in layouts.rows else archive.layouts.rows[found]
        return RawSet(archive.tables(), found, archive.names, made, archive.named > 0)


def check_first_pixel(archive: Archive, origin: float, given: bool, published: bool) -> None:
    """Log how the files of an own set count pixels. UserError if each of them says so itself, other than the flag."""
    stated = {first: count for first, count in archive.told.items() if first is not None}
    silent = len(archive) - sum(stated.values())
    if not silent and given and set(stated) != {origin}:
        raise UserError(
            f"{archive.root}: its files state first_pixel {', '.join(f'{first:g}' for first in stated)} themselves, not "
            f"{origin:g}; leave --first-pixel out, or correct the files"
        )
    lines = [f"from {first:g} in {count} faces, as their files state" for first, count in stated.items()]
    if silent and not published:
        lines.append(f"from {origin:g} in {silent} faces, whose files state nothing (--first-pixel 0, 0.5 or 1)")
    if lines:
        logger.info(f"{archive.root}: pixels are counted {'; '.join(lines)}")


def require_complete(root: Path, title: str, missing: list[str], allow_partial: bool) -> None:
    """Raise UserError with one line for each incomplete part of a release; with allow_partial, warn instead."""
    if missing and not allow_partial:
        advice = f"{root} does not hold all of {title}; complete it, or"
        if all(MORE in line for line in missing):
            advice = f"{root} holds more than the release of {title}; remove what is not of it, or"
        raise UserError("\n  ".join((f"{advice} use what is there with allow_partial (--allow-partial):", *missing)))
    for line in missing:
        logger.warning(f"{title}: {line}" if MORE in line else f"{title} is partial: {line}")
