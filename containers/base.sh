#!/usr/bin/env bash
# base.sh: make docker.io/library/debian:bookworm-slim from Debian's packages, for machines that reach no image registry.
# Needs root, podman and debootstrap. About 80 s.
set -euo pipefail
image=docker.io/library/debian:bookworm-slim
if podman image exists "$image"; then echo "$image is there already"; exit 0; fi

work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
# the mirror that this machine's apt uses for bookworm, else debootstrap's default
mirror=$(apt-get indextargets --format '$(SITE)' 'Codename: bookworm' 'Created-By: Packages' 'Component: main' 2>/dev/null | head -n 1 || true)
debootstrap --variant=minbase --include=ca-certificates bookworm "$work/root" ${mirror:+"$mirror"} > "$work/log" \
  || { tail -n 20 "$work/log" >&2; exit 1; }

# nothing of this machine stays in the image
root=$work/root
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*.log "$root"/etc/hostname "$root"/etc/resolv.conf
: > "$root/etc/apt/sources.list"   # build.sh brings the mirrors of the machine that builds
tar -C "$root" --numeric-owner --sort=name -c . | podman import --change 'CMD ["bash"]' - "$image"
