#!/bin/bash
# FAISS lists equal inner products in the reverse order of adding (flat index, CPU), and a search for fewer returns other ones.
# Exits with 0 while that is so, and with 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet faiss-cpu==1.15.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import faiss
import numpy as np

print("faiss-cpu", faiss.__version__, "numpy", np.__version__)
unit = np.zeros((300, 8), np.float32)
unit[:, 0] = 1  # 300 equal vectors, under the ids 0 .. 299
results = {}
for name in ("IndexFlatIP", "IndexFlatL2"):
    index = getattr(faiss, name)(8)
    index.add(unit)
    results[name] = {count: index.search(unit[:1], count)[1][0].tolist() for count in (3, 10)}
    for count, ids in results[name].items():
        print(f"{name}: the {count} nearest of 300 equal vectors: {ids}")
expected = {"IndexFlatIP": {3: [2, 1, 0], 10: [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]}, "IndexFlatL2": {3: [0, 1, 2], 10: list(range(10))}}
sys.exit(0 if results == expected else "this has changed")
PYTHON
