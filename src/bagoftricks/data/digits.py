"""scikit-learn's handwritten digits: 1,797 grey images of 8 x 8 pixels in ten classes, embedded in that library.

Source: Alpaydin and Kaynak 1998, UCI Optical Recognition of Handwritten Digits (its test part), CC BY 4.0.
"""

from __future__ import annotations

import numpy as np

from bagoftricks.data.index import ImageIndex


def read_digits() -> ImageIndex:
    """Returns the digits as RGB images in memory."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return ImageIndex(
        name="digits",
        classes=tuple(str(name) for name in digits.target_names),
        labels=digits.target.astype(np.int64),
        names=tuple(f"digit-{i:04d}" for i in range(len(grey))),
        pixels=np.repeat(grey[..., None], 3, axis=3),
    )
