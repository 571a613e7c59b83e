#!/bin/sh
# install.sh [PYTORCH]: make the Python environment /opt/spadit/env inside an image of Debian. Dockerfile and apptainer.def run it as root;
# /opt/spadit/requirements.txt is there already. PYTORCH: another wheel of the locked torch version, as <URL>#sha256=<its hash>.
set -eu
torch=${1:-}

# procps: Nextflow measures tasks with ps
apt-get update
apt-get install -y --no-install-recommends ca-certificates procps python3 python3-venv
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/ldconfig/aux-cache /var/log/apt/* /var/log/dpkg.log /var/log/alternatives.log

cd /opt/spadit
python3 -m venv env
lock=requirements.txt
if [ -n "$torch" ]; then
  lock=without-torch.txt
  awk '/^[^ #]/ { skip = /^(torch==|triton==|nvidia-)/ } !skip' requirements.txt > "$lock"
  env/bin/pip install --no-cache-dir --no-deps --no-compile "$torch"
fi
env/bin/pip install --no-cache-dir --no-deps --no-compile --only-binary :all: --require-hashes -r "$lock"
# This proves that the packages load, and leaves the compiled files of the modules that tasks use
NUMBA_CACHE_DIR=/tmp/numba MPLCONFIGDIR=/tmp/mpl env/bin/python -c "import lightning, matplotlib.pyplot, multiqc, scanpy, skimage, torch"

useradd --create-home --uid 1000 spadit
rm -rf /tmp/* /root/.cache /root/.config /var/log/lastlog /var/log/faillog
