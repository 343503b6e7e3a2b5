"""Painted slides as files: generic pyramidal TIFF, OME-TIFF, an SVS by its tags, and DICOM by wsidicom."""

from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
import tifffile

from tests.painted_slides import PaintedSlide

TILE = 256
LEVELS = (1, 4, 8)


def shrink(pixels: np.ndarray, factor: int) -> np.ndarray:
    size = pixels.shape[1] // factor, pixels.shape[0] // factor
    return pixels if factor == 1 else cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def paint(slide: PaintedSlide) -> np.ndarray:
    """The whole of a slide: RGB (height, width, 3) uint8."""
    return slide.paint((0, 0, *slide.size))


def write_tiff(
    path: Path, pixels: np.ndarray, *, pixel_size: float | None = 0.25, levels: tuple[int, ...] = LEVELS
) -> Path:
    """A generic pyramidal TIFF, as vips and bioformats write it: a page for each level."""
    per_cm = None if pixel_size is None else (1e4 / pixel_size,) * 2
    with tifffile.TiffWriter(path) as writer:
        for factor in levels:
            writer.write(
                shrink(pixels, factor),
                tile=(TILE, TILE),
                compression="zlib",
                compressionargs={"level": 1},
                photometric="rgb",
                subfiletype=int(factor > 1),
                metadata=None,
                resolution=per_cm,
                resolutionunit=None if per_cm is None else "CENTIMETER",
            )
    return path


def write_ome(path: Path, pixels: np.ndarray, pixel_size: float = 0.25) -> Path:
    """OME-TIFF, whose smaller levels stand in sub-directories: OpenSlide knows the first alone."""
    size = {f"PhysicalSize{axis}": pixel_size for axis in "XY"} | {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
    options = {"tile": (TILE, TILE), "compression": "zlib", "photometric": "rgb"}
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, subifds=len(LEVELS) - 1, metadata={"axes": "YXS"} | size, **options)
        for factor in LEVELS[1:]:
            writer.write(shrink(pixels, factor), subfiletype=1, **options)
    return path


def write_svs(path: Path, pixels: np.ndarray, *, power: int = 40, mpp: float | None = 0.25) -> Path:
    """An SVS by its tags: tiled levels, a thumbnail between them, and a label, each with Aperio's description."""
    with tifffile.TiffWriter(path) as writer:
        for number, factor in enumerate(LEVELS):
            level = shrink(pixels, factor)
            known = f"|AppMag = {power}" + (f"|MPP = {mpp}" if mpp else "")
            description = f"Aperio Image Library v12.0.15\r\n{level.shape[1]}x{level.shape[0]} ({TILE}x{TILE}){known}"
            options = {"tile": (TILE, TILE), "compression": "zlib", "photometric": "rgb", "metadata": None}
            writer.write(level, description=description, **options)
            if number == 0:
                writer.write(shrink(pixels, 16), description="Aperio Image Library v12.0.15", metadata=None)
        label = np.full((200, 300, 3), 230, np.uint8)
        writer.write(label, description="Aperio Image Library v12.0.15\r\nlabel 300x200", subfiletype=1, metadata=None)
    return path


def write_dicom(folder: Path, pixels: np.ndarray, pixel_size: float = 0.25) -> Path:
    """A DICOM slide by wsidicom: a file for each level, in one folder. Returns one of the files."""
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid
    from wsidicom import WsiDicom
    from wsidicom.codec import Encoder
    from wsidicom.geometry import Point, Size, SizeMm
    from wsidicom.instance import ImageData, WsiInstance
    from wsidicom.metadata import (
        Equipment,
        Image,
        ImageType,
        Label,
        OpticalPath,
        Patient,
        Pyramid,
        Series,
        Slide,
        SlideSample,
        Study,
        WsiMetadata,
    )
    from wsidicom.metadata.schema.dicom.wsi import WsiMetadataDicomSchema
    from wsidicom.source import Source

    class Level(ImageData):
        """One level of a painted slide, not compressed: wsidicom encodes JPEG with a package of its own only."""

        transfer_syntax, samples_per_pixel, bits = ExplicitVRLittleEndian, 3, 8
        photometric_interpretation, thread_safe = "RGB", True
        image_coordinate_system = lossy_compression = transcoder = None
        tile_size = Size(TILE, TILE)

        def __init__(self, factor: int):
            self._pixels, self._factor = shrink(pixels, factor), factor
            super().__init__(Encoder.create(self.transfer_syntax, 8, "RGB"))

        @property
        def image_size(self) -> Size:
            return Size(self._pixels.shape[1], self._pixels.shape[0])

        @property
        def pixel_spacing(self) -> SizeMm:
            return SizeMm(*(pixel_size * self._factor / 1000,) * 2)

        @property
        def imaged_size(self) -> SizeMm:
            return SizeMm(*(side * pixel_size / 1000 for side in pixels.shape[1::-1]))

        def get_decoded_tile(self, tile_point: Point, z: float, path: str, cache: bool = True) -> np.ndarray:
            y, x = tile_point.y * TILE, tile_point.x * TILE
            part = self._pixels[y : y + TILE, x : x + TILE]
            tile = np.full((TILE, TILE, 3), 255, np.uint8)
            tile[: part.shape[0], : part.shape[1]] = part
            return tile

        def get_encoded_tile(self, tile: Point, z: float, path: str) -> bytes:
            return self.get_decoded_tile(tile, z, path).tobytes()

    metadata = WsiMetadata(
        Study(uid=generate_uid()),
        Series(uid=generate_uid()),
        Patient(),
        Equipment(),
        Slide("S 1", samples=[SlideSample("S 1", uid=generate_uid())]),
        Pyramid(Image(), [OpticalPath("0")], uid=generate_uid()),
        Label(),
        frame_of_reference_uid=generate_uid(),
        dimension_organization_uids=[generate_uid()],
    )
    base = WsiMetadataDicomSchema().dump(metadata, ImageType.VOLUME)

    levels = [
        WsiInstance.create_instance(Level(factor), deepcopy(base), ImageType.VOLUME, number)
        for number, factor in enumerate(_DICOM_LEVELS)
    ]

    class Painted(Source):
        """The levels of a painted slide."""

        level_instances, label_instances, overview_instances, thumbnail_instances = levels, (), (), ()
        annotation_instances, base_dataset = (), levels[0].dataset

        def close(self) -> None: ...

    folder.mkdir()
    with WsiDicom(Painted()) as slide:
        return Path(str(slide.save(folder, workers=1)[0]))


_DICOM_LEVELS = (1, 4)  # wsidicom wants powers of two
