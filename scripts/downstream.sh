#!/bin/sh
# The gate on upstream itself: our wheel in a new environment beside a package from PyPI.
#
#   scripts/downstream.sh [FOLDER [FAMILY]]      FOLDER: where the environment and the report are made ("": a temporary one)
#                                                FAMILY: v5, the package yolov5 7.0.14; or tal, ultralytics 8.4.190
#
# What it finds is told in docs/use/downstream.md and downstream-tal.md; the cases and pictures of it are made anew by the
# last line.
#
# Needs 6 GB of disk and a few minutes: torch comes with CUDA. Those packages are under GPL and AGPL: for this project they
# are run as black boxes, and nobody may read their source. Where a traceback shows lines of it, do not copy them anywhere.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
place=${1:-$(mktemp -d)}
family=${2:-v5}
mkdir -p "$place"
place=$(cd "$place" && pwd)
python3 -m venv "$place/env"
PATH="$place/env/bin:$PATH"
# torch as tried: the packages ask for any. Not our constraints.txt: a user has the torch that their own project asks for.
if [ "$family" = tal ]; then
    # without dependencies: it asks for an OpenCV that needs a screen, and for a client of its makers' service
    pip install --quiet --no-deps ultralytics==8.4.190 ultralytics-thop==2.2.3
    pip install --quiet torch==2.13.0 torchvision==0.28.0 opencv-python-headless matplotlib pyyaml requests psutil polars
    losses="ultralytics.utils.loss:v8DetectionLoss ultralytics.utils.loss:E2ELoss ultralytics.utils.loss:E2EDetectLoss"
    cases="$root/docs/use/downstream-tal"
else
    # the package imports pkg_resources, which newer setuptools warn of and 82 no longer has
    pip install --quiet 'setuptools<81' torch==2.14.1 torchvision==0.29.1 yolov5==7.0.14
    losses=yolov5.utils.loss:ComputeLoss
    cases="$root/docs/use/downstream"
fi
pip wheel --quiet --no-deps --wheel-dir "$place" "$root"
pip install --quiet "$place"/yololoss-*.whl
export YOLO_CONFIG_DIR="$place" YOLO_AUTOINSTALL=false # else it writes to the home folder, and may call pip
cd "$place"                                            # where no configuration of ours applies
for loss in $losses; do
    yololoss check "$loss" --report "report-${loss##*:}.html" || [ $? = 1 ] # it has faults
done
python "$root/scripts/downstream_cases.py" "${losses%% *}" "$cases"
