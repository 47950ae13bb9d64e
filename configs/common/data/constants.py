"""Statistics for `pixel_mean` and `pixel_std`, on a scale of 0 to 255."""

constants = dict(
    imagenet_rgb256_mean=[123.675, 116.28, 103.53],
    imagenet_rgb256_std=[58.395, 57.12, 57.375],
    imagenet_bgr256_mean=[103.53, 116.28, 123.675],
    # The Caffe weights that take BGR images were trained without scaling.
    imagenet_bgr256_std=[1.0, 1.0, 1.0],
)
