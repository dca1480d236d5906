"""HDF5Output: writes two blobs to an HDF5 file."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pycaffe.blob import Blob, FloatArray
from pycaffe.data.database import working_directory
from pycaffe.errors import DataError, ShapeError
from pycaffe.layers._base import HostLayer
from pycaffe.layers._registry import register_layer

__all__ = ["HDF5OutputLayer"]


@register_layer("HDF5Output")
class HDF5OutputLayer(HostLayer):
    """Writes its bottoms to the datasets `data` and `label` of `hdf5_output_param.file_name`.

    bottom[0], bottom[1]: (N, ...) of up to four axes; written as (N, C, H, W), missing axes with extent 1.

    The file is made empty at set-up. It holds one batch: as in the original, a second forward pass fails, because the
    datasets exist already. (The original keeps the file open until the net goes away; here it is complete after the
    forward pass.)

    Raises:
        DataError: the file cannot be written, or a second forward pass.
        ShapeError: the bottoms differ in N, or one has more than four axes.

    As hdf5_output_layer.cpp.
    """

    exact_num_bottom_blobs = 2
    exact_num_top_blobs = 0
    checked_by = "NumPy loop"

    def set_up_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        import h5py

        self.num_top = 0
        self.file_name = self.layer_param.hdf5_output_param.file_name
        self.path = os.path.abspath(self.file_name)  # the forward pass may run in another working directory
        try:
            h5py.File(self.path, "w").close()
        except OSError as error:
            raise DataError(
                f"Failed to open HDF5 file{self.file_name}. {error}.{working_directory(self.file_name)}"
            ) from error

    def reshape_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.bottom_shapes = [blob.shape for blob in bottom]
        self.top_shapes = []

    def forward_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        import h5py

        data, label = (_four_axes(blob) for blob in bottom)
        if len(data) != len(label):
            raise ShapeError(
                f"Check failed: bottom[0]->num() == bottom[1]->num() ({len(data)} vs. {len(label)}). "
                f"Shapes {bottom[0].shape!r} and {bottom[1].shape!r}."
            )
        try:
            with h5py.File(self.path, "a") as file:
                for name, array in (("data", data), ("label", label)):
                    if name in file:
                        raise DataError(
                            f"Failed to make float dataset {name}: {self.file_name!r} has one already. HDF5Output "
                            "writes one batch; make batch_size as large as the data, or collect the blobs in Python."
                        )
                    file.create_dataset(name, data=array)
        except OSError as error:
            raise DataError(f"Failed to open HDF5 file{self.file_name}. {error}.") from error


def _four_axes(blob: Blob) -> FloatArray:
    return blob.raw_data().reshape(blob.num, blob.channels, blob.height, blob.width)
