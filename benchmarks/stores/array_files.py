"""Libraries that keep an array in a file, each made as safe as a checkpoint: fsync, rename, fsync of the directory."""

from __future__ import annotations

import os
import pickle
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np


def fsync_path(path: Path) -> None:
    """Of a file, or of a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class ArrayFile(ABC):
    """One array, replaced whole at each save."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "array"
        self.temporary = directory / "array.new"

    def save(self, array: Any) -> None:
        self.write(array)
        fsync_path(self.temporary)
        os.rename(self.temporary, self.path)
        fsync_path(self.directory)

    @abstractmethod
    def write(self, array: Any) -> None:
        """Into the temporary file."""

    @abstractmethod
    def load(self) -> Any: ...


class NumpyFile(ArrayFile):
    def write(self, array: Any) -> None:
        with open(self.temporary, "wb") as file:
            np.save(file, array)

    def load(self) -> Any:
        with open(self.path, "rb") as file:
            return np.load(file)


class CheckedNumpyFile(NumpyFile):
    """With a checksum over the data, which is what a verified load has to look at."""

    def load(self) -> Any:
        array = super().load()
        crc32(array)
        return array


class MappedNumpyFile(NumpyFile):
    def load(self) -> Any:
        array = np.load(self.path, mmap_mode="r")
        crc32(array)
        return array


class PickleFile(ArrayFile):
    def write(self, array: Any) -> None:
        with open(self.temporary, "wb") as file:
            pickle.dump(array, file, protocol=5)

    def load(self) -> Any:
        with open(self.path, "rb") as file:
            return pickle.load(file)


class Hdf5File(ArrayFile):
    def write(self, array: Any) -> None:
        import h5py

        with h5py.File(self.temporary, "w") as file:
            file.create_dataset("array", data=array)

    def load(self) -> Any:
        import h5py

        with h5py.File(self.path, "r") as file:
            dataset = file["array"]
            array = np.empty(dataset.shape, dataset.dtype)
            dataset.read_direct(array)
            return array


class SafetensorsFile(ArrayFile):
    def write(self, array: Any) -> None:
        from safetensors.numpy import save_file

        save_file({"array": array}, self.temporary)

    def load(self) -> Any:
        from safetensors.numpy import load_file

        return load_file(self.path)["array"]


class ZarrDirectory(ArrayFile):
    """A directory of chunks, not compressed. A directory can't replace another one in one step: the old moves away."""

    CHUNK_VALUES = 1 << 21

    def save(self, array: Any) -> None:
        self.write(array)
        for path in [*self.temporary.rglob("*"), self.temporary]:
            fsync_path(path)
        old = self.directory / "array.old"
        if self.path.exists():
            os.rename(self.path, old)
        os.rename(self.temporary, self.path)
        fsync_path(self.directory)
        shutil.rmtree(old, ignore_errors=True)

    def write(self, array: Any) -> None:
        import zarr

        chunks = (min(self.CHUNK_VALUES, len(array)),)
        made = zarr.create_array(
            str(self.temporary), shape=array.shape, dtype=array.dtype, chunks=chunks, compressors=None, filters=None
        )
        made[:] = array

    def load(self) -> Any:
        import zarr

        return zarr.open_array(str(self.path), mode="r")[:]
