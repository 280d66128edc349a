# The floor's work on a host: `release.sh deploy NAME PORT VERSION SHA256 UNIT CONFIG <ARCHIVE`, `release.sh back NAME PORT`.
# No fsync, no lock, no journal, no way back where something fails: the least that a deployment can be.
set -euo pipefail
action=$1 name=$2 port=$3
shift 3
root=/srv/$name
unit_file=/etc/systemd/system/$name.service

at() { (exec 3<>"/dev/tcp/127.0.0.1/$port" && printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&3 && cat <&3) 2>/dev/null; }

bring() {
    local release=$root/releases/$1 archive=$root/$1.tar.gz
    mkdir -p "$release/etc"
    cat >"$archive"
    printf '%s  %s\n' "$2" "$archive" | sha256sum --check --quiet
    tar -xzf "$archive" -C "$release" --no-same-owner
    rm "$archive"
    printf '%s\n' "$4" >"$release/etc/hello.json"
    if [ ! -e "$unit_file" ] || [ "$3" != "$(cat "$unit_file")" ]; then
        printf '%s\n' "$3" >"$unit_file"
        systemctl daemon-reload
    fi
}

switch() {
    ln -sT "releases/$1" "$root/current.new"
    mv -T "$root/current.new" "$root/current"
    touch "$root/releases/$1"
    systemctl restart "$name.service"
    until [[ $(at /healthz) == *ok* && $(at /version) == *"\"$1\""* ]]; do
        ((SECONDS < 60)) || { echo "$name does not become healthy with version $1" >&2; exit 1; }
        sleep 0.1
    done
}

prune() {
    (cd "$root/releases" && ls -1t | tail -n +3 | xargs -r rm -rf)
}

case $action in
    deploy) bring "$@"; switch "$1"; prune ;;
    back) switch "$(ls -1t "$root/releases" | grep -vxF "$(basename "$(readlink "$root/current")")" | head -n 1)" ;;
esac
