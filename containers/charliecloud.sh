#!/usr/bin/env bash
# charliecloud.sh [IMAGE]: unpack the podman image that build.sh made to where -profile charliecloud looks for it: $NXF_CHARLIECLOUD_CACHEDIR.
# Without this Nextflow would ask an image registry for it. About a minute.
set -euo pipefail
image=${1:-core}
storage=${NXF_CHARLIECLOUD_CACHEDIR:?set NXF_CHARLIECLOUD_CACHEDIR to a folder with 10 GB free, here and when you start Nextflow}
here=$(cd "$(dirname "$0")" && pwd)
tag=$(grep -ohE "spadit/$image:[A-Za-z0-9._-]+" "$here/../conf/base.config" | head -n 1)
[ -n "$tag" ] || { echo "charliecloud.sh: conf/base.config names no image spadit/$image" >&2; exit 1; }

name=${tag//:/+}
folder=$storage/img/${name//\//%}
partial=$folder.partial
mkdir -p "$storage/dlcache"   # without it Nextflow takes the folder for a damaged one
rm -rf "$partial"; mkdir -p "$partial"
container=$(podman create "$tag" true); trap 'podman rm "$container" >/dev/null' EXIT
podman export "$container" | tar -C "$partial" -x --numeric-owner --exclude='dev/*' --exclude='./dev/*'

# ch-run can make no mount point in a read-only image: the usual ones are made here
mkdir -p "$partial"/{ch,dev,proc,sys,run,tmp,etc,home} "$partial"/mnt/{0..9}
touch "$partial"/etc/{hosts,resolv.conf,passwd,group}
# ch-run --set-env reads the image's ENV from this file
podman image inspect --format '{{range .Config.Env}}{{println .}}{{end}}' "$tag" | sed '/^$/d' > "$partial/ch/environment"
rm -rf "$folder"; mv "$partial" "$folder"
echo "$folder"
