"""Pictures in, tensors out: decoding, preprocessing, datasets, calibration images."""
