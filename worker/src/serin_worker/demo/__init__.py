"""The demo models: tiny chat models that a seeded script trains on a corpus it makes itself.

They give quality a ground truth: every question has one right answer, so a worse version is measurably worse. The
serving code knows nothing about this package; the models are ordinary folders to it.
"""
