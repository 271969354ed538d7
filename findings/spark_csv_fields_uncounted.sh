#!/usr/bin/env bash
# Spark's CSV reader: a row with a field too many or too few is only found if every column is selected.
# With column pruning (the default) the column of corrupt records stays null for such a row as soon as one column of the
# schema is left out, although the corrupt-record column itself is selected. The undocumented option columnPruning=false
# counts the fields again.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyspark==4.2.0
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
from pathlib import Path

import pyspark
from pyspark.sql import SparkSession

path = Path(sys.argv[1]) / "rows.csv"
path.write_text("a,b,c\n1,2,3\n4,5\n6,7,8,9\n")
spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
spark.sparkContext.setLogLevel("ERROR")


def corrupt(columns, **options):
    rows = spark.read.schema("a string, b string, c string, bad string").options(
        header=True, columnNameOfCorruptRecord="bad", **options
    )
    return [row["bad"] for row in rows.csv(str(path)).select(*columns, "bad").collect()]


all_columns, one_left_out = corrupt("abc"), corrupt("ab")
unpruned = corrupt("ab", columnPruning=False)
spark.stop()
print("pyspark", pyspark.__version__)
print("corrupt records, all columns selected:    ", all_columns)
print("corrupt records, column c is left out:    ", one_left_out)
print("the same with the option columnPruning off:", unpruned)
found = (all_columns, one_left_out, unpruned) == ([None, "4,5", "6,7,8,9"], [None] * 3, [None, "4,5", "6,7,8,9"])
print("as described" if found else "THE BEHAVIOUR HAS CHANGED")
sys.exit(not found)
PYTHON
