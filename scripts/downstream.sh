#!/bin/sh
# The gate on upstream itself: our wheel in a new environment beside the package yolov5 7.0.14 from PyPI.
#
#   scripts/downstream.sh [FOLDER]      FOLDER: where the environment and the report are made, else in a temporary one
#
# What it finds is told in docs/use/downstream.md; the cases and pictures of it are made anew by the last line.
#
# Needs 6 GB of disk and a few minutes: torch comes with CUDA. That package is under GPL: for this project it is run as
# a black box, and nobody may read its source. Where a traceback shows lines of it, do not copy them anywhere.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
place=${1:-$(mktemp -d)}
mkdir -p "$place"
place=$(cd "$place" && pwd)
python3 -m venv "$place/env"
PATH="$place/env/bin:$PATH"
# The package imports pkg_resources, which newer setuptools warn of and 82 no longer has. torch as tried: the
# package asks for any. Not our constraints.txt: a user has the torch that their own project asks for.
pip install --quiet 'setuptools<81' torch==2.14.1 torchvision==0.29.1 yolov5==7.0.14
pip wheel --quiet --no-deps --wheel-dir "$place" "$root"
pip install --quiet "$place"/yololoss-*.whl
export YOLO_CONFIG_DIR="$place" YOLO_AUTOINSTALL=false # else it writes to the home folder, and may call pip
cd "$place"                                            # where no configuration of ours applies
yololoss check yolov5.utils.loss:ComputeLoss --report report.html || [ $? = 1 ] # it has faults
python "$root/scripts/downstream_cases.py" yolov5.utils.loss:ComputeLoss "$root/docs/use/downstream"
