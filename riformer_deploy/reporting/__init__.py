"""What was measured of a bundle, told: HTML report, model card, comparison of two bundles."""
