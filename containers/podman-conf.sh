#!/usr/bin/env bash
# podman-conf.sh FILE: write settings for podman and buildah that work on restricted machines (CI, nested virtual machines).
# Use it with: export CONTAINERS_CONF=FILE. An ordinary machine needs none of this.
set -euo pipefail
file=${1:?usage: podman-conf.sh FILE}

# crun refuses machines that mount cgroups v1 and v2 side by side; runc takes them
runtime=crun
if [ -e /sys/fs/cgroup/unified/cgroup.controllers ] && command -v runc >/dev/null; then runtime=runc; fi

# podman's own default limits lie above what an unprivileged machine allows
limit() { local hard; hard=$(ulimit "-H$1"); if [ "$hard" = unlimited ] || [ "$hard" -gt "$2" ]; then hard=$2; fi; echo "$hard"; }
files=$(limit n 65536) processes=$(limit u 8192)

cat > "$file" <<CONF
[engine]
runtime = "$runtime"
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
netns = "host"
default_ulimits = ["nofile=$files:$files", "nproc=$processes:$processes"]
CONF
