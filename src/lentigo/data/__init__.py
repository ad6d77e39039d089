"""From files on disk to samples: catalogues, splits, preprocessing, augmentation, synthetic images."""
