# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Debian packages: those that the machine needs installed, and those of other
# suites that are only downloaded and unpacked.  For the latter, apt gets lists
# of its own below the cache: the machine's apt configuration stays as it is.

# A field of the machine's release, for instance VERSION_CODENAME.
os_release()
{
	( . /etc/os-release 2>/dev/null && printf '%s' "${!1:-}" )
}

# Where this machine's main archive is, and the keys that it is signed with,
# as apt itself understands the configured sources, in either of their formats.
# shellcheck disable=SC2016 # the words in $() are apt-get's, not the shell's
archive_of_machine()
{
	local codename=$1 uri release component entry keys
	while IFS='|' read -r uri release component entry; do
		if [ "$release" != "$codename" ] || [ "$component" != main ]; then
			continue
		fi
		case $uri in
		http*|file:*|mirror*) ;;
		*) continue ;;
		esac
		keys=$(grep -ohE '(Signed-By:[[:space:]]*|signed-by=)/[^] ]+' "${entry%:*}" |
			grep -oE '/.*' | sort -u | paste -sd, || true)
		if [ -z "$keys" ] && [ -r /usr/share/keyrings/debian-archive-keyring.gpg ]; then
			keys=/usr/share/keyrings/debian-archive-keyring.gpg
		fi
		printf '%s %s\n' "$uri" "$keys"
		return 0
	done < <(apt-get indextargets \
		--format '$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SOURCESENTRY)' \
		'Created-By: Packages')
	return 1
}

apt_private()
{
	local command=$1
	shift
	# The sandbox user of apt cannot enter a cache in a home directory.
	"$command" -q \
		-o Dir::Etc::SourceList="$CACHE/apt/sources.list" \
		-o Dir::Etc::SourceParts=/dev/null \
		-o Dir::Etc::Preferences=/dev/null \
		-o Dir::Etc::PreferencesParts=/dev/null \
		-o Dir::State::Lists="$CACHE/apt/lists" \
		-o Dir::Cache="$CACHE/apt/cache" \
		-o APT::Sandbox::User=root \
		-o APT::Get::List-Cleanup=false \
		-o Acquire::Languages=none \
		-o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
		-o Acquire::Retries=3 \
		-o Debug::NoLocking=true \
		"$@"
}

# Makes the lists of a suite, of kind deb or deb-src, readable to apt_private.
private_lists()
{
	local kind=$1 suite=$2 codename archive uri keys option=
	# One step at a time: until this one ends, or reads another suite.
	mkdir -p "$CACHE/apt"
	exec 8>"$CACHE/apt/lock"
	flock 8
	codename=$(os_release VERSION_CODENAME)
	archive=$(archive_of_machine "$codename") ||
		die "apt has no source for Debian $codename main: add the archive" \
			"to /etc/apt/sources.list.d"
	read -r uri keys <<<"$archive"
	if [ -n "$keys" ]; then
		option="[signed-by=$keys] "
	fi
	mkdir -p "$CACHE/apt/lists/partial" "$CACHE/apt/cache/archives/partial"
	printf '%s %s%s %s main\n' "$kind" "$option" "$uri" "$suite" >"$CACHE/apt/sources.list"
	apt_private apt-get update ||
		die "the suite $suite of the archive $uri cannot be read: check the network" \
			"and the sources of apt"
}

# Downloads one binary package, and unpacks it into the directory.
fetch_package()
{
	local package=$1 into=$2 work=$CACHE/apt/download
	rm -rf "$work"
	mkdir -p "$work"
	( cd "$work" && apt_private apt-get download "$package" ) ||
		die "the package $package cannot be downloaded: check the network and the" \
			"sources of apt"
	dpkg -x "$work"/*.deb "$into"
	rm -rf "$work"
}

installed()
{
	dpkg-query -W -f '${db:Status-Abbrev}\n' "$1" 2>/dev/null | grep -q '^.i'
}

missing_packages()
{
	local package have
	have=$(dpkg-query -W -f '${Package} ${db:Status-Abbrev}\n' "$@" 2>/dev/null |
		awk '$2 ~ /^.i/ { print $1 }' || true)
	for package; do
		grep -qxF "$package" <<<"$have" || printf '%s\n' "$package"
	done
}

as_root()
{
	if [ "$(id -u)" -eq 0 ]; then
		env DEBIAN_FRONTEND=noninteractive "$@"
	else
		sudo -n env DEBIAN_FRONTEND=noninteractive "$@"
	fi
}

install_packages()
{
	if [ "$(id -u)" -ne 0 ] && ! { command -v sudo && sudo -n true; }; then
		die "packages are missing and this user is neither root nor may use sudo;" \
			"as root, run: apt-get install $*"
	fi
	as_root apt-get -q update ||
		die "the package lists cannot be updated: check the network and the sources of apt"
	as_root apt-get -q -y --no-install-recommends install "$@" ||
		die "apt-get could not install: $*"
}
