"""For all tests: one BLAS thread each, since the machine's cores are shared, and no deadline for examples."""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # read when NumPy and torch are first imported, which is after this file

from hypothesis import settings  # noqa: E402

settings.register_profile("semid", deadline=None)
settings.load_profile("semid")
