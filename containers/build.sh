#!/usr/bin/env bash
# build.sh [IMAGE [podman build options]]: build containers/IMAGE (default: core) as spadit/IMAGE:<version>; ./spadit images build calls it.
# The package settings of this machine (pip's, apt's, the CA bundle) are mounted for the build only: none of it gets into a layer.
set -euo pipefail
image=${1:-core}; shift || true
here=$(cd "$(dirname "$0")" && pwd)
[ -f "$here/$image/Dockerfile" ] || { echo "build.sh: there is no containers/$image/Dockerfile" >&2; exit 1; }
tag=spadit/$image:$(sed -nE 's/^__version__ = "(.+)"/\1/p' "$here/../bin/spadit/__init__.py")
settings=$(mktemp -d); trap 'rm -rf "$settings"' EXIT
options=(--network=host --layers --format docker)

ca=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
ca_inside=/run/build-ca.crt
if [ -s "$ca" ]; then
  options+=(-v "$ca:$ca_inside:ro")
  echo "Acquire::https::CAInfo \"$ca_inside\";" > "$settings/apt.conf"
  options+=(-v "$settings/apt.conf:/etc/apt/apt.conf.d/99build:ro")
fi
{
  echo '[global]'
  if [ -s "$ca" ]; then echo "cert = $ca_inside"; fi
  # of pip's settings those that say where packages come from; the last one wins, as it does for pip
  python3 -m pip config list 2>/dev/null \
    | sed -nE "s/^[a-z:]+\.((extra-)?index.url|trusted-host|proxy|(default-)?timeout|retries)='(.*)'$/\1 = \4/p" \
    | sed 's/^default-timeout/timeout/' | tac | sort -u -t= -k1,1 || true
} > "$settings/pip.conf"
options+=(-v "$settings/pip.conf:/etc/pip.conf:ro")
# the mirrors of this machine, if it is the same Debian release as the image
if grep -q '^VERSION_CODENAME=bookworm' /etc/os-release && [ -d /etc/apt/sources.list.d ]; then
  mkdir "$settings/apt"
  cp /etc/apt/sources.list.d/debian.sources "$settings/apt/" 2>/dev/null || true
  options+=(-v "$settings/apt:/etc/apt/sources.list.d:ro")
fi

podman build "${options[@]}" -t "$tag" "$@" "$here/$image"
