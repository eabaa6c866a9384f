#!/usr/bin/env bash
# Prints a PATH on which the programs named as arguments are found: kubectl, promtool, prometheus, nginx.
# Programs that the machine has are used as they are. The rest is unpacked from Debian's packages into .artefacts/tools:
# nothing is installed, no service is started, no root is needed.
set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
tools=$checkout/.artefacts/tools
path=$tools/usr/bin:$tools/usr/sbin:$PATH:/usr/sbin

package_of() { # the package, and the Debian release it is taken from
  case $1 in
    kubectl) echo kubectl trixie ;; # Debian 12 has none; this one needs only libc 2.34
    promtool | prometheus) echo prometheus "$native" ;;
    nginx) echo nginx "$native" ;;
    *) echo "tools.sh: no package is known for $1" >&2; exit 2 ;;
  esac
}

unpack() { # PACKAGE RELEASE, by an apt with lists of its own
  local package=$1 release=$2 sources=/etc/apt/sources.list.d/debian.sources own=$tools/apt/$2
  local apt=(apt-get -qq -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$own/lists" -o "Dir::Cache=$own/cache"
    -o APT::Sandbox::User= -o Acquire::Retries=3)
  [ -s "$sources" ] || sources=/etc/apt/sources.list
  mkdir -p "$own/lists/partial" "$own/cache/archives/partial" "$own/debs"
  sed "s/\b$native\b/$release/g" "$sources" >"$own/apt.${sources##*.}"
  apt+=(-o "Dir::Etc::sourcelist=$own/apt.${sources##*.}")
  echo "tools.sh: fetching $package from Debian $release" >&2
  [ -n "$(ls "$own"/lists/*Packages* 2>/dev/null)" ] || "${apt[@]}" update
  (cd "$own/debs" && "${apt[@]}" download "$package/$release" >&2 && dpkg-deb --extract "$package"_*.deb "$tools")
}

native=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
for program; do
  PATH=$path command -v "$program" >/dev/null && continue
  # shellcheck disable=SC2046  # two words are meant
  unpack $(package_of "$program")
  PATH=$path command -v "$program" >/dev/null && continue
  echo "tools.sh: missing, and not in Debian's packages: $program" >&2
  exit 1
done
echo "$path"
