#!/usr/bin/env bash
# A container engine for the tests, on a Debian machine with root but without Docker or a registry to pull from.
# Stand-ins with the names of the real images are built from Debian packages, and the Dockerfile is built on them.
#
#   engine.sh setup                 install what is missing and build the stand-in images (later runs take a second)
#   engine.sh build TAG [options]   build the checkout's Dockerfile
#   engine.sh podman ARGS...        podman with the settings used here
#   engine.sh compose ARGS...       podman-compose with the same settings
#   engine.sh memcached             the name of the image that the StatefulSet runs
#   engine.sh alone CMD ARGS...     CMD with its own network (loopback only), mounts and processes; leaves nothing behind
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
checkout=$(cd "$here/../.." && pwd)
packages=(podman runc netavark aardvark-dns catatonit iptables mmdebstrap)
release=trixie # has the Python of the Dockerfile's PYTHON_IMAGE
python_image=docker.io/library/python:3.13-slim-trixie
state=${SMSD_CONTAINER_STATE:-/var/cache/smsd-container-tests} # images: on disk, kept between runs
fleeting=/dev/shm/smsd-container-tests                          # locks and run state: must not survive a reboot
search=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
ca_bundle=/etc/ssl/certs/ca-certificates.crt
caddy() { sed -n 's/^ *image: \(docker.io.*caddy:.*\)$/\1/p' "$checkout/deploy/compose.yaml"; }
memcached() { sed -n 's/^ *image: \(docker.io.*memcached:.*\)$/\1/p' "$checkout/deploy/k8s/base/memcached.yaml"; }

export CONTAINERS_CONF=$state/containers.conf CONTAINERS_STORAGE_CONF=$state/storage.conf
podman() { command podman --log-level=fatal "$@"; } # quiet: there is no systemd here to run health-check timers

require_packages() {
  local package absent=()
  for package in "${packages[@]}"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || absent+=("$package")
  done
  [ ${#absent[@]} -eq 0 ] && return
  if [ "$(id -u)" != 0 ]; then
    echo "engine.sh: missing Debian packages, and no root to install them: ${absent[*]}" >&2
    exit 1
  fi
  echo "engine.sh: installing ${absent[*]}" >&2
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${absent[@]}" >/dev/null
}

write_settings() {
  mkdir -p "$state/networks" "$fleeting"
  # runc: Debian 12's crun does not start under a hybrid cgroup tree. ulimits: equal and explicit, because podman 4.3
  # swaps soft and hard in 'play kube', and a root without CAP_SYS_RESOURCE cannot raise them.
  cat >"$CONTAINERS_CONF" <<CONF
[containers]
log_driver = "k8s-file"
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "$fleeting/tmp"
[network]
network_backend = "netavark"
network_config_dir = "$state/networks"
CONF
  cat >"$CONTAINERS_STORAGE_CONF" <<CONF
[storage]
driver = "overlay"
graphroot = "$state/storage"
runroot = "$fleeting/run"
CONF
  # What pip needs on this machine. It is mounted during the build, so neither Dockerfile nor image contains it.
  { printf '[global]\ncert = %s\ntimeout = 60\n' "$ca_bundle"
    [ -z "${PIP_INDEX_URL:-}" ] || printf 'index-url = %s\n' "$PIP_INDEX_URL"; } >"$state/pip.conf"
}

# shellcheck disable=SC2016  # the hooks expand inside mmdebstrap
debian() { # debian TARBALL PACKAGES HOOKS...: a minimal root file system of $release from this machine's mirrors
  local tarball=$1 include=$2 sources=/etc/apt/sources.list.d/debian.sources codename
  shift 2
  [ -s "$sources" ] || sources=/etc/apt/sources.list
  codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  sed "s/\b$codename\b/$release/g" "$sources" |
    mmdebstrap --quiet --variant=minbase --include="$include" --aptopt='APT::Install-Recommends "false"' \
      --aptopt='Acquire::Check-Valid-Until "false"' --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/man/*' \
      --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
      --customize-hook='rm -rf "$1"/var/cache/apt/*.bin' "$@" "$release" "$tarball" -
}

# shellcheck disable=SC2016
python_stand_in() { # the official image has its commands in /usr/local/bin
  podman image exists "$python_image" && return
  echo "engine.sh: making $python_image from Debian packages" >&2
  local work
  work=$(mktemp -d "$state/python.XXXXXX")
  debian "$work/root.tar" python3,python3-venv,python3-pip,ca-certificates \
    --customize-hook='for name in python python3; do ln -sf /usr/bin/python3 "$1/usr/local/bin/$name"; done' \
    --customize-hook='for name in pip pip3; do ln -sf /usr/bin/pip3 "$1/usr/local/bin/$name"; done' \
    --customize-hook='rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED; touch "$1/etc/pip.conf"'
  podman import -q --change "ENV PATH=$search" \
    --change 'CMD ["python3"]' "$work/root.tar" "$python_image" >/dev/null
  rm -rf "$work"
}

memcached_stand_in() { # under the very name that the StatefulSet asks for
  local image work
  image=$(memcached)
  podman image exists "$image" && return
  echo "engine.sh: making $image from Debian packages" >&2
  work=$(mktemp -d "$state/memcached.XXXXXX")
  debian "$work/root.tar" memcached
  podman import -q --change "ENV PATH=$search" --change 'USER 11211' --change 'CMD ["memcached"]' "$work/root.tar" "$image" >/dev/null
  rm -rf "$work"
}

caddy_stand_in() { # under the very name that compose.yaml asks for
  local image work
  image=$(caddy)
  podman image exists "$image" && return
  echo "engine.sh: making $image from Debian packages" >&2
  work=$(mktemp -d "$state/caddy.XXXXXX")
  debian "$work/root.tar" caddy,ca-certificates
  podman import -q --change "ENV PATH=$search" --change 'ENV XDG_DATA_HOME=/data' --change 'ENV XDG_CONFIG_HOME=/config' \
    --change 'CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]' \
    "$work/root.tar" "$image" >/dev/null
  rm -rf "$work"
}

build() { # docker format: an OCI image has no HEALTHCHECK
  local tag=$1
  shift
  podman build --isolation chroot --network host --pull-never --format docker --layers --tag "$tag" \
    --volume "$ca_bundle:$ca_bundle:ro" --volume "$state/pip.conf:/etc/pip.conf:ro" "$@" "$checkout"
}

compose() { "$checkout/.venv/bin/podman-compose" "$@"; }

# shellcheck disable=SC2016
alone() { # with its own pids, too, so that whatever CMD leaves running ends with it
  mkdir -p "$fleeting"
  unshare --net --mount --pid --fork --kill-child --mount-proc -- \
    bash -c 'mount -t tmpfs alone "$1" && shift && ip link set lo up && exec "$@"' alone "$fleeting" "$@"
}

verb=${1:-help}
[ $# -eq 0 ] || shift
case $verb in
  setup) require_packages; write_settings; python_stand_in; memcached_stand_in; caddy_stand_in ;;
  build | podman | compose | alone | memcached) "$verb" "$@" ;;
  *) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
