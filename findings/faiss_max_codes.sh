#!/bin/bash
# FAISS writes an inverted file's nprobe with the index and loses its max_codes: read again, a search reads more than it did.
# Exits with 0 while that is so, and with 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet faiss-cpu==1.15.1 numpy==2.4.6
"$folder/venv/bin/python" - "$folder/index" <<'PYTHON'
import sys
import faiss
import numpy as np

print("faiss-cpu", faiss.__version__, "numpy", np.__version__)
values = np.random.default_rng(0).normal(size=(2000, 8)).astype(np.float32)
index = faiss.index_factory(8, "IVF16,Flat", faiss.METRIC_INNER_PRODUCT)
index.train(values)
index.add(values)
index.nprobe, index.max_codes = 16, 100
faiss.write_index(index, sys.argv[1])
read = faiss.read_index(sys.argv[1])
recalls = []
exact = faiss.knn(values[:200], values, 10, metric=faiss.METRIC_INNER_PRODUCT)[1]
for name, one in (("before", index), ("read again", read)):
    found = one.search(values[:200], 10)[1]
    recalls.append(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), exact.tolist())]))
    print(f"{name}: nprobe {one.nprobe}, max_codes {one.max_codes}, recall at 10 {recalls[-1]:.3f}")
sys.exit(0 if (read.nprobe, read.max_codes) == (16, 0) and recalls[0] < 0.9 < recalls[1] else "this has changed")
PYTHON
