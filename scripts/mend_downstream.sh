#!/bin/sh
# How mend does on upstream's loss with an edit planted into it: makes a table of docs/measured/mend.md.
#
#   scripts/mend_downstream.sh FOLDER [OPTIONS]      FOLDER: what scripts/downstream.sh made; OPTIONS: of tests.mend_planted
#
# The package is copied out of the environment, since mend never edits what is installed. Like scripts/downstream.sh this
# runs it as a black box, and nobody may read its source: of an edit only its kind, its line and what has no letters is
# printed.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
place=$(cd "$1" && pwd)
shift
PATH="$place/env/bin:$PATH"
export YOLO_CONFIG_DIR="$place" YOLO_AUTOINSTALL=false # else it writes to the home folder, and may call pip
rm -rf "$place/project"
mkdir "$place/project"
cp -r "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/yolov5" "$place/project/yolov5"
printf '[tool.yololoss]\nloss = "yolov5/utils/loss.py:ComputeLoss"\ndialect = "upstream"\n' > "$place/project/pyproject.toml"
cd "$place/project"
python -c 'import yolov5.utils.loss' > "$place/first.log" 2>&1 # at its first import it prints, and writes its settings
cd "$root" # for the tests; the loss is found in its own folder
python -m tests.mend_planted "$@" "$place/project" yolov5/utils/loss.py:ComputeLoss
