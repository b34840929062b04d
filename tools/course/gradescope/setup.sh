#!/usr/bin/env bash
# Run by Gradescope once, when it builds the image: the one step that downloads anything, PyTorch above all.
set -euo pipefail
cd "$(dirname "$0")"
apt-get update
apt-get install --yes python3-pip
python3 -m pip install uv
export UV_PYTHON_INSTALL_DIR=/opt/python  # which every user can read
uv venv --python 3.12 /autograder/environment
uv pip install --python /autograder/environment --torch-backend cpu \
  --requirements requirements.txt ./*.whl
# Submissions run as this user, who can write neither the grader nor its results.
useradd --no-create-home student
chmod go-rwx .
